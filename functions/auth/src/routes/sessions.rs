//! Sessions: refresh, logout, and the list of them.

use axum::{Extension, response::Response};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use shared::{
    domain::SessionId,
    http::{Body, Client, Invocation, Json, PathId, Principal, Routes},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::accounts::private;
use crate::{
    error::AuthError,
    sessions::{SessionView, Sessions, Tokens, token::RawToken},
};

pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(refresh))
        .routes(routes!(log_out))
        .routes(routes!(log_out_all))
        .routes(routes!(list))
        .routes(routes!(end))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"refresh_token": "lr_VGhlIGZhbWlseSBvZiBhIHNlc3Npb24..."})))]
struct Refresh {
    refresh_token: RawToken,
}

/// By RFC 6749, section 5.1.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"access_token": "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900,
    "refresh_token": "lr_VGhlIGZhbWlseSBvZiBhIHNlc3Npb24..."})))]
pub(super) struct TokensBody {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
struct SessionBody {
    id: SessionId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    last_used_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    address: Option<String>,
    user_agent: Option<String>,
    current: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"items": [{
    "id": "019ab1ee-5f0d-7b88-a1c3-6e2d9f4b8071", "created_at": "2026-11-25T09:30:00Z", "last_used_at": "2026-11-25T10:15:00Z",
    "expires_at": "2026-12-25T10:15:00Z", "address": "192.0.2.7", "user_agent": "curl/8.5.0", "current": true
}]})))]
struct SessionsBody {
    items: Vec<SessionBody>,
}

/// Renews the tokens of a session.
///
/// Each refresh token is good for one renewal; one that comes a second time ends the session, unless it comes within seconds.
#[utoipa::path(
    post,
    path = "/auth/refresh",
    tag = "sessions",
    operation_id = "refresh_session",
    request_body = Refresh,
    responses((status = 200, description = "The next tokens.", body = TokensBody)),
    extensions(("x-codes" = json!([Code::Unauthenticated]))),
)]
async fn refresh(
    Extension(sessions): Extension<Sessions>,
    call: Invocation,
    client: Client,
    Json(body): Json<Refresh>,
) -> Result<Response, Problem> {
    let token = body.refresh_token.parse().map_err(|_| AuthError::SessionEnded)?;
    let (_, tokens) = sessions.refresh(&call, client, token).await?;
    Ok(private(StatusCode::OK, TokensBody::from(tokens)))
}

/// Ends this session.
///
/// With a refresh token as its body it needs no other proof; without a body it ends the session of the access token. `204` also
/// when it has ended already.
#[utoipa::path(
    post,
    path = "/auth/logout",
    tag = "sessions",
    operation_id = "log_out",
    security((), ("access_token" = [])),
    request_body = Option<Refresh>,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Unauthenticated]))),
)]
async fn log_out(
    Extension(sessions): Extension<Sessions>,
    call: Invocation,
    caller: Result<Principal, Problem>,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    if body.is_empty() {
        let caller = caller?;
        let detail = "This access token belongs to no session.";
        let session = caller.session.ok_or_else(|| Problem::new(Code::InvalidRequest, detail))?;
        match sessions.end(&call, caller.user, session).await {
            // It has ended already.
            Ok(()) | Err(AuthError::NoSession) => Ok(StatusCode::NO_CONTENT),
            Err(error) => Err(error.into()),
        }
    } else {
        let body: Refresh = Json::parse(&body)?;
        if let Ok(token) = body.refresh_token.parse() {
            sessions.log_out(&call, token).await?;
        }
        Ok(StatusCode::NO_CONTENT)
    }
}

/// Ends all sessions of the account.
#[utoipa::path(
    post,
    path = "/auth/logout-all",
    tag = "sessions",
    operation_id = "log_out_everywhere",
    security(("access_token" = [])),
    responses((status = 204, description = "Done.")),
)]
async fn log_out_all(
    Extension(sessions): Extension<Sessions>,
    caller: Principal,
    call: Invocation,
) -> Result<StatusCode, Problem> {
    sessions.log_out_all(&call, caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the sessions of the account.
#[utoipa::path(
    get,
    path = "/auth/sessions",
    tag = "sessions",
    operation_id = "list_sessions",
    security(("access_token" = [])),
    responses((status = 200, description = "The sessions.", body = SessionsBody)),
)]
async fn list(Extension(sessions): Extension<Sessions>, caller: Principal) -> Result<Response, Problem> {
    let found = sessions.list(caller.user).await?;
    let items = found.into_iter().map(|of| SessionBody::new(of, caller.session)).collect();
    Ok(private(StatusCode::OK, SessionsBody { items }))
}

/// Ends one session.
#[utoipa::path(
    delete,
    path = "/auth/sessions/{id}",
    tag = "sessions",
    operation_id = "end_session",
    security(("access_token" = [])),
    params(("id" = SessionId, Path, description = "The session.")),
    responses((status = 204, description = "Done.")),
)]
async fn end(
    Extension(sessions): Extension<Sessions>,
    caller: Principal,
    call: Invocation,
    PathId(id): PathId<SessionId>,
) -> Result<StatusCode, Problem> {
    sessions.end(&call, caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Tokens> for TokensBody {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: tokens.access.token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: tokens.access.expires_in.as_secs(),
            refresh_token: tokens.refresh.expose().expose_secret().to_owned(),
        }
    }
}

impl SessionBody {
    fn new(of: SessionView, current: Option<SessionId>) -> Self {
        Self {
            id: of.id,
            created_at: of.created_at,
            last_used_at: of.last_used_at,
            expires_at: of.expires_at,
            address: of.address,
            user_agent: of.user_agent,
            current: current == Some(of.id),
        }
    }
}
