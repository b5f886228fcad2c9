//! What was done and answered, and what was wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use serde_json::Value;
use shared::domain::DocumentId;

/// A request that came with a key.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) slot: usize,
    pub(super) body: Value,
    /// The last word, if there was one: its status and its bytes.
    pub(super) last_word: Option<(u16, Bytes)>,
}

/// A success that a client was told of.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) document: DocumentId,
    pub(super) revision: i32,
    /// Active, and not only accepted (202).
    pub(super) active: bool,
    /// What was sent, by its hash.
    pub(super) content_hash: Option<String>,
}

/// How often what was done.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<String, usize>);

impl Counts {
    pub(super) fn get(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what.clone()).or_default() += times;
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(what, times)| format!("{what} {times}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// All that is known of a round.
#[derive(Debug)]
pub(super) struct Record {
    begun: Instant,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) requests: BTreeMap<String, Request>,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// What was sent without a key, by its hash: it may become active as often as it was sent.
    pub(super) keyless: BTreeSet<String>,
    /// Deletions that were answered with success.
    pub(super) deleted: Vec<DocumentId>,
    pub(super) counts: Counts,
    history: Vec<String>,
    violations: Vec<String>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), memory: Mutex::default() }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something.
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.memory().counts.0.entry(what.into()).or_default() += 1;
    }

    /// Notes what somebody did, or was told.
    pub(super) fn note(&self, who: &str, what: &str) {
        let line = format!("{:>9.3} {who}: {what}", self.begun.elapsed().as_secs_f64());
        self.memory().history.push(line);
    }

    /// Notes that a promise was broken.
    pub(super) fn violation(&self, who: &str, what: &str) {
        self.note(who, &format!("VIOLATION {what}"));
        self.memory().violations.push(format!("{who}: {what}"));
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.memory().violations.clone()
    }

    pub(super) fn history(&self) -> String {
        self.memory().history.join("\n")
    }

    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}
