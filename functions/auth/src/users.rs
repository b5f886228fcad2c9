//! The accounts' rows.

use shared::{
    db::{Db, DbError, constraint},
    domain::{DisplayName, UserId},
    knowledge_bases::Membership,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use crate::{codes::Sent, email::Email, error::AuthError, hashing::StoredHash};

/// An account, as its owner sees it.
#[derive(Clone, Debug)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its address, in the form in which it is compared.
    pub email: String,
    /// The person's name, for people.
    pub display_name: Option<String>,
    /// Whether its address is known to be its owner's.
    pub email_verified: bool,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

/// What a request that must tell nobody about an account needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its id.
    pub id: UserId,
    /// Whether its address is known to be its owner's.
    pub verified: bool,
}

/// Inserts an account.
///
/// # Errors
/// [`AuthError::EmailTaken`] when the address has one; else when PostgreSQL does not take it.
pub async fn insert(
    tx: &Transaction<'_>,
    id: UserId,
    email: &Email,
    display_name: Option<&DisplayName>,
    password_hash: &StoredHash,
) -> Result<User, AuthError> {
    let rows = tx
        .query_typed(
            "-- users::insert
            INSERT INTO users (id, email, display_name, password_hash) VALUES ($1, $2, $3, $4)
            RETURNING id, email, display_name, email_verified_at, created_at",
            &[
                (&id.0, Type::UUID),
                (&email.as_str(), Type::TEXT),
                (&display_name.map(DisplayName::as_str), Type::TEXT),
                (&password_hash.expose(), Type::TEXT),
            ],
        )
        .await
        .map_err(|error| match constraint(&error) {
            Some("users_email_unique") => AuthError::EmailTaken,
            _ => error.into(),
        })?;
    let row = rows.first().ok_or(DbError::RowCount { statement: "users::insert", rows: 0 })?;
    Ok(user(row)?)
}

/// The account with this id.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get(tx: &Transaction<'_>, id: UserId) -> Result<Option<User>, DbError> {
    let rows = tx
        .query_typed(
            "-- users::get
            SELECT id, email, display_name, email_verified_at, created_at FROM users WHERE id = $1",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(rows.first().map(user).transpose()?)
}

/// The account and its knowledge bases, in the order of their ids. One statement: it is asked for at every start of a user interface.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn profile(db: &Db, id: UserId) -> Result<Option<(User, Vec<Membership>)>, DbError> {
    let statement = "-- users::profile
        SELECT u.id, u.email, u.display_name, u.email_verified_at, u.created_at,
            kb.id AS knowledge_base_id, m.role, kb.personal_user_id IS NOT DISTINCT FROM u.id AS personal
        FROM users u
        LEFT JOIN (knowledge_base_members m JOIN knowledge_bases kb ON kb.id = m.knowledge_base_id) ON m.user_id = u.id
        WHERE u.id = $1 ORDER BY kb.id";
    let rows = db.query("read profile", statement, &[(&id.0, Type::UUID)]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut memberships = Vec::with_capacity(rows.len());
    for row in &rows {
        // An account without any has one row, of its own columns alone.
        if row.try_get::<_, Option<Uuid>>("knowledge_base_id")?.is_some() {
            memberships.push(Membership::from_row(row)?);
        }
    }
    Ok(Some((user(first)?, memberships)))
}

/// The account with this address, and its password's hash.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_with_hash(tx: &Transaction<'_>, email: &Email) -> Result<Option<(User, StoredHash)>, DbError> {
    let rows = tx
        .query_typed(
            "-- users::get_with_hash
            SELECT id, email, display_name, email_verified_at, created_at, password_hash FROM users WHERE email = $1",
            &[(&email.as_str(), Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((user(row)?, StoredHash::new(row.try_get("password_hash")?))))
}

/// The account with this id, and its password's hash.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_by_id_with_hash(tx: &Transaction<'_>, id: UserId) -> Result<Option<(User, StoredHash)>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- users::get_by_id_with_hash
            SELECT id, email, display_name, email_verified_at, created_at, password_hash FROM users WHERE id = $1",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((user(&row)?, StoredHash::new(row.try_get("password_hash")?))))
}

/// Keeps everything off an account that is not its yet, until the transaction ends; false when there is no such account.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn lock_to_delete(tx: &Transaction<'_>, id: UserId) -> Result<bool, DbError> {
    let row = tx
        .query_typed_opt(
            "-- users::lock_to_delete
            SELECT FROM users WHERE id = $1 FOR UPDATE",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(row.is_some())
}

/// Keeps others from changing what belongs to an account, until the transaction ends; false when there is no such account.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn lock_to_change(tx: &Transaction<'_>, id: UserId) -> Result<bool, DbError> {
    let row = tx
        .query_typed_opt(
            "-- users::lock_to_change
            SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(row.is_some())
}

