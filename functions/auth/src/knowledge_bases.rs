//! Knowledge bases: made, listed and deleted. A deletion takes everything in them out of sight at once; what Qdrant holds
//! of it is removed by the sweeper, from the list that the deletion leaves.

use serde_json::json;
use shared::{
    App,
    db::{Db, DbError, constraint},
    documents,
    domain::{DisplayName, KnowledgeBaseId, Role, UserId},
    http::Invocation,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use crate::{
    audit::{self, Event},
    error::AuthError,
    members, users,
};

/// What can be done with knowledge bases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KnowledgeBases {
    db: Db,
}

/// A knowledge base, as one of its members sees it.
#[derive(Clone, Debug)]
pub struct KnowledgeBase {
    /// Its id.
    pub id: KnowledgeBaseId,
    /// Its name, for people; not unique.
    pub name: String,
    /// What the member may do in it.
    pub role: Role,
    /// Whether it is the one that the member got at registration.
    pub personal: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only those after this one.
    pub after: Option<KnowledgeBaseId>,
    /// At most so many.
    pub limit: usize,
}

impl KnowledgeBases {
    /// The knowledge bases in the database of `app`.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { db: app.db.clone() }
    }

    /// Makes a knowledge base whose owner is `user`.
    ///
    /// # Errors
    /// [`AuthError::AccountGone`], or PostgreSQL's.
    pub async fn create(&self, call: &Invocation, user: UserId, name: DisplayName) -> Result<KnowledgeBase, AuthError> {
        let id = KnowledgeBaseId::draw();
        let request_id = call.request_id.clone();
        self.db
            .transaction("create knowledge base", async move |tx| {
                let knowledge_base = insert(tx, id, user, &name).await?;
                let detail = json!({ "knowledge_base": id });
                audit::insert_with(tx, Event::KnowledgeBaseCreated, Some(user), &request_id, &detail).await?;
                Ok(knowledge_base)
            })
            .await
    }

    /// The knowledge bases of which `user` is a member, in the order of their ids, and whether there are more.
    ///
    /// # Errors
    /// [`AuthError::AccountGone`], or PostgreSQL's.
    pub async fn list(&self, user: UserId, page: Page) -> Result<(Vec<KnowledgeBase>, bool), AuthError> {
        self.db
            .transaction("list knowledge bases", async move |tx| {
                users::get(tx, user).await?.ok_or(AuthError::AccountGone)?;
                // One more than asked for tells whether there is a next page.
                let mut found = list(tx, user, Page { limit: page.limit + 1, ..page }).await?;
                let more = found.len() > page.limit;
                found.truncate(page.limit);
                Ok((found, more))
            })
            .await
    }

    /// Gives a knowledge base another name, if `user` owns it.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], [`AuthError::NotOwner`], or PostgreSQL's.
    pub async fn rename(
        &self,
        call: &Invocation,
        user: UserId,
        id: KnowledgeBaseId,
        name: DisplayName,
    ) -> Result<KnowledgeBase, AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("rename knowledge base", async move |tx| {
                members::lock_as_owner(tx, user, id).await?;
                let row = tx
                    .query_typed_one(
                        "-- knowledge_bases::rename
                        UPDATE knowledge_bases SET name = $2 WHERE id = $1 RETURNING id, name, 'owner' AS role,
                            personal_user_id IS NOT DISTINCT FROM $3 AS personal, created_at",
                        &[(&id.0, Type::UUID), (&name.as_str(), Type::TEXT), (&user.0, Type::UUID)],
                    )
                    .await?;
                let detail = json!({ "knowledge_base": id });
                audit::insert_with(tx, Event::KnowledgeBaseRenamed, Some(user), &request_id, &detail).await?;
                Ok(knowledge_base(&row)?)
            })
            .await
    }

    /// Deletes a knowledge base with all that is in it, if `user` owns it.
    ///
    /// # Errors
    /// [`AuthError::NoKnowledgeBase`], [`AuthError::NotOwner`], [`AuthError::PersonalKnowledgeBase`], or PostgreSQL's.
    pub async fn delete(&self, call: &Invocation, user: UserId, id: KnowledgeBaseId) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("delete knowledge base", async move |tx| {
                lock_to_delete(tx, user, id).await?;
                let documents = delete(tx, &[id]).await?;
                let detail = json!({ "knowledge_base": id, "documents": documents });
                audit::insert_with(tx, Event::KnowledgeBaseDeleted, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}

async fn insert(
    tx: &Transaction<'_>,
    id: KnowledgeBaseId,
    user: UserId,
    name: &DisplayName,
) -> Result<KnowledgeBase, AuthError> {
    let row = tx
        .query_typed_one(
            "-- knowledge_bases::insert
            WITH knowledge_base AS (
                INSERT INTO knowledge_bases (id, name) VALUES ($1, $2) RETURNING id, name, created_at
            ), owner AS (
                INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $3, $4) RETURNING role
            )
            SELECT id, name, role, false AS personal, created_at FROM knowledge_base, owner",
            &[
                (&id.0, Type::UUID),
                (&name.as_str(), Type::TEXT),
                (&user.0, Type::UUID),
                (&Role::Owner.as_str(), Type::TEXT),
            ],
        )
        .await
        .map_err(|error| match constraint(&error) {
            Some("knowledge_base_members_user_fk") => AuthError::AccountGone,
            _ => error.into(),
        })?;
    Ok(knowledge_base(&row)?)
}

async fn list(tx: &Transaction<'_>, user: UserId, page: Page) -> Result<Vec<KnowledgeBase>, DbError> {
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let rows = tx
        .query_typed(
            "-- knowledge_bases::list
            SELECT kb.id, kb.name, m.role, kb.personal_user_id IS NOT DISTINCT FROM m.user_id AS personal, kb.created_at
            FROM knowledge_base_members m JOIN knowledge_bases kb ON kb.id = m.knowledge_base_id
            WHERE m.user_id = $1 AND ($2::uuid IS NULL OR kb.id > $2) ORDER BY kb.id LIMIT $3",
            &[(&user.0, Type::UUID), (&page.after.map(|id| id.0), Type::UUID), (&limit, Type::INT8)],
        )
        .await?;
    rows.iter().map(knowledge_base).collect()
}

/// Keeps everything out of a knowledge base that is not there yet, until the transaction ends; if `user` may delete it.
async fn lock_to_delete(tx: &Transaction<'_>, user: UserId, id: KnowledgeBaseId) -> Result<(), AuthError> {
    let row = tx
        .query_typed_opt(
            "-- knowledge_bases::lock_to_delete
            SELECT m.role, kb.personal_user_id IS NOT NULL AS personal
            FROM knowledge_bases kb JOIN knowledge_base_members m ON m.knowledge_base_id = kb.id AND m.user_id = $2
            WHERE kb.id = $1 FOR UPDATE OF kb",
            &[(&id.0, Type::UUID), (&user.0, Type::UUID)],
        )
        .await?
        .ok_or(AuthError::NoKnowledgeBase)?;
    if role(&row)? < Role::Owner {
        return Err(AuthError::NotOwner);
    }
    if row.try_get("personal")? { Err(AuthError::PersonalKnowledgeBase) } else { Ok(()) }
}

/// The knowledge bases that go with an account: its personal one, and those that it alone owns, whoever else is a member:
/// nobody would be left who could delete them. They are locked as for [`delete`].
///
/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn lock_solely_owned(tx: &Transaction<'_>, user: UserId) -> Result<Vec<KnowledgeBaseId>, DbError> {
    // First all that the account owns: of two owners who go at the same time, the second one sees that it is the last.
    // A change of members locks the knowledge base as well, be it by the foreign key alone.
    tx.execute_typed(
        "-- knowledge_bases::lock_owned
        SELECT FROM knowledge_bases kb JOIN knowledge_base_members m ON m.knowledge_base_id = kb.id
        WHERE m.user_id = $1 AND m.role = 'owner' ORDER BY kb.id FOR UPDATE OF kb",
        &[(&user.0, Type::UUID)],
    )
    .await?;
    let rows = tx
        .query_typed(
            "-- knowledge_bases::solely_owned
            SELECT kb.id FROM knowledge_bases kb JOIN knowledge_base_members m ON m.knowledge_base_id = kb.id
            WHERE m.user_id = $1 AND m.role = 'owner' AND (kb.personal_user_id = $1 OR NOT EXISTS (
                SELECT FROM knowledge_base_members other
                WHERE other.knowledge_base_id = kb.id AND other.role = 'owner' AND other.user_id <> $1
            ))",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.try_get("id").map(KnowledgeBaseId)).collect::<Result<_, _>>()?)
}

/// Deletes locked knowledge bases with their members and documents, and returns how many documents those were.
///
/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn delete(tx: &Transaction<'_>, knowledge_bases: &[KnowledgeBaseId]) -> Result<usize, DbError> {
    let documents = documents::delete_of(tx, knowledge_bases).await?;
    let ids: Vec<Uuid> = knowledge_bases.iter().map(|id| id.0).collect();
    tx.execute_typed(
        "-- knowledge_bases::delete_members
        DELETE FROM knowledge_base_members WHERE knowledge_base_id = ANY($1)",
        &[(&ids, Type::UUID_ARRAY)],
    )
    .await?;
    let rows = tx
        .execute_typed(
            "-- knowledge_bases::delete
            DELETE FROM knowledge_bases WHERE id = ANY($1)",
            &[(&ids, Type::UUID_ARRAY)],
        )
        .await?;
    if usize::try_from(rows) == Ok(ids.len()) {
        Ok(documents)
    } else {
        Err(DbError::RowCount { statement: "knowledge_bases::delete", rows })
    }
}

/// Ends the memberships of an account.
///
/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn leave_all(tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- knowledge_bases::leave_all
        DELETE FROM knowledge_base_members WHERE user_id = $1",
        &[(&user.0, Type::UUID)],
    )
    .await?;
    Ok(())
}

fn knowledge_base(row: &Row) -> Result<KnowledgeBase, DbError> {
    Ok(KnowledgeBase {
        id: KnowledgeBaseId(row.try_get("id")?),
        name: row.try_get("name")?,
        role: role(row)?,
        personal: row.try_get("personal")?,
        created_at: row.try_get("created_at")?,
    })
}

fn role(row: &Row) -> Result<Role, DbError> {
    row.try_get::<_, &str>("role")?.parse().map_err(DbError::column("knowledge_base_members.role"))
}
