//! Access tokens, as every function checks them. Only `auth` issues them.
//!
//! JWT with RS256 alone: API Gateway's HTTP API authorizer takes RSA only, and one algorithm leaves nothing to
//! confuse (RFC 8725, section 3.1).

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, JwkSet, KeyAlgorithm},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{ConfigError, TokenConfig},
    domain::UserId,
    secrets::Live,
};

/// The `typ` of an access token, so that no other kind of JWT passes for one (RFC 9068, section 2.1).
pub const TYP: &str = "at+jwt";

/// Longer tokens are not looked at: ours have about 700 bytes.
const BYTES_MAX: usize = 4_096;

/// Clocks of issuer and checker may differ by this much.
const LEEWAY_S: u64 = 5;

/// What an access token says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// The account.
    pub sub: UserId,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Not before, seconds since 1970.
    pub nbf: u64,
    /// Expires, seconds since 1970.
    pub exp: u64,
    /// The token's own id.
    pub jti: uuid::Uuid,
}

/// How old a key set may become: a new key is known everywhere this long after it was published.
const KEYS_AGE_MAX: Duration = Duration::from_mins(5);

/// How soon a key set is read again for a key that is not in it: a flood of made-up keys costs one reading in this time.
const KEYS_AGE_MIN: Duration = Duration::from_secs(30);

/// Checks access tokens against the public keys. Cheap to clone; clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<Live<PublicKeys>>,
    validation: Arc<Validation>,
}

/// The public keys, to be published and to be used.
struct PublicKeys {
    set: JwkSet,
    by_id: HashMap<String, DecodingKey>,
}

impl PublicKeys {
    fn read(jwks: &str) -> Result<Self, ConfigError> {
        let invalid = |source: Box<dyn std::error::Error + Send + Sync>| ConfigError::invalid("TOKEN_JWKS", source);
        let set: JwkSet = serde_json::from_str(jwks).map_err(|error| invalid(error.into()))?;
        let mut by_id = HashMap::new();
        for jwk in &set.keys {
            let kid = jwk.common.key_id.clone().ok_or_else(|| invalid("a key has no `kid`".into()))?;
            // A symmetric or an elliptic key could check nothing here, and a secret has no place among public keys.
            if !matches!(jwk.algorithm, AlgorithmParameters::RSA(_))
                || jwk.common.key_algorithm.is_some_and(|algorithm| algorithm != KeyAlgorithm::RS256)
            {
                return Err(invalid("a key is not an RSA key for RS256".into()));
            }
            let key = DecodingKey::from_jwk(jwk).map_err(|error| invalid(error.into()))?;
            if by_id.insert(kid, key).is_some() {
                return Err(invalid("two keys have the same `kid`".into()));
            }
        }
        if by_id.is_empty() {
            return Err(invalid("the key set is empty".into()));
        }
        Ok(Self { set, by_id })
    }
}

/// A token that does not hold. Deliberately without a reason for the client: it would help only an attacker.
#[derive(Debug, thiserror::Error)]
#[error("the access token does not hold: {0}")]
pub struct InvalidToken(&'static str);

impl Verifier {
    /// A verifier for the key set in `config`.
    ///
    /// # Errors
    /// When the key set can not be read or is empty, or a key in it is not an RSA key for RS256 with a `kid` of its own.
    pub fn new(config: &TokenConfig) -> Result<Self, ConfigError> {
        let keys = Live::new(PublicKeys::read(&config.jwks)?, config.jwks_entry.clone());
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        Ok(Self { keys: Arc::new(keys), validation: Arc::new(validation) })
    }

    /// The key set as it is published: read strictly as public keys, so that private members among them, were there any,
    /// are dropped.
    pub async fn key_set(&self) -> JwkSet {
        self.keys.within(KEYS_AGE_MAX, PublicKeys::read).await.set.clone()
    }

    /// Whether this key stood in the key set when that was last read.
    #[must_use]
    pub fn publishes(&self, kid: &str) -> bool {
        self.keys.now().by_id.contains_key(kid)
    }

    /// Whether this key is published; the key set is read again now and then, and for a key that is not in it.
    pub async fn knows(&self, kid: &str) -> bool {
        if self.keys.within(KEYS_AGE_MAX, PublicKeys::read).await.by_id.contains_key(kid) {
            return true;
        }
        self.keys.within(KEYS_AGE_MIN, PublicKeys::read).await.by_id.contains_key(kid)
    }

    /// What a valid token says. The key set is read again now and then, and for a key that is not in it.
    ///
    /// # Errors
    /// When it is not one of ours, or not valid now.
    pub async fn check(&self, token: &str) -> Result<Claims, InvalidToken> {
        let kid = key_id(token)?;
        self.knows(&kid).await;
        self.verify(token)
    }

    /// What a valid token says, by the keys that are known.
    ///
    /// The header chooses among our own keys by `kid` and nothing else: `jku`, `x5u` and `jwk` in it are not looked at,
    /// and `alg` must be RS256 whatever the key.
    ///
    /// # Errors
    /// When it is not one of ours, or not valid now.
    pub fn verify(&self, token: &str) -> Result<Claims, InvalidToken> {
        let kid = key_id(token)?;
        let keys = self.keys.now();
        let key = keys.by_id.get(&kid).ok_or(InvalidToken("unknown key"))?;
        jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map(|token| token.claims)
            .map_err(|_| InvalidToken("signature or claims"))
    }
}

/// The key that a token's header names, if the header is one of ours.
fn key_id(token: &str) -> Result<String, InvalidToken> {
    if token.len() > BYTES_MAX {
        return Err(InvalidToken("too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken("no header"))?;
    if header.typ.as_deref().is_none_or(|typ| !typ.eq_ignore_ascii_case(TYP)) {
        return Err(InvalidToken("other type"));
    }
    // RFC 7515, section 4.1.11: an extension that must be understood and is not makes the token invalid.
    if header.crit.is_some() {
        return Err(InvalidToken("critical extension"));
    }
    header.kid.ok_or(InvalidToken("unknown key"))
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("kids", &self.keys.now().by_id.keys()).finish_non_exhaustive()
    }
}
