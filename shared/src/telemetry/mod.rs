//! Logs: readable by default, JSON on demand; and [`traces`], where a collector is named. What is measured stands in
//! [`crate::metrics`].
//!
//! A request is a span, and so is each stage of it: what is logged within carries the request's id, the user's hash and the
//! document's id, and a trace shows the same names.

pub mod traces;

use std::io::IsTerminal;

use http::HeaderMap;
use lambda_http::Context;
use sha2::{Digest, Sha256};
use tracing::Span;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::LogConfig,
    domain::{DocumentId, UserId},
    metrics,
};

/// Bytes of a hash that stands for a user in logs: enough to tell people apart, and too few to be used elsewhere.
const USER_HASH_BYTES: usize = 8;

/// Starts logging, and measuring where that is a Lambda function: what `main` does first.
pub fn start() {
    let log = LogConfig::from_env();
    init(&log);
    if let Some(function) = &log.function {
        metrics::embed(function);
    }
}

/// Starts logging to standard error, and tracing.
///
/// Called once, by `main`; a second call changes nothing.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = if config.json {
        log.json().flatten_event(true).with_current_span(true).with_span_list(true).with_filter(filter).boxed()
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false).with_filter(filter).boxed()
    };
    let traces = config.traces.as_ref().map(traces::layer).transpose();
    let (traces, failed) = traces.map_or_else(|error| (None, Some(error)), |traces| (traces, None));
    // Only a test binary calls it twice, and then the first subscriber is the right one.
    drop(tracing_subscriber::registry().with(log).with(traces).try_init());
    if let Some(error) = failed {
        // A function that works without being traced is better than none.
        tracing::error!(%error, "nothing is traced");
    }
}

/// The span of an invocation that is no request, in the trace that Lambda says it belongs to.
#[must_use]
pub fn invocation(name: &'static str, context: &Context) -> Span {
    metrics::invoked();
    let span = tracing::info_span!("invocation", otel.name = name, request.id = context.request_id);
    traces::join(&span, &HeaderMap::new(), context.xray_trace_id.as_deref());
    span
}

/// The span of a part of a request: a stage of a query, a step of an ingestion.
#[must_use]
pub fn stage(name: &'static str) -> Span {
    tracing::info_span!("stage", otel.name = name, stage = name)
}

/// Says within the request's span who calls: as a hash, so that logs name nobody.
pub(crate) fn note_user(user: UserId) {
    Span::current().record("user.hash", user_hash(user));
}

/// Says within the request's span which document it is about.
pub fn note_document(document: DocumentId) {
    Span::current().record("document.id", tracing::field::display(document));
}

/// What stands for a user in logs: the start of SHA-256 of the id, which is random, in hexadecimal.
#[must_use]
pub fn user_hash(user: UserId) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(user.0).iter().take(USER_HASH_BYTES) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
