//! New connections: with the password that holds now. One that is refused may have been rotated; then it is read again, and
//! the connection is tried once more. Connections that stand outlive a rotation.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::Connect;
use futures::{FutureExt, future::BoxFuture};
use secrecy::{ExposeSecret, SecretString};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, Error, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{KEEPALIVE_IDLE, UNANSWERED_MAX, tls};
use crate::{
    certificate,
    config::{ConfigError, DatabaseConfig},
    secrets::Credential,
};

/// A connection, and what drives it.
type Connected = (Client, JoinHandle<()>);

/// Connects as the URL says that holds at the moment.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    url: Credential,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    /// A connection that nobody has asked for yet.
    begun: Mutex<Option<JoinHandle<Result<Connected, Error>>>>,
}

impl Connector {
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, ConfigError> {
        let check = |url: &str| parse(url).map(drop);
        check(config.url.expose_secret())?;
        let url = Credential::checked(config.url.clone(), config.url_entry.clone(), check);
        let tls = tls::connector(config.ca_file.as_deref())?;
        let begun = Mutex::default();
        Ok(Self(Arc::new(Inner { url, tls, connect_timeout: config.connect_timeout, begun })))
    }

    /// Begins to connect: who asks first takes that one.
    pub(super) fn begin(&self) {
        let inner = self.0.clone();
        let connecting = tokio::spawn(async move { inner.connect(&Config::new()).await });
        *self.0.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(connecting);
    }
}

impl Inner {
    /// What was begun, if it is good or soon will be. It may be old: a container is frozen at any point of it, and for as long
    /// as nobody asks. So its failure is nobody's, and tells nothing of now.
    async fn begun(&self) -> Option<Connected> {
        let connecting = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let connected = timeout(self.connect_timeout, connecting).await.ok()?.ok()?.ok()?;
        (!connected.0.is_closed()).then_some(connected)
    }

    async fn connect(&self, given: &Config) -> Result<Connected, Error> {
        let shown = self.url.now();
        match self.once(&shown, given).await {
            Err(error) if is_refused(&error) && self.url.renew(&shown).await => self.once(&self.url.now(), given).await,
            other => other,
        }
    }

    async fn once(&self, url: &Arc<SecretString>, given: &Config) -> Result<Connected, Error> {
        // Checked before it was taken up; if it were none, the pool's own would be refused likewise.
        let mut config = parse(url.expose_secret()).unwrap_or_else(|_| given.clone());
        config
            .application_name("lockstep")
            .connect_timeout(self.connect_timeout)
            // A peer that is gone without a word (failover, a container that was frozen) is noticed in seconds.
            .tcp_user_timeout(UNANSWERED_MAX)
            .keepalives_idle(KEEPALIVE_IDLE);
        tls::require(&mut config);
        let (client, connection) = certificate::watched("postgresql", config.connect(self.tls.clone()).await)?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a connection to PostgreSQL broke");
            }
        });
        Ok((client, task))
    }
}

impl Connect for Connector {
    fn connect(&self, given: &Config) -> BoxFuture<'_, Result<Connected, Error>> {
        let given = given.clone();
        async move {
            match self.0.begun().await {
                Some(connected) => Ok(connected),
                None => self.0.connect(&given).await,
            }
        }
        .boxed()
    }
}

// What it holds can not be shown, or must not.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<Config, ConfigError> {
    url.parse().map_err(|source| ConfigError::invalid("DATABASE_URL", source))
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>, class 28.
fn is_refused(error: &Error) -> bool {
    let refused = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| refused.contains(code))
}
