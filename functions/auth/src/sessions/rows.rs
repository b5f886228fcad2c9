//! The sessions' rows.

use shared::{
    db::{DbError, constraint},
    domain::{SessionId, UserId},
    http::Client,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};

use super::{
    ABSOLUTE_MAX_S, GRACE_S, IDLE_MAX_S, SESSIONS_MAX,
    token::{Link, RefreshToken},
};
use crate::error::AuthError;

/// A session, as its owner sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// When its owner logged in.
    pub created_at: OffsetDateTime,
    /// When it was last refreshed.
    pub last_used_at: OffsetDateTime,
    /// When it ends unless it is used.
    pub expires_at: OffsetDateTime,
    /// From where it was last used.
    pub address: Option<String>,
    /// What the client called itself then.
    pub user_agent: Option<String>,
}

/// What became of a refresh token.
pub(super) enum Rotation {
    /// No session has or had it, or it has ended.
    Unknown,
    /// It was replaced too long ago: somebody has a copy.
    Reused(SessionId, UserId),
    /// It holds, and was issued moments ago: it stays.
    Kept(SessionId, UserId),
    /// Its successor follows by this link.
    Linked(SessionId, UserId, Vec<u8>),
}

/// Begins a session.
pub(super) async fn insert(
    tx: &Transaction<'_>,
    id: SessionId,
    user: UserId,
    token: &RefreshToken,
    client: &Client,
) -> Result<(), AuthError> {
    tx.execute_typed(
        "-- sessions::insert
        INSERT INTO sessions (id, user_id, family_hash, token_hash, address, user_agent, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))",
        &[
            (&id.0, Type::UUID),
            (&user.0, Type::UUID),
            (&token.family_hash().as_slice(), Type::BYTEA),
            (&token.hash().as_slice(), Type::BYTEA),
            (&address(client), Type::TEXT),
            (&client.user_agent, Type::TEXT),
            (&ABSOLUTE_MAX_S, Type::FLOAT8),
        ],
    )
    .await
    .map_err(|error| match constraint(&error) {
        // It was deleted while the password was compared.
        Some("sessions_user_fk") => AuthError::AccountGone,
        _ => error.into(),
    })?;
    Ok(())
}

/// Removes what has ended of a user's sessions, and the least used of those beyond the most that one may have.
pub(super) async fn prune(tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- sessions::prune
        DELETE FROM sessions WHERE user_id = $1 AND (
            expires_at <= now() OR last_used_at <= now() - make_interval(secs => $2) OR id IN (
                SELECT id FROM sessions WHERE user_id = $1 ORDER BY last_used_at DESC, id DESC OFFSET $3))",
        &[(&user.0, Type::UUID), (&IDLE_MAX_S, Type::FLOAT8), (&SESSIONS_MAX, Type::INT8)],
    )
    .await?;
    Ok(())
}

/// When the token presented is the one that holds, and was not issued moments ago.
const TURN: &str = "(token_hash = $2 AND (rotated_at IS NULL OR rotated_at <= since.grace))";

