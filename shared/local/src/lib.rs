//! Development only: the whole stack on one machine, and the kit that the tests stand on.
//!
//! A map: [`process`] starts what must not outlive us, [`postgres`], [`qdrant`] and [`model`] provide what the
//! functions need, [`gateway`] puts their routers behind one port, [`testkit`] does the same for one test. Only
//! [`settings`] reads the environment.

pub mod args;
pub mod bench;
pub mod contract;
pub mod demo;
pub mod eval;
pub mod failure;
pub mod folder;
pub mod gateway;
pub mod ingest;
pub mod keys;
pub mod metrics;
pub mod model;
pub mod postgres;
pub mod process;
pub mod qdrant;
pub mod queue;
pub mod reindex;
pub mod s3;
pub mod settings;
pub mod soak;
pub mod stores;
pub mod testkit;
pub mod up;
