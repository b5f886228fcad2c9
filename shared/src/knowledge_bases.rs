//! Who may do what in which knowledge base.

use tokio_postgres::{Row, Transaction, types::Type};

use crate::{
    db::DbError,
    domain::{KnowledgeBaseId, Role, UserId},
};

/// What a personal knowledge base is called until its owner renames it.
pub const PERSONAL_NAME: &str = "Personal";

/// Inserts the knowledge base that a user gets at registration, with the user as its owner.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn insert_personal(tx: &Transaction<'_>, user: UserId) -> Result<KnowledgeBaseId, DbError> {
    let id = KnowledgeBaseId::draw();
    tx.execute_typed(
        "-- knowledge_bases::insert_personal
        WITH knowledge_base AS (
            INSERT INTO knowledge_bases (id, name, personal_user_id) VALUES ($1, $2, $3)
        )
        INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $3, $4)",
        &[
            (&id.0, Type::UUID),
            (&PERSONAL_NAME, Type::TEXT),
            (&user.0, Type::UUID),
            (&Role::Owner.as_str(), Type::TEXT),
        ],
    )
    .await?;
    Ok(id)
}

/// A knowledge base in which a user has a role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Membership {
    /// The knowledge base.
    pub id: KnowledgeBaseId,
    /// What the user may do there.
    pub role: Role,
    /// Whether it is the one that the user got at registration.
    pub personal: bool,
}

/// All knowledge bases of a user, in the order of their ids; none for an account that does not exist.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn list_memberships(tx: &Transaction<'_>, user: UserId) -> Result<Vec<Membership>, DbError> {
    let rows = tx
        .query_typed(
            "-- knowledge_bases::list_memberships
            SELECT kb.id AS knowledge_base_id, m.role, kb.personal_user_id IS NOT DISTINCT FROM m.user_id AS personal
            FROM knowledge_base_members m JOIN knowledge_bases kb ON kb.id = m.knowledge_base_id
            WHERE m.user_id = $1 ORDER BY kb.id",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    rows.iter().map(Membership::from_row).collect()
}

/// A user's membership in the knowledge base that is named, or in the personal one; `None` when there is none. Until the
/// transaction ends, the knowledge base is not deleted: whoever puts something into it begins with this, and finds it
/// there or not at all.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn hold(
    tx: &Transaction<'_>,
    user: UserId,
    wanted: Option<KnowledgeBaseId>,
) -> Result<Option<Membership>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- knowledge_bases::hold
            SELECT kb.id AS knowledge_base_id, m.role, kb.personal_user_id IS NOT DISTINCT FROM m.user_id AS personal
            FROM knowledge_base_members m JOIN knowledge_bases kb ON kb.id = m.knowledge_base_id
            WHERE m.user_id = $1 AND CASE WHEN $2::uuid IS NULL THEN kb.personal_user_id = $1 ELSE kb.id = $2 END
            FOR KEY SHARE OF kb",
            &[(&user.0, Type::UUID), (&wanted.map(|id| id.0), Type::UUID)],
        )
        .await?;
    row.as_ref().map(Membership::from_row).transpose()
}

/// Whether there is such a knowledge base, whoever asks: for what an operator puts into it. Until the transaction ends, it is
/// not deleted.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn hold_any(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<bool, DbError> {
    let row = tx
        .query_typed_opt(
            "-- knowledge_bases::hold_any\nSELECT FROM knowledge_bases WHERE id = $1 FOR KEY SHARE",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(row.is_some())
}

impl Membership {
    /// Reads it from the columns `knowledge_base_id`, `role` and `personal`.
    ///
    /// # Errors
    /// When they are not there, or hold something else.
    pub fn from_row(row: &Row) -> Result<Self, DbError> {
        let role = row.try_get::<_, &str>("role")?.parse().map_err(DbError::column("knowledge_base_members.role"))?;
        Ok(Self { id: KnowledgeBaseId(row.try_get("knowledge_base_id")?), role, personal: row.try_get("personal")? })
    }
}