/// Deletes an account; its idempotency keys go with it.
///
/// # Errors
/// When PostgreSQL does not take it: among others, while the account is a member of a knowledge base.
pub async fn delete(tx: &Transaction<'_>, id: UserId) -> Result<(), DbError> {
    let rows = tx.execute_typed("-- users::delete\nDELETE FROM users WHERE id = $1", &[(&id.0, Type::UUID)]).await?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "users::delete", rows }) }
}

/// Replaces the hash `old` by `new`, which is of the same password. Does nothing when the password was changed meanwhile.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn replace_hash(tx: &Transaction<'_>, id: UserId, old: &StoredHash, new: &StoredHash) -> Result<(), DbError> {
    tx.execute_typed(
        "-- users::replace_hash
        UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2",
        &[(&id.0, Type::UUID), (&old.expose(), Type::TEXT), (&new.expose(), Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// How the account with this address stands.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_standing(tx: &Transaction<'_>, email: &Email) -> Result<Option<Standing>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- users::get_standing
            SELECT id, email_verified_at IS NOT NULL AS verified FROM users WHERE email = $1",
            &[(&email.as_str(), Type::TEXT)],
        )
        .await?;
    let standing = |row: Row| Ok(Standing { id: UserId(row.try_get("id")?), verified: row.try_get("verified")? });
    row.map(standing).transpose()
}

/// Marks an address as its owner's; for a registration, with the password and the name that its code brings. False when
/// the account has another address by now.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn verify(tx: &Transaction<'_>, sent: &Sent) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- users::verify
            UPDATE users SET
                password_hash = CASE WHEN email_verified_at IS NULL THEN COALESCE($3, password_hash) ELSE password_hash END,
                display_name = CASE WHEN email_verified_at IS NULL AND $3 IS NOT NULL THEN $4 ELSE display_name END,
                email_verified_at = COALESCE(email_verified_at, now()), updated_at = now()
            WHERE id = $1 AND email = $2",
            &[
                (&sent.user.0, Type::UUID),
                (&sent.email, Type::TEXT),
                (&sent.password_hash.as_ref().map(StoredHash::expose), Type::TEXT),
                (&sent.display_name, Type::TEXT),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Moves an account to another address, which is its owner's.
///
/// # Errors
/// [`AuthError::EmailTaken`], or PostgreSQL's.
pub async fn change_email(tx: &Transaction<'_>, id: UserId, email: &str) -> Result<(), AuthError> {
    let rows = tx
        .execute_typed(
            "-- users::change_email
            UPDATE users SET email = $2, email_verified_at = now(), updated_at = now() WHERE id = $1",
            &[(&id.0, Type::UUID), (&email, Type::TEXT)],
        )
        .await
        .map_err(|error| match constraint(&error) {
            Some("users_email_unique") => AuthError::EmailTaken,
            _ => error.into(),
        })?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "users::change_email", rows }.into()) }
}

/// Sets the password by a code that was sent to the account's address, which is its owner's then. False when the account
/// has another address by now.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn reset_password(tx: &Transaction<'_>, sent: &Sent, hash: &StoredHash) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- users::reset_password
            UPDATE users SET password_hash = $3, email_verified_at = COALESCE(email_verified_at, now()),
                updated_at = now()
            WHERE id = $1 AND email = $2",
            &[(&sent.user.0, Type::UUID), (&sent.email, Type::TEXT), (&hash.expose(), Type::TEXT)],
        )
        .await?;
    Ok(rows == 1)
}

/// Replaces the password whose hash is `old`; false when it was changed meanwhile.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn change_password(
    tx: &Transaction<'_>,
    id: UserId,
    old: &StoredHash,
    new: &StoredHash,
) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- users::change_password
            UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2",
            &[(&id.0, Type::UUID), (&old.expose(), Type::TEXT), (&new.expose(), Type::TEXT)],
        )
        .await?;
    Ok(rows == 1)
}

/// Takes from an account all by which somebody may be in it: sessions and API keys. For when its address turns out to be
/// the owner's, and what was made before may be a stranger's who registered it first.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn end_access(tx: &Transaction<'_>, id: UserId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- users::end_access
        WITH keys AS (DELETE FROM api_keys WHERE user_id = $1) DELETE FROM sessions WHERE user_id = $1",
        &[(&id.0, Type::UUID)],
    )
    .await?;
    Ok(())
}

/// Sets or removes the name of an account; false when there is no such account.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn set_display_name(tx: &Transaction<'_>, id: UserId, name: Option<&DisplayName>) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- users::set_display_name
            UPDATE users SET display_name = $2, updated_at = now() WHERE id = $1",
            &[(&id.0, Type::UUID), (&name.map(DisplayName::as_str), Type::TEXT)],
        )
        .await?;
    Ok(rows == 1)
}

fn user(row: &Row) -> Result<User, tokio_postgres::Error> {
    Ok(User {
        id: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        display_name: row.try_get("display_name")?,
        email_verified: row.try_get::<_, Option<OffsetDateTime>>("email_verified_at")?.is_some(),
        created_at: row.try_get("created_at")?,
    })
}
