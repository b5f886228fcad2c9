//! What is proved by mail: addresses, and new passwords.

use axum::{Extension, Router, response::Response, routing::post};
use http::StatusCode;
use serde::Deserialize;
use shared::{
    App,
    http::{Client, Invocation, Json},
    problem::Problem,
};

use super::accounts::look_into_your_mail;
use crate::{accounts::Accounts, codes::CodeHash, email::Email, password::RawPassword, sessions::token::RawToken};

pub(super) fn limited() -> Router<App> {
    Router::new()
        .route("/auth/verify", post(verify))
        .route("/auth/verify/resend", post(resend))
        .route("/auth/password-reset", post(reset_password))
        .route("/auth/password-reset/confirm", post(confirm_reset))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: RawToken,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    email: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    code: RawToken,
    password: RawPassword,
}

async fn verify(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Code>,
) -> Result<StatusCode, Problem> {
    accounts.mailboxes().verify(&call, CodeHash::from(&body.code)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resend(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Address>,
) -> Result<Response, Problem> {
    accounts.mailboxes().resend(&call, email(&body)?).await?;
    Ok(look_into_your_mail())
}

async fn reset_password(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    Json(body): Json<Address>,
) -> Result<Response, Problem> {
    accounts.mailboxes().reset_password(&call, email(&body)?).await?;
    Ok(look_into_your_mail())
}

async fn confirm_reset(
    Extension(accounts): Extension<Accounts>,
    call: Invocation,
    client: Client,
    Json(body): Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    accounts.mailboxes().confirm_reset(&call, client, CodeHash::from(&body.code), body.password).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn email(body: &Address) -> Result<Email, Problem> {
    body.email.parse().map_err(|error| Problem::invalid_field("email", error))
}
