//! Knowledge bases.

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    domain::{DisplayName, KnowledgeBaseId, Role},
    http::{Admin, Invocation, Json, Params, PathId, Reader, Routes},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::knowledge_bases::{KnowledgeBase, KnowledgeBases, Page};

/// The page of a list when the client does not say.
const LIMIT_DEFAULT: usize = 50;

/// The largest page of a list.
const LIMIT_MAX: usize = 200;

pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(create, list)).routes(routes!(rename, remove))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"name": "Handbooks"})))]
struct NewKnowledgeBase {
    #[schema(value_type = DisplayName)]
    name: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// At most so many; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Where the page before ended: its `next_cursor`.
    #[param(value_type = Option<KnowledgeBaseId>)]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "019ab1ef-0a44-7d19-8f5b-c70e1d62b935", "name": "Handbooks", "role": "owner", "personal": false,
    "created_at": "2026-11-25T09:31:00Z"
})))]
struct KnowledgeBaseBody {
    id: KnowledgeBaseId,
    name: String,
    role: Role,
    personal: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"items": [{
    "id": "019ab1ef-0a44-7d19-8f5b-c70e1d62b935", "name": "Handbooks", "role": "owner", "personal": false,
    "created_at": "2026-11-25T09:31:00Z"
}], "next_cursor": null})))]
struct KnowledgeBasesBody {
    items: Vec<KnowledgeBaseBody>,
    next_cursor: Option<String>,
}

/// Makes a knowledge base, which the caller owns.
#[utoipa::path(
    post,
    path = "/knowledge-bases",
    tag = "knowledge bases",
    operation_id = "create_knowledge_base",
    security(("access_token" = []), ("api_key" = ["admin"])),
    request_body = NewKnowledgeBase,
    responses((status = 201, description = "The knowledge base.", body = KnowledgeBaseBody, headers(("location" = String, description = "Its path.")))),
)]
async fn create(
    Extension(knowledge_bases): Extension<KnowledgeBases>,
    caller: Admin,
    call: Invocation,
    Json(body): Json<NewKnowledgeBase>,
) -> Result<Response, Problem> {
    let name: DisplayName = body.name.parse().map_err(|error| Problem::invalid_field("name", error))?;
    let made = knowledge_bases.create(&call, caller.user, name).await?;
    let location = HeaderValue::try_from(format!("/knowledge-bases/{}", made.id)).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(KnowledgeBaseBody::from(made))).into_response())
}

/// Lists the knowledge bases of which the caller is a member.
#[utoipa::path(
    get,
    path = "/knowledge-bases",
    tag = "knowledge bases",
    operation_id = "list_knowledge_bases",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(ListParams),
    responses((status = 200, description = "A page of them, with the role that the caller has in each.", body = KnowledgeBasesBody)),
)]
async fn list(
    Extension(knowledge_bases): Extension<KnowledgeBases>,
    caller: Reader,
    Params(params): Params<ListParams>,
) -> Result<Json<KnowledgeBasesBody>, Problem> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid_field("limit", format!("is not between 1 and {LIMIT_MAX}")));
    }
    let after = params.cursor.map(|cursor| cursor.parse());
    let after = after.transpose().map_err(|_| Problem::invalid_field("cursor", "is not one that a list returned"))?;
    let (found, more) = knowledge_bases.list(caller.user, Page { after, limit }).await?;
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(KnowledgeBasesBody { items: found.into_iter().map(KnowledgeBaseBody::from).collect(), next_cursor }))
}

/// Renames a knowledge base. Only its owners may.
#[utoipa::path(
    patch,
    path = "/knowledge-bases/{id}",
    tag = "knowledge bases",
    operation_id = "rename_knowledge_base",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base.")),
    request_body = NewKnowledgeBase,
    responses((status = 200, description = "The knowledge base as it is now.", body = KnowledgeBaseBody)),
    extensions(("x-codes" = json!([Code::Forbidden]))),
)]
async fn rename(
    Extension(knowledge_bases): Extension<KnowledgeBases>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<KnowledgeBaseId>,
    Json(body): Json<NewKnowledgeBase>,
) -> Result<Json<KnowledgeBaseBody>, Problem> {
    let name: DisplayName = body.name.parse().map_err(|error| Problem::invalid_field("name", error))?;
    Ok(Json(knowledge_bases.rename(&call, caller.user, id, name).await?.into()))
}

/// Deletes a knowledge base with all its documents. Only its owners may.
///
/// It is out of every answer when this returns; the stores are cleaned by the sweeper.
#[utoipa::path(
    delete,
    path = "/knowledge-bases/{id}",
    tag = "knowledge bases",
    operation_id = "delete_knowledge_base",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base.")),
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Forbidden, Code::PersonalKnowledgeBase]))),
)]
async fn remove(
    Extension(knowledge_bases): Extension<KnowledgeBases>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<KnowledgeBaseId>,
) -> Result<StatusCode, Problem> {
    knowledge_bases.delete(&call, caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KnowledgeBase> for KnowledgeBaseBody {
    fn from(of: KnowledgeBase) -> Self {
        Self { id: of.id, name: of.name, role: of.role, personal: of.personal, created_at: of.created_at }
    }
}
