//! A question's vectors become hits: search, fuse, join, and again until they are sure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shared::{
    App,
    deadline::Deadline,
    domain::ChunkId,
    sparse::SparseVector,
    vectors::{Candidates, IndexError, Search},
};

use crate::{
    error::QueryError,
    hydrate::{Found, View, anything, hydrate},
    refill::{ROUNDS_MAX, Refill},
    response::{Hit, Legs},
};

/// What was found, and how.
#[derive(Debug, Default)]
pub(crate) struct Retrieval {
    /// Best first.
    pub(crate) hits: Vec<Hit>,
    /// Whether nothing can be missing.
    pub(crate) complete: bool,
    pub(crate) rounds: u32,
    pub(crate) dead: usize,
    pub(crate) legs: Legs,
    pub(crate) search: Duration,
    pub(crate) hydrate: Duration,
}

/// Finds up to `hits_max` hits in `view`. A leg that is `None` is not searched.
///
/// Qdrant's failure ends it here; a fallback to full-text search would take the place of the call to `search`.
pub(crate) async fn retrieve(
    app: &App,
    view: &View,
    dense: Option<Vec<f32>>,
    sparse: Option<SparseVector>,
    hits_max: usize,
    deadline: Deadline,
) -> Result<Retrieval, QueryError> {
    let mut refill = Refill::new(hits_max);
    let mut retrieval = Retrieval::default();
    let mut found = Vec::new();
    while !retrieval.complete && retrieval.rounds < ROUNDS_MAX {
        retrieval.rounds += 1;
        let started = Instant::now();
        let search = Search {
            dense: dense.clone(),
            sparse: sparse.clone(),
            knowledge_bases: view.knowledge_bases.clone(),
            documents: view.documents.clone(),
            limit: refill.limit(),
            except: refill.dead(),
        };
        let limit = search.limit;
        let candidates = match app.index.search(search, deadline).await {
            // Right as long as there is nothing to index; else the index is lost, and "no hits" would be untrue.
            Err(IndexError::Missing) if !anything(&app.db, view).await? => Candidates::default(),
            candidates => candidates?,
        };
        refill.add(candidates, limit);
        retrieval.search += started.elapsed();

        let started = Instant::now();
        let candidates = refill.order(&refill.ranking());
        if !candidates.is_empty() {
            found = hydrate(&app.db, view, &candidates, hits_max).await?;
        }
        let alive: Vec<_> = found.iter().map(Found::alive).collect();
        retrieval.complete = refill.learn(&candidates, &alive);
        retrieval.hydrate += started.elapsed();
    }
    let (dense, sparse) = refill.seen();
    retrieval.legs = Legs { dense, sparse };
    retrieval.dead = refill.dead().len();
    if !retrieval.complete {
        tracing::warn!(
            query.rounds = retrieval.rounds,
            query.dead = retrieval.dead,
            query.hits = found.len(),
            "the index holds more dead points than a query gets over"
        );
    }
    retrieval.hits = scored(found, &refill);
    Ok(retrieval)
}

/// The hits with their scores, best first. When the rounds ran out, the last join may have found a chunk beyond the
/// candidates that were fused: it has no score that compares, and is left out.
fn scored(found: Vec<Found>, refill: &Refill) -> Vec<Hit> {
    let mut hits: HashMap<ChunkId, Hit> = found.into_iter().map(|found| (found.hit.chunk_id, found.hit)).collect();
    let ranking = refill.ranking().into_iter();
    ranking.filter_map(|scored| Some(Hit { score: scored.score, ..hits.remove(&scored.id)? })).collect()
}
