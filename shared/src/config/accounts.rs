//! Accounts and access tokens.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::variables::{ConfigError, entry, parsed, required, secret, text};
use crate::secrets::{Entry, SecretSource};

/// The memory of a process of which nobody says it, in MiB.
const MEMORY_MIB_DEFAULT: u32 = 512;

/// How accounts are opened and guarded.
#[derive(Clone, Debug)]
pub struct AccountsConfig {
    /// What a registration needs.
    pub registration: Registration,
    /// How mail leaves; without it, what needs mail answers 503.
    pub mail: Option<MailConfig>,
    /// The memory of the whole process, in MiB: Lambda says it.
    pub memory_mib: u32,
    /// Requests of one client address to the routes that take credentials or send mail.
    pub address_quota: Quota,
    /// Login attempts at one account from addresses that are new to it, all together.
    pub account_quota: Quota,
    /// Mails to one address.
    pub mail_quota: Quota,
}

impl AccountsConfig {
    /// On one machine: a registration signs in at once, mail lands in `mail`.
    #[must_use]
    pub fn local(mail: PathBuf) -> Self {
        Self {
            registration: Registration::Open,
            mail: Some(MailConfig::Folder(mail)),
            memory_mib: MEMORY_MIB_DEFAULT,
            // A person's errors, and an office behind one address; a guesser gets nowhere with it.
            address_quota: Quota { requests: 60, window: Duration::from_mins(1) },
            account_quota: Quota { requests: 30, window: Duration::from_mins(15) },
            // A mailbox that is written to more often is being flooded.
            mail_quota: Quota { requests: 5, window: Duration::from_hours(1) },
        }
    }

    pub(super) fn from_env() -> Result<Self, ConfigError> {
        let mut config = Self::local(PathBuf::new());
        config.registration = match text("AUTH_REGISTRATION")?.as_deref() {
            None | Some("verified") => Registration::Verified,
            Some("open") => Registration::Open,
            Some(_) => return Err(ConfigError::invalid("AUTH_REGISTRATION", "it is neither `open` nor `verified`")),
        };
        config.mail = match (text("MAIL_FROM")?, parsed("MAIL_DIR")?) {
            (Some(from), _) => Some(MailConfig::Ses { from }),
            (None, Some(folder)) => Some(MailConfig::Folder(folder)),
            (None, None) => None,
        };
        config.memory_mib = parsed("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")?.unwrap_or(config.memory_mib);
        let quota = |name, quota: &mut Quota| -> Result<(), ConfigError> {
            quota.requests = parsed(name)?.unwrap_or(quota.requests);
            if quota.requests == 0 {
                return Err(ConfigError::invalid(name, "it is zero"));
            }
            Ok(())
        };
        quota("AUTH_REQUESTS_PER_MINUTE", &mut config.address_quota)?;
        quota("AUTH_ATTEMPTS_PER_QUARTER_HOUR", &mut config.account_quota)?;
        quota("AUTH_MAILS_PER_HOUR", &mut config.mail_quota)?;
        Ok(config)
    }
}

/// What a registration needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registration {
    /// Nothing: it signs in at once. So it must tell when an address is taken.
    Open,
    /// A code that is sent to the address: the answer is the same whether or not it is taken.
    Verified,
}

/// How mail leaves.
#[derive(Clone, Debug)]
pub enum MailConfig {
    /// By Amazon SES, from this address.
    Ses {
        /// The sender: an identity that SES has verified.
        from: String,
    },
    /// Into files in this folder: local runs and tests.
    Folder(PathBuf),
}

/// So many requests in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// The most that come at once.
    pub requests: u32,
    /// The time in which they are all there again.
    pub window: Duration,
}

/// How access tokens are issued and checked.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// `iss`: the URL under which `/.well-known/` is found.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// The public keys, as a JSON Web Key Set (RFC 7517). All functions need them.
    pub jwks: String,
    /// The entry that the key set was read from, if it was one: then it is read again when it may have changed.
    pub jwks_entry: Option<Entry>,
    /// The private signing keys: one as PEM, or several with the time from which each signs (see `auth::signer`). Only
    /// `auth` may have them.
    pub signing_key: Option<SecretString>,
    /// The entry that these were read from, likewise.
    pub signing_key_entry: Option<Entry>,
}

impl TokenConfig {
    pub(super) async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let jwks = required("TOKEN_JWKS", secret("TOKEN_JWKS", secrets).await?)?;
        Ok(Self {
            issuer: required("TOKEN_ISSUER", text("TOKEN_ISSUER")?)?,
            audience: text("TOKEN_AUDIENCE")?.unwrap_or_else(|| "lockstep".to_owned()),
            // Short, because an access token can not be called back.
            access_ttl: Duration::from_secs(parsed("TOKEN_ACCESS_TTL_S")?.unwrap_or(15 * 60)),
            jwks: jwks.expose_secret().to_owned(),
            jwks_entry: entry("TOKEN_JWKS", secrets)?,
            signing_key: secret("TOKEN_SIGNING_KEY", secrets).await?,
            signing_key_entry: entry("TOKEN_SIGNING_KEY", secrets)?,
        })
    }
}
