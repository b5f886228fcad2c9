//! `POST /query`: a question in, cited passages out.
//!
//! The data walks one way (`pipeline`): [`request`] -> `scope` (what may the caller read, what passes the filter?) beside
//! `embed` -> `retrieve` (`refill` says what to ask Qdrant, `fusion` ranks, `hydrate` joins with PostgreSQL; `lexical`
//! searches while Qdrant is away) -> [`rerank`] -> `answer` -> [`response`], at once or as events (`stream`).
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
//!       "citations": [{
//!         "chunk_id": "019ab1f0-...", "document_id": "019ab1ef-...", "revision": 2,
//!         "byte_range": {"start": 120, "end": 156}, "page": null, "heading_path": ["Eiffel Tower", "Height"],
//!         "content_hash": "9f86d081..."
//!       }]
//!     }]
//!   }
//! }
//! ```

mod answer;
mod citations;
mod cursor;
mod embed;
mod error;
mod filter;
pub mod fusion;
mod hydrate;
mod lexical;
pub mod llm;
mod pipeline;
mod refill;
pub mod request;
pub mod rerank;
pub mod response;
mod retrieve;
mod scope;
mod sentences;
mod stream;
mod warm;

use std::sync::Arc;

use axum::{Extension, Router, extract::State};
use shared::{
    App,
    config::ConfigError,
    http::{Invocation, Json, Reader, Routes},
    problem::{Code, Problem},
    routes,
};
use utoipa::openapi::OpenApi;

use self::{
    pipeline::Engine,
    request::{Query, QueryRequest},
    response::QueryResponse,
};

/// The routes of this function.
///
/// # Errors
/// When the configuration of a model does not hold.
pub fn router(app: App) -> Result<Router, ConfigError> {
    let engine = Arc::new(Engine::new(&app)?);
    Ok(shared::http::finish(routes().map(|router| router.layer(Extension(engine))), app))
}

/// What the routes are, for the API's contract.
#[must_use]
pub fn contract() -> OpenApi {
    routes().contract()
}

fn routes() -> Routes {
    Routes::new().routes(routes!(query)).routes(stream::route()).routes(citations::route())
}

/// Finds passages, and answers the question from them.
#[utoipa::path(
    post,
    path = "/query",
    tag = "query",
    operation_id = "query",
    security(("access_token" = []), ("api_key" = ["read"])),
    request_body = QueryRequest,
    responses((status = 200, description = "The passages, best first; the answer, if one was asked for.", body = QueryResponse)),
    extensions(("x-codes" = json!([Code::NotFound, Code::RateLimited]))),
)]
async fn query(
    State(app): State<App>,
    Extension(engine): Extension<Arc<Engine>>,
    invocation: Invocation,
    caller: Reader,
    Json(request): Json<QueryRequest>,
) -> Result<Json<QueryResponse>, Problem> {
    let query = Query::try_from(request)?;
    Ok(Json(pipeline::run(&app, &engine, caller.user, query, invocation.deadline).await?))
}
