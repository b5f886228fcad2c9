//! The record of what happened to accounts. Append only.

use shared::{db::DbError, domain::UserId};
use tokio_postgres::{Transaction, types::Type};

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// An account was made.
    AccountRegistered,
    /// Somebody logged in.
    LoginSucceeded,
    /// Somebody gave a wrong password, or the address of no account: then the record has no user.
    LoginFailed,
}

impl Event {
    /// The word that stands in `audit_log.event`: stable, because people search for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccountRegistered => "account.registered",
            Self::LoginSucceeded => "login.succeeded",
            Self::LoginFailed => "login.failed",
        }
    }
}

/// Records `event`, in the transaction that makes it happen. What a person typed has no place here: people type
/// passwords into the field for addresses.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn insert(tx: &Transaction<'_>, event: Event, user: Option<UserId>, request_id: &str) -> Result<(), DbError> {
    tx.execute_typed(
        "-- audit_log::insert
        INSERT INTO audit_log (event, user_id, request_id) VALUES ($1, $2, $3)",
        &[(&event.as_str(), Type::TEXT), (&user.map(|user| user.0), Type::UUID), (&request_id, Type::TEXT)],
    )
    .await?;
    Ok(())
}
