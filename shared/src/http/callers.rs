//! Who calls, where API keys are taken.
//!
//! A route takes keys only by naming the scope that they need, as the type of its caller: [`Reader`], [`Writer`] or
//! [`Admin`]. The plain [`Principal`] refuses every key, so a route whose author thought of none is closed to them. An
//! access token is its account's own and holds for all of them.

use axum::extract::FromRequestParts;
use http::{header, request::Parts};

use super::Principal;
use crate::{
    App,
    api_keys::{self, KeyGrant, MARK, Scope},
    domain::UserId,
    problem::{Code, Problem},
    telemetry,
};

/// What a request brings along.
pub(super) enum Bearer {
    /// An access token, to be checked.
    Token(String),
    /// An API key that holds.
    Key(KeyGrant),
}

pub(super) fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "Send a valid access token or API key: `Authorization: Bearer ...`.")
}

/// Reads `Authorization`; a key is looked up.
pub(super) async fn bearer(parts: &Parts, app: &App) -> Result<Bearer, Problem> {
    // One header: with two, a gateway may have checked the other one.
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(unauthenticated()) };
    let value = value.to_str().map_err(|error| unauthenticated().caused_by(error))?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated());
    }
    let credential = credential.trim();
    if !credential.starts_with(MARK) {
        return Ok(Bearer::Token(credential.to_owned()));
    }
    let key = credential.parse().map_err(|error: api_keys::MalformedKey| unauthenticated().caused_by(error))?;
    api_keys::authenticate(&app.db, &key).await?.map(Bearer::Key).ok_or_else(unauthenticated)
}

/// The account behind the request, and its key, if that has `scope`.
async fn caller(parts: &mut Parts, app: &App, scope: Scope) -> Result<(UserId, Option<KeyGrant>), Problem> {
    match bearer(parts, app).await? {
        Bearer::Token(_) => Ok((Principal::from_request_parts(parts, app).await?.user, None)),
        Bearer::Key(grant) if grant.scopes.contains(&scope) => {
            telemetry::note_user(grant.user);
            Ok((grant.user, Some(grant)))
        }
        Bearer::Key(_) => {
            let detail = format!("The API key does not have the scope `{}`.", scope.as_str());
            Err(Problem::new(Code::InsufficientScope, detail).with("scope", scope.as_str()))
        }
    }
}

/// Declares the caller of routes that need a scope.
macro_rules! caller {
    ($(#[$doc:meta])* $name:ident, $scope:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            /// The account.
            pub user: UserId,
            /// The key by which it calls; `None` for an access token.
            pub key: Option<KeyGrant>,
        }

        impl FromRequestParts<App> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
                caller(parts, app, $scope).await.map(|(user, key)| Self { user, key })
            }
        }
    };
}

caller!(
    /// Whoever may read: an access token, or a key with [`Scope::Read`].
    Reader,
    Scope::Read
);
caller!(
    /// Whoever may change documents: an access token, or a key with [`Scope::Write`].
    Writer,
    Scope::Write
);
caller!(
    /// Whoever may manage what the account owns: an access token, or a key with [`Scope::Admin`].
    Admin,
    Scope::Admin
);
