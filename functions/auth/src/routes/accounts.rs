//! Registration, login and the caller's profile.

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use shared::{
    App,
    domain::{DisplayName, InvalidValue, KnowledgeBaseId, Role, UserId},
    http::{Client, Invocation, Json, Principal, Reader},
    problem::Problem,
};
use time::OffsetDateTime;

use super::sessions::TokensBody;
use crate::{
    accounts::{Accounts, OtherSessions, PasswordChange, Profile, SignedIn},
    email::Email,
    password::RawPassword,
    users::User,
};

/// Those that try credentials or send mail: limited for each client.
pub(super) fn limited() -> Router<App> {
    Router::new().route("/auth/register", post(register)).route("/auth/login", post(log_in))
}

/// Those of a caller who has proved who they are.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/auth/me", get(profile).patch(update).delete(delete))
        .route("/auth/me/password", post(change_password))
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    /// `null` removes it.
    #[serde(default)]
    display_name: Given,
    email: Option<String>,
    /// Needed for another address.
    password: Option<RawPassword>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    current_password: RawPassword,
    password: RawPassword,
    #[serde(default = "yes")]
    end_other_sessions: bool,
}

fn yes() -> bool {
    true
}

/// A field that may be left out, or be there and `null`.
#[derive(Debug, Default)]
enum Given {
    #[default]
    No,
    Yes(Option<String>),
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Yes)
    }
}

#[derive(Serialize)]
struct UserBody {
    id: UserId,
    email: String,
    email_verified: bool,
    display_name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// By RFC 6749, section 5.1, with the account beside the token.
#[derive(Serialize)]
struct SignedInBody {
    user: UserBody,
    knowledge_base: Option<KnowledgeBaseId>,
    #[serde(flatten)]
    tokens: TokensBody,
}

#[derive(Serialize)]
struct ProfileBody {
    #[serde(flatten)]
    user: UserBody,
    /// The address to which a code was just sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_email: Option<String>,
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
    client: Client,
    Json(body): Json<Registration>,
) -> Result<Response, Problem> {
    let email: Email = body.email.parse().map_err(|error| invalid("email", &error))?;
    let password = body.password.parse_new(&email).map_err(|error| invalid("password", &error))?;
    let display_name = body.display_name.map(|name| name.parse::<DisplayName>());
    let display_name = display_name.transpose().map_err(|error| invalid("display_name", &error))?;
    let signed_in = accounts.register(&call, client, email, password, display_name).await?;
    Ok(match signed_in {
        Some(signed_in) => private(StatusCode::CREATED, SignedInBody::from(signed_in)),
        None => look_into_your_mail(),
    })
}

async fn log_in(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    client: Client,
    Json(body): Json<Login>,
) -> Result<Response, Problem> {
    let email: Email = body.email.parse().map_err(|error| invalid("email", &error))?;
    let password = body.password.parse().map_err(|error| invalid("password", &error))?;
    let signed_in = accounts.log_in(&call, client, email, password).await?;
    Ok(private(StatusCode::OK, SignedInBody::from(signed_in)))
}

async fn profile(Extension(accounts): Extension<Accounts>, caller: Reader) -> Result<Response, Problem> {
    let profile = accounts.profile(caller.user).await?;
    Ok(private(StatusCode::OK, ProfileBody::from(profile)))
}

/// `PATCH /auth/me`: the name at once, the address when its code comes back.
async fn update(
    Extension(accounts): Extension<Accounts>,
    caller: Principal,
    call: Invocation,
    client: Client,
    Json(body): Json<Update>,
) -> Result<Response, Problem> {
    let email = body.email.map(|email| email.parse::<Email>()).transpose();
    let email = email.map_err(|error| invalid("email", &error))?;
    // All of it is read before any of it is done.
    let name = match body.display_name {
        Given::No => None,
        Given::Yes(name) => {
            let name = name.map(|name| name.parse::<DisplayName>()).transpose();
            Some(name.map_err(|error| invalid("display_name", &error))?)
        }
    };
    let mut pending_email = None;
    if let Some(email) = email {
        let password =
            body.password.ok_or_else(|| Problem::invalid_field("password", "is needed for another address"))?;
        let password = password.parse().map_err(|error| invalid("password", &error))?;
        pending_email = Some(email.to_string());
        accounts.change_email(&call, client, caller.user, password, email).await?;
    }
    if let Some(name) = name {
        accounts.rename(&call, caller.user, name).await?;
    }
    let profile = accounts.profile(caller.user).await?;
    Ok(private(StatusCode::OK, ProfileBody { pending_email, ..ProfileBody::from(profile) }))
}

/// `POST /auth/me/password`: the other sessions end, unless they are to stay.
async fn change_password(
    Extension(accounts): Extension<Accounts>,
    caller: Principal,
    call: Invocation,
    client: Client,
    Json(body): Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    let current = body.current_password.parse().map_err(|error| invalid("current_password", &error))?;
    let others = if body.end_other_sessions { OtherSessions::End { but: caller.session } } else { OtherSessions::Stay };
    let change = PasswordChange { current, new: body.password, others };
    accounts.change_password(&call, client, caller.user, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /auth/me`: a token alone is not enough to end an account, because it may be stolen.
async fn delete(
    Extension(accounts): Extension<Accounts>,
    caller: Principal,
    call: Invocation,
    client: Client,
    Json(body): Json<Reauthentication>,
) -> Result<StatusCode, Problem> {
    let password = body.password.parse().map_err(|error| invalid("password", &error))?;
    accounts.delete(&call, client, caller.user, password).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn invalid(field: &str, reason: &InvalidValue) -> Problem {
    Problem::invalid_field(field, reason)
}

/// What everybody is told whose answer is in their mailbox.
pub(super) fn look_into_your_mail() -> Response {
    let body = serde_json::json!({ "detail": "Look into your mail: what there is to say was sent there." });
    private(StatusCode::ACCEPTED, body)
}

/// An answer that no cache may keep: RFC 6749, section 5.1.
pub(super) fn private(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response()
}

impl From<User> for UserBody {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            email_verified: user.email_verified,
            display_name: user.display_name,
            created_at: user.created_at,
        }
    }
}

impl From<SignedIn> for SignedInBody {
    fn from(signed_in: SignedIn) -> Self {
        Self { user: signed_in.user.into(), knowledge_base: signed_in.knowledge_base, tokens: signed_in.tokens.into() }
    }
}

impl From<Profile> for ProfileBody {
    fn from(profile: Profile) -> Self {
        let body = |of: shared::knowledge_bases::Membership| MembershipBody {
            id: of.id,
            role: of.role,
            personal: of.personal,
        };
        Self {
            user: profile.user.into(),
            pending_email: None,
            knowledge_bases: profile.knowledge_bases.into_iter().map(body).collect(),
        }
    }
}
