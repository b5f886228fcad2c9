//! `ingest`: documents in, complete in both stores or not at all.

pub mod chunk;
pub mod documents;
pub mod error;
pub mod extract;
pub mod failpoint;
pub mod idempotency;
pub mod request;
mod routes;
pub mod saga;
mod sweep;

pub use self::{
    routes::router,
    sweep::{Swept, sweep},
};
