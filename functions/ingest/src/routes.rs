//! The routes of `ingest`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use shared::{
    App,
    deadline::Deadline,
    domain::{DocumentId, IdempotencyKey},
    http::{Body, Invocation, Json, Params, PathId, Reader, Routes, Writer},
    problem::{Causes, Code, Problem},
    routes, telemetry,
};
use tracing::Instrument;
use utoipa::openapi::OpenApi;

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
    shared::http::finish(routes(), app)
}

/// What the routes are, for the API's contract.
#[must_use]
pub fn contract() -> OpenApi {
    routes().contract()
}

fn routes() -> Routes {
    Routes::new()
        .routes(routes!(create, list))
        .routes(routes!(show, delete))
        .routes(routes!(retry))
        .merge(consistency::routes())
        .merge(uploads::routes())
}

/// Ingests a document: its text as JSON, or the document itself as the body.
///
/// `201` when it is new, `200` when it is replaced or unchanged, and then it is complete in both stores; `202` when the time was
/// too short: then it goes on by itself, and the same request goes on with it as well.
#[utoipa::path(
    post,
    path = "/documents",
    tag = "documents",
    operation_id = "create_document",
    security(("access_token" = []), ("api_key" = ["write"])),
    params(
        request::RawParams,
        ("idempotency-key" = Option<IdempotencyKey>, Header, description = "Names this request: a second one with the same key is the same request, and gets the same answer."),
    ),
    request_body(content(
        (request::Description = "application/json"),
        ([u8] = "text/plain"), ([u8] = "text/markdown"), ([u8] = "text/html"), ([u8] = "text/csv"), ([u8] = "message/rfc822"),
        ([u8] = "application/rtf"), ([u8] = "application/pdf"), ([u8] = "application/epub+zip"), ([u8] = "application/msword"),
        ([u8] = "application/vnd.ms-powerpoint"), ([u8] = "application/vnd.ms-excel"),
        ([u8] = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ([u8] = "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        ([u8] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    )),
    responses(
        (status = 200, description = "Replaced or unchanged.", body = DocumentView),
        (status = 201, description = "New.", body = DocumentView, headers(("location" = String, description = "Its path."))),
        (status = 202, description = "On its way.", body = DocumentView, headers(
            ("location" = String, description = "Its path."),
            ("retry-after" = u16, description = "Seconds."),
        )),
    ),
    extensions(("x-codes" = json!([
        Code::InvalidUtf8, Code::ControlCharacter, Code::EmptyDocument, Code::DocumentTooComplex, Code::ScannedDocument,
        Code::PasswordProtected, Code::MalformedDocument, Code::TextTooLarge, Code::ExtractionTimedOut,
        Code::ExtractionOutOfMemory, Code::ExtractionCrashed, Code::Forbidden, Code::NotFound, Code::IdempotencyKeyReused,
        Code::IdempotencyKeyInFlight, Code::DocumentBusy, Code::Superseded, Code::LeaseLost, Code::LimitReached
    ]))),
)]
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
    // Beside the claim, most of which is waiting. Seldom is it in vain.
    let opened = saga::Opened::early(&app, source.clone());
    let claim = saga::Request { caller: caller.user, source, key, request_id: invocation.request_id.clone() };
    let claimed = saga::claim(&app, claim, invocation.deadline).instrument(telemetry::stage("claim"));
    let (lease, opened) = match claimed.await? {
        Claimed::Replay(stored) => return Ok(stored.replay()),
        Claimed::Unchanged(answer) => return Ok(answer.respond()),
        Claimed::Refused(problem) => return Err(problem),
        Claimed::Begun(lease) => (lease, Some(opened)),
        Claimed::Resumed(lease) => (lease, None),
    };
    telemetry::note_document(lease.document);
    match saga::run_detached(app, lease, opened, invocation.request_id, invocation.deadline).await? {
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

/// Goes on now with an ingestion that was interrupted, instead of waiting for the sweeper.
///
/// `202` when the time was too short again.
#[utoipa::path(
    post,
    path = "/documents/{id}/retry",
    tag = "documents",
    operation_id = "retry_document",
    security(("access_token" = []), ("api_key" = ["write"])),
    params(("id" = DocumentId, Path, description = "The document.")),
    responses(
        (status = 200, description = "Active.", body = DocumentView),
        (status = 202, description = "On its way.", body = DocumentView, headers(
            ("location" = String, description = "Its path."),
            ("retry-after" = u16, description = "Seconds."),
        )),
    ),
    extensions(("x-codes" = json!([
        Code::InvalidUtf8, Code::ControlCharacter, Code::EmptyDocument, Code::DocumentTooComplex, Code::ScannedDocument,
        Code::PasswordProtected, Code::MalformedDocument, Code::TextTooLarge, Code::ExtractionTimedOut,
        Code::ExtractionOutOfMemory, Code::ExtractionCrashed, Code::Forbidden, Code::DocumentBusy, Code::NotResumable,
        Code::Superseded, Code::LeaseLost
    ]))),
)]
async fn retry(
    State(app): State<App>,
    caller: Writer,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<Response, Problem> {
    telemetry::note_document(id);
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

/// Lists documents, newest first.
#[utoipa::path(
    get,
    path = "/documents",
    tag = "documents",
    operation_id = "list_documents",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(ListParams),
    responses((status = 200, description = "A page.", body = DocumentPage)),
    extensions(("x-codes" = json!([Code::NotFound]))),
)]
async fn list(
    State(app): State<App>,
    caller: Reader,
    Params(params): Params<ListParams>,
) -> Result<Json<DocumentPage>, Problem> {
    Ok(Json(documents::list(&app, caller.user, params.check()?).await?))
}

/// Shows a document, and how far its ingestion is.
#[utoipa::path(
    get,
    path = "/documents/{id}",
    tag = "documents",
    operation_id = "get_document",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(("id" = DocumentId, Path, description = "The document.")),
    responses((status = 200, description = "The document.", body = DocumentView)),
)]
async fn show(
    State(app): State<App>,
    caller: Reader,
    PathId(id): PathId<DocumentId>,
) -> Result<Json<DocumentView>, Problem> {
    telemetry::note_document(id);
    Ok(Json(documents::require_for(&app, caller.user, id).await?))
}

/// Deletes a document.
///
/// No answer contains it from now on. Its points are removed at once if Qdrant is there, else by the sweeper;
/// `/consistency/erasures/{id}` proves it.
#[utoipa::path(
    delete,
    path = "/documents/{id}",
    tag = "documents",
    operation_id = "delete_document",
    security(("access_token" = []), ("api_key" = ["write"])),
    params(("id" = DocumentId, Path, description = "The document.")),
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Forbidden, Code::DocumentBusy]))),
)]
async fn delete(
    State(app): State<App>,
    caller: Writer,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<StatusCode, Problem> {
    telemetry::note_document(id);
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
