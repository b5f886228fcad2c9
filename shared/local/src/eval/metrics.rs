//! The figures of information retrieval, as `trec_eval` has them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

/// One question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    ndcg_10: f64,
    recall_5: f64,
    recall_100: f64,
    mrr_10: f64,
    latency: Duration,
}

/// The means over all questions, and quantiles of the time that they took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub(super) queries: usize,
    pub(super) ndcg_10: f64,
    pub(super) recall_5: f64,
    pub(super) recall_100: f64,
    pub(super) mrr_10: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl Measured {
    /// Of what was found, best first, each document once.
    pub(super) fn of(found: &[String], relevant: &BTreeMap<String, u32>, latency: Duration) -> Self {
        let gains: Vec<f64> = found.iter().map(|id| relevant.get(id).copied().map_or(0.0, f64::from)).collect();
        let mut ideal: Vec<f64> = relevant.values().copied().map(f64::from).collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let hits = |k: usize| gains.iter().take(k).filter(|gain| **gain > 0.0).count();
        let first = gains.iter().take(10).position(|gain| *gain > 0.0);
        Self {
            ndcg_10: share(dcg(&gains), dcg(&ideal)),
            recall_5: share(float(hits(5)), float(relevant.len())),
            recall_100: share(float(hits(100)), float(relevant.len())),
            mrr_10: first.map_or(0.0, |at| 1.0 / float(at + 1)),
            latency,
        }
    }
}

impl Summary {
    pub(super) fn of(measured: &[Measured]) -> Self {
        let mean = |figure: fn(&Measured) -> f64| share(measured.iter().map(figure).sum(), float(measured.len()));
        let mut latencies: Vec<Duration> = measured.iter().map(|one| one.latency).collect();
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
        };
        Self {
            queries: measured.len(),
            ndcg_10: mean(|one| one.ndcg_10),
            recall_5: mean(|one| one.recall_5),
            recall_100: mean(|one| one.recall_100),
            mrr_10: mean(|one| one.mrr_10),
            p50_ms: quantile(50),
            p99_ms: quantile(99),
        }
    }

    pub(super) fn json(&self, set: &str, mode: &str) -> Value {
        json!({
            "set": set, "mode": mode, "queries": self.queries, "ndcg_10": self.ndcg_10, "recall_5": self.recall_5,
            "recall_100": self.recall_100, "mrr_10": self.mrr_10, "p50_ms": self.p50_ms, "p99_ms": self.p99_ms,
        })
    }
}

fn dcg(gains: &[f64]) -> f64 {
    gains.iter().take(10).zip(1..).map(|(gain, rank)| gain / f64::from(rank + 1).log2()).sum()
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Counts of questions and hits are small.
fn float(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(found: &[&str], relevant: &[(&str, u32)]) -> Measured {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let relevant = relevant.iter().map(|(id, relevance)| ((*id).to_owned(), *relevance)).collect();
        Measured::of(&found, &relevant, Duration::from_millis(7))
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "exact where nothing is rounded")]
    fn the_figures_are_those_of_trec_eval() {
        let perfect = measure(&["a", "b", "c"], &[("a", 2), ("b", 1)]);
        assert_eq!((perfect.ndcg_10, perfect.recall_5, perfect.mrr_10), (1.0, 1.0, 1.0));
        let second = measure(&["x", "a"], &[("a", 1)]);
        assert!((second.ndcg_10 - 1.0 / 3.0_f64.log2()).abs() < 1e-9);
        assert_eq!((second.recall_5, second.recall_100, second.mrr_10), (1.0, 1.0, 0.5));
        let sixth = measure(&["1", "2", "3", "4", "5", "a"], &[("a", 1), ("b", 1)]);
        assert_eq!((sixth.recall_5, sixth.recall_100), (0.0, 0.5));
        let nothing = measure(&[], &[("a", 1)]);
        assert_eq!((nothing.ndcg_10, nothing.recall_100, nothing.mrr_10), (0.0, 0.0, 0.0));
        let summary = Summary::of(&[perfect, nothing]);
        assert_eq!((summary.queries, summary.ndcg_10, summary.p99_ms), (2, 0.5, 7.0));
    }
}
