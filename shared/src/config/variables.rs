//! The one file that reads the environment.

use std::{env, error::Error, str::FromStr, sync::Arc};

use secrecy::SecretString;

use crate::secrets::{Credential, Entry, SecretError, SecretSource};

/// A configuration that does not hold; names the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is needed and not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// It has a value that it does not take. The value itself is not shown: it may be secret.
    #[error("{name} has a value that it does not take")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The secret could not be read.
    #[error("the secret {name} could not be read")]
    Secret {
        /// The variable.
        name: &'static str,
        /// Why not.
        #[source]
        source: SecretError,
    },
}

impl ConfigError {
    /// `name` has a value that it does not take.
    pub fn invalid(name: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Invalid { name, source: source.into() }
    }
}

pub(super) fn required<T>(name: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing(name))
}

/// A variable that is set to nothing counts as not set: templates can not leave one out.
pub(super) fn text(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error @ env::VarError::NotUnicode(_)) => Err(ConfigError::invalid(name, error.to_string())),
    }
}

pub(super) fn parsed<T>(name: &'static str) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>,
{
    text(name)?.map(|value| value.parse().map_err(|error: T::Err| ConfigError::invalid(name, error))).transpose()
}

pub(super) async fn secret(
    name: &'static str,
    secrets: &Arc<dyn SecretSource>,
) -> Result<Option<SecretString>, ConfigError> {
    if let Some(value) = text(name)? {
        return Ok(Some(value.into()));
    }
    if let Some(file) = variable(name, "_FILE") {
        let value = std::fs::read_to_string(file).map_err(|error| ConfigError::invalid(name, error))?;
        return Ok(Some(value.trim_end().into()));
    }
    match entry(name, secrets)? {
        Some(entry) => {
            entry.secrets.get(&entry.id).await.map(Some).map_err(|source| ConfigError::Secret { name, source })
        }
        None => Ok(None),
    }
}

/// The secret `name`, with the entry that it is read from again when it is refused.
pub(super) async fn credential(
    name: &'static str,
    secrets: &Arc<dyn SecretSource>,
) -> Result<Option<Credential>, ConfigError> {
    let entry = entry(name, secrets)?;
    Ok(secret(name, secrets).await?.map(|value| Credential::new(value, entry)))
}

/// The entry that the secret `name` is read from; `None` when it is given in another way.
pub(super) fn entry(name: &'static str, secrets: &Arc<dyn SecretSource>) -> Result<Option<Entry>, ConfigError> {
    if text(name)?.is_some() || variable(name, "_FILE").is_some() {
        return Ok(None);
    }
    Ok(variable(name, "_ARN").map(|id| Entry { secrets: Arc::clone(secrets), id }))
}

fn variable(name: &'static str, suffix: &str) -> Option<String> {
    env::var(format!("{name}{suffix}")).ok().filter(|value| !value.is_empty())
}
