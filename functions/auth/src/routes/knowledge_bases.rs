//! Knowledge bases.

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::{patch, post},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    App,
    domain::{DisplayName, KnowledgeBaseId, Role},
    http::{Admin, Invocation, Json, Params, PathId, Reader},
    problem::Problem,
};
use time::OffsetDateTime;

use crate::knowledge_bases::{KnowledgeBase, KnowledgeBases, Page};

/// The page of a list when the client does not say.
const LIMIT_DEFAULT: usize = 50;

/// The largest page of a list.
const LIMIT_MAX: usize = 200;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/knowledge-bases", post(create).get(list))
        .route("/knowledge-bases/{id}", patch(rename).delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKnowledgeBase {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct KnowledgeBaseBody {
    id: KnowledgeBaseId,
    name: String,
    role: Role,
    personal: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Serialize)]
struct PageBody {
    items: Vec<KnowledgeBaseBody>,
    next_cursor: Option<String>,
}

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

async fn list(
    Extension(knowledge_bases): Extension<KnowledgeBases>,
    caller: Reader,
    Params(params): Params<ListParams>,
) -> Result<Json<PageBody>, Problem> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid_field("limit", format!("is not between 1 and {LIMIT_MAX}")));
    }
    let after = params.cursor.map(|cursor| cursor.parse());
    let after = after.transpose().map_err(|_| Problem::invalid_field("cursor", "is not one that a list returned"))?;
    let (found, more) = knowledge_bases.list(caller.user, Page { after, limit }).await?;
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(PageBody { items: found.into_iter().map(KnowledgeBaseBody::from).collect(), next_cursor }))
}

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

/// `DELETE /knowledge-bases/{id}`: out of sight when it answers; the points are removed by the sweeper.
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
