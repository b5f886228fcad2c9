//! What is asked of Qdrant next, until every hit is sure: the part of a query without I/O.
//!
//! Qdrant follows PostgreSQL, so at any moment it may hold points that are no chunks of an active revision: staged
//! ones that are not active yet, retired ones that are not removed yet, and orphans; and of the others, some may not pass
//! the question's filter. The join with PostgreSQL keeps all of them, the dead, out of the answer (P1). This keeps them from
//! taking the place of what is alive, and from moving its scores: a ranking counts only when everything that was fused in it
//! is alive. So the hits of a question do not depend on the plan by which they were found.
//!
//! The order is made in tiers. The first fuses the best 100 of each leg (or twice the hits, where that is more); where that
//! does not give enough hits (later pages, groups), the next fuses four times as many, and its order follows behind the first,
//! without what stands there already. So a page is the same, however far the one before it had to look.
//!
//! Three races with an activation are covered by asking again:
//!
//! - The revision retired between Qdrant's answer and the join: its chunks are found dead. The new revision's points
//!   were in Qdrant before it became active, so the next answer has them.
//! - A staged chunk was found dead, and so is left out of the next request, and then became active: ids once found dead
//!   stay in every join, and one that is alive again counts as a candidate again.
//! - The new revision only added chunks, and became active after Qdrant's answer: nothing is dead, and yet the added
//!   chunks are missing. A hit of a revision that was activated a moment ago is only believed when Qdrant was asked after
//!   PostgreSQL had shown that revision, to this query or to an earlier one of this container.

use std::collections::{BTreeSet, HashMap, HashSet};

use shared::{
    domain::{ChunkId, DocumentId},
    vectors::{Candidates, Scored},
};

use crate::fusion;

/// Candidates of each leg in the first tier: what the fusion was measured with.
const CANDIDATES_MIN: usize = 100;

/// Candidates of each leg for each hit that is wanted, where that is more.
const CANDIDATES_PER_HIT: usize = 2;

/// How many times as many candidates the next tier has.
const TIER_FACTOR: usize = 4;

/// Where this many candidates were dead, so many times more are expected: 100, then 400, 1,600 and 6,400 candidates,
/// so that thousands of stale points that outscore everything are got over in four rounds.
const DEAD_FACTOR: usize = 3;

/// The most candidates of each leg in one request, which bounds Qdrant's work and the join's.
const CANDIDATES_MAX: usize = 6_400;

/// Requests to Qdrant for one query and plan. One is usual, two are needed when something was dead. An index that holds so
/// many dead points that six do not suffice is the sweeper's to clean, and a filter that lets so few through is resolved by
/// PostgreSQL instead.
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

/// A candidate in the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) id: ChunkId,
    /// As its tier's fusion has it: what a cursor remembers.
    pub(crate) fused: f32,
    /// The tier, from 0.
    pub(crate) tier: u8,
    /// What is shown: never more than that of the one before.
    pub(crate) score: f32,
}

/// Rank, from 1, and score in one leg.
pub(crate) type Place = (usize, f32);

/// The ids of one join: first `ranked` in their order, then what is only looked at.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) ranked: Vec<Ranked>,
    pub(crate) ids: Vec<ChunkId>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// The hits are sure.
    Done,
    /// Enough is known of what is alive; its order must be joined again.
    Join,
    /// Qdrant must be asked again.
    Search,
}

/// The candidates of one query, over all its rounds.
#[derive(Debug)]
pub(crate) struct Refill {
    /// Candidates of each leg that are fused, the dead not counted: of each tier.
    tiers: Vec<usize>,
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
    /// A query for up to `hits_max` hits, beginning in this tier.
    pub(crate) fn new(hits_max: usize, tier: u8) -> Self {
        let mut refill = Self {
            tiers: vec![CANDIDATES_MIN.max(hits_max * CANDIDATES_PER_HIT)],
            dense: Leg::default(),
            sparse: Leg::default(),
            dead: BTreeSet::new(),
            shown: HashSet::new(),
        };
        while refill.tiers.len() <= usize::from(tier) && refill.grow() {}
        refill
    }

    /// Adds a tier; false when there is none.
    fn grow(&mut self) -> bool {
        let next = self.candidates() * TIER_FACTOR;
        let there_is = next <= CANDIDATES_MAX;
        if there_is {
            self.tiers.push(next);
        }
        there_is
    }

    /// Candidates of each leg in the last tier.
    fn candidates(&self) -> usize {
        self.tiers.last().copied().unwrap_or(CANDIDATES_MIN)
    }

