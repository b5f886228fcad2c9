//! Accounts: registration, login, access tokens, and the documents by which others check them.
//!
//! The data walks one way: [`routes`] parses a request into [`email::Email`] and [`password::Password`],
//! [`accounts`] and [`knowledge_bases`] decide, [`users`] and [`audit`] are the statements, [`hashing`] and [`signer`] the cryptography,
//! and [`problem`] turns an [`error::AuthError`] into an answer. Only [`signer`] has the private key, only
//! [`hashing`] names `argon2`, and only [`users`], [`audit`] and [`knowledge_bases`] hold SQL; [`api_keys`] and [`members`] hold their own.

pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod email;
pub mod error;
pub mod hashing;
pub mod knowledge_bases;
pub mod members;
pub mod password;
pub mod problem;
pub mod routes;
pub mod signer;
pub mod users;

use axum::Router;
use shared::App;

pub use self::signer::Signer;

/// The function as a service.
pub fn router(app: App, signer: Signer) -> Router {
    shared::http::finish(routes::routes(&app, signer), app)
}
