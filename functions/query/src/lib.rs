//! `POST /query`: a question in, cited passages out.
//!
//! The data walks one way: [`request`] -> `scope` (what may the caller read, what passes the filter?) beside `embed` ->
//! `retrieve` (`refill` says what to ask Qdrant, `fusion` ranks, `hydrate` joins with PostgreSQL; `lexical` searches while
//! Qdrant is away) -> `answer` -> [`response`]. A reranker would stand behind `retrieve`.
//!
//! Only `hydrate` makes a hit, and it makes it from PostgreSQL alone. `filter`, `refill`, `fusion`, `cursor` and `sentences`
//! do no I/O. `warm` is all that outlives a question.
//!
//! ```json
//! {"query": "How tall is the Eiffel Tower?", "k": 1, "answer": true}
//! ```
//!
//! ```json
//! {
//!   "hits": [{
//!     "chunk_id": "019ab1f0-...", "score": 1.0, "text": "The Eiffel Tower is 330 metres tall. ...",
//!     "document": {
//!       "id": "019ab1ef-...", "title": "Eiffel Tower", "source_uri": "https://example.org/eiffel",
//!       "knowledge_base": "019ab1ee-...", "revision": 2, "content_hash": "9f86d081..."
//!     },
//!     "byte_range": {"start": 120, "end": 518}, "page": null, "heading_path": ["Eiffel Tower", "Height"]
//!   }],
//!   "next_cursor": null, "degraded": [],
//!   "answer": {
//!     "kind": "extractive", "found": true,
//!     "statements": [{
//!       "text": "The Eiffel Tower is 330 metres tall.", "support": 0.86,
//!       "citation": {
//!         "chunk_id": "019ab1f0-...", "document_id": "019ab1ef-...", "revision": 2,
//!         "byte_range": {"start": 120, "end": 156}, "page": null, "heading_path": ["Eiffel Tower", "Height"],
//!         "content_hash": "9f86d081..."
//!       }
//!     }]
//!   }
//! }
//! ```

mod answer;
mod cursor;
mod embed;
mod error;
mod filter;
mod fusion;
mod hydrate;
mod lexical;
mod refill;
pub mod request;
pub mod response;
mod retrieve;
mod scope;
mod sentences;
mod warm;

use std::time::{Duration, Instant};

use axum::{Extension, Router, routing::post};
use shared::{
    App,
    deadline::Deadline,
    domain::UserId,
    http::{Invocation, Json, Principal, Timed},
    problem::{Causes, Problem},
    sparse,
};

use self::{
    error::QueryError,
    request::{GroupBy, Query, QueryRequest},
    response::{Answer, AnswerKind, ByteRange, Debug, Hit, QueryResponse, Timings},
    retrieve::{Page, Question, Retrieval, retrieve},
    scope::{Plan, View},
    warm::Warm,
};

/// The routes of this function.
pub fn router(app: App) -> Router {
    let routes = Router::new().route("/query", post(query)).layer(Extension(Warm::default()));
    shared::http::finish(routes, app)
}

async fn query(
    Timed(app): Timed,
    Extension(warm): Extension<Warm>,
    invocation: Invocation,
    principal: Principal,
    Json(request): Json<QueryRequest>,
) -> Result<Json<QueryResponse>, Problem> {
    let query = Query::try_from(request)?;
    Ok(Json(run(&app, &warm, principal.user, query, invocation.deadline).await?))
}

