//! Where secrets come from in the cloud, and how a change of theirs is noticed: [`Live`] reads again what is used to check
//! and to sign, when it has become old; [`Credential`] what others check, when they refuse it.

mod credential;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_secretsmanager::{Client, error::SdkError, operation::get_secret_value::GetSecretValueError};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};

pub use self::credential::{Credential, RENEWAL_MAX};
use crate::{config::ConfigError, metrics, problem::Causes};

/// A store of secrets.
#[async_trait]
pub trait SecretSource: Send + Sync + std::fmt::Debug {
    /// The secret's current value.
    ///
    /// # Errors
    /// When it does not exist, or may not or can not be read.
    async fn get(&self, id: &str) -> Result<SecretString, SecretError>;

    /// The value that is to become the current one, while a rotation is under way: it may hold already.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html#term_version>
    ///
    /// # Errors
    /// When it may not or can not be read; that there is none is no error.
    async fn get_pending(&self, _id: &str) -> Result<Option<SecretString>, SecretError> {
        Ok(None)
    }
}

/// A secret that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager refused or did not answer.
    #[error("Secrets Manager did not give the secret")]
    Refused(#[source] Box<SdkError<GetSecretValueError>>),
    /// The entry holds bytes, not text.
    #[error("the secret is not text")]
    NotText,
}

/// AWS Secrets Manager. The client is made when the first secret is asked for: a start that needs none pays nothing.
#[derive(Debug, Default)]
pub struct SecretsManager {
    client: OnceCell<Client>,
}

impl SecretsManager {
    /// One for all of a process.
    #[must_use]
    pub fn shared() -> Arc<dyn SecretSource> {
        Arc::new(Self::default())
    }
}

#[async_trait]
impl SecretSource for SecretsManager {
    async fn get(&self, id: &str) -> Result<SecretString, SecretError> {
        self.version(id, "AWSCURRENT").await
    }

    async fn get_pending(&self, id: &str) -> Result<Option<SecretString>, SecretError> {
        match self.version(id, "AWSPENDING").await {
            Err(SecretError::Refused(error))
                if error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

impl SecretsManager {
    async fn version(&self, id: &str, stage: &str) -> Result<SecretString, SecretError> {
        let client = self
            .client
            .get_or_init(async || Client::new(&aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await))
            .await;
        let answer = client
            .get_secret_value()
            .secret_id(id)
            .version_stage(stage)
            .send()
            .await
            .map_err(|error| SecretError::Refused(Box::new(error)))?;
        answer.secret_string.map(SecretString::from).ok_or(SecretError::NotText)
    }
}

/// How long a re-reading may take. What was read before is still there.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// An entry of a store of secrets.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The store.
    pub secrets: Arc<dyn SecretSource>,
    /// The entry's id.
    pub id: String,
}

/// What was made of a secret, and is made again when the secret may have changed: rotation needs no restart.
#[derive(Debug)]
pub struct Live<T> {
    value: RwLock<Arc<T>>,
    /// `None`: it can not change.
    entry: Option<Entry>,
    asked: Mutex<Instant>,
}

impl<T> Live<T> {
    /// A value that was just made of the secret in `entry`.
    #[must_use]
    pub fn new(value: T, entry: Option<Entry>) -> Self {
        Self { value: RwLock::new(Arc::new(value)), entry, asked: Mutex::new(Instant::now()) }
    }

    /// The value as it was last made.
    #[must_use]
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value, made anew by `make` when the secret was last asked for longer ago than `age`. A secret that can not be
    /// read, or does not hold, leaves what was there: it is logged, and asked for again after `age`.
    pub async fn within(&self, age: Duration, make: impl FnOnce(&str) -> Result<T, ConfigError>) -> Arc<T> {
        let Some(entry) = &self.entry else { return self.now() };
        // Held while the secret is read: who comes meanwhile waits, and finds it fresh.
        let mut asked = self.asked.lock().await;
        if asked.elapsed() < age {
            return self.now();
        }
        *asked = Instant::now();
        match tokio::time::timeout(READ_TIMEOUT, entry.secrets.get(&entry.id)).await {
            Ok(Ok(secret)) => match make(secret.expose_secret()) {
                Ok(value) => *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value),
                Err(error) => {
                    metrics::secret_failure();
                    tracing::error!(secret = entry.id, error = %Causes(&error), "the secret does not hold");
                }
            },
            Ok(Err(error)) => {
                metrics::secret_failure();
                tracing::error!(secret = entry.id, error = %Causes(&error), "the secret is not read");
            }
            Err(_) => {
                metrics::secret_failure();
                tracing::error!(secret = entry.id, "the secret is not read in time");
            }
        }
        self.now()
    }
}
