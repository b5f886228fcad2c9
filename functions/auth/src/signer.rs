//! Issues access tokens. The only place that has the private key.

use std::{
    fmt, process,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use shared::{
    config::{ConfigError, TokenConfig},
    domain::{SessionId, UserId},
    problem::Causes,
    secrets::Live,
    tokens::{Claims, TYP, Verifier},
};
use time::OffsetDateTime;
use uuid::Uuid;

/// 112 bits of security, which NIST SP 800-57 takes through 2030; a signature costs a third of one with 3072 bits.
const KEY_SIZE: KeySize = KeySize::Rsa2048;

/// Characters of a line of base64 in PEM (RFC 7468, section 2).
const PEM_LINE_CHARS: usize = 64;

/// Issues access tokens: JWT by RFC 9068, signed with RS256. Cheap to clone.
#[derive(Clone)]
pub struct Signer(Arc<OnceLock<Inner>>);

struct Inner {
    keys: Live<Vec<SigningKey>>,
    /// The one that signs now.
    current: RwLock<SigningKey>,
    /// Knows which keys are published.
    verifier: Verifier,
    issuer: String,
    audience: String,
    access_ttl: Duration,
}

#[derive(Clone)]
struct SigningKey {
    key: Arc<EncodingKey>,
    header: Header,
    not_before: OffsetDateTime,
}

/// How old the signing keys may become: a rotation takes effect within this time, and its key must have been published for
/// longer, or functions would meet tokens that they can not check yet.
const KEYS_AGE_MAX: Duration = Duration::from_mins(5);

/// Several keys in one secret: `{"keys": [{"private_pem": "...", "not_before": "2026-11-25T12:00:00Z"}]}`. The newest whose time
/// has come signs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    private_pem: String,
    #[serde(default, with = "time::serde::rfc3339::option")]
    not_before: Option<OffsetDateTime>,
}

/// A token that gives access to all that its account may see, until it expires.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token.
    pub token: SecretString,
    /// How long it lives.
    pub expires_in: Duration,
}

/// A token that could not be signed: a defect, because the key was tried at the start.
#[derive(Debug, thiserror::Error)]
#[error("the access token could not be signed")]
pub struct SignError(#[source] jsonwebtoken::errors::Error);

impl Inner {
    fn new(config: &TokenConfig) -> Result<Self, ConfigError> {
        let secret = config.signing_key.as_ref().ok_or(ConfigError::Missing("TOKEN_SIGNING_KEY"))?;
        let keys = read_keys(secret.expose_secret())?;
        let verifier = Verifier::new(config)?;
        let current = newest(&keys, OffsetDateTime::now_utc())
            .ok_or_else(|| ConfigError::invalid("TOKEN_SIGNING_KEY", "none of its keys may sign yet"))?;
        if !current.header.kid.as_deref().is_some_and(|kid| verifier.publishes(kid)) {
            let reason = "the signing key's public key is not in it, or not with its RFC 7638 thumbprint as `kid`";
            return Err(ConfigError::invalid("TOKEN_JWKS", reason));
        }
        Ok(Self {
            current: RwLock::new(current.clone()),
            keys: Live::new(keys, config.signing_key_entry.clone()),
            verifier,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            access_ttl: config.access_ttl,
        })
    }
}

impl Signer {
    /// The signer that `config` describes.
    ///
    /// # Errors
    /// When there is no signing key, when one is not an RSA key of at least 2,048 bits, when none may sign yet, and when the
    /// public half of the one that signs is not in the key set: then nobody could check what it signs.
    pub fn new(config: &TokenConfig) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(OnceLock::from(Inner::new(config)?))))
    }

    /// The same beside all else that starts: checking a key takes longer than anything else of it, and most requests sign nothing.
    /// Who signs waits for it. A configuration that does not hold ends the process, as it would have at the start.
    #[must_use]
    pub fn starting(config: TokenConfig) -> Self {
        let signer = Self(Arc::default());
        let starting = signer.clone();
        thread::spawn(move || match Inner::new(&config) {
            // It is set here alone.
            Ok(inner) => drop(starting.0.set(inner)),
            Err(error) => {
                tracing::error!(error = %Causes(&error), "tokens can not be signed");
                process::exit(1);
            }
        });
        signer
    }

    /// Takes notice of a rotation. Called before tokens are issued.
    ///
    /// A key that is not published yet does not sign, whatever its time: functions would refuse its tokens.
    pub async fn keep_up(&self) {
        let keys = self.inner().keys.within(KEYS_AGE_MAX, read_keys).await;
        let Some(newest) = newest(&keys, OffsetDateTime::now_utc()) else { return };
        let kid = newest.header.kid.as_deref().unwrap_or_default();
        if self.current().header.kid.as_deref() == Some(kid) {
            return;
        }
        if self.inner().verifier.knows(kid).await {
            tracing::info!(kid, "another key signs from now on");
            *self.inner().current.write().unwrap_or_else(PoisonError::into_inner) = newest.clone();
        } else {
            tracing::error!(kid, "a signing key is not published, and does not sign: add it to TOKEN_JWKS");
        }
    }

    fn inner(&self) -> &Inner {
        self.0.wait()
    }

    fn current(&self) -> SigningKey {
        self.inner().current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A fresh access token for `user` that belongs to no session.
    ///
    /// # Errors
    /// When it can not be signed.
    pub fn access_token(&self, user: UserId) -> Result<AccessToken, SignError> {
        self.access_token_at(user, None, SystemTime::now())
    }

    /// A fresh access token for `user` in `session`.
    ///
    /// # Errors
    /// When it can not be signed.
    pub fn session_token(&self, user: UserId, session: SessionId) -> Result<AccessToken, SignError> {
        self.access_token_at(user, Some(session), SystemTime::now())
    }

    fn access_token_at(
        &self,
        user: UserId,
        session: Option<SessionId>,
        now: SystemTime,
    ) -> Result<AccessToken, SignError> {
        let inner = self.inner();
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: inner.issuer.clone(),
            aud: inner.audience.clone(),
            sub: user,
            iat: now_s,
            nbf: now_s,
            exp: now_s + inner.access_ttl.as_secs(),
            jti: Uuid::new_v4(),
            sid: session,
        };
        let SigningKey { key, header, .. } = self.current();
        let token = jsonwebtoken::encode(&header, &claims, &key).map_err(SignError)?;
        Ok(AccessToken { token: token.into(), expires_in: inner.access_ttl })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.current().header.kid).finish_non_exhaustive()
    }
}

