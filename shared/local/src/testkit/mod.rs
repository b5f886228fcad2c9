//! The kit that the tests stand on: a real PostgreSQL and a real Qdrant engine for each test process, and in them a
//! database and a collection of its own for each test.
//!
//! `DATABASE_URL` and `QDRANT_URL` make the tests use other servers instead.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test kit: what fails here fails the test, at once and with a sentence"
)]

mod app;
mod bucket;
mod consistency;
pub mod drift;
mod embedder;
pub mod function;
mod inbox;
pub mod large;
mod postgres_proxy;
mod proxy;
mod qdrant_proxy;
mod reply;
mod servers;
pub mod soak;

pub use self::{
    app::{Parts, TestApp, TestUser, request},
    bucket::TestBucket,
    embedder::{CountingEmbedder, Embedded, HashEmbedder},
    inbox::{Inbox, long_text},
    postgres_proxy::{Cut, PostgresProxy, Statement},
    proxy::{TcpProxy, port_of},
    qdrant_proxy::{Call, Fault, QdrantProxy},
    reply::Reply,
    servers::{Place, Private, private_postgres, private_qdrant},
};
