//! What two or more of Lockstep's functions need.
//!
//! A map with its absences: only [`config`] reads the environment, only [`vectors::qdrant`] names
//! `qdrant_client`, only [`db`] opens connections to PostgreSQL, only [`problem`] turns an error into a
//! response, and [`domain`] does no I/O.

pub mod api_keys;
pub mod app;
pub mod breaker;
mod certificate;
pub mod config;
pub mod db;
pub mod deadline;
pub mod documents;
pub mod domain;
pub mod embed;
pub mod endpoint;
pub mod http;
pub mod knowledge_bases;
pub mod metrics;
pub mod objects;
pub mod problem;
pub mod retry;
pub mod secrets;
pub mod sparse;
pub mod telemetry;
pub mod tokens;
pub mod vectors;

pub use app::App;
