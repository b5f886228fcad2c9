//! The record of what happened to accounts. Append only.

use serde_json::{Value, json};
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
    /// The holder of a token gave a wrong password where it is asked for again.
    ReauthenticationFailed,
    /// An account was deleted, with how much that belonged to it.
    AccountDeleted,
    /// An API key was made.
    ApiKeyCreated,
    /// An API key lost scopes.
    ApiKeyNarrowed,
    /// An API key was revoked, with those that it had made.
    ApiKeyRevoked,
    /// A knowledge base was made.
    KnowledgeBaseCreated,
    /// A knowledge base got another name.
    KnowledgeBaseRenamed,
    /// Somebody was invited into a knowledge base.
    MemberInvited,
    /// An invitation was taken back or refused.
    InvitationEnded,
    /// Somebody accepted an invitation.
    MemberJoined,
    /// A member got another role.
    MemberChanged,
    /// A member left or was removed.
    MemberRemoved,
    /// A knowledge base was deleted, with how many documents.
    KnowledgeBaseDeleted,
}

impl Event {
    /// The word that stands in `audit_log.event`: stable, because people search for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccountRegistered => "account.registered",
            Self::LoginSucceeded => "login.succeeded",
            Self::LoginFailed => "login.failed",
            Self::ReauthenticationFailed => "reauthentication.failed",
            Self::AccountDeleted => "account.deleted",
            Self::ApiKeyCreated => "api_key.created",
            Self::ApiKeyNarrowed => "api_key.narrowed",
            Self::ApiKeyRevoked => "api_key.revoked",
            Self::KnowledgeBaseCreated => "knowledge_base.created",
            Self::KnowledgeBaseRenamed => "knowledge_base.renamed",
            Self::MemberInvited => "member.invited",
            Self::InvitationEnded => "invitation.ended",
            Self::MemberJoined => "member.joined",
            Self::MemberChanged => "member.changed",
            Self::MemberRemoved => "member.removed",
            Self::KnowledgeBaseDeleted => "knowledge_base.deleted",
        }
    }
}

/// Records `event`, in the transaction that makes it happen. What a person typed has no place here: people type
/// passwords into the field for addresses.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn insert(tx: &Transaction<'_>, event: Event, user: Option<UserId>, request_id: &str) -> Result<(), DbError> {
    insert_with(tx, event, user, request_id, &json!({})).await
}

/// Records `event` as [`insert`] does, with `detail`: ids and counts.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn insert_with(
    tx: &Transaction<'_>,
    event: Event,
    user: Option<UserId>,
    request_id: &str,
    detail: &Value,
) -> Result<(), DbError> {
    tx.execute_typed(
        "-- audit_log::insert
        INSERT INTO audit_log (event, user_id, request_id, detail) VALUES ($1, $2, $3, $4)",
        &[
            (&event.as_str(), Type::TEXT),
            (&user.map(|user| user.0), Type::UUID),
            (&request_id, Type::TEXT),
            (detail, Type::JSONB),
        ],
    )
    .await?;
    Ok(())
}