/// Answers one query. Reads both stores, writes nothing.
async fn run(
    app: &App,
    warm: &Warm,
    user: UserId,
    query: Query,
    deadline: Deadline,
) -> Result<QueryResponse, QueryError> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let mut degraded = Vec::new();
    let view = View {
        user,
        knowledge_bases: query.knowledge_bases.clone(),
        documents: query.documents.clone().map(|ids| ids.into_iter().collect()),
        filter: query.filter.clone(),
    };

    // Side by side: neither needs the other.
    let (scope, embedded) =
        tokio::join!(timed(scope::begin(&app.db, warm, &view)), timed(embed::question(app, warm, &query, deadline)));
    (timings.authorise, timings.embed) = (scope.1, embedded.1);
    let (scope, embedded) = (scope.0?, embedded.0);
    if embedded.failed {
        degraded.push("embedder");
    }
    let vector = embedded.vector;

    let dense = vector.clone().filter(|_| query.mode.dense());
    // A question of nothing but stop words has no terms.
    let terms = sparse::query(&query.text);
    let by_words = query.mode.sparse() || (query.mode.dense() && dense.is_none());
    let sparse = by_words.then(|| terms.clone()).filter(|terms| !terms.indices.is_empty());
    let nothing_passes = matches!(&scope.plan, Plan::DocumentsFirst(documents) if documents.is_empty());
    let nothing_named = view.documents.as_ref().is_some_and(Vec::is_empty);
    let mut retrieval = Retrieval { complete: true, ..Retrieval::default() };
    // An empty list of knowledge bases is sure; what is remembered is never empty.
    if !(scope.knowledge_bases.is_empty() || nothing_passes || (nothing_named && view.knowledge_bases.is_none())) {
        let question = Question { text: &query.text, dense, sparse };
        let page = Page {
            hits_max: query.hits_max,
            by_document: query.group_by == Some(GroupBy::Document),
            context: query.context,
            after: query.after,
        };
        retrieval = retrieve(app, warm, &view, scope, &question, page, deadline).await?;
        (timings.search, timings.hydrate) = (ms(retrieval.search), ms(retrieval.hydrate));
    }
    if retrieval.without_index {
        degraded.push("qdrant");
    }
    let next = trim(&mut retrieval, &query);
    for hit in &mut retrieval.hits {
        hit.extras.legs = hit.extras.legs.filter(|_| query.debug);
        hit.extras.highlights = query.highlights.then(|| highlights(&terms, hit));
        if query.context > 0 {
            hit.extras.context.get_or_insert_default();
        }
    }

    let answering = Instant::now();
    let answer =
        if query.answer { answer(app, &query, vector.as_deref(), &retrieval.hits, deadline).await } else { None };
    if query.answer && answer.is_none() && !degraded.contains(&"embedder") {
        degraded.push("embedder");
    }
    timings.answer = ms(answering.elapsed());
    timings.total = ms(started.elapsed());

    let debug = query.debug.then_some(Debug {
        plan: retrieval.plan,
        documents_passing: retrieval.documents_passing,
        legs: retrieval.legs,
        rounds: retrieval.rounds,
        joins: retrieval.joins,
        dead: retrieval.dead,
        complete: retrieval.complete,
        timings_ms: timings,
    });
    Ok(QueryResponse { hits: retrieval.hits, next_cursor: next, degraded, answer, debug })
}

/// An answer made of the hits' sentences; `None` when the embedder, which chooses them, is away.
async fn answer(app: &App, query: &Query, vector: Option<&[f32]>, hits: &[Hit], deadline: Deadline) -> Option<Answer> {
    if hits.is_empty() {
        return Some(Answer { kind: AnswerKind::Extractive, found: false, statements: Vec::new() });
    }
    match answer::extract(&*app.embedder, &query.text, vector?, hits, deadline).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "hits without an answer");
            None
        }
    }
}

/// Leaves out what scores too low, and says where the next page begins.
fn trim(retrieval: &mut Retrieval, query: &Query) -> Option<String> {
    let found = retrieval.hits.len();
    retrieval.hits.retain(|hit| hit.score >= query.min_score);
    // Scores only fall: what is behind the first that is too low is too low as well.
    let next = retrieval.next.filter(|_| retrieval.hits.len() == found);
    next.map(|cursor| cursor.encode(query.fingerprint))
}

fn highlights(terms: &sparse::SparseVector, hit: &Hit) -> Vec<ByteRange> {
    let ranges = sparse::matches(terms, &hit.text).into_iter();
    ranges.map(|range| ByteRange { start: range.start as u64, end: range.end as u64 }).collect()
}

/// What `work` gives, and the milliseconds that it took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, f64) {
    let started = Instant::now();
    let value = work.await;
    (value, ms(started.elapsed()))
}

/// Milliseconds, to a hundredth.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
