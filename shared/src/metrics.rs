//! What is measured, by name. On Lambda the figures of each invocation go out as lines of `CloudWatch`'s embedded metric
//! format on standard output: no network call, and nothing is lost when the container freezes. The local stack shows
//! the same to Prometheus. Where nobody listens, recording costs nothing.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `requests` | counter | `route` | answered, whatever the answer |
//! | `errors` | counter | `code` | problems answered, by their stable code |
//! | `request_duration_ms` | histogram | `route` | from the request to its answer |
//! | `stage_duration_ms` | histogram | `stage` | the parts of a query: `authorise`, `rewrite`, `embed`, `qdrant`, `postgresql`, `rerank`, `answer`; `hash` of a password |
//! | `cold_starts` | counter | | first requests or events of a container |
//! | `pool_wait_ms` | histogram | | waiting for a connection to PostgreSQL |
//! | `retries` | counter | `dependency` | calls that were made again |
//! | `degraded` | counter | `dependency` | answers that had to do without it |
//! | `llm_tokens` | counter | `direction` | tokens that a language model read (`input`) and wrote (`output`) |
//! | `ingested_chunks`, `ingested_bytes` | counter | | of revisions that became active: chunks that were embedded, bytes of the sources |
//! | `secret_failures` | counter | | secrets that could not be read, do not hold, or are refused although they were read again |
//! | `certificate_failures` | counter | | calls that were not made, because the server's certificate does not hold |
//! | `sweeps` | counter | | the sweeper's heartbeat |
//! | `drift_missing`, `drift_orphans`, `drift_mislinked` | gauge | | what the last audit of everything found |
//! | `removals_withheld` | gauge | | orphans that wait for an operator |
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{counter, gauge, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};

/// The namespace of all metrics.
const NAMESPACE: &str = "Lockstep";

static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// Whether no request or event has come yet.
static COLD: AtomicBool = AtomicBool::new(true);

/// Collects for `CloudWatch` from now on, under the dimension `function`. Called once, by `main` on Lambda.
pub fn embed(function: &str) {
    match Builder::new().cloudwatch_namespace(NAMESPACE).with_dimension("function", function.to_owned()).init() {
        Ok(collector) => drop(COLLECTOR.set(collector)),
        // A function that works without being measured is better than none; the alarms for missing data will tell.
        Err(error) => tracing::error!(%error, "nothing is measured"),
    }
}

/// Writes what was collected, at the end of an invocation.
pub fn flush() {
    if let Some(collector) = COLLECTOR.get()
        && let Err(error) = collector.flush(std::io::stdout().lock())
    {
        tracing::warn!(%error, "metrics are not written");
    }
}

/// A request or event came.
pub fn invoked() {
    if COLD.swap(false, Ordering::Relaxed) {
        counter!("cold_starts").increment(1);
    }
}

/// A request was answered.
pub fn request(route: Option<&str>, code: Option<&'static str>, duration: Duration) {
    let route = route.unwrap_or("none").to_owned();
    invoked();
    counter!("requests", "route" => route.clone()).increment(1);
    histogram!("request_duration_ms", "route" => route).record(ms(duration));
    if let Some(code) = code {
        counter!("errors", "code" => code).increment(1);
    }
}

/// A part of a query, or the hash of a password, took `ms` milliseconds.
pub fn stage(stage: &'static str, ms: f64) {
    histogram!("stage_duration_ms", "stage" => stage).record(ms);
}

/// Somebody waited for a connection from the pool.
pub fn pool_wait(duration: Duration) {
    histogram!("pool_wait_ms").record(ms(duration));
}

/// A call to this dependency is made again.
pub fn retry(dependency: &'static str) {
    counter!("retries", "dependency" => dependency).increment(1);
}

/// An answer does without this dependency.
pub fn degraded(dependency: &'static str) {
    counter!("degraded", "dependency" => dependency).increment(1);
}

/// A language model was asked.
pub fn llm_tokens(input: u64, output: u64) {
    counter!("llm_tokens", "direction" => "input").increment(input);
    counter!("llm_tokens", "direction" => "output").increment(output);
}

/// A revision became active.
pub fn ingested(chunks: u64, bytes: u64) {
    counter!("ingested_chunks").increment(chunks);
    counter!("ingested_bytes").increment(bytes);
}

/// The sweeper has run.
pub fn sweep() {
    counter!("sweeps").increment(1);
}

/// A secret can not be read, does not hold, or is refused though it was just read. Which one stands in the log: one alarm
/// counts them all, and `CloudWatch` adds up nothing over labels.
pub fn secret_failure() {
    counter!("secret_failures").increment(1);
}

/// `server`'s certificate does not hold. Which server it was stands in the log, for the same reason.
pub(crate) fn certificate_failure(server: &'static str) {
    tracing::error!(server, "its certificate does not hold");
    counter!("certificate_failures").increment(1);
}

/// What an audit of everything found.
#[allow(clippy::cast_precision_loss, reason = "a count of points is far below 2^52")]
pub fn drift(missing: i64, orphans: i64, mislinked: i64, withheld: i64) {
    gauge!("drift_missing").set(missing as f64);
    gauge!("drift_orphans").set(orphans as f64);
    gauge!("drift_mislinked").set(mislinked as f64);
    gauge!("removals_withheld").set(withheld as f64);
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The table above is what operators read.
    #[test]
    fn what_is_documented_is_measured_and_what_is_measured_is_documented() {
        let source = include_str!("metrics.rs").split("#[cfg(test)]").next().unwrap();
        let mut documented = BTreeSet::new();
        for row in source.lines().filter_map(|line| line.strip_prefix("//! | `")) {
            let mut cells = row.split('|');
            let (names, kind, labels) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
            for name in names.split(',') {
                documented.insert([name, kind, labels].map(|cell| cell.trim().trim_matches('`').to_owned()));
            }
        }
        let mut measured = BTreeSet::new();
        for kind in ["counter", "gauge", "histogram"] {
            for call in source.split(&format!("{kind}!(\"")).skip(1) {
                let call: Vec<&str> = call.split(')').next().unwrap().split('"').collect();
                let [name, label] = [0, 2].map(|at| call.get(at).copied().unwrap_or_default().to_owned());
                measured.insert([name, kind.to_owned(), label]);
            }
        }
        assert!(measured.len() > 10);
        assert_eq!(documented, measured);
    }
}
