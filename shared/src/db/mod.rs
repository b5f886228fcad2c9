//! The one door to PostgreSQL: a pool for each container, named transactions, unnamed statements.
//!
//! Statements are sent with `query_typed` / `execute_typed`: unnamed, one round trip, and they do not pin a
//! session of RDS Proxy, as named prepared statements do
//! (<https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html>). Every statement begins with a
//! comment that names it, so that it is found again in PostgreSQL's log and statistics.

mod connect;
mod error;
pub mod migrations;
mod query;
mod tls;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Transaction;

use self::connect::Connector;
pub use self::{
    error::{DbError, constraint},
    query::Parameter,
};
use crate::{
    config::{ConfigError, DatabaseConfig},
    deadline::Deadline,
    metrics,
    retry::{self, RetryBudget},
    secrets,
};

/// Attempts of one transaction, the first included. Conflicts between a few short transactions resolve at once;
/// more attempts would only hide a design that fights itself.
const ATTEMPTS_MAX: u32 = 4;

/// The first and the longest pause between attempts, of which [`retry::pause`] takes a part.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long sent bytes may stay unacknowledged before a connection counts as dead.
const UNANSWERED_MAX: Duration = Duration::from_secs(5);

/// How long a connection may be silent before the peer is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// A pool of connections to PostgreSQL. Cheap to clone; connects when first used, if not told before.
#[derive(Clone, Debug)]
pub struct Db {
    pool: Pool,
    connector: Connector,
    transaction_timeout: Duration,
    deadline: Option<Deadline>,
    retries: RetryBudget,
}

impl Db {
    /// A pool that will connect when first used.
    ///
    /// # Errors
    /// When the URL or the certificate authority's file can not be read.
    pub fn new(config: &DatabaseConfig) -> Result<Self, ConfigError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let connector = Connector::new(config)?;
        let manager = Manager::from_connect(tokio_postgres::Config::new(), connector.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.pool_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.wait_timeout))
            .create_timeout(Some(2 * config.connect_timeout + secrets::RENEWAL_MAX))
            .build()
            .map_err(|source| ConfigError::invalid("DATABASE_POOL_MAX", source))?;
        let transaction_timeout = config.transaction_timeout;
        Ok(Self { pool, connector, transaction_timeout, deadline: None, retries: RetryBudget::new("postgresql") })
    }

    /// Begins to connect, so that it is done beside whatever else a start takes; the first statement waits for the rest of it,
    /// and connects by itself if that fails. Only on a runtime of tokio.
    pub fn connect_early(&self) {
        self.connector.begin();
    }

    /// The same pool, for calls that must end by `deadline`: waiting for a connection, attempts and pauses included.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// Runs `work` in a transaction and commits it. `name` stands in the log.
    ///
    /// Tried again, with jitter, when PostgreSQL says that it conflicted with another (SQLSTATE 40001, 40P01), and when
    /// the connection broke before COMMIT was sent: then nothing was done. When it breaks or the time is over after that,
    /// nobody can know: [`DbError::CommitUnknown`]. So `work` must be safe to run again; it makes no other remote call.
    ///
    /// It ends within the time that a transaction may take, and by the deadline: the one that was given ([`Self::until`]), or
    /// the request's ([`Deadline::cover`]).
    ///
    /// # Errors
    /// What `work` returns, and [`DbError`] turned into its type.
    pub async fn transaction<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: From<DbError> + AsDbError,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        self.retries.note_call();
        let mut attempts = 1;
        loop {
            let committing = AtomicBool::new(false);
            let own = Deadline::after(self.transaction_timeout);
            let end = self.deadline().map_or(own, |deadline| deadline.min(own));
            // On the heap: statements that are sent one behind the other are large futures.
            let attempt = Box::pin(self.attempt(&work, &committing));
            let run = tokio::time::timeout_at(end.instant(), attempt);
            let error = match run.await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) if committing.into_inner() => return Err(DbError::CommitUnknown(None).into()),
                Err(_) => return Err(DbError::Timeout.into()),
            };
            let again = error.as_db_error().is_some_and(DbError::nothing_was_done);
            let pause = retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempts);
            let in_time = self.deadline().is_none_or(|deadline| pause < deadline.remaining());
            if !again || attempts >= ATTEMPTS_MAX || !in_time || !self.retries.take() {
                return Err(error);
            }
            tracing::warn!(db.transaction = name, db.attempt = attempts, error = %error.as_db_error().map_or_else(String::new, |e| crate::problem::Causes(e).to_string()), "transaction tried again");
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.deadline.or_else(Deadline::covering)
    }

    async fn attempt<T, E, F>(&self, work: &F, committing: &AtomicBool) -> Result<T, E>
    where
        E: From<DbError> + AsDbError,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let asked = Instant::now();
        let mut checkout = Checkout(Some(self.pool.get().await.map_err(DbError::from)?));
        metrics::pool_wait(asked.elapsed());
        let result = async {
            let client = checkout.0.as_mut().ok_or(DbError::Timeout)?;
            let transaction = client.transaction().await.map_err(DbError::from)?;
            let value = work(&transaction).await?;
            committing.store(true, Ordering::Relaxed);
            transaction.commit().await.map_err(DbError::from_commit)?;
            Ok(value)
        }
        .await;
        let broken = |error: &E| error.as_db_error().is_some_and(|error| matches!(error, DbError::ConnectionLost(_)));
        if result.as_ref().is_err_and(broken) {
            // It breaks for all at once when the server restarts or the container was frozen: the others that lie in the
            // pool are as dead, and each would cost an attempt.
            self.pool.retain(|_, _| false);
        } else {
            // To the end, whatever that was: the connection is good for the next.
            drop(checkout.0.take());
        }
        result
    }
}

/// A connection in use. One whose transaction was cut (timeout, client gone) still runs a statement: it is closed instead
/// of making the next one wait.
struct Checkout(Option<Object>);

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// An error that may hold a [`DbError`], so that [`Db::transaction`] sees whether another attempt is safe.
pub trait AsDbError {
    /// The database's error in it, if that is what it is.
    fn as_db_error(&self) -> Option<&DbError>;
}

impl AsDbError for DbError {
    fn as_db_error(&self) -> Option<&DbError> {
        Some(self)
    }
}
