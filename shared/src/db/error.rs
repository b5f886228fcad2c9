//! PostgreSQL's errors, by what a caller can do about them.

use std::time::Duration;

use deadpool_postgres::{PoolError, TimeoutType};

use crate::{domain::InvalidValue, problem::Problem};

/// What went wrong at PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// All connections are in use, and none came free in time.
    #[error("no connection came free in time")]
    PoolExhausted,
    /// The server can not be reached, or refuses connections.
    #[error("PostgreSQL can not be reached")]
    Unavailable(#[source] PoolError),
    /// The server is there, but has no room (memory, disk, connections, a lock) at the moment.
    #[error("PostgreSQL has no room at the moment")]
    Overloaded(#[source] tokio_postgres::Error),
    /// The connection broke before COMMIT was sent: nothing was done.
    #[error("the connection to PostgreSQL broke")]
    ConnectionLost(#[source] tokio_postgres::Error),
    /// The transaction conflicted with another, and was rolled back.
    #[error("the transaction conflicted with another")]
    Conflict(#[source] tokio_postgres::Error),
    /// The connection broke, or the time was over, after COMMIT was sent: it may have been done or not.
    #[error("COMMIT had no answer")]
    CommitUnknown(#[source] Option<tokio_postgres::Error>),
    /// It took longer than a transaction may; COMMIT was not sent.
    #[error("the transaction took too long")]
    Timeout,
    /// A statement changed or returned another number of rows than it must.
    #[error("{statement}: {rows} rows")]
    RowCount {
        /// The statement's name.
        statement: &'static str,
        /// The rows.
        rows: u64,
    },
    /// A column holds a value that its constraint or ours should have kept out.
    #[error("{column} holds a value that it should not")]
    Column {
        /// The column.
        column: &'static str,
        /// What is wrong with the value.
        #[source]
        source: InvalidValue,
    },
    /// Everything else: a constraint, a type, a defect.
    #[error("PostgreSQL refused a statement")]
    Statement(#[source] tokio_postgres::Error),
}

impl DbError {
    /// Whether the transaction is known to have left no trace, and may simply be run again.
    #[must_use]
    pub fn nothing_was_done(&self) -> bool {
        match self {
            Self::ConnectionLost(_) | Self::Conflict(_) => true,
            Self::PoolExhausted
            | Self::Unavailable(_)
            | Self::Overloaded(_)
            | Self::CommitUnknown(_)
            | Self::Timeout
            | Self::RowCount { .. }
            | Self::Column { .. }
            | Self::Statement(_) => false,
        }
    }

    /// Whether the same transaction may succeed later without anyone changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::PoolExhausted
            | Self::Unavailable(_)
            | Self::Overloaded(_)
            | Self::ConnectionLost(_)
            | Self::Conflict(_)
            | Self::CommitUnknown(_)
            | Self::Timeout => true,
            Self::RowCount { .. } | Self::Column { .. } | Self::Statement(_) => false,
        }
    }

    /// For `map_err`, where a column's text is parsed into a type of the domain.
    pub fn column(column: &'static str) -> impl FnOnce(InvalidValue) -> Self {
        move |source| Self::Column { column, source }
    }

    /// The error of a COMMIT. PostgreSQL's own refusal means that it was rolled back; a broken connection
    /// leaves it open.
    pub(super) fn from_commit(error: tokio_postgres::Error) -> Self {
        match Self::from(error) {
            Self::ConnectionLost(error) => Self::CommitUnknown(Some(error)),
            other => other,
        }
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            // No SQLSTATE: the transport's error, or a value of ours that could not be converted.
            let transport = error.is_closed()
                || std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
            return if transport { Self::ConnectionLost(error) } else { Self::Statement(error) };
        };
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        match code.code() {
            "40001" | "40P01" => Self::Conflict(error),
            "57014" => Self::Timeout,
            // The server ends our session, or is no longer the primary: another connection may reach the one that is.
            "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25006" | "25P03" | "25P04" => {
                Self::ConnectionLost(error)
            }
            "55P03" => Self::Overloaded(error),
            other if other.starts_with("08") => Self::ConnectionLost(error),
            other if other.starts_with("53") => Self::Overloaded(error),
            _ => Self::Statement(error),
        }
    }
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::PoolExhausted,
            error => Self::Unavailable(error),
        }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match &error {
            DbError::PoolExhausted
            | DbError::Unavailable(_)
            | DbError::Overloaded(_)
            | DbError::ConnectionLost(_)
            | DbError::Conflict(_)
            | DbError::CommitUnknown(_)
            | DbError::Timeout => Self::unavailable("postgresql", Duration::from_secs(1), error),
            DbError::RowCount { .. } | DbError::Column { .. } | DbError::Statement(_) => Self::internal(error),
        }
    }
}

/// The name of the constraint that a statement violated, to be given its meaning where the query stands.
#[must_use]
pub fn constraint(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().and_then(tokio_postgres::error::DbError::constraint)
}
