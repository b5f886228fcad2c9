//! API keys.

use std::collections::BTreeSet;

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    api_keys::Scope,
    domain::{ApiKeyId, DisplayName},
    http::{Admin, Invocation, Json, PathId, Routes},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::api_keys::{ApiKeyView, ApiKeys, NewApiKey};

pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(narrow, revoke))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"name": "ci", "scopes": ["read", "write"]})))]
struct CreateApiKey {
    #[schema(value_type = DisplayName)]
    name: String,
    #[schema(value_type = Vec<Scope>, min_items = 1)]
    scopes: BTreeSet<Scope>,
    /// In the future, and at most 366 days from now; 90 days from now unless told.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"scopes": ["read"]})))]
struct NarrowApiKey {
    #[schema(value_type = Vec<Scope>)]
    scopes: BTreeSet<Scope>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "019ab1ee-6a10-7e02-b5d4-93c1f8a07e66", "name": "ci", "prefix": "lk_1a2b3c4d", "scopes": ["read", "write"],
    "made_by": null, "created_at": "2026-11-25T09:30:00Z", "expires_at": "2027-02-23T09:30:00Z", "last_used_at": null
})))]
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

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "019ab1ee-6a10-7e02-b5d4-93c1f8a07e66", "name": "ci", "prefix": "lk_1a2b3c4d", "scopes": ["read", "write"],
    "made_by": null, "created_at": "2026-11-25T09:30:00Z", "expires_at": "2027-02-23T09:30:00Z", "last_used_at": null,
    "secret": "lk_1a2b3c4d_..."
})))]
struct NewApiKeyBody {
    #[serde(flatten)]
    key: ApiKeyBody,
    /// The key itself: here, and never again.
    secret: String,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"items": [{
    "id": "019ab1ee-6a10-7e02-b5d4-93c1f8a07e66", "name": "ci", "prefix": "lk_1a2b3c4d", "scopes": ["read", "write"],
    "made_by": null, "created_at": "2026-11-25T09:30:00Z", "expires_at": "2027-02-23T09:30:00Z", "last_used_at": null
}]})))]
struct ApiKeysBody {
    items: Vec<ApiKeyBody>,
}

/// Makes an API key.
///
/// The key itself is in this answer and in no other. A key can not make one that reaches further or lives longer than itself.
#[utoipa::path(
    post,
    path = "/auth/api-keys",
    tag = "api keys",
    operation_id = "create_api_key",
    security(("access_token" = []), ("api_key" = ["admin"])),
    request_body = CreateApiKey,
    responses((status = 201, description = "The key.", body = NewApiKeyBody)),
    extensions(("x-codes" = json!([Code::LimitReached]))),
)]
async fn create(
    Extension(keys): Extension<ApiKeys>,
    caller: Admin,
    call: Invocation,
    Json(body): Json<CreateApiKey>,
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

/// Lists the API keys of the account.
#[utoipa::path(
    get,
    path = "/auth/api-keys",
    tag = "api keys",
    operation_id = "list_api_keys",
    security(("access_token" = []), ("api_key" = ["admin"])),
    responses((status = 200, description = "The keys, without their secrets.", body = ApiKeysBody)),
)]
async fn list(Extension(keys): Extension<ApiKeys>, caller: Admin) -> Result<Json<ApiKeysBody>, Problem> {
    let found = keys.list(caller.user).await?;
    Ok(Json(ApiKeysBody { items: found.into_iter().map(ApiKeyBody::from).collect() }))
}

/// Takes scopes from an API key, and from those that it made.
///
/// What is not in `scopes` any more is refused from the next request on; nothing is ever added.
#[utoipa::path(
    patch,
    path = "/auth/api-keys/{id}",
    tag = "api keys",
    operation_id = "narrow_api_key",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = ApiKeyId, Path, description = "The key.")),
    request_body = NarrowApiKey,
    responses((status = 200, description = "The key as it is now.", body = ApiKeyBody)),
)]
async fn narrow(
    Extension(keys): Extension<ApiKeys>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<ApiKeyId>,
    Json(body): Json<NarrowApiKey>,
) -> Result<Json<ApiKeyBody>, Problem> {
    Ok(Json(keys.narrow(&call, caller.user, id, body.scopes).await?.into()))
}

/// Revokes an API key, and those that it made, from the next request on.
#[utoipa::path(
    delete,
    path = "/auth/api-keys/{id}",
    tag = "api keys",
    operation_id = "revoke_api_key",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = ApiKeyId, Path, description = "The key.")),
    responses((status = 204, description = "Done.")),
)]
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
