//! Accounts: registration, login, access tokens, and the documents by which others check them.
//!
//! The data walks one way: [`routes`] parses a request into [`email::Email`] and [`password::Password`],
//! [`accounts`] and [`knowledge_bases`] decide, [`users`] and [`audit`] are the statements, [`hashing`] and [`signer`] the cryptography,
//! and [`problem`] turns an [`error::AuthError`] into an answer. Only [`signer`] has the private key, only
//! [`hashing`] names `argon2`, and only [`users`], [`audit`] and [`knowledge_bases`] hold SQL; [`api_keys`], [`members`],
//! [`sessions`], [`codes`], [`limits`] and [`backoff`] hold their own. [`mailboxes`] is what is proved by mail, [`mail`] what sends it. [`migrate`] is a function of its own.

pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod backoff;
pub mod codes;
pub mod email;
pub mod error;
pub mod hashing;
pub mod knowledge_bases;
pub mod letters;
pub mod limits;
pub mod mail;
pub mod mailboxes;
pub mod members;
pub mod migrate;
pub mod password;
pub mod problem;
pub mod routes;
pub mod sessions;
pub mod signer;
pub mod users;

use axum::Router;
use shared::{App, config::ConfigError};

pub use self::{routes::contract, signer::Signer};

/// The function as a service.
///
/// # Errors
/// When the configuration asks for mail that this build can not send.
pub fn router(app: App, signer: Signer) -> Result<Router, ConfigError> {
    Ok(shared::http::finish(routes::routes(&app, signer)?, app))
}