/// Rotates a session's token, in one statement: who comes second waits for the row, and then sees the first one's work.
///
/// `link` becomes the session's if `token` is the one that holds.
pub(super) async fn rotate(
    tx: &Transaction<'_>,
    token: &RefreshToken,
    link: &Link,
    client: &Client,
) -> Result<Rotation, DbError> {
    let presented = token.hash();
    let row = tx
        .query_typed_opt(
            &format!(
                "-- sessions::rotate
                UPDATE sessions SET
                    previous_hash = CASE WHEN {TURN} THEN token_hash ELSE previous_hash END,
                    link = CASE WHEN {TURN} THEN $4 ELSE link END,
                    token_hash = CASE WHEN {TURN} THEN $3 ELSE token_hash END,
                    rotated_at = CASE WHEN {TURN} THEN now() ELSE rotated_at END,
                    last_used_at = now(), address = $5, user_agent = $6
                FROM (SELECT now() - make_interval(secs => $7) AS grace, now() - make_interval(secs => $8) AS idle) AS since
                WHERE family_hash = $1 AND expires_at > now() AND last_used_at > since.idle
                RETURNING id, user_id, link, token_hash = $2 AS kept,
                    token_hash = $3 OR previous_hash = $2 AND rotated_at > since.grace AS linked"
            ),
            &[
                (&token.family_hash().as_slice(), Type::BYTEA),
                (&presented.as_slice(), Type::BYTEA),
                (&token.successor(link).hash().as_slice(), Type::BYTEA),
                (&link.as_slice(), Type::BYTEA),
                (&address(client), Type::TEXT),
                (&client.user_agent, Type::TEXT),
                (&GRACE_S, Type::FLOAT8),
                (&IDLE_MAX_S, Type::FLOAT8),
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(Rotation::Unknown) };
    let (id, user) = (SessionId(row.try_get("id")?), UserId(row.try_get("user_id")?));
    let linked: Option<bool> = row.try_get("linked")?;
    Ok(match (row.try_get("kept")?, linked.unwrap_or_default()) {
        (true, _) => Rotation::Kept(id, user),
        (false, true) => Rotation::Linked(id, user, row.try_get("link")?),
        (false, false) => Rotation::Reused(id, user),
    })
}

/// The living sessions of a user, the last used first.
pub(super) async fn list(tx: &Transaction<'_>, user: UserId) -> Result<Vec<SessionView>, DbError> {
    let rows = tx
        .query_typed(
            "-- sessions::list
            SELECT id, created_at, last_used_at, address, user_agent,
                LEAST(expires_at, last_used_at + make_interval(secs => $2)) AS expires_at
            FROM sessions
            WHERE user_id = $1 AND expires_at > now() AND last_used_at > now() - make_interval(secs => $2)
            ORDER BY last_used_at DESC, id DESC",
            &[(&user.0, Type::UUID), (&IDLE_MAX_S, Type::FLOAT8)],
        )
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Ends a session; false when the user has no such session.
pub(super) async fn delete(tx: &Transaction<'_>, user: UserId, id: SessionId) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- sessions::delete
            DELETE FROM sessions WHERE id = $1 AND user_id = $2",
            &[(&id.0, Type::UUID), (&user.0, Type::UUID)],
        )
        .await?;
    Ok(rows == 1)
}

/// Ends the session to which a token belongs or belonged, and says which and whose it was.
pub(super) async fn delete_family(
    tx: &Transaction<'_>,
    token: &RefreshToken,
) -> Result<Option<(SessionId, UserId)>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- sessions::delete_family
            DELETE FROM sessions WHERE family_hash = $1 RETURNING id, user_id",
            &[(&token.family_hash().as_slice(), Type::BYTEA)],
        )
        .await?;
    let ended = |row: Row| Ok((SessionId(row.try_get("id")?), UserId(row.try_get("user_id")?)));
    row.map(ended).transpose()
}

/// Ends all sessions of a user but `kept`, and says how many.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_all(tx: &Transaction<'_>, user: UserId, kept: Option<SessionId>) -> Result<u64, DbError> {
    let rows = tx
        .execute_typed(
            "-- sessions::delete_all
            DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2",
            &[(&user.0, Type::UUID), (&kept.map(|kept| kept.0), Type::UUID)],
        )
        .await?;
    Ok(rows)
}

fn address(client: &Client) -> Option<String> {
    client.address.ip().map(|ip| ip.to_string())
}

fn view(row: &Row) -> Result<SessionView, tokio_postgres::Error> {
    Ok(SessionView {
        id: SessionId(row.try_get("id")?),
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        expires_at: row.try_get("expires_at")?,
        address: row.try_get("address")?,
        user_agent: row.try_get("user_agent")?,
    })
}
