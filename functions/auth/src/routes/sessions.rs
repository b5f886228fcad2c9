//! Sessions: refresh, logout, and the list of them.

use axum::{
    Extension, Router,
    response::Response,
    routing::{delete, get, post},
};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use shared::{
    App,
    domain::SessionId,
    http::{Body, Client, Invocation, Json, PathId, Principal},
    problem::{Code, Problem},
};
use time::OffsetDateTime;

use super::accounts::private;
use crate::{
    error::AuthError,
    sessions::{SessionView, Sessions, Tokens, token::RawToken},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/auth/refresh", post(refresh))
        .route("/auth/logout", post(log_out))
        .route("/auth/logout-all", post(log_out_all))
        .route("/auth/sessions", get(list))
        .route("/auth/sessions/{id}", delete(end))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    refresh_token: RawToken,
}

/// By RFC 6749, section 5.1.
#[derive(Serialize)]
pub(super) struct TokensBody {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    refresh_token: String,
}

#[derive(Serialize)]
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

#[derive(Serialize)]
struct SessionsBody {
    items: Vec<SessionBody>,
}

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

/// With a refresh token as its body it needs no other proof; without a body it ends the session of the access token.
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

async fn log_out_all(
    Extension(sessions): Extension<Sessions>,
    caller: Principal,
    call: Invocation,
) -> Result<StatusCode, Problem> {
    sessions.log_out_all(&call, caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(Extension(sessions): Extension<Sessions>, caller: Principal) -> Result<Response, Problem> {
    let found = sessions.list(caller.user).await?;
    let items = found.into_iter().map(|of| SessionBody::new(of, caller.session)).collect();
    Ok(private(StatusCode::OK, SessionsBody { items }))
}

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
