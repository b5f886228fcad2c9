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
    deadline::Deadline,
    domain::DocumentId,
    http::{Body, Invocation, Json, Params, PathId, Reader, Writer},
    problem::{Causes, Problem},
};

use crate::{
    consistency,
    documents::{self, DocumentPage, DocumentView, ListParams},
    erasures,
    error::IngestError,
    idempotency::{Claim, KeyedRequest, StoredResponse},
    request,
    saga::{self, Claimed, Outcome, Resumed},
    uploads,
};

/// How soon a client may look again whether a long ingestion has ended.
const POLL_S: u16 = 2;

/// All routes of the function.
pub fn router(app: App) -> Router {
    let routes = Router::new()
        .route("/documents", post(create).get(list))
        .route("/documents/{id}", get(show).delete(delete))
        .route("/documents/{id}/retry", post(retry));
    shared::http::finish(routes.merge(consistency::routes()).merge(uploads::routes()), app)
}

/// `POST /documents`: 201 with the document when it is new, 200 when it is replaced or unchanged, 202 when the
/// invocation's time was too short: then it goes on by itself, and the same request goes on with it as well.
async fn create(
    State(app): State<App>,
    caller: Writer,
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
    let claim =
        saga::Request { caller: caller.user, source: source.clone(), key, request_id: invocation.request_id.clone() };
    let (lease, source) = match saga::claim(&app, claim, invocation.deadline).await? {
        Claimed::Replay(stored) => return Ok(stored.replay()),
        Claimed::Unchanged(answer) => return Ok(answer.respond()),
        Claimed::Refused(problem) => return Err(problem),
        Claimed::Begun(lease) => (lease, Some(source)),
        Claimed::Resumed(lease) => (lease, None),
    };
    match saga::run_detached(app, lease, source, invocation.request_id, invocation.deadline).await? {
        Outcome::Active(answer) => Ok(answer.respond()),
        Outcome::Paused(view) => accepted(*view),
    }
}

/// 202: it goes on by itself.
fn accepted(view: DocumentView) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(view.location()).map_err(Problem::internal)?;
    let headers = [(header::LOCATION, location), (header::RETRY_AFTER, HeaderValue::from(POLL_S))];
    Ok((StatusCode::ACCEPTED, headers, Json(view)).into_response())
}

/// `POST /documents/{id}/retry`: goes on now with an ingestion that was interrupted or has failed for the moment, instead
/// of waiting for the sweeper. 200 with the document when it is active, 202 when the time was too short again.
async fn retry(
    State(app): State<App>,
    caller: Writer,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<Response, Problem> {
    let lease = match saga::resume(&app, caller.user, id, invocation.deadline).await? {
        Resumed::Active(view) => return Ok(Json(*view).into_response()),
        Resumed::Lease(lease) => lease,
    };
    match saga::run_detached(app, lease, None, invocation.request_id, invocation.deadline).await? {
        // The keys keep a 201 if the document is new; here nothing was created.
        Outcome::Active(answer) => Ok(StoredResponse { status: StatusCode::OK, ..answer }.respond()),
        Outcome::Paused(view) => accepted(*view),
    }
}

/// Refuses a request that can not be understood; under its key, so that a retry hears the same.
async fn refuse(app: &App, key: Option<KeyedRequest>, problem: Problem, request_id: &str) -> Result<Response, Problem> {
    let Some((key, refusal)) = key.zip(StoredResponse::refusal(&problem, request_id)) else { return Err(problem) };
    let kept = app
        .db
        .transaction("keep refusal", async move |tx| {
            let fence = saga::draw_fence(tx).await?;
            match key.claim(tx, fence, std::time::Duration::ZERO).await? {
                Claim::Replay(stored) => Ok(stored.replay()),
                Claim::Fresh | Claim::TakenOver(..) => {
                    key.finish(tx, fence, &refusal).await?;
                    Ok::<_, IngestError>(refusal.clone().respond())
                }
            }
        })
        .await;
    match kept {
        // Nothing is kept for an account that does not exist.
        Err(IngestError::NoKnowledgeBase) => Err(problem),
        kept => kept.map_err(Problem::from),
    }
}

async fn list(
    State(app): State<App>,
    caller: Reader,
    Params(params): Params<ListParams>,
) -> Result<Json<DocumentPage>, Problem> {
    Ok(Json(documents::list(&app, caller.user, params.check()?).await?))
}

async fn show(
    State(app): State<App>,
    caller: Reader,
    PathId(id): PathId<DocumentId>,
) -> Result<Json<DocumentView>, Problem> {
    Ok(Json(documents::require_for(&app, caller.user, id).await?))
}

/// `DELETE /documents/{id}`: out of sight when it answers; the points are removed at once if Qdrant is there, else by the
/// sweeper.
async fn delete(
    State(app): State<App>,
    caller: Writer,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<StatusCode, Problem> {
    documents::delete(&app, caller.user, id).await?;
    if let Err(error) = clean(&app, id, invocation.deadline).await {
        tracing::warn!(document.id = %id, error = %Causes(&error), "retired points are left to the sweeper");
    } else if let Err(error) = erasures::complete_if_gone(&app, id, invocation.deadline).await {
        tracing::warn!(document.id = %id, error = %Causes(&error), "the proof of erasure is left to the sweeper");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a deleted document's chunks and points, as far as the time allows.
async fn clean(app: &App, id: DocumentId, deadline: Deadline) -> Result<(), IngestError> {
    saga::retire_remains(app, deadline).await?;
    saga::clean_document(app, id, deadline).await
}
