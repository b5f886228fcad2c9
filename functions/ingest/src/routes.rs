//! The routes of `ingest`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use shared::{
    App,
    domain::DocumentId,
    http::{Body, Invocation, Json, Params, PathId, Principal},
    problem::Problem,
};

use crate::{
    documents::{self, DocumentPage, DocumentView, ListParams},
    error::IngestError,
    idempotency::{Claim, KeyedRequest, StoredResponse},
    request,
    saga::{self, Claimed, Outcome},
};

/// How soon a client may look again whether a long ingestion has ended.
const POLL_S: u16 = 2;

/// All routes of the function.
pub fn router(app: App) -> Router {
    let routes =
        Router::new().route("/documents", post(create).get(list)).route("/documents/{id}", get(show).delete(delete));
    shared::http::finish(routes, app)
}

/// `POST /documents`: 201 with the document when it is new, 200 when it is replaced or unchanged, 202 when the
/// invocation's time was too short: then it goes on by itself, and the same request goes on with it as well.
async fn create(
    State(app): State<App>,
    caller: Principal,
    invocation: Invocation,
    uri: Uri,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let key = request::idempotency_key(&headers)?.map(|key| KeyedRequest {
        principal: caller.user,
        key,
        fingerprint: request::fingerprint(&headers, uri.query(), &body),
    });
    let source = match request::parse(&headers, uri.query(), body) {
        Ok(source) => Arc::new(source),
        Err(problem) => return refuse(&app, key, problem, &invocation.request_id).await,
    };
    let claim = saga::Request { caller: caller.user, source: source.clone(), key: key.clone() };
    let (lease, source) = match saga::claim(&app, claim, invocation.deadline).await? {
        Claimed::Replay(stored) => return Ok(stored.replay()),
        Claimed::Unchanged(answer) => return Ok(answer.respond()),
        Claimed::Begun(lease) => (lease, Some(source)),
        Claimed::Resumed(lease) => (lease, None),
    };
    let outcome =
        saga::run(&app, lease, source.as_deref(), key.as_ref(), &invocation.request_id, invocation.deadline).await?;
    Ok(match outcome {
        Outcome::Active(answer) => answer.respond(),
        Outcome::Paused(view) => {
            let location = HeaderValue::try_from(view.location()).map_err(Problem::internal)?;
            let headers = [(header::LOCATION, location), (header::RETRY_AFTER, HeaderValue::from(POLL_S))];
            (StatusCode::ACCEPTED, headers, Json(*view)).into_response()
        }
    })
}

/// Refuses a request that can not be understood; under its key, so that a retry hears the same.
async fn refuse(app: &App, key: Option<KeyedRequest>, problem: Problem, request_id: &str) -> Result<Response, Problem> {
    let Some((key, refusal)) = key.zip(StoredResponse::refusal(&problem, request_id)) else { return Err(problem) };
    app.db
        .transaction("keep refusal", async move |tx| {
            let fence = saga::draw_fence(tx).await?;
            match key.claim(tx, fence, std::time::Duration::ZERO).await? {
                Claim::Replay(stored) => Ok(stored.replay()),
                Claim::Fresh | Claim::TakenOver(_) => {
                    key.finish(tx, fence, &refusal).await?;
                    Ok::<_, IngestError>(refusal.clone().respond())
                }
            }
        })
        .await
        .map_err(Problem::from)
}

async fn list(
    State(app): State<App>,
    caller: Principal,
    Params(params): Params<ListParams>,
) -> Result<Json<DocumentPage>, Problem> {
    Ok(Json(documents::list(&app, caller.user, params.check()?).await?))
}

async fn show(
    State(app): State<App>,
    caller: Principal,
    PathId(id): PathId<DocumentId>,
) -> Result<Json<DocumentView>, Problem> {
    Ok(Json(documents::require_for(&app, caller.user, id).await?))
}

/// `DELETE /documents/{id}`: out of sight when it answers; the points are removed at once if Qdrant is there, else by the
/// sweeper.
async fn delete(
    State(app): State<App>,
    caller: Principal,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<StatusCode, Problem> {
    documents::delete(&app, caller.user, id).await?;
    if let Err(error) = saga::clean_document(&app, id, invocation.deadline).await {
        tracing::warn!(document.id = %id, %error, "retired points are left to the sweeper");
    }
    Ok(StatusCode::NO_CONTENT)
}
