//! The two stores.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;

use super::variables::{ConfigError, entry, parsed, required, secret};
use crate::secrets::{Credential, Entry, SecretSource};

/// Where PostgreSQL is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database?sslmode=...`
    pub url: SecretString,
    /// The entry that it was read from, if it was one: its password may be rotated.
    pub url_entry: Option<Entry>,
    /// Certificate authorities beside the public ones, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Connections of one container.
    pub pool_max: usize,
    /// How long a request waits for a free connection.
    pub wait_timeout: Duration,
    /// How long a new connection may take.
    pub connect_timeout: Duration,
    /// How long a whole transaction may take.
    pub transaction_timeout: Duration,
}

impl DatabaseConfig {
    /// Reads the environment: all that migrations need.
    ///
    /// # Errors
    /// As [`super::Config::from_env`].
    pub async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let mut config = Self::at(required("DATABASE_URL", secret("DATABASE_URL", secrets).await?)?);
        config.url_entry = entry("DATABASE_URL", secrets)?;
        config.ca_file = parsed("DATABASE_CA_FILE")?;
        config.pool_max = parsed("DATABASE_POOL_MAX")?.unwrap_or(config.pool_max);
        Ok(config)
    }

    /// The defaults for a database under `url`.
    #[must_use]
    pub fn at(url: SecretString) -> Self {
        Self {
            url,
            url_entry: None,
            ca_file: None,
            pool_max: 8,
            // Longer than a transaction takes; who waits longer stands behind a crowd, and had better come back.
            wait_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(3),
            transaction_timeout: Duration::from_secs(20),
        }
    }
}

/// Where Qdrant is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct QdrantConfig {
    /// The gRPC endpoint: `http://host:6334`.
    pub url: String,
    /// Sent with every request.
    pub api_key: Option<Credential>,
    /// Begins the names of all collections and aliases, so that installations can share a server.
    pub prefix: String,
    /// How long one request may take.
    pub timeout: Duration,
}

impl QdrantConfig {
    /// The defaults for a server at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), api_key: None, prefix: "lockstep".to_owned(), timeout: Duration::from_secs(10) }
    }
}
