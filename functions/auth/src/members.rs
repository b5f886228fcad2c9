//! Who is a member of a knowledge base: invited, listed, changed, removed.
//!
//! A person is invited by address and becomes a member by accepting. Inviting answers alike whether or not the address has
//! an account, so it can not be used to find that out; and a knowledge base that somebody was put into unasked would stand
//! among their answers, with whatever its owner wrote there for them.
//!
//! Every change locks the knowledge base first, as its deletion does: of two owners who leave at the same time, the second
//! one sees that it is the last.

use serde_json::json;
use shared::{
    App,
    db::{Db, DbError},
    domain::{InvitationId, KnowledgeBaseId, Role, UserId},
    http::Invocation,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};

use crate::{
    audit::{self, Event},
    email::Email,
    error::AuthError,
};

/// Days for which an invitation can be accepted.
const INVITATION_DAYS: i32 = 14;

/// Members and invitations of one knowledge base; a list shows all of them.
const MEMBERS_MAX: i64 = 1_000;

/// What can be done with members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Members {
    db: Db,
}

/// A member, as the other members see it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The account.
    pub user: UserId,
    /// Its address.
    pub email: String,
    /// The person's name.
    pub display_name: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Since when.
    pub created_at: OffsetDateTime,
}

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
    /// The members in the database of `app`.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { db: app.db.clone() }
    }

    /// The members of a knowledge base, for a member of it; for an owner, also who is invited.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], or PostgreSQL's.
    pub async fn list(&self, user: UserId, id: KnowledgeBaseId) -> Result<(Vec<Member>, Vec<Invitation>), AuthError> {
        self.db
            .transaction("list members", async move |tx| {
                let role = role_of(tx, id, user).await?.ok_or(AuthError::NoKnowledgeBase)?;
                let invitations = if role == Role::Owner { invitations_into(tx, id).await? } else { Vec::new() };
                Ok((members(tx, id).await?, invitations))
            })
            .await
    }

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
                        DELETE FROM invitations i USING users u WHERE i.id = $1 AND u.id = $2 AND u.email = i.email",
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

    /// Gives a member another role.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], [`AuthError::NotOwner`], [`AuthError::NoMember`], [`AuthError::LastOwner`],
    /// [`AuthError::PersonalKnowledgeBase`] for the person whose personal one it is, or PostgreSQL's.
    pub async fn change(
        &self,
        call: &Invocation,
        user: UserId,
        id: KnowledgeBaseId,
        member: UserId,
        role: Role,
    ) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("change member", async move |tx| {
                lock_as_owner(tx, user, id).await?;
                if role < Role::Owner {
                    require_other_owner(tx, id, member).await?;
                }
                let rows = tx
                    .execute_typed(
                        "-- members::change
                        UPDATE knowledge_base_members SET role = $3 WHERE knowledge_base_id = $1 AND user_id = $2",
                        &[(&id.0, Type::UUID), (&member.0, Type::UUID), (&role.as_str(), Type::TEXT)],
                    )
                    .await?;
                if rows == 0 {
                    return Err(AuthError::NoMember);
                }
                let detail = json!({ "knowledge_base": id, "member": member, "role": role });
                audit::insert_with(tx, Event::MemberChanged, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }

    /// Removes a member: owners remove anyone, everyone may leave.
    ///
    /// # Errors
    /// As [`Members::change`].
    pub async fn remove(
        &self,
        call: &Invocation,
        user: UserId,
        id: KnowledgeBaseId,
        member: UserId,
    ) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("remove member", async move |tx| {
                match lock_as_owner(tx, user, id).await {
                    Err(AuthError::NotOwner) if user == member => {}
                    other => other?,
                }
                require_other_owner(tx, id, member).await?;
                let rows = tx
                    .execute_typed(
                        "-- members::remove
                        DELETE FROM knowledge_base_members WHERE knowledge_base_id = $1 AND user_id = $2",
                        &[(&id.0, Type::UUID), (&member.0, Type::UUID)],
                    )
                    .await?;
                if rows == 0 {
                    return Err(AuthError::NoMember);
                }
                let detail = json!({ "knowledge_base": id, "member": member });
                audit::insert_with(tx, Event::MemberRemoved, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}

/// Keeps all other changes off a knowledge base until the transaction ends.
async fn lock(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- members::lock
        SELECT FROM knowledge_bases WHERE id = $1 FOR UPDATE",
        &[(&id.0, Type::UUID)],
    )
    .await?;
    Ok(())
}

/// Locks it, then looks: the role that counts is the one that `user` has under the lock.
pub(crate) async fn lock_as_owner(tx: &Transaction<'_>, user: UserId, id: KnowledgeBaseId) -> Result<(), AuthError> {
    lock(tx, id).await?;
    match role_of(tx, id, user).await? {
        None => Err(AuthError::NoKnowledgeBase),
        Some(Role::Owner) => Ok(()),
        Some(Role::Editor | Role::Viewer) => Err(AuthError::NotOwner),
    }
}

/// Refuses to take ownership from the last owner, and from the person whose personal knowledge base it is. Under the lock.
async fn require_other_owner(tx: &Transaction<'_>, id: KnowledgeBaseId, member: UserId) -> Result<(), AuthError> {
    let row = tx
        .query_typed_opt(
            "-- members::require_other_owner
            SELECT kb.personal_user_id IS NOT DISTINCT FROM m.user_id AS personal,
                m.role = 'owner' AND NOT EXISTS (
                    SELECT FROM knowledge_base_members other
                    WHERE other.knowledge_base_id = kb.id AND other.role = 'owner' AND other.user_id <> m.user_id
                ) AS last
            FROM knowledge_bases kb JOIN knowledge_base_members m ON m.knowledge_base_id = kb.id
            WHERE kb.id = $1 AND m.user_id = $2",
            &[(&id.0, Type::UUID), (&member.0, Type::UUID)],
        )
        .await?
        .ok_or(AuthError::NoMember)?;
    if row.try_get("personal")? {
        return Err(AuthError::PersonalKnowledgeBase);
    }
    if row.try_get("last")? { Err(AuthError::LastOwner) } else { Ok(()) }
}

async fn role_of(tx: &Transaction<'_>, id: KnowledgeBaseId, user: UserId) -> Result<Option<Role>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- members::role_of
            SELECT role FROM knowledge_base_members WHERE knowledge_base_id = $1 AND user_id = $2",
            &[(&id.0, Type::UUID), (&user.0, Type::UUID)],
        )
        .await?;
    row.as_ref().map(role).transpose()
}

async fn members(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<Vec<Member>, DbError> {
    let rows = tx
        .query_typed(
            "-- members::list
            SELECT u.id, u.email, u.display_name, m.role, m.created_at
            FROM knowledge_base_members m JOIN users u ON u.id = m.user_id
            WHERE m.knowledge_base_id = $1 ORDER BY m.created_at, u.id",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    let member = |row: &Row| {
        Ok(Member {
            user: UserId(row.try_get("id")?),
            email: row.try_get("email")?,
            display_name: row.try_get("display_name")?,
            role: role(row)?,
            created_at: row.try_get("created_at")?,
        })
    };
    rows.iter().map(member).collect()
}

async fn invitations_into(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<Vec<Invitation>, DbError> {
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

/// Those that hold now: not too old, and from somebody who still owns the knowledge base.
async fn invitations_of(tx: &Transaction<'_>, user: UserId) -> Result<Vec<Invitation>, DbError> {
    let rows = tx
        .query_typed(
            "-- members::invitations_of
            SELECT i.id, i.knowledge_base_id, kb.name, i.email, i.role, i.expires_at
            FROM users u JOIN invitations i ON i.email = u.email
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

fn role(row: &Row) -> Result<Role, DbError> {
    row.try_get::<_, &str>("role")?.parse().map_err(DbError::column("role"))
}
