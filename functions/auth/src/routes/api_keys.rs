//! API keys.

use std::collections::BTreeSet;

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    App,
    api_keys::Scope,
    domain::{ApiKeyId, DisplayName},
    http::{Admin, Invocation, Json, PathId},
    problem::Problem,
};
use time::OffsetDateTime;

use crate::api_keys::{ApiKeyView, ApiKeys, NewApiKey};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/auth/api-keys", get(list).post(create))
        .route("/auth/api-keys/{id}", patch(narrow).delete(revoke))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    name: String,
    scopes: BTreeSet<Scope>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NarrowBody {
    scopes: BTreeSet<Scope>,
}

#[derive(Serialize)]
struct ApiKeyBody {
    id: ApiKeyId,
    name: String,
    prefix: String,
    scopes: BTreeSet<Scope>,
    made_by: Option<ApiKeyId>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

#[derive(Serialize)]
struct NewApiKeyBody {
    #[serde(flatten)]
    key: ApiKeyBody,
    /// The key itself: here, and never again.
    secret: String,
}

#[derive(Serialize)]
struct ListBody {
    items: Vec<ApiKeyBody>,
}

async fn create(
    Extension(keys): Extension<ApiKeys>,
    caller: Admin,
    call: Invocation,
    Json(body): Json<NewBody>,
) -> Result<Response, Problem> {
    let name: DisplayName = body.name.parse().map_err(|error| Problem::invalid_field("name", error))?;
    if body.scopes.is_empty() {
        return Err(Problem::invalid_field("scopes", "is empty"));
    }
    let new = NewApiKey { name, scopes: body.scopes, expires_at: body.expires_at };
    let (view, key) = keys.create(&call, &caller, new).await?;
    // RFC 6749, section 5.1: no cache keeps a credential.
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let body = NewApiKeyBody { key: view.into(), secret: key.expose().to_owned() };
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

async fn list(Extension(keys): Extension<ApiKeys>, caller: Admin) -> Result<Json<ListBody>, Problem> {
    let found = keys.list(caller.user).await?;
    Ok(Json(ListBody { items: found.into_iter().map(ApiKeyBody::from).collect() }))
}

/// `PATCH /auth/api-keys/{id}`: what is not in `scopes` any more is refused from the next request on.
async fn narrow(
    Extension(keys): Extension<ApiKeys>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<ApiKeyId>,
    Json(body): Json<NarrowBody>,
) -> Result<Json<ApiKeyBody>, Problem> {
    Ok(Json(keys.narrow(&call, caller.user, id, body.scopes).await?.into()))
}

async fn revoke(
    Extension(keys): Extension<ApiKeys>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    keys.revoke(&call, caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ApiKeyView> for ApiKeyBody {
    fn from(of: ApiKeyView) -> Self {
        Self {
            id: of.id,
            name: of.name,
            prefix: of.prefix,
            scopes: of.scopes,
            made_by: of.parent,
            created_at: of.created_at,
            expires_at: of.expires_at,
            last_used_at: of.last_used_at,
        }
    }
}
