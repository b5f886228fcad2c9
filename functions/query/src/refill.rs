//! What is asked of Qdrant next, until every hit is sure: the part of a query without I/O.
//!
//! Qdrant follows PostgreSQL, so at any moment it may hold points that are no chunks of an active revision: staged
//! ones that are not active yet, retired ones that are not removed yet, and orphans. The join with PostgreSQL keeps
//! them out of the answer (P1). This keeps them from taking the place of what is alive, and from moving its scores:
//! whenever the join finds dead candidates before the last hit, Qdrant is asked again without them. Those after it are not
//! looked for: the worst that they do is to stretch the scale of the scores.
//!
//! Three races with an activation are covered by asking again:
//!
//! - The revision retired between Qdrant's answer and the join: its chunks are found dead. The new revision's points
//!   were in Qdrant before it became active, so the next answer has them.
//! - A staged chunk was found dead, and so is left out of the next request, and then became active: ids once found dead
//!   stay in every join, and one that is alive again counts as a candidate again.
//! - The new revision only added chunks, and became active after Qdrant's answer: nothing is dead, and yet the added
//!   chunks are missing. A hit of a revision that was activated a moment ago is only believed when Qdrant was asked after
//!   PostgreSQL had shown that revision.

use std::collections::{BTreeSet, HashMap, HashSet};

use shared::{
    domain::{ChunkId, DocumentId},
    vectors::{Candidates, Scored},
};

use crate::fusion;

/// Candidates of each leg: what the fusion was measured with.
const CANDIDATES_MIN: usize = 100;

/// Candidates of each leg for each hit that is wanted, where that is more.
const CANDIDATES_PER_HIT: usize = 2;

/// Where this many candidates were dead, so many times more are expected: 100, then 400, 1,600 and 6,400 candidates,
/// so that thousands of stale points that outscore everything are got over in four rounds.
const DEAD_FACTOR: usize = 3;

/// The most candidates of each leg in one request, which bounds Qdrant's work and the join's.
const CANDIDATES_MAX: usize = 6_400;

/// Requests to Qdrant for one query. One is usual, two are needed when something was dead. An index that holds so many
/// dead points that six do not suffice is the sweeper's to clean; the answer then has what was found.
pub(crate) const ROUNDS_MAX: u32 = 6;

/// A chunk that the join found alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Alive {
    /// The chunk.
    pub(crate) id: ChunkId,
    /// Its document.
    pub(crate) document: DocumentId,
    /// The document's active revision.
    pub(crate) revision: i32,
    /// Whether that was activated a moment ago: perhaps after Qdrant was asked.
    pub(crate) fresh: bool,
}

/// The candidates of one query, over all its rounds.
#[derive(Debug)]
pub(crate) struct Refill {
    hits_max: usize,
    /// Candidates of each leg that are fused, the dead not counted.
    candidates: usize,
    dense: Leg,
    sparse: Leg,
    /// Candidates that the last join did not find, or that no join found.
    dead: BTreeSet<ChunkId>,
    /// Revisions that PostgreSQL had shown as active before Qdrant was last asked.
    shown: HashSet<(DocumentId, i32)>,
}

/// All that one leg has returned.
#[derive(Debug, Default)]
struct Leg {
    scores: HashMap<ChunkId, f32>,
    /// Whether the last answer was cut at its limit, so that there may be more.
    cut: bool,
}

impl Refill {
    /// A query for up to `hits_max` hits.
    pub(crate) fn new(hits_max: usize) -> Self {
        Self {
            hits_max,
            candidates: CANDIDATES_MIN.max(hits_max * CANDIDATES_PER_HIT),
            dense: Leg::default(),
            sparse: Leg::default(),
            dead: BTreeSet::new(),
            shown: HashSet::new(),
        }
    }

    /// How many candidates of each leg to ask for next.
    pub(crate) fn limit(&self) -> usize {
        let short = |leg: &Leg| leg.cut && leg.alive(&self.dead).count() < self.candidates;
        if short(&self.dense) || short(&self.sparse) {
            (self.candidates + DEAD_FACTOR * self.dead.len()).min(CANDIDATES_MAX)
        } else {
            self.candidates
        }
    }

    /// The candidates that were found dead: Qdrant need not name them again.
    pub(crate) fn dead(&self) -> Vec<ChunkId> {
        self.dead.iter().copied().collect()
    }

    /// How many different candidates each leg has returned: dense, sparse.
    pub(crate) fn seen(&self) -> (usize, usize) {
        (self.dense.scores.len(), self.sparse.scores.len())
    }

    /// Takes Qdrant's answer to a request for `limit` candidates of each leg.
    pub(crate) fn add(&mut self, candidates: Candidates, limit: usize) {
        self.dense.add(candidates.dense, limit);
        self.sparse.add(candidates.sparse, limit);
    }

    /// The candidates that are not known to be dead, fused, best first.
    pub(crate) fn ranking(&self) -> Vec<Scored> {
        self.fused(self.candidates)
    }

    /// The ids to join, in this order: the dead, in case they have become active; `ranking`; then what lies beyond the
    /// fused candidates, to learn in one go what of it is dead.
    pub(crate) fn order(&self, ranking: &[Scored]) -> Vec<ChunkId> {
        let mut named = HashSet::new();
        let beyond = self.fused(usize::MAX);
        let candidates = ranking.iter().chain(&beyond).map(|scored| scored.id);
        self.dead.iter().copied().chain(candidates).filter(|id| named.insert(*id)).collect()
    }

    fn fused(&self, candidates: usize) -> Vec<Scored> {
        let best = |leg: &Leg| {
            let mut leg: Vec<Scored> = leg.alive(&self.dead).collect();
            fusion::sort(&mut leg);
            leg.truncate(candidates);
            leg
        };
        fusion::fuse(&best(&self.dense), &best(&self.sparse))
    }

    /// Takes the join's answer: of `asked`, the first ones that are alive, at most as many as hits are wanted, in the
    /// order of `asked`. Returns whether they are sure; otherwise Qdrant must be asked again.
    pub(crate) fn learn(&mut self, asked: &[ChunkId], alive: &[Alive]) -> bool {
        let ids: HashSet<ChunkId> = alive.iter().map(|chunk| chunk.id).collect();
        let looked_at = match alive.last() {
            Some(last) if alive.len() >= self.hits_max => {
                asked.iter().position(|id| *id == last.id).map_or(asked.len(), |at| at + 1)
            }
            _ => asked.len(),
        };
        let mut sure = true;
        for id in asked.iter().take(looked_at) {
            let changed = if ids.contains(id) { self.dead.remove(id) } else { self.dead.insert(*id) };
            sure &= !changed;
        }
        let asked_before_shown = |chunk: &Alive| chunk.fresh && !self.shown.contains(&(chunk.document, chunk.revision));
        sure &= !alive.iter().any(asked_before_shown);
        self.shown.extend(alive.iter().map(|chunk| (chunk.document, chunk.revision)));
        sure
    }
}

impl Leg {
    fn add(&mut self, answer: Vec<Scored>, limit: usize) {
        self.cut = answer.len() >= limit;
        self.scores.extend(answer.into_iter().map(|scored| (scored.id, scored.score)));
    }

    fn alive(&self, dead: &BTreeSet<ChunkId>) -> impl Iterator<Item = Scored> {
        self.scores.iter().filter(|(id, _)| !dead.contains(id)).map(|(&id, &score)| Scored { id, score })
    }
}

#[cfg(test)]
#[path = "refill_tests.rs"]
mod tests;
