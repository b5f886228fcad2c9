//! The whole: all functions, both stores.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: what fails here fails the test"
)]

mod accounts;
mod answers;
mod api_keys;
mod attacks;
mod audit;
mod audit_pages;
mod budgets;
mod certificates;
mod connections;
mod consistency;
mod contract;
mod crash;
mod degraded;
mod deletion;
mod deletion_races;
mod eval;
mod events;
mod failures;
mod faults;
mod gate;
mod guarded;
mod in_flight;
mod ingestion;
mod kit;
mod large_deletions;
mod members;
mod metrics;
mod migrations;
mod oracle;
mod parts;
mod plans;
mod postgres_faults;
mod process;
mod qdrant_faults;
mod query;
mod rate_limits;
mod recovery;
mod refusals;
mod reindex;
mod retrieval;
mod retry;
mod roles;
mod rotation;
mod schedules;
mod sessions;
mod sigv4;
mod stack;
mod traces;
mod world;
mod zombies;

use local::testkit::function;