    /// Whether a leg may have more candidates, and they were not all found yet.
    fn short(&self) -> bool {
        let short = |leg: &Leg| leg.cut && leg.alive(&self.dead).count() < self.candidates();
        short(&self.dense) || short(&self.sparse)
    }

    /// Whether there may be candidates beyond those of the last tier.
    pub(crate) fn may_grow(&self) -> bool {
        let beyond = |leg: &Leg| leg.cut || leg.alive(&self.dead).count() > self.candidates();
        (beyond(&self.dense) || beyond(&self.sparse)) && self.candidates() * TIER_FACTOR <= CANDIDATES_MAX
    }

    /// How many candidates of each leg to ask for next.
    pub(crate) fn limit(&self) -> usize {
        if self.short() {
            (self.candidates() + DEAD_FACTOR * self.dead.len()).min(CANDIDATES_MAX)
        } else {
            self.candidates()
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

    /// The candidates that are not known to be dead, best first, and what else to join: what lies beyond the fused
    /// candidates, to learn in one go what of it is dead; and the dead, in case they have become active.
    pub(crate) fn order(&self) -> Order {
        let (dense, sparse) = (self.dense.best(&self.dead), self.sparse.best(&self.dead));
        let (mut ranked, mut named) = (Vec::new(), HashSet::new());
        let mut least = 1.0_f32;
        for (tier, candidates) in (0..).zip(&self.tiers) {
            let top = |leg: &[Scored]| leg.iter().take(*candidates).copied().collect::<Vec<_>>();
            for Scored { id, score: fused } in fusion::fuse(&top(&dense), &top(&sparse)) {
                if named.insert(id) {
                    least = least.min(fused);
                    ranked.push(Ranked { id, fused, tier, score: least });
                }
            }
        }
        let beyond = dense.iter().chain(&sparse).map(|scored| scored.id).chain(self.dead.iter().copied());
        let beyond = beyond.filter(|id| named.insert(*id));
        let ids = ranked.iter().map(|ranked| ranked.id).chain(beyond.collect::<Vec<_>>()).collect();
        Order { ranked, ids }
    }

    /// Where each candidate stands in the legs: dense, sparse.
    pub(crate) fn places(&self) -> (HashMap<ChunkId, Place>, HashMap<ChunkId, Place>) {
        let places = |leg: &Leg| {
            let best = leg.best(&self.dead).into_iter().zip(1..);
            best.map(|(scored, rank)| (scored.id, (rank, scored.score))).collect()
        };
        (places(&self.dense), places(&self.sparse))
    }

    /// Takes the join's answer: of `asked`, those that are alive, and those that are and do not pass the filter. `hits` of
    /// `hits_max` hits were among them.
    pub(crate) fn learn(
        &mut self,
        asked: &Order,
        alive: &[Alive],
        left_out: &[ChunkId],
        hits: usize,
        hits_max: usize,
    ) -> Next {
        let ids: HashSet<ChunkId> = alive.iter().map(|chunk| chunk.id).collect();
        let ranked: HashSet<ChunkId> = asked.ranked.iter().map(|ranked| ranked.id).collect();
        let left_out: HashSet<ChunkId> = left_out.iter().copied().collect();
        let (mut reordered, mut revived, mut gone) = (false, false, false);
        for id in &asked.ids {
            if ids.contains(id) {
                revived |= self.dead.remove(id);
            } else if self.dead.insert(*id) && ranked.contains(id) {
                reordered = true;
                // Something may have come in its place; not in that of what the filter leaves out.
                gone |= !left_out.contains(id);
            }
        }
        let asked_before_shown = |chunk: &Alive| chunk.fresh && !self.shown.contains(&(chunk.document, chunk.revision));
        let surprised = revived || gone || alive.iter().any(asked_before_shown);
        self.shown.extend(alive.iter().map(|chunk| (chunk.document, chunk.revision)));
        if surprised || self.short() {
            Next::Search
        } else if reordered {
            Next::Join
        } else if hits < hits_max && self.may_grow() && self.grow() {
            if self.short() { Next::Search } else { Next::Join }
        } else {
            Next::Done
        }
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

    fn best(&self, dead: &BTreeSet<ChunkId>) -> Vec<Scored> {
        let mut best: Vec<Scored> = self.alive(dead).collect();
        fusion::sort(&mut best);
        best
    }
}

#[cfg(test)]
#[path = "refill_tests.rs"]
mod tests;
