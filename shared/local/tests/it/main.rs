//! The whole: all functions, both stores.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: what fails here fails the test"
)]

mod accounts;
mod audit;
mod budgets;
mod consistency;
mod crash;
mod degraded;
mod deletion;
mod deletion_races;
mod eval;
mod faults;
mod function;
mod gate;
mod ingestion;
mod kit;
mod migrations;
mod oracle;
mod postgres_faults;
mod qdrant_faults;
mod query;
mod refusals;
mod retrieval;
mod retry;
mod sigv4;
mod stack;
mod world;
mod zombies;
