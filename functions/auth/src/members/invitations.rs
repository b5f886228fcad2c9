//! Invitations: a person is invited by address and becomes a member by accepting.
//!
//! Inviting answers alike whether or not the address has an account, so it can not be used to find that out; and a knowledge
//! base that somebody was put into unasked would stand among their answers, with whatever its owner wrote there for them.

use serde_json::json;
use shared::{
    db::DbError,
    domain::{InvitationId, KnowledgeBaseId, Role, UserId},
    http::Invocation,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};

use super::{Members, lock, lock_as_owner, role};
use crate::{
    audit::{self, Event},
    email::Email,
    error::AuthError,
};

/// Days for which an invitation can be accepted.
const INVITATION_DAYS: i32 = 14;

/// Members and invitations of one knowledge base; a list shows all of them.
const MEMBERS_MAX: i64 = 1_000;

/// An invitation, as owners and the invited see it.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Into which knowledge base.
    pub knowledge_base: KnowledgeBaseId,
    /// The name of that.
    pub name: String,
    /// Who is invited.
    pub email: String,
    /// What the invited will be allowed to do.
    pub role: Role,
    /// Until when it can be accepted.
    pub expires_at: OffsetDateTime,
}

impl Members {
    /// Invites whoever owns this address, now or later; a second invitation replaces the first.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], [`AuthError::NotOwner`], [`AuthError::TooManyMembers`], or PostgreSQL's.
    pub async fn invite(
        &self,
        call: &Invocation,
        user: UserId,
        id: KnowledgeBaseId,
        email: Email,
        role: Role,
    ) -> Result<(), AuthError> {
        let (request_id, invitation) = (call.request_id.clone(), InvitationId::draw());
        self.db
            .transaction("invite member", async move |tx| {
                lock_as_owner(tx, user, id).await?;
                let written = tx
                    .execute_typed(
                        "-- members::invite
                        INSERT INTO invitations (id, knowledge_base_id, email, role, invited_by, expires_at)
                        SELECT $1, $2, $3, $4, $5, now() + make_interval(days => $6)
                        WHERE (SELECT count(*) FROM invitations WHERE knowledge_base_id = $2)
                            + (SELECT count(*) FROM knowledge_base_members WHERE knowledge_base_id = $2) < $7
                        ON CONFLICT ON CONSTRAINT invitations_address_unique DO UPDATE SET id = excluded.id,
                            role = excluded.role, invited_by = excluded.invited_by, expires_at = excluded.expires_at",
                        &[
                            (&invitation.0, Type::UUID),
                            (&id.0, Type::UUID),
                            (&email.as_str(), Type::TEXT),
                            (&role.as_str(), Type::TEXT),
                            (&user.0, Type::UUID),
                            (&INVITATION_DAYS, Type::INT4),
                            (&MEMBERS_MAX, Type::INT8),
                        ],
                    )
                    .await?;
                if written == 0 {
                    return Err(AuthError::TooManyMembers);
                }
                let detail = json!({ "knowledge_base": id, "invitation": invitation, "role": role });
                audit::insert_with(tx, Event::MemberInvited, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], [`AuthError::NotOwner`], [`AuthError::NoInvitation`], or PostgreSQL's.
    pub async fn withdraw(
        &self,
        call: &Invocation,
        user: UserId,
        id: KnowledgeBaseId,
        invitation: InvitationId,
    ) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("withdraw invitation", async move |tx| {
                lock_as_owner(tx, user, id).await?;
                let rows = tx
                    .execute_typed(
                        "-- members::withdraw
                        DELETE FROM invitations WHERE id = $1 AND knowledge_base_id = $2",
                        &[(&invitation.0, Type::UUID), (&id.0, Type::UUID)],
                    )
                    .await?;
                if rows == 0 {
                    return Err(AuthError::NoInvitation);
                }
                let detail = json!({ "knowledge_base": id, "invitation": invitation });
                audit::insert_with(tx, Event::InvitationEnded, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }

    /// The invitations that `user` can accept.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn invitations(&self, user: UserId) -> Result<Vec<Invitation>, AuthError> {
        self.db.transaction("list invitations", async move |tx| Ok(invitations_of(tx, user).await?)).await
    }

    /// Makes `user` a member, as it was invited. Who is one already keeps the role.
    ///
    /// # Errors
    /// [`AuthError::NoInvitation`], also when whoever invited does not own the knowledge base any more; or PostgreSQL's.
    pub async fn accept(
        &self,
        call: &Invocation,
        user: UserId,
        invitation: InvitationId,
    ) -> Result<KnowledgeBaseId, AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("accept invitation", async move |tx| {
                let all = invitations_of(tx, user).await?;
                let found = all.into_iter().find(|found| found.id == invitation).ok_or(AuthError::NoInvitation)?;
                lock(tx, found.knowledge_base).await?;
                // Again, under the lock: it may have been withdrawn, and whoever invited may have left.
                let all = invitations_of(tx, user).await?;
                let found = all.into_iter().find(|found| found.id == invitation).ok_or(AuthError::NoInvitation)?;
                tx.execute_typed(
                    "-- members::accept
                    WITH used AS (DELETE FROM invitations WHERE id = $1)
                    INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($2, $3, $4)
                    ON CONFLICT ON CONSTRAINT knowledge_base_members_pk DO NOTHING",
                    &[
                        (&invitation.0, Type::UUID),
                        (&found.knowledge_base.0, Type::UUID),
                        (&user.0, Type::UUID),
                        (&found.role.as_str(), Type::TEXT),
                    ],
                )
                .await?;
                let detail =
                    json!({ "knowledge_base": found.knowledge_base, "invitation": invitation, "role": found.role });
                audit::insert_with(tx, Event::MemberJoined, Some(user), &request_id, &detail).await?;
                Ok(found.knowledge_base)
            })
            .await
    }

    /// Refuses an invitation.
    ///
    /// # Errors
    /// [`AuthError::NoInvitation`], or PostgreSQL's.
    pub async fn decline(&self, call: &Invocation, user: UserId, invitation: InvitationId) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("decline invitation", async move |tx| {
                let rows = tx
                    .execute_typed(
                        "-- members::decline
                        DELETE FROM invitations i USING users u
                        WHERE i.id = $1 AND u.id = $2 AND u.email = i.email AND u.email_verified_at IS NOT NULL",
                        &[(&invitation.0, Type::UUID), (&user.0, Type::UUID)],
                    )
                    .await?;
                if rows == 0 {
                    return Err(AuthError::NoInvitation);
                }
                let detail = json!({ "invitation": invitation });
                audit::insert_with(tx, Event::InvitationEnded, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}

pub(super) async fn invitations_into(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<Vec<Invitation>, DbError> {
    let rows = tx
        .query_typed(
            "-- members::invitations_into
            SELECT i.id, i.knowledge_base_id, kb.name, i.email, i.role, i.expires_at
            FROM invitations i JOIN knowledge_bases kb ON kb.id = i.knowledge_base_id
            WHERE kb.id = $1 ORDER BY i.id",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    rows.iter().map(invitation).collect()
}

/// Those that hold now: to an address that is known to be the user's, not too old, and from somebody who still owns the knowledge base.
async fn invitations_of(tx: &Transaction<'_>, user: UserId) -> Result<Vec<Invitation>, DbError> {
    let rows = tx
        .query_typed(
            "-- members::invitations_of
            SELECT i.id, i.knowledge_base_id, kb.name, i.email, i.role, i.expires_at
            FROM users u JOIN invitations i ON i.email = u.email AND u.email_verified_at IS NOT NULL
            JOIN knowledge_bases kb ON kb.id = i.knowledge_base_id
            JOIN knowledge_base_members m
                ON m.knowledge_base_id = kb.id AND m.user_id = i.invited_by AND m.role = 'owner'
            WHERE u.id = $1 AND i.expires_at > now() ORDER BY i.id",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    rows.iter().map(invitation).collect()
}

fn invitation(row: &Row) -> Result<Invitation, DbError> {
    Ok(Invitation {
        id: InvitationId(row.try_get("id")?),
        knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        role: role(row)?,
        expires_at: row.try_get("expires_at")?,
    })
}
