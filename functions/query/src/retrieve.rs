//! A question's vectors become hits: search, fuse, join, and again until they are sure.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use shared::{
    App,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    problem::Causes,
    sparse::SparseVector,
    telemetry,
    vectors::{Candidates, IndexError, Search},
};
use tracing::Instrument;

use crate::{
    cursor::Cursor,
    error::QueryError,
    hydrate::{Joined, Wanted, anything, hydrate},
    lexical,
    refill::{Alive, Next, Order, ROUNDS_MAX, Ranked, Refill},
    response::{Hit, HitLegs, Legs, PlaceInLeg},
    scope::{self, Plan, Scope, View},
    warm::Warm,
};

/// How long one search may take. Usual are milliseconds; who waits longer is better served by full-text search, which must
/// still have its time.
const SEARCH_MAX: Duration = Duration::from_secs(3);

/// Joins of one query, whatever happens: six searches with one join more each, for both plans.
const JOINS_MAX: u32 = 24;

/// What is searched for.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    /// A leg that is `None` is not searched.
    pub(crate) dense: Option<Vec<f32>>,
    pub(crate) sparse: Option<SparseVector>,
}

/// Which part of the hits is wanted, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) hits_max: usize,
    pub(crate) by_document: bool,
    pub(crate) context: usize,
    /// Where the page before ended.
    pub(crate) after: Option<Cursor>,
}

/// What was found, and how.
#[derive(Debug, Default)]
pub(crate) struct Retrieval {
    /// Best first.
    pub(crate) hits: Vec<Hit>,
    /// Behind the last hit, when there may be more.
    pub(crate) next: Option<Cursor>,
    /// Whether Qdrant could not be asked.
    pub(crate) without_index: bool,
    /// Whether nothing can be missing.
    pub(crate) complete: bool,
    pub(crate) plan: &'static str,
    pub(crate) documents_passing: Option<usize>,
    pub(crate) rounds: u32,
    pub(crate) joins: u32,
    pub(crate) dead: usize,
    pub(crate) legs: Legs,
    pub(crate) search: Duration,
    pub(crate) hydrate: Duration,
}

/// Finds the hits of `page` in `view`.
///
/// # Errors
/// PostgreSQL's, and [`QueryError::KnowledgeBaseNotFound`]. Qdrant's failure is none: PostgreSQL searches instead.
pub(crate) async fn retrieve(
    app: &App,
    warm: &Warm,
    view: &View,
    scope: Scope,
    question: &Question<'_>,
    page: Page,
    deadline: Deadline,
) -> Result<Retrieval, QueryError> {
    let mut run =
        Run { app, warm, view, scope, question, deadline, started: Instant::now(), done: Retrieval::default() };
    let mut refill = run.begin(page);
    let mut next = Next::Search;
    // Of the plan that is being followed.
    let mut rounds = 0;
    loop {
        if next == Next::Search {
            if rounds >= ROUNDS_MAX || run.done.joins >= JOINS_MAX {
                if run.scope.plan == Plan::IndexFirst
                    && let Some(plan) = scope::other_plan(&app.db, view).await?
                {
                    run.scope.plan = plan;
                    (refill, rounds) = (run.begin(page), 0);
                    continue;
                }
                break;
            }
            rounds += 1;
            let was = run.done.without_index;
            let limit = refill.limit();
            let candidates = run.search(&refill, limit).await?;
            if run.done.without_index != was {
                // Qdrant's candidates and those of full-text search have nothing to compare.
                refill = run.begin(page);
            }
            refill.add(candidates, limit);
        }
        let order = refill.order();
        let joined = run.join(&order, page).await?;
        if !same(&joined.readable, &run.scope.knowledge_bases) {
            // What was remembered of the caller's rights holds no longer, or did not yet.
            run.scope.knowledge_bases.clone_from(&joined.readable);
            (refill, next) = (run.begin(page), Next::Search);
            continue;
        }
        next = refill.learn(&order, &joined.alive, &joined.left_out, joined.hits.len(), page.hits_max);
        run.done.complete = next == Next::Done;
        (run.done.next, run.done.hits) = finish(joined, &order, &refill, page);
        if run.done.complete {
            break;
        }
    }
    let (dense, sparse) = refill.seen();
    run.done.legs = Legs { dense, sparse };
    run.done.dead = refill.dead().len();
    if !run.done.complete {
        tracing::warn!(
            query.rounds = run.done.rounds,
            query.dead = run.done.dead,
            query.hits = run.done.hits.len(),
            "the index holds more dead points than a query gets over"
        );
    }
    Ok(run.done)
}

/// A retrieval under way.
struct Run<'a> {
    app: &'a App,
    warm: &'a Warm,
    view: &'a View,
    scope: Scope,
    question: &'a Question<'a>,
    deadline: Deadline,
    started: Instant,
    done: Retrieval,
}

