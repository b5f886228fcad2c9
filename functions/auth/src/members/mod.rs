//! Who is a member of a knowledge base: listed, changed, removed.
//!
//! Every change locks the knowledge base first, as its deletion does: of two owners who leave at the same time, the second
//! one sees that it is the last.

mod invitations;

use serde_json::json;
use shared::{
    App,
    db::{Db, DbError},
    domain::{KnowledgeBaseId, Role, UserId},
    http::Invocation,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};

pub use self::invitations::Invitation;
use self::invitations::invitations_into;
use crate::{
    audit::{self, Event},
    error::AuthError,
};

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

fn role(row: &Row) -> Result<Role, DbError> {
    row.try_get::<_, &str>("role")?.parse().map_err(DbError::column("role"))
}
