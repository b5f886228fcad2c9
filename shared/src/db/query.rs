//! The door for one statement, without BEGIN and COMMIT, so one round trip: to read, or to write what may be written twice.

use std::time::Instant;

use deadpool_postgres::Object;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{ATTEMPTS_MAX, BACKOFF_FIRST, BACKOFF_MAX, Checkout, Db, DbError};
use crate::{deadline::Deadline, metrics, retry};

/// A parameter of a statement, with its type: a statement without a name needs it.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Db {
    /// Runs one statement by itself, and returns its rows. It sees one snapshot, as any single statement does.
    ///
    /// Tried again as [`Db::transaction`] is, and also when nobody can know whether it was done: so a statement that writes may
    /// come here only where being run twice does no harm. `name` stands in the log.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn query(
        &self,
        name: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DbError> {
        self.retries.note_call();
        let mut attempt = 1;
        loop {
            let own = Deadline::after(self.transaction_timeout);
            let end = self.deadline().map_or(own, |deadline| deadline.min(own));
            // On the heap: whoever asks many things would be a large future.
            let once = Box::pin(self.query_once(statement, parameters));
            let error = match tokio::time::timeout_at(end.instant(), once).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => error,
                Err(_) => return Err(DbError::Timeout),
            };
            let pause = retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempt);
            let in_time = self.deadline().is_none_or(|deadline| pause < deadline.remaining());
            if !error.nothing_was_done() || attempt >= ATTEMPTS_MAX || !in_time || !self.retries.take() {
                return Err(error);
            }
            tracing::warn!(db.query = name, db.attempt = attempt, error = %crate::problem::Causes(&error), "query tried again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// [`Self::query`] for a statement that has one row, or none.
    ///
    /// # Errors
    /// See [`DbError`]; [`DbError::RowCount`] when there are more.
    pub async fn query_opt(
        &self,
        name: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, DbError> {
        let mut rows = self.query(name, statement, parameters).await?;
        let row = rows.pop();
        if rows.is_empty() { Ok(row) } else { Err(DbError::RowCount { statement: name, rows: rows.len() as u64 + 1 }) }
    }

    /// [`Self::query`] for a statement that has one row.
    ///
    /// # Errors
    /// See [`DbError`]; [`DbError::RowCount`] when there are more or none.
    pub async fn query_one(
        &self,
        name: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, DbError> {
        let row = self.query_opt(name, statement, parameters).await?;
        row.ok_or(DbError::RowCount { statement: name, rows: 0 })
    }

    async fn query_once(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, DbError> {
        let asked = Instant::now();
        let mut checkout = Checkout(Some(self.pool.get().await?));
        metrics::pool_wait(asked.elapsed());
        let client: &Object = checkout.0.as_ref().ok_or(DbError::Timeout)?;
        let result = client.query_typed(statement, parameters).await.map_err(DbError::from);
        if let Err(DbError::ConnectionLost(_)) = &result {
            self.pool.retain(|_, _| false);
        } else {
            drop(checkout.0.take());
        }
        result
    }
}
