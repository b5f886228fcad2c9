//! The accounts' rows.

use shared::{
    db::{DbError, constraint},
    domain::{DisplayName, UserId},
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};

use crate::{email::Email, error::AuthError, hashing::StoredHash};

/// An account, as its owner sees it.
#[derive(Clone, Debug)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its address, in the form in which it is compared.
    pub email: String,
    /// The person's name, for people.
    pub display_name: Option<String>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
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
            RETURNING id, email, display_name, created_at",
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
            SELECT id, email, display_name, created_at FROM users WHERE id = $1",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(rows.first().map(user).transpose()?)
}

/// The account with this address, and its password's hash.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_with_hash(tx: &Transaction<'_>, email: &Email) -> Result<Option<(User, StoredHash)>, DbError> {
    let rows = tx
        .query_typed(
            "-- users::get_with_hash
            SELECT id, email, display_name, created_at, password_hash FROM users WHERE email = $1",
            &[(&email.as_str(), Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((user(row)?, StoredHash::new(row.try_get("password_hash")?))))
}

/// The hash of the password of the account with this id.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_hash(tx: &Transaction<'_>, id: UserId) -> Result<Option<StoredHash>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- users::get_hash
            SELECT password_hash FROM users WHERE id = $1",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    Ok(row.map(|row| row.try_get("password_hash").map(StoredHash::new)).transpose()?)
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

fn user(row: &Row) -> Result<User, tokio_postgres::Error> {
    Ok(User {
        id: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        display_name: row.try_get("display_name")?,
        created_at: row.try_get("created_at")?,
    })
}
