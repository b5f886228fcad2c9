//! `ingest`: documents in, complete in both stores or not at all.

pub mod audit;
pub mod chunk;
pub mod collections;
pub mod consistency;
pub mod documents;
pub mod erasures;
pub mod error;
pub mod events;
pub mod extract;
pub mod failpoint;
pub mod idempotency;
pub mod objects;
pub mod reindex;
pub mod request;
mod routes;
pub mod saga;
mod sweep;
mod sweeper;
mod uploads;

pub use self::{
    routes::{contract, router},
    sweep::{Swept, sweep},
    sweeper::{Done, SweeperEvent, sweeper},
};
