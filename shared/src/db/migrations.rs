//! The schema's migrations: plain SQL in `migrations/`, applied in order, each once.

use refinery::Target;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    certificate,
    config::{ConfigError, DatabaseConfig},
};

mod embedded {
    #![allow(missing_docs, reason = "generated")]
    refinery::embed_migrations!("../migrations");
}

/// Any number, as long as it is this one everywhere: whoever migrates holds the advisory lock of this key.
const LOCK_KEY: i64 = 0x4c6f_636b_7374_6570;

/// The role under which the functions run: see `grants.sql`.
pub const APP_ROLE: &str = "lockstep_app";

/// Gives [`APP_ROLE`] what it may do.
const GRANTS: &str = include_str!("grants.sql");

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The configuration does not hold.
    #[error("the database's configuration does not hold")]
    Config(#[from] ConfigError),
    /// PostgreSQL can not be reached, or the lock can not be had.
    #[error("PostgreSQL can not be reached")]
    Connect(#[from] tokio_postgres::Error),
    /// A migration failed, or a file that was applied has changed since.
    #[error("a migration failed, or an applied file has changed")]
    Migrate(#[from] refinery::Error),
}

/// Applies what is missing and returns how many migrations that were. Safe to run again and from several processes at
/// once: the others wait. A file that was applied and has changed since is refused. A schema that
/// is newer than this program stays as it is.
///
/// # Errors
/// See [`MigrationError`].
pub async fn run(config: &DatabaseConfig) -> Result<usize, MigrationError> {
    let mut pg: tokio_postgres::Config =
        config.url.expose_secret().parse().map_err(|source| ConfigError::invalid("DATABASE_URL", source))?;
    super::tls::require(&mut pg);
    let connected = pg.connect(super::tls::connector(config.ca_file.as_deref())?).await;
    let (mut client, connection) = certificate::watched("postgresql", connected)?;
    let connection = tokio::spawn(connection);
    // A migration may take longer than a request's statement.
    client.batch_execute("SET statement_timeout = 0").await?;
    // Held by the session: it goes when the connection does, so a killed migration leaves no lock behind.
    client.execute_typed("SELECT pg_advisory_lock($1)", &[(&LOCK_KEY, tokio_postgres::types::Type::INT8)]).await?;
    let report = embedded::migrations::runner()
        .set_target(Target::Latest)
        .set_abort_divergent(true)
        // A version that is gone back to finds a schema that is newer than it knows, and leaves it so.
        .set_abort_missing(false)
        .run_async(&mut client)
        .await?;
    client.batch_execute(GRANTS).await?;
    limit_statements(&client, config).await?;
    drop(client);
    // Ends once the client is gone; its own error would only repeat what the statements have said.
    connection.await.ok();
    Ok(report.applied_migrations().len())
}

/// Bounds what a statement may take on the server, for whoever uses this database: the functions' role is another one than
/// ours, and does not inherit such settings from a group. A statement whose caller is gone
/// would go on holding locks. Set here, because a pooler between us (RDS Proxy, PgBouncer) refuses it as a start-up option
/// and pins the session when it is set in one.
async fn limit_statements(client: &tokio_postgres::Client, config: &DatabaseConfig) -> Result<(), MigrationError> {
    let timeout_ms = config.transaction_timeout.as_millis();
    let set = format!(
        "DO $$
        BEGIN
            EXECUTE format('ALTER DATABASE %I SET statement_timeout = {timeout_ms}', current_database());
            EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = {timeout_ms}',
                current_database());
        END $$"
    );
    client.batch_execute(&set).await?;
    Ok(())
}

/// `url`, for sessions that run under [`APP_ROLE`] from their start though another role logs in: for the local stack and
/// for tests, whose only login role owns everything. An installation has a login role that is a member of it.
#[must_use]
pub fn as_app_role(url: &SecretString) -> SecretString {
    let url = url.expose_secret();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20role%3D{APP_ROLE}").into()
}
