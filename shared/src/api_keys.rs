//! API keys, as every function checks them. Only `auth` makes them.
//!
//! A key is `lk_`, 8 characters that name it, `_`, 64 of secret and 8 of checksum, all hexadecimal: scanners find it by its
//! form, and one that was mistyped or cut is refused without asking PostgreSQL.
//!
//! At rest it is one SHA-256. argon2 makes guessing slow, and nobody guesses 256 random bits, with or without it; it would
//! only cost every request its time and memory.

use std::{collections::BTreeSet, fmt::Write, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::types::Type;
use utoipa::ToSchema;

use crate::{
    db::{Db, DbError},
    domain::{ApiKeyId, InvalidValue, UserId},
};

/// What every key begins with, and no JWT does.
pub const MARK: &str = "lk_";

/// Random bytes of a key's name: so few that it says nothing, and enough to tell one account's keys apart.
pub const NAME_BYTES: usize = 4;

/// Random bytes of a key's secret.
pub const SECRET_BYTES: usize = 32;

/// Bytes of the checksum: of mistyped keys, one in four billion costs a question to PostgreSQL.
const CHECKSUM_BYTES: usize = 4;

/// Characters of the part of a key that lists show.
const PREFIX_CHARS: usize = MARK.len() + 2 * NAME_BYTES;

/// Characters of a whole key.
const KEY_CHARS: usize = PREFIX_CHARS + 1 + 2 * (SECRET_BYTES + CHECKSUM_BYTES);

/// What a key lets its holder do, of what its account may do. None contains another: a key that only writes can leave
/// documents and read none.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask questions, and look at documents, knowledge bases, members and the account.
    Read,
    /// Send and delete documents, and have the stores compared.
    Write,
    /// Manage knowledge bases, their members, and API keys.
    Admin,
}

impl Scope {
    /// The word that stands in `api_keys.scopes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidValue::new("is not one of read, write, admin")),
        }
    }
}

/// Reads the column `api_keys.scopes`.
///
/// # Errors
/// When it holds a word that is no scope.
pub fn scopes(column: &[String]) -> Result<BTreeSet<Scope>, DbError> {
    column.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(DbError::column("api_keys.scopes"))
}

/// A key whose form is right. Can not be printed.
#[derive(Clone, Debug)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// The key with this name and this secret, both random.
    #[must_use]
    pub fn new(name: [u8; NAME_BYTES], secret: [u8; SECRET_BYTES]) -> Self {
        let mut key = format!("{MARK}{}_{}", hex(&name), hex(&secret));
        let checksum = checksum(&key);
        key.push_str(&checksum);
        Self(key.into())
    }

    /// The part that lists show.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.expose_secret().get(..PREFIX_CHARS).unwrap_or_default()
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret()).into()
    }

    /// The whole key, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A text that is no key of ours, by its form alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the API key is not complete or mistyped")]
pub struct MalformedKey;

impl FromStr for ApiKey {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let (body, sum) = text.split_at_checked(KEY_CHARS - 2 * CHECKSUM_BYTES).ok_or(MalformedKey)?;
        if body.starts_with(MARK) && checksum(body) == sum { Ok(Self(text.into())) } else { Err(MalformedKey) }
    }
}

/// What the holder of a key may do.
#[derive(Clone, Debug)]
pub struct KeyGrant {
    /// The key.
    pub key: ApiKeyId,
    /// Its account.
    pub user: UserId,
    /// Its scopes, as they are now.
    pub scopes: BTreeSet<Scope>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// What `key` grants now; `None` for one that was revoked, has expired, or never was. One statement, by one index; it also
/// keeps when the key was last used, to a minute, so that a busy key is not a row that everybody writes.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn authenticate(db: &Db, key: &ApiKey) -> Result<Option<KeyGrant>, DbError> {
    let hash = key.hash();
    let row = db.query_opt("authenticate API key", 
                "-- api_keys::authenticate
                WITH key AS (
                    SELECT id, user_id, scopes, expires_at, last_used_at FROM api_keys WHERE hash = $1 AND expires_at > now()
                ), used AS (
                    UPDATE api_keys SET last_used_at = now() FROM key WHERE api_keys.id = key.id
                        AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < now() - interval '1 minute')
                        AND (key.last_used_at IS NULL OR key.last_used_at < now() - interval '1 minute')
                )
                SELECT id, user_id, scopes, expires_at FROM key",
                &[(&hash.as_slice(), Type::BYTEA)],
            )
            .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(KeyGrant {
        key: ApiKeyId(row.try_get("id")?),
        user: UserId(row.try_get("user_id")?),
        scopes: scopes(&row.try_get::<_, Vec<String>>("scopes")?)?,
        expires_at: row.try_get("expires_at")?,
    }))
}

fn checksum(body: &str) -> String {
    hex(Sha256::digest(body).get(..CHECKSUM_BYTES).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a `String` does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_no_other_text_is() {
        let key = ApiKey::new([0xab; NAME_BYTES], [7; SECRET_BYTES]);
        let text = key.expose();
        assert_eq!((text.len(), key.prefix()), (KEY_CHARS, "lk_abababab"));
        assert_eq!(text.parse::<ApiKey>().unwrap().hash(), key.hash());
        for at in 0..text.len() {
            let mut typo = text.as_bytes().to_vec();
            typo[at] = if typo[at] == b'0' { b'1' } else { b'0' };
            assert!(std::str::from_utf8(&typo).unwrap().parse::<ApiKey>().is_err(), "a typo at {at}");
        }
        for other in [
            "",
            "lk_",
            text.get(1..).unwrap(),
            text.get(..text.len() - 1).unwrap(),
            &format!("{text}0"),
            &text.to_uppercase(),
            "lk_é",
        ] {
            assert!(other.parse::<ApiKey>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_key_can_not_be_printed() {
        let key = ApiKey::new([1; NAME_BYTES], [0xcd; SECRET_BYTES]);
        assert!(!format!("{key:?}").contains("cdcd"));
    }
}
