//! Logs: readable by default, JSON on demand. What is measured stands in [`crate::metrics`].

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{config::LogConfig, metrics};

/// Starts logging, and measuring where that is a Lambda function: what `main` does first.
pub fn start() {
    let log = LogConfig::from_env();
    init(&log.filter, log.json);
    if let Some(function) = &log.function {
        metrics::embed(function);
    }
}

/// Starts logging to standard error. `filter` has the form of `RUST_LOG`.
///
/// Called once, by `main`; a second call changes nothing.
pub fn init(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    // Only a test binary calls it twice, and then the first subscriber is the right one.
    drop(started);
}