impl Run<'_> {
    fn begin(&mut self, page: Page) -> Refill {
        (self.done.plan, self.done.documents_passing) = match &self.scope.plan {
            Plan::Unfiltered => ("unfiltered", None),
            Plan::DocumentsFirst(documents) => ("documents_first", Some(documents.len())),
            Plan::IndexFirst => ("index_first", None),
        };
        Refill::new(page.hits_max, page.after.map_or(0, |cursor| cursor.tier))
    }

    /// The next candidates: Qdrant's, or if that is away, PostgreSQL's.
    async fn search(&mut self, refill: &Refill, limit: usize) -> Result<Candidates, QueryError> {
        let started = Instant::now();
        if !self.done.without_index {
            match self.ask_index(refill, limit).instrument(telemetry::stage("qdrant")).await? {
                Some(candidates) => {
                    self.done.search += started.elapsed();
                    return Ok(candidates);
                }
                None => self.done.without_index = true,
            }
        }
        let candidates = lexical::search(&self.app.db, self.view, self.question.text, limit);
        let candidates = candidates.instrument(telemetry::stage("full_text")).await?;
        self.done.search += started.elapsed();
        Ok(candidates)
    }

    /// Qdrant's candidates; `None` when it can not be asked.
    async fn ask_index(&mut self, refill: &Refill, limit: usize) -> Result<Option<Candidates>, QueryError> {
        let search = Search {
            dense: self.question.dense.clone(),
            sparse: self.question.sparse.clone(),
            knowledge_bases: self.scope.knowledge_bases.clone(),
            documents: self.documents(),
            limit,
            except: refill.dead(),
        };
        let nothing_to_ask = search.knowledge_bases.is_empty()
            || search.documents.as_ref().is_some_and(Vec::is_empty)
            || (search.dense.is_none() && search.sparse.is_none());
        if nothing_to_ask {
            return Ok(Some(Candidates::default()));
        }
        let Some(permit) = self.warm.qdrant.admit() else { return Ok(None) };
        self.done.rounds += 1;
        let error = match self.app.index.search(search, self.deadline.at_most(SEARCH_MAX)).await {
            Ok(candidates) => {
                permit.succeeded();
                return Ok(Some(candidates));
            }
            Err(error) => error,
        };
        match &error {
            IndexError::Unavailable(_) | IndexError::Timeout | IndexError::Throttled { .. } => permit.failed(),
            IndexError::Missing | IndexError::Refused(_) | IndexError::Incomplete { .. } => permit.succeeded(),
        }
        // Right as long as there is nothing to index; else the index is lost, and "no hits" would be untrue.
        if matches!(error, IndexError::Missing) && !anything(&self.app.db, &self.scope.knowledge_bases).await? {
            return Ok(Some(Candidates::default()));
        }
        tracing::warn!(error = %Causes(&error), "answered without Qdrant");
        Ok(None)
    }

    fn documents(&self) -> Option<Vec<DocumentId>> {
        match &self.scope.plan {
            Plan::DocumentsFirst(documents) => Some(documents.clone()),
            Plan::Unfiltered | Plan::IndexFirst => self.view.documents.clone(),
        }
    }

    async fn join(&mut self, order: &Order, page: Page) -> Result<Joined, QueryError> {
        let started = Instant::now();
        self.done.joins += 1;
        let after =
            page.after.map_or(0, |cursor| order.ranked.iter().filter(|ranked| !cursor.is_before(ranked)).count());
        let wanted = Wanted {
            after,
            of: order.ranked.len(),
            hits_max: page.hits_max,
            by_document: page.by_document,
            context: page.context,
        };
        let joined = hydrate(&self.app.db, self.view, &order.ids, wanted);
        let mut joined = joined.instrument(telemetry::stage("postgresql")).await?;
        if self.view.knowledge_bases.is_none() {
            self.warm.note_readable(self.view.user, &joined.readable);
        }
        for chunk in joined.alive.iter_mut().filter(|chunk| chunk.fresh) {
            // What this container had seen before the question came needs no second look.
            chunk.fresh = !self.warm.had_seen(chunk.document, chunk.revision, self.started);
            self.warm.note_seen(chunk.document, chunk.revision);
        }
        self.done.hydrate += started.elapsed();
        Ok(joined)
    }
}

fn same(a: &[KnowledgeBaseId], b: &[KnowledgeBaseId]) -> bool {
    a.len() == b.len() && a.iter().collect::<HashSet<_>>() == b.iter().collect::<HashSet<_>>()
}

/// The hits with their scores, best first, and where the next page begins.
fn finish(joined: Joined, order: &Order, refill: &Refill, page: Page) -> (Option<Cursor>, Vec<Hit>) {
    let ranked: HashMap<ChunkId, &Ranked> = order.ranked.iter().map(|ranked| (ranked.id, ranked)).collect();
    let last = joined.hits.last().and_then(|hit| ranked.get(&hit.chunk_id).copied());
    let next = last.filter(|last| {
        let cursor = Cursor::behind(last);
        let document: HashMap<ChunkId, &Alive> = joined.alive.iter().map(|alive| (alive.id, alive)).collect();
        let (before, behind): (Vec<&Ranked>, Vec<&Ranked>) =
            order.ranked.iter().partition(|ranked| !cursor.is_before(ranked));
        let of = |ranked: &&Ranked| document.get(&ranked.id).map(|alive| alive.document);
        let shown: HashSet<DocumentId> = before.iter().filter_map(of).collect();
        let another = |document: DocumentId| !page.by_document || !shown.contains(&document);
        joined.hits.len() >= page.hits_max && (behind.iter().filter_map(of).any(another) || refill.may_grow())
    });
    let next = next.map(Cursor::behind);
    let (dense, sparse) = refill.places();
    let place = |places: &HashMap<ChunkId, (usize, f32)>, id| {
        places.get(&id).map(|(rank, score)| PlaceInLeg { rank: *rank, score: *score })
    };
    let hits = joined.hits.into_iter().map(|mut hit| {
        hit.score = ranked.get(&hit.chunk_id).map_or(0.0, |ranked| ranked.score);
        hit.extras.legs = Some(HitLegs { dense: place(&dense, hit.chunk_id), sparse: place(&sparse, hit.chunk_id) });
        hit
    });
    (next, hits.collect())
}
