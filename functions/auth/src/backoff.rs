//! What slows down guessing a password, and can not be used to lock its owner out.
//!
//! Attempts are counted for each pair of account and address, before the password is looked at, so that guesses side by
//! side are counted too. After [`FREE`] in a row each further one must wait, twice as long each time; one that succeeds
//! begins anew. Whoever guesses from one place slows down that place alone.
//!
//! Guesses from many addresses share, beside that, one quota for each account. It does not touch addresses from which the
//! account was logged in to lately: its owner comes in from where they always do, whatever others try. From a new place,
//! while an attack from many addresses goes on, they may have to wait their turn; resetting the password by mail lets them
//! in and makes the new place a known one. So nobody can be locked out for good without their mailbox.
//!
//! Addresses without an account are counted just the same: a limit must not tell which accounts exist.

use std::time::Duration;

use aws_lc_rs::digest;
use shared::{config::Quota, db::DbError, domain::UserId, http::Client};
use tokio_postgres::{Transaction, types::Type};

use crate::{email::Email, error::AuthError, limits};

/// Attempts in a row that need not wait: people try their three passwords, and again in capitals.
const FREE: i32 = 10;

/// The longest wait. A guesser has under a hundred tries a day from one place then.
const WAIT_MAX_S: f64 = 15.0 * 60.0;

/// Attempts are forgotten when there was none for so long.
const FORGET_S: f64 = 86_400.0;

/// An address from which somebody logged in is known for so long.
const KNOWN_S: f64 = 90.0 * 86_400.0;

/// Rows of which nothing must be remembered, removed with each attempt.
const SWEPT_MAX: i64 = 2;

/// Counts an attempt at the account of `email` before it is made.
///
/// # Errors
/// [`AuthError::TooManyAttempts`] when it must wait, or PostgreSQL's.
pub async fn attempt(tx: &Transaction<'_>, email: &str, client: &Client, quota: Quota) -> Result<Attempt, DbError> {
    let (account, address) = (account(email), client.address.counted_as());
    let row = tx
        .query_typed_opt(
            "-- login_attempts::attempt
            WITH swept AS (
                DELETE FROM login_attempts WHERE (account, address) IN (
                    SELECT account, address FROM login_attempts
                    WHERE last_at < now() - make_interval(secs => $6) AND (account, address) <> ($1, $2)
                    ORDER BY last_at LIMIT $7 FOR UPDATE SKIP LOCKED)
            ), counted AS (
                INSERT INTO login_attempts AS held (account, address, failures) VALUES ($1, $2, 1)
                ON CONFLICT (account, address) DO UPDATE SET
                    failures = CASE WHEN held.last_at < now() - make_interval(secs => $5) THEN 1
                        ELSE held.failures + 1 END,
                    open_at = now() + make_interval(secs => CASE
                        WHEN held.failures < $3 OR held.last_at < now() - make_interval(secs => $5) THEN 0
                        ELSE LEAST($4, 2.0::float8 ^ LEAST(held.failures - $3, 20)) END),
                    last_at = now()
                WHERE held.open_at <= now()
                RETURNING succeeded_at > now() - make_interval(secs => $6) AS known
            )
            SELECT COALESCE(known, false) AS known, NULL::float8 AS wait_s FROM counted
            UNION ALL
            SELECT false, GREATEST(extract(epoch FROM open_at - now()), 0)::float8 FROM login_attempts
            WHERE account = $1 AND address = $2 AND NOT EXISTS (SELECT FROM counted)",
            &[
                (&account.as_slice(), Type::BYTEA),
                (&address, Type::TEXT),
                (&FREE, Type::INT4),
                (&WAIT_MAX_S, Type::FLOAT8),
                (&FORGET_S, Type::FLOAT8),
                (&KNOWN_S, Type::FLOAT8),
                (&SWEPT_MAX, Type::INT8),
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(Attempt::Wait(Duration::from_secs(1))) };
    if let Some(wait_s) = row.try_get::<_, Option<f64>>("wait_s")? {
        return Ok(Attempt::Wait(Duration::from_secs_f64(wait_s.clamp(0.0, WAIT_MAX_S))));
    }
    if row.try_get("known")? {
        return Ok(Attempt::Go);
    }
    let standing = limits::take(tx, &format!("account {}", hex(&account)), quota).await?;
    Ok(if standing.admitted { Attempt::Go } else { Attempt::Wait(standing.next_in) })
}

/// Whether an attempt may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// Now.
    Go,
    /// Not before this time has passed.
    Wait(Duration),
}

impl Attempt {
    /// # Errors
    /// [`AuthError::TooManyAttempts`] when it must wait.
    pub fn check(self) -> Result<(), AuthError> {
        match self {
            Self::Go => Ok(()),
            Self::Wait(retry_after) => Err(AuthError::TooManyAttempts { retry_after }),
        }
    }
}

/// An attempt succeeded: the count begins anew, and the address is a known one.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn succeed(tx: &Transaction<'_>, email: &str, client: &Client) -> Result<(), DbError> {
    tx.execute_typed(
        "-- login_attempts::succeed
        INSERT INTO login_attempts AS held (account, address, succeeded_at) VALUES ($1, $2, now())
        ON CONFLICT (account, address) DO UPDATE SET failures = 0, open_at = now(), last_at = now(), succeeded_at = now()",
        &[(&account(email).as_slice(), Type::BYTEA), (&client.address.counted_as(), Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// Forgets from where an account was logged in to, when it is deleted.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn forget(tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- login_attempts::forget
        DELETE FROM login_attempts WHERE account = (SELECT sha256(convert_to(email, 'UTF8')) FROM users WHERE id = $1)",
        &[(&user.0, Type::UUID)],
    )
    .await?;
    Ok(())
}

/// The quota for mail to one address, whoever asks for it.
///
/// # Errors
/// [`AuthError::TooManyAttempts`] when it is used up, or PostgreSQL's.
pub async fn mail(tx: &Transaction<'_>, email: &Email, quota: Quota) -> Result<Attempt, DbError> {
    let standing = limits::take(tx, &format!("mail {}", hex(&account(email.as_str()))), quota).await?;
    Ok(if standing.admitted { Attempt::Go } else { Attempt::Wait(standing.next_in) })
}

fn account(email: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, email.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}
