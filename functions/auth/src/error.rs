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
    /// The caller's password is asked for again, and this is not it.
    #[error("the password is wrong")]
    WrongPassword,
    /// The access token holds, but its account does not exist any more.
    #[error("the account does not exist")]
    AccountGone,
    /// There is no such knowledge base, or the caller is not a member.
    #[error("no such knowledge base")]
    NoKnowledgeBase,
    /// The caller is a member of the knowledge base, but does not own it.
    #[error("the caller does not own the knowledge base")]
    NotOwner,
    /// The knowledge base is somebody's personal one.
    #[error("the knowledge base is a personal one")]
    PersonalKnowledgeBase,
    /// The knowledge base has no such member.
    #[error("no such member")]
    NoMember,
    /// There is no such invitation, or it does not hold any more.
    #[error("no such invitation")]
    NoInvitation,
    /// Nobody would be left who owns the knowledge base.
    #[error("the member is the last owner")]
    LastOwner,
    /// The knowledge base has as many members and invitations as it may have.
    #[error("the knowledge base has too many members")]
    TooManyMembers,
    /// The account has no such API key.
    #[error("no such API key")]
    NoApiKey,
    /// The API key that asks can not give this on.
    #[error("the new API key would reach further than the one that makes it")]
    BeyondKey,
    /// An API key would end in the past or too late.
    #[error("the API key's life is out of range")]
    KeyLife,
    /// The account has as many API keys as it may have.
    #[error("the account has too many API keys")]
    TooManyKeys,
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Random(#[source] aws_lc_rs::error::Unspecified),
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
            Self::EmailTaken
            | Self::InvalidCredentials
            | Self::WrongPassword
            | Self::AccountGone
            | Self::NoKnowledgeBase
            | Self::NotOwner
            | Self::PersonalKnowledgeBase
            | Self::NoMember
            | Self::NoInvitation
            | Self::LastOwner
            | Self::TooManyMembers
            | Self::NoApiKey
            | Self::BeyondKey
            | Self::KeyLife
            | Self::TooManyKeys
            | Self::Random(_)
            | Self::Hash(_)
            | Self::Sign(_) => None,
        }
    }
}
