//! The one file of this function that turns an error into a problem.

use std::time::Duration;

use shared::problem::{Code, Problem};

use crate::{error::AuthError, hashing::HashError};

/// A turn to hash takes well under a second.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::EmailTaken => {
                Self::new(Code::EmailTaken, "An account with this e-mail address exists; log in instead.")
            }
            AuthError::InvalidCredentials => {
                Self::new(Code::InvalidCredentials, "There is no account with this e-mail address and password.")
            }
            AuthError::WrongPassword => Self::new(Code::InvalidCredentials, "This is not the account's password."),
            AuthError::AccountGone => Self::new(Code::Unauthenticated, "The access token's account does not exist."),
            AuthError::NoKnowledgeBase => Self::not_found("knowledge base"),
            AuthError::NotOwner => Self::new(Code::Forbidden, "Only an owner may do this with the knowledge base."),
            AuthError::PersonalKnowledgeBase => Self::new(
                Code::PersonalKnowledgeBase,
                "A personal knowledge base goes with its account only. Its documents can be deleted one by one.",
            ),
            AuthError::NoMember => Self::not_found("member"),
            AuthError::NoInvitation => Self::not_found("invitation"),
            AuthError::LastOwner => Self::new(
                Code::LastOwner,
                "This is the only owner. Make another member an owner first, or delete the knowledge base.",
            ),
            AuthError::TooManyMembers => {
                Self::new(Code::LimitReached, "The knowledge base has 1,000 members and invitations.")
            }
            AuthError::NoApiKey => Self::not_found("API key"),
            AuthError::BeyondKey => {
                Self::new(Code::InsufficientScope, "An API key can not make one that reaches further than itself.")
            }
            AuthError::KeyLife => {
                Self::invalid_field("expires_at", "is not in the future, or is later than 366 days from now")
            }
            AuthError::TooManyKeys => {
                Self::new(Code::LimitReached, "The account has 100 API keys; revoke one that is not needed.")
            }
            AuthError::Random(error) => Self::internal(error),
            AuthError::Hash(error @ HashError::Busy) => {
                Self::new(Code::DeadlineExceeded, "Too many logins and registrations are waiting at the moment.")
                    .retry_after(BUSY_RETRY_AFTER)
                    .caused_by(error)
            }
            AuthError::Hash(error @ (HashError::Argon2(_) | HashError::Thread(_))) => Self::internal(error),
            AuthError::Sign(error) => Self::internal(error),
            AuthError::Db(error) => error.into(),
        }
    }
}
