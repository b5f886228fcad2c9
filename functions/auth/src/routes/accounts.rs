//! Registration, login and the caller's profile.

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use shared::{
    domain::{DisplayName, InvalidValue, KnowledgeBaseId, Role, UserId},
    http::{Client, Invocation, Json, Principal, Reader, Routes},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::sessions::TokensBody;
use crate::{
    accounts::{Accounts, OtherSessions, PasswordChange, Profile, SignedIn},
    email::Email,
    password::{NewPasswordText, RawPassword},
    users::User,
};

/// Those that try credentials or send mail: limited for each client.
pub(super) fn limited() -> Routes {
    Routes::new().routes(routes!(register)).routes(routes!(log_in))
}

/// Those of a caller who has proved who they are.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(profile, update, delete)).routes(routes!(change_password))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"email": "ada@example.com", "password": "correct horse battery", "display_name": "Ada Lovelace"})))]
struct Registration {
    #[schema(value_type = Email)]
    email: String,
    #[schema(value_type = NewPasswordText)]
    password: RawPassword,
    #[schema(value_type = Option<DisplayName>)]
    display_name: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"email": "ada@example.com", "password": "correct horse battery"})))]
struct Login {
    #[schema(value_type = Email)]
    email: String,
    password: RawPassword,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"password": "correct horse battery"})))]
struct Reauthentication {
    password: RawPassword,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"display_name": "Ada King"})))]
struct Update {
    /// `null` removes it.
    #[serde(default)]
    #[schema(value_type = Option<DisplayName>)]
    display_name: Given,
    #[schema(value_type = Option<Email>)]
    email: Option<String>,
    /// Needed for another address.
    password: Option<RawPassword>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"current_password": "correct horse battery", "password": "staple of another horse"})))]
struct NewPassword {
    current_password: RawPassword,
    #[schema(value_type = NewPasswordText)]
    password: RawPassword,
    /// Unless told otherwise, they do.
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

#[derive(Serialize, ToSchema)]
struct UserBody {
    id: UserId,
    email: String,
    email_verified: bool,
    display_name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// By RFC 6749, section 5.1, with the account beside the token.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "user": {"id": "019ab1ee-5f0b-7a51-8c42-0d9e6b3f7a24", "email": "ada@example.com", "email_verified": true, "display_name": "Ada Lovelace",
    "created_at": "2026-11-25T09:30:00Z"},
    "knowledge_base": "019ab1ee-5f0c-7c3a-9d1e-2b7f4c8a6e10",
    "access_token": "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900,
    "refresh_token": "lr_VGhlIGZhbWlseSBvZiBhIHNlc3Npb24..."
})))]
struct SignedInBody {
    user: UserBody,
    knowledge_base: Option<KnowledgeBaseId>,
    #[serde(flatten)]
    tokens: TokensBody,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "019ab1ee-5f0b-7a51-8c42-0d9e6b3f7a24", "email": "ada@example.com", "email_verified": true, "display_name": "Ada Lovelace",
    "created_at": "2026-11-25T09:30:00Z",
    "knowledge_bases": [{"id": "019ab1ee-5f0c-7c3a-9d1e-2b7f4c8a6e10", "role": "owner", "personal": true}]
})))]
struct ProfileBody {
    #[serde(flatten)]
    user: UserBody,
    /// The address to which a code was just sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_email: Option<String>,
    knowledge_bases: Vec<MembershipBody>,
}

#[derive(Serialize, ToSchema)]
struct MembershipBody {
    id: KnowledgeBaseId,
    role: Role,
    personal: bool,
}

/// Makes an account.
///
/// The answer is `201` with the tokens of a session where registration is open (`AUTH_REGISTRATION=open`), else `202`: then
/// the account holds when the code that was mailed comes back to `/auth/verify`.
#[utoipa::path(
    post,
    path = "/auth/register",
    tag = "accounts",
    operation_id = "register",
    request_body = Registration,
    responses((status = 201, description = "The account, signed in.", body = SignedInBody), (status = 202, description = "What there is to say was mailed.", body = MailedBody)),
    extensions(("x-codes" = json!([Code::EmailTaken, Code::RateLimited]))),
)]
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

/// Begins a session.
#[utoipa::path(
    post,
    path = "/auth/login",
    tag = "accounts",
    operation_id = "log_in",
    request_body = Login,
    responses((status = 200, description = "The tokens of the session.", body = SignedInBody)),
    extensions(("x-codes" = json!([Code::InvalidCredentials, Code::EmailUnverified, Code::RateLimited]))),
)]
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

/// Shows the account and its knowledge bases.
#[utoipa::path(
    get,
    path = "/auth/me",
    tag = "accounts",
    operation_id = "get_account",
    security(("access_token" = []), ("api_key" = ["read"])),
    responses((status = 200, description = "The account.", body = ProfileBody)),
)]
async fn profile(Extension(accounts): Extension<Accounts>, caller: Reader) -> Result<Response, Problem> {
    let profile = accounts.profile(caller.user).await?;
    Ok(private(StatusCode::OK, ProfileBody::from(profile)))
}

/// Changes the account.
///
/// The name changes at once, and `null` removes it; the address, which needs the password, changes when the code that is sent
/// there comes back to `/auth/verify`.
#[utoipa::path(
    patch,
    path = "/auth/me",
    tag = "accounts",
    operation_id = "update_account",
    security(("access_token" = [])),
    request_body = Update,
    responses((status = 200, description = "The account as it is now.", body = ProfileBody)),
    extensions(("x-codes" = json!([Code::InvalidCredentials, Code::RateLimited]))),
)]
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
    let password = body.password.map(|password| password.parse()).transpose();
    let password = password.map_err(|error| invalid("password", &error))?;
    let mut pending_email = None;
    if let Some(email) = email {
        let password = password.ok_or_else(|| Problem::invalid_field("password", "is needed for another address"))?;
        pending_email = Some(email.to_string());
        accounts.change_email(&call, client, caller.user, password, email).await?;
    }
    if let Some(name) = name {
        accounts.rename(&call, caller.user, name).await?;
    }
    let profile = accounts.profile(caller.user).await?;
    Ok(private(StatusCode::OK, ProfileBody { pending_email, ..ProfileBody::from(profile) }))
}

/// Changes the password.
///
/// The other sessions end, unless they are to stay.
#[utoipa::path(
    post,
    path = "/auth/me/password",
    tag = "accounts",
    operation_id = "change_password",
    security(("access_token" = [])),
    request_body = NewPassword,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::InvalidCredentials, Code::RateLimited]))),
)]
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

/// Deletes the account.
///
/// With everything that belongs to it. A token alone is not enough, because it may be stolen: the password is asked for.
#[utoipa::path(
    delete,
    path = "/auth/me",
    tag = "accounts",
    operation_id = "delete_account",
    security(("access_token" = [])),
    request_body = Reauthentication,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::InvalidCredentials, Code::RateLimited]))),
)]
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
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"detail": "Look into your mail: what there is to say was sent there."})))]
pub(super) struct MailedBody {
    detail: &'static str,
}

pub(super) fn look_into_your_mail() -> Response {
    let detail = "Look into your mail: what there is to say was sent there.";
    private(StatusCode::ACCEPTED, MailedBody { detail })
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
