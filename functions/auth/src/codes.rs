//! Codes that are sent by mail: single use, short-lived, hashed at rest.
//!
//! 128 random bits, and no short number: nobody guesses one, so there are no attempts to count, and nobody can use up
//! another's; and the stored hash can not be searched, as that of six digits can within a second.

use std::fmt::{self, Write};

use aws_lc_rs::{digest, rand};
use secrecy::{ExposeSecret, SecretString};
use shared::{db::DbError, domain::UserId};
use tokio_postgres::{Row, Transaction, types::Type};

use crate::{hashing::StoredHash, sessions::token::RawToken};

/// Bytes of a code.
const CODE_BYTES: usize = 16;

/// Longer texts are not looked at; codes have 32 characters, and people paste spaces along.
const CHARS_MAX: usize = 100;

/// What a code proves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// That the address of a new account is its owner's.
    Verify,
    /// That an address is the owner's of the account that is to move there.
    Change,
    /// That a new password is the owner's.
    Reset,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Change => "change",
            Self::Reset => "reset",
        }
    }

    /// How long a code holds, in seconds. One that lets somebody in: 10 minutes (OWASP ASVS 5.0, 6.5.5). One that only
    /// confirms an address: until they look into their mail.
    fn life_s(self) -> f64 {
        match self {
            Self::Verify | Self::Change => 86_400.0,
            Self::Reset => 600.0,
        }
    }
}

/// A code, for the mail in which it is sent. Not shown by `Debug`.
#[derive(Clone)]
pub struct EmailCode(SecretString);

impl EmailCode {
    /// A fresh code.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn draw() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; CODE_BYTES];
        rand::fill(&mut bytes)?;
        let mut text = String::new();
        for byte in bytes {
            write!(text, "{byte:02x}").ok();
        }
        Ok(Self(text.into()))
    }

    /// The code, for the mail.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> CodeHash {
        CodeHash::of(self.expose())
    }
}

impl fmt::Debug for EmailCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailCode([redacted])")
    }
}

/// SHA-256 of a code.
#[derive(Clone, Debug)]
pub struct CodeHash(Vec<u8>);

impl CodeHash {
    fn of(text: &str) -> Self {
        Self(digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec())
    }
}

impl From<&RawToken> for CodeHash {
    /// Of what somebody typed; what can not be a code gives the hash of none.
    fn from(raw: &RawToken) -> Self {
        let typed = raw.expose();
        let text: String = typed.chars().take(CHARS_MAX).filter(|char| !char.is_whitespace()).collect();
        Self::of(&text.to_ascii_lowercase())
    }
}

/// What a code was sent for.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The account.
    pub user: UserId,
    /// Where it was sent.
    pub email: String,
    /// The password of the registration that it confirms.
    pub password_hash: Option<StoredHash>,
    /// The name that was given then.
    pub display_name: Option<String>,
}

/// Stores a code, in the transaction after which it is sent. For a registration others may hold beside it, each with the
/// password of its own; else it replaces the one before.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn insert(tx: &Transaction<'_>, code: &CodeHash, purpose: Purpose, sent: &Sent) -> Result<(), DbError> {
    tx.execute_typed(
        "-- email_codes::insert
        WITH gone AS (
            DELETE FROM email_codes WHERE user_id = $2 AND (expires_at <= now() OR purpose = $3 AND purpose <> 'verify'))
        INSERT INTO email_codes (code_hash, user_id, purpose, email, password_hash, display_name, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))",
        &[
            (&code.0, Type::BYTEA),
            (&sent.user.0, Type::UUID),
            (&purpose.as_str(), Type::TEXT),
            (&sent.email, Type::TEXT),
            (&sent.password_hash.as_ref().map(StoredHash::expose), Type::TEXT),
            (&sent.display_name, Type::TEXT),
            (&purpose.life_s(), Type::FLOAT8),
        ],
    )
    .await?;
    Ok(())
}

/// Uses a code up, in one statement: of two who present it, one gets it.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn take(tx: &Transaction<'_>, code: &CodeHash, purpose: Purpose) -> Result<Option<Sent>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- email_codes::take
            DELETE FROM email_codes WHERE code_hash = $1 AND purpose = $2 AND expires_at > now()
            RETURNING user_id, email, password_hash, display_name",
            &[(&code.0, Type::BYTEA), (&purpose.as_str(), Type::TEXT)],
        )
        .await?;
    Ok(row.as_ref().map(sent).transpose()?)
}

/// What a code was sent for, without using it up.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get(tx: &Transaction<'_>, code: &CodeHash, purpose: Purpose) -> Result<Option<Sent>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- email_codes::get
            SELECT user_id, email, password_hash, display_name FROM email_codes
            WHERE code_hash = $1 AND purpose = $2 AND expires_at > now()",
            &[(&code.0, Type::BYTEA), (&purpose.as_str(), Type::TEXT)],
        )
        .await?;
    Ok(row.as_ref().map(sent).transpose()?)
}

/// The latest registration of a user that waits for its code.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn latest_registration(tx: &Transaction<'_>, user: UserId) -> Result<Option<Sent>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- email_codes::latest_registration
            SELECT user_id, email, password_hash, display_name FROM email_codes
            WHERE user_id = $1 AND purpose = 'verify' ORDER BY created_at DESC, code_hash LIMIT 1",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    Ok(row.as_ref().map(sent).transpose()?)
}

/// Forgets all codes of a user: what they were sent for is over.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_all(tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- email_codes::delete_all\nDELETE FROM email_codes WHERE user_id = $1",
        &[(&user.0, Type::UUID)],
    )
    .await?;
    Ok(())
}

fn sent(row: &Row) -> Result<Sent, tokio_postgres::Error> {
    Ok(Sent {
        user: UserId(row.try_get("user_id")?),
        email: row.try_get("email")?,
        password_hash: row.try_get::<_, Option<String>>("password_hash")?.map(StoredHash::new),
        display_name: row.try_get("display_name")?,
    })
}
