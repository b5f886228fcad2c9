//! `POST /query`: a question in, cited passages out.
//!
//! The data walks one way: [`request`] -> `scope` (what may the caller read?) -> the embedder -> `retrieve` (`refill`
//! says what to ask Qdrant, `fusion` ranks, `hydrate` joins with PostgreSQL) -> `answer` -> [`response`].
//!
//! Only `hydrate` makes a hit, and it makes it from PostgreSQL alone. `refill`, `fusion` and `sentences` do no I/O.
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
//!   "degraded": [],
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
mod error;
mod fusion;
mod hydrate;
mod refill;
pub mod request;
pub mod response;
mod retrieve;
mod scope;
mod sentences;

use std::time::{Duration, Instant};

use axum::{Router, extract::State, routing::post};
use shared::{
    App,
    deadline::Deadline,
    domain::UserId,
    http::{Invocation, Json, Reader},
    problem::Problem,
    sparse,
};

use self::{
    error::QueryError,
    hydrate::View,
    request::{Query, QueryRequest},
    response::{Answer, AnswerKind, Debug, QueryResponse, Timings},
    retrieve::{Retrieval, retrieve},
};

/// The routes of this function.
pub fn router(app: App) -> Router {
    shared::http::finish(Router::new().route("/query", post(query)), app)
}

async fn query(
    State(app): State<App>,
    invocation: Invocation,
    caller: Reader,
    Json(request): Json<QueryRequest>,
) -> Result<Json<QueryResponse>, Problem> {
    let query = Query::try_from(request)?;
    Ok(Json(run(&app, caller.user, query, invocation.deadline).await?))
}

/// Answers one query. Reads both stores, writes nothing.
async fn run(app: &App, user: UserId, query: Query, deadline: Deadline) -> Result<QueryResponse, QueryError> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let mut lap = Lap(started);

    let knowledge_bases = scope::resolve(&app.db, user, query.knowledge_bases.as_ref(), deadline).await?;
    timings.authorise = lap.ms();

    let documents = query.documents.map(|ids| ids.into_iter().collect::<Vec<_>>());
    let nothing_to_read = knowledge_bases.is_empty() || documents.as_ref().is_some_and(Vec::is_empty);
    let (mut vector, mut retrieval) = (None, Retrieval { complete: true, ..Retrieval::default() });
    if !nothing_to_read {
        if query.mode.dense() || query.answer {
            vector = Some(app.embedder.embed_query(query.text.clone(), deadline.instant()).await?);
        }
        timings.embed = lap.ms();
        let dense = vector.clone().filter(|_| query.mode.dense());
        // A question of nothing but stop words has no terms.
        let sparse = query.mode.sparse().then(|| sparse::query(&query.text)).filter(|terms| !terms.indices.is_empty());
        let view = View { user, knowledge_bases, documents };
        retrieval = retrieve(app, &view, dense, sparse, query.hits_max, deadline).await?;
        (timings.search, timings.hydrate) = (ms(retrieval.search), ms(retrieval.hydrate));
        lap.ms();
    }

    let answer = match &vector {
        _ if !query.answer => None,
        Some(vector) => Some(answer::extract(&*app.embedder, &query.text, vector, &retrieval.hits, deadline).await?),
        None => Some(Answer { kind: AnswerKind::Extractive, found: false, statements: Vec::new() }),
    };
    timings.answer = lap.ms();
    timings.total = ms(started.elapsed());

    let debug = query.debug.then_some(Debug {
        legs: retrieval.legs,
        rounds: retrieval.rounds,
        dead: retrieval.dead,
        complete: retrieval.complete,
        timings_ms: timings,
    });
    Ok(QueryResponse { hits: retrieval.hits, degraded: Vec::new(), answer, debug })
}

/// Runs one call to PostgreSQL within the invocation's time.
async fn within<T, E>(deadline: Deadline, call: impl Future<Output = Result<T, E>>) -> Result<T, QueryError>
where
    QueryError: From<E>,
{
    match tokio::time::timeout_at(deadline.instant(), call).await {
        Ok(result) => result.map_err(QueryError::from),
        Err(_) => Err(QueryError::DeadlineExceeded),
    }
}

/// The time since the last lap.
struct Lap(Instant);

impl Lap {
    fn ms(&mut self) -> f64 {
        let now = Instant::now();
        ms(now - std::mem::replace(&mut self.0, now))
    }
}

/// Milliseconds, to a hundredth.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
