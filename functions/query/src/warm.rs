//! What a container remembers from one question to the next. All of it is only ever believed after PostgreSQL has said so
//! again, or says nothing that rights depend on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    breaker::Breaker,
    domain::{DocumentId, KnowledgeBaseId, UserId},
};

/// Users of whom it is remembered what they could read: some hundred kilobytes.
const USERS_MAX: usize = 1_000;

/// Revisions that are remembered as seen, and for how long: twice as long as one counts as fresh.
const REVISIONS_MAX: usize = 10_000;
const REVISIONS_FOR: Duration = Duration::from_mins(2);

/// What a container remembers. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    /// Before Qdrant.
    pub(crate) qdrant: Breaker,
    /// Before the embedder.
    pub(crate) embedder: Breaker,
    readable: Arc<Mutex<HashMap<UserId, Vec<KnowledgeBaseId>>>>,
    revisions: Arc<Mutex<HashMap<(DocumentId, i32), Instant>>>,
}

impl Default for Warm {
    fn default() -> Self {
        Self {
            qdrant: Breaker::new("qdrant"),
            embedder: Breaker::new("embedder"),
            readable: Arc::default(),
            revisions: Arc::default(),
        }
    }
}

impl Warm {
    /// What the user could read when PostgreSQL was last asked. A guess: memberships may have changed since.
    pub(crate) fn readable(&self, user: UserId) -> Option<Vec<KnowledgeBaseId>> {
        lock(&self.readable).get(&user).filter(|ids| !ids.is_empty()).cloned()
    }

    /// Notes what PostgreSQL has said.
    pub(crate) fn note_readable(&self, user: UserId, knowledge_bases: &[KnowledgeBaseId]) {
        let mut readable = lock(&self.readable);
        if readable.len() >= USERS_MAX && !readable.contains_key(&user) {
            // Seldom, and each of them costs one statement more.
            readable.clear();
        }
        readable.insert(user, knowledge_bases.to_vec());
    }

    /// Whether PostgreSQL had shown this revision as active before `moment`.
    pub(crate) fn had_seen(&self, document: DocumentId, revision: i32, moment: Instant) -> bool {
        lock(&self.revisions).get(&(document, revision)).is_some_and(|seen| *seen < moment)
    }

    /// Notes that PostgreSQL has shown this revision as active.
    pub(crate) fn note_seen(&self, document: DocumentId, revision: i32) {
        let mut revisions = lock(&self.revisions);
        if revisions.len() >= REVISIONS_MAX {
            revisions.retain(|_, seen| seen.elapsed() < REVISIONS_FOR);
        }
        if revisions.len() < REVISIONS_MAX {
            revisions.entry((document, revision)).or_insert_with(Instant::now);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
