//! What is proved by mail: addresses, and new passwords.

use axum::{Extension, response::Response};
use http::StatusCode;
use serde::Deserialize;
use shared::{
    http::{Client, Invocation, Json, Routes},
    problem::{Code, Problem},
    routes,
};
use utoipa::ToSchema;

use super::accounts::{MailedBody, look_into_your_mail};
use crate::{
    accounts::Accounts,
    codes::CodeHash,
    email::Email,
    password::{NewPasswordText, RawPassword},
    sessions::token::RawToken,
};

pub(super) fn limited() -> Routes {
    Routes::new()
        .routes(routes!(verify))
        .routes(routes!(resend))
        .routes(routes!(reset_password))
        .routes(routes!(confirm_reset))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"code": "VGhlIGNvZGUgdGhhdCB3YXMgbWFpbGVk"})))]
struct Verification {
    code: RawToken,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"email": "ada@example.com"})))]
struct Address {
    #[schema(value_type = Email)]
    email: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"code": "VGhlIGNvZGUgdGhhdCB3YXMgbWFpbGVk", "password": "staple of another horse"})))]
struct ResetPassword {
    code: RawToken,
    #[schema(value_type = NewPasswordText)]
    password: RawPassword,
}

/// Confirms an address with the code that was mailed there.
#[utoipa::path(
    post,
    path = "/auth/verify",
    tag = "mail",
    operation_id = "verify_address",
    request_body = Verification,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::EmailTaken, Code::RateLimited]))),
)]
async fn verify(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Verification>,
) -> Result<StatusCode, Problem> {
    accounts.mailboxes().verify(&call, CodeHash::from(&body.code)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mails the code that confirms an address again.
///
/// The answer is the same whether or not the address has an account.
#[utoipa::path(
    post,
    path = "/auth/verify/resend",
    tag = "mail",
    operation_id = "resend_code",
    request_body = Address,
    responses((status = 202, description = "What there is to say was mailed.", body = MailedBody)),
    extensions(("x-codes" = json!([Code::RateLimited]))),
)]
async fn resend(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Address>,
) -> Result<Response, Problem> {
    accounts.mailboxes().resend(&call, email(&body)?).await?;
    Ok(look_into_your_mail())
}

/// Mails a code for a new password.
///
/// The answer is the same whether or not the address has an account.
#[utoipa::path(
    post,
    path = "/auth/password-reset",
    tag = "mail",
    operation_id = "reset_password",
    request_body = Address,
    responses((status = 202, description = "What there is to say was mailed.", body = MailedBody)),
    extensions(("x-codes" = json!([Code::RateLimited]))),
)]
async fn reset_password(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Address>,
) -> Result<Response, Problem> {
    accounts.mailboxes().reset_password(&call, email(&body)?).await?;
    Ok(look_into_your_mail())
}

/// Sets the password with the code that was mailed, and ends all sessions.
#[utoipa::path(
    post,
    path = "/auth/password-reset/confirm",
    tag = "mail",
    operation_id = "confirm_password_reset",
    request_body = ResetPassword,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::RateLimited]))),
)]
async fn confirm_reset(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    client: Client,
    Json(body): Json<ResetPassword>,
) -> Result<StatusCode, Problem> {
    accounts.mailboxes().confirm_reset(&call, client, CodeHash::from(&body.code), body.password).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn email(body: &Address) -> Result<Email, Problem> {
    body.email.parse().map_err(|error| Problem::invalid_field("email", error))
}
