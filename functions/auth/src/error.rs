//! What can go wrong with accounts.

use shared::db::{AsDbError, DbError};

use crate::{hashing::HashError, signer::SignError};

/// What can go wrong with accounts.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The e-mail address has an account.
    #[error("the e-mail address has an account")]
    EmailTaken,
    /// There is no such account, or the password is not its. The two are never told apart.
    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    /// The access token holds, but its account does not exist any more.
    #[error("the account does not exist")]
    AccountGone,
    /// The password could be neither hashed nor compared.
    #[error("the password could not be hashed or compared")]
    Hash(#[from] HashError),
    /// The access token could not be issued.
    #[error("the access token could not be issued")]
    Sign(#[from] SignError),
    /// PostgreSQL.
    #[error("the database did not do its part")]
    Db(#[from] DbError),
}

impl From<tokio_postgres::Error> for AuthError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Db(error.into())
    }
}

impl AsDbError for AuthError {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::EmailTaken | Self::InvalidCredentials | Self::AccountGone | Self::Hash(_) | Self::Sign(_) => None,
        }
    }
}
