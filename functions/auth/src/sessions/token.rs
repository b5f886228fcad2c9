//! Refresh tokens: two random halves, of which one stays for the session's life and the other changes.
//!
//! The half that stays, the *family*, is a secret: only who has, or had, one of the session's tokens knows it. So an old
//! token is known for what it is, however old, without a row for each, and nobody can end a session by knowing its id.
//!
//! The half that changes follows from the one before it by HMAC under a *link*, 256 bits that are drawn at the rotation
//! and stored. Whoever presents the previous token again, because the answer was lost or because several requests
//! refresh at once, is given the same successor again, though no token is stored: the database alone has the link
//! without the token, and a thief the token without the link.

use std::{borrow::Cow, fmt, str::FromStr};

use aws_lc_rs::{digest, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema},
};

/// What every refresh token begins with: scanners find one that was left lying about.
const MARK: &str = "lr_";

/// Bytes of each half: 256 bits, which nobody guesses, and SHA-256 keeps.
const HALF_BYTES: usize = 32;

/// Longer texts are not decoded.
const CHARS_MAX: usize = MARK.len() + (2 * HALF_BYTES).div_ceil(3) * 4;

/// SHA-256 of a half: all that is stored of it. Slow hashing is for what people think of; nobody guesses 256 random bits.
pub type Hash = [u8; HALF_BYTES];

/// The key by which a token's successor follows from it.
pub type Link = [u8; HALF_BYTES];

/// Something that should be a refresh token, and can not be one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a refresh token")]
pub struct MalformedToken;

/// A refresh token. Not shown by `Debug`.
#[derive(Clone)]
pub struct RefreshToken {
    family: [u8; HALF_BYTES],
    current: [u8; HALF_BYTES],
}

impl RefreshToken {
    /// The first token of a new family.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn draw() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let (mut family, mut current) = ([0; HALF_BYTES], [0; HALF_BYTES]);
        rand::fill(&mut family)?;
        rand::fill(&mut current)?;
        Ok(Self { family, current })
    }

    /// A fresh link.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn draw_link() -> Result<Link, aws_lc_rs::error::Unspecified> {
        let mut link = [0; HALF_BYTES];
        rand::fill(&mut link)?;
        Ok(link)
    }

    /// The token that follows from this one by `link`: always the same.
    #[must_use]
    pub fn successor(&self, link: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, link), &self.current);
        let mut current = [0; HALF_BYTES];
        for (to, from) in current.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Self { family: self.family, current }
    }

    /// The hash of the half that stays.
    #[must_use]
    pub fn family_hash(&self) -> Hash {
        sha256(&self.family)
    }

    /// The hash of the half that changes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&self.current)
    }

    /// The token, for its holder.
    #[must_use]
    pub fn expose(&self) -> SecretString {
        format!("{MARK}{}", URL_SAFE_NO_PAD.encode([self.family, self.current].concat())).into()
    }
}

impl FromStr for RefreshToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix(MARK).filter(|_| text.len() <= CHARS_MAX).ok_or(MalformedToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedToken)?;
        let (family, current) = bytes.split_at_checked(HALF_BYTES).ok_or(MalformedToken)?;
        let half = |bytes: &[u8]| bytes.try_into().map_err(|_| MalformedToken);
        Ok(Self { family: half(family)?, current: half(current)? })
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; HALF_BYTES];
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

/// A refresh token as a request carries it: any string. Not shown by `Debug`.
#[derive(Clone)]
pub struct RawToken(SecretString);

impl RawToken {
    /// What was sent.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The token that it is.
    ///
    /// # Errors
    /// When it can not be one.
    pub fn parse(&self) -> Result<RefreshToken, MalformedToken> {
        self.expose().parse()
    }
}

impl<'de> serde::Deserialize<'de> for RawToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own message about another type would repeat what stands there.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text.into())),
            _ => Err(serde::de::Error::custom("the token is not a string")),
        }
    }
}

impl PartialSchema for RawToken {
    fn schema() -> RefOr<schema::Schema> {
        schema::Object::builder().schema_type(schema::Type::String).into()
    }
}

impl ToSchema for RawToken {
    fn name() -> Cow<'static, str> {
        "Token".into()
    }
}

impl fmt::Debug for RawToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let token = RefreshToken::draw().unwrap();
        let text = token.expose().expose_secret().to_owned();
        let read: RefreshToken = text.parse().unwrap();
        assert_eq!((read.family_hash(), read.hash()), (token.family_hash(), token.hash()));
        let no_tokens = ["", MARK, "lr_AAAA", text.get(1..).unwrap(), text.get(..text.len() - 2).unwrap()];
        for no_token in no_tokens.into_iter().chain([&*format!("{text}AA"), &*format!("{text}=")]) {
            assert_eq!(no_token.parse::<RefreshToken>().unwrap_err(), MalformedToken, "{no_token}");
        }
        assert!(!format!("{token:?}").contains(text.get(3..10).unwrap()));
    }

    #[test]
    fn a_successor_follows_from_token_and_link_alone() {
        let (token, other) = (RefreshToken::draw().unwrap(), RefreshToken::draw().unwrap());
        let link = RefreshToken::draw_link().unwrap();
        assert_eq!(token.successor(&link).hash(), token.successor(&link).hash());
        assert_eq!(token.successor(&link).family_hash(), token.family_hash());
        assert_ne!(token.successor(&link).hash(), token.hash());
        assert_ne!(token.successor(&RefreshToken::draw_link().unwrap()).hash(), token.successor(&link).hash());
        assert_ne!(other.successor(&link).hash(), token.successor(&link).hash());
    }
}