/// The keys in a secret: one in PEM, or a [`KeyFile`].
fn read_keys(secret: &str) -> Result<Vec<SigningKey>, ConfigError> {
    // The parsers' own errors are left out: they may repeat a part of the key.
    let invalid =
        || ConfigError::invalid("TOKEN_SIGNING_KEY", "it is neither an RSA private key in PEM nor a list of such");
    let one = |pem: &str, not_before: Option<OffsetDateTime>| {
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| invalid())?;
        let mut header = Header::new(Algorithm::RS256);
        header.typ = Some(TYP.to_owned());
        header.kid = public_jwk(&key).map_err(|_| invalid())?.common.key_id;
        Ok(SigningKey { key: Arc::new(key), header, not_before: not_before.unwrap_or(OffsetDateTime::UNIX_EPOCH) })
    };
    if !secret.trim_start().starts_with('{') {
        return Ok(vec![one(secret, None)?]);
    }
    let file: KeyFile = serde_json::from_str(secret).map_err(|_| invalid())?;
    file.keys.iter().map(|entry| one(&entry.private_pem, entry.not_before)).collect()
}

/// The key that signs at this moment.
fn newest(keys: &[SigningKey], now: OffsetDateTime) -> Option<&SigningKey> {
    keys.iter().filter(|key| key.not_before <= now).max_by_key(|key| key.not_before)
}

/// A signing key and the key set by which its tokens are checked.
#[derive(Clone, Debug)]
pub struct GeneratedKeys {
    /// The private key: PKCS #8 in PEM, for `TOKEN_SIGNING_KEY`.
    pub private_pem: SecretString,
    /// A key set with its public key alone, for `TOKEN_JWKS`.
    pub jwks: String,
}

/// Why no key could be generated: the system's cryptography failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// aws-lc gave no key.
    #[error("no RSA key could be generated")]
    Key(#[from] aws_lc_rs::error::Unspecified),
    /// The key that it gave can not be read.
    #[error("the generated RSA key can not be read")]
    Read(#[from] jsonwebtoken::errors::Error),
    /// The key set can not be written.
    #[error("the key set can not be written")]
    Write(#[from] serde_json::Error),
}

/// A fresh signing key: for a first installation, for rotation, for the local stack and for tests. Takes about a second
/// without optimisation.
///
/// # Errors
/// When the system's cryptography fails.
pub fn generate() -> Result<GeneratedKeys, GenerateError> {
    let pkcs8: Pkcs8V1Der<'_> = KeyPair::generate(KEY_SIZE)?.as_der()?;
    let pem = pem("PRIVATE KEY", pkcs8.as_ref());
    let jwk = public_jwk(&EncodingKey::from_rsa_pem(pem.as_bytes())?)?;
    let jwks = serde_json::to_string(&JwkSet { keys: vec![jwk] })?;
    Ok(GeneratedKeys { private_pem: pem.into(), jwks })
}

/// The public half of `key`, named by its thumbprint (RFC 7638): the name follows from the key and can not be given twice.
fn public_jwk(key: &EncodingKey) -> Result<Jwk, jsonwebtoken::errors::Error> {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::RS256)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(jwk)
}

/// Textual encoding of keys: RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, char) in STANDARD.encode(der).chars().enumerate() {
        if at > 0 && at % PEM_LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(char);
    }
    text + &format!("\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests;
