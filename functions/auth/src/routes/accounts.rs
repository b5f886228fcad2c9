//! Registration, login and the caller's profile.

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use shared::{
    App,
    domain::{DisplayName, InvalidValue, KnowledgeBaseId, Role, UserId},
    http::{Invocation, Json, Principal, Reader},
    problem::Problem,
};
use time::OffsetDateTime;

use crate::{
    accounts::{Accounts, Profile, SignedIn},
    email::Email,
    password::RawPassword,
    users::User,
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(log_in))
        .route("/auth/me", get(profile).delete(delete))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    email: String,
    password: RawPassword,
    display_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    email: String,
    password: RawPassword,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reauthentication {
    password: RawPassword,
}

#[derive(Serialize)]
struct UserBody {
    id: UserId,
    email: String,
    display_name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// By RFC 6749, section 5.1, with the account beside the token.
#[derive(Serialize)]
struct SignedInBody {
    user: UserBody,
    knowledge_base: Option<KnowledgeBaseId>,
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

#[derive(Serialize)]
struct ProfileBody {
    #[serde(flatten)]
    user: UserBody,
    knowledge_bases: Vec<MembershipBody>,
}

#[derive(Serialize)]
struct MembershipBody {
    id: KnowledgeBaseId,
    role: Role,
    personal: bool,
}

async fn register(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Registration>,
) -> Result<Response, Problem> {
    let email: Email = body.email.parse().map_err(|error| invalid("email", &error))?;
    let password = body.password.parse_new(&email).map_err(|error| invalid("password", &error))?;
    let display_name = body.display_name.map(|name| name.parse::<DisplayName>());
    let display_name = display_name.transpose().map_err(|error| invalid("display_name", &error))?;
    let signed_in = accounts.register(&call, email, password, display_name).await?;
    Ok(private(StatusCode::CREATED, SignedInBody::from(signed_in)))
}

async fn log_in(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Login>,
) -> Result<Response, Problem> {
    let email: Email = body.email.parse().map_err(|error| invalid("email", &error))?;
    let password = body.password.parse().map_err(|error| invalid("password", &error))?;
    let signed_in = accounts.log_in(&call, email, password).await?;
    Ok(private(StatusCode::OK, SignedInBody::from(signed_in)))
}

async fn profile(Extension(accounts): Extension<Accounts>, caller: Reader) -> Result<Response, Problem> {
    let profile = accounts.profile(caller.user).await?;
    Ok(private(StatusCode::OK, ProfileBody::from(profile)))
}

/// `DELETE /auth/me`: a token alone is not enough to end an account, because it may be stolen.
async fn delete(
    Extension(accounts): Extension<Accounts>,
    caller: Principal,
    call: Invocation,
    Json(body): Json<Reauthentication>,
) -> Result<StatusCode, Problem> {
    let password = body.password.parse().map_err(|error| invalid("password", &error))?;
    accounts.delete(&call, caller.user, password).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn invalid(field: &str, reason: &InvalidValue) -> Problem {
    Problem::invalid_field(field, reason)
}

/// An answer that no cache may keep: RFC 6749, section 5.1.
fn private(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response()
}

impl From<User> for UserBody {
    fn from(user: User) -> Self {
        Self { id: user.id, email: user.email, display_name: user.display_name, created_at: user.created_at }
    }
}

impl From<SignedIn> for SignedInBody {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            user: signed_in.user.into(),
            knowledge_base: signed_in.knowledge_base,
            access_token: signed_in.access_token.token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: signed_in.access_token.expires_in.as_secs(),
        }
    }
}

impl From<Profile> for ProfileBody {
    fn from(profile: Profile) -> Self {
        let body = |of: shared::knowledge_bases::Membership| MembershipBody {
            id: of.id,
            role: of.role,
            personal: of.personal,
        };
        Self { user: profile.user.into(), knowledge_bases: profile.knowledge_bases.into_iter().map(body).collect() }
    }
}
