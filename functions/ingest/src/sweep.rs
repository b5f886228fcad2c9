//! What is done unasked: finish interrupted ingestions, and remove retired points that are due.

use shared::{App, db::DbError, deadline::Deadline, problem::Causes};
use tokio_postgres::types::Type;

use crate::{
    error::IngestError,
    saga::{self, Outcome},
};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Interrupted ingestions that are active now.
    pub completed: usize,
    /// Interrupted ingestions that were worked on and need more time, or failed and will be tried again.
    pub left: usize,
}

/// Sweeps until there is nothing to do, or the time is over.
///
/// # Errors
/// When PostgreSQL does not answer, or Qdrant not for removals. An ingestion that fails is counted and left for later.
pub async fn sweep(app: &App, deadline: Deadline) -> Result<Swept, IngestError> {
    let mut swept = Swept::default();
    fail_abandoned(app).await?;
    while deadline.remaining() > saga::TIME_MIN {
        let Some(lease) = saga::take_over_expired(app, deadline).await? else { break };
        match saga::run(app, lease, None, "sweep", deadline).await {
            Ok(Outcome::Active(_)) => swept.completed += 1,
            Ok(Outcome::Paused(_)) => {
                // The time is over. Taking it up again at once would only spend what is left on leases.
                swept.left += 1;
                break;
            }
            Err(error) => {
                swept.left += 1;
                tracing::warn!(document.id = %lease.document, error = %Causes(&error), "ingestion left for later");
            }
        }
    }
    while !deadline.passed() && saga::clean_due(app, deadline).await? {}
    Ok(swept)
}

/// How long a client may take to send a document again whose first request ended before its text was stored.
const ABANDONED_AFTER_S: f64 = 15.0 * 60.0;

/// Ends revisions that only their client could go on with, and it does not: nobody waits for them any more.
async fn fail_abandoned(app: &App) -> Result<(), DbError> {
    app.db
        .transaction("fail abandoned revisions", async move |tx| {
            tx.execute_typed(
                "-- revisions::fail_abandoned
                UPDATE document_revisions r SET state = 'failed', finished_at = now(), failure_code = 'interrupted',
                    failure_detail = 'The request broke off before the text was stored. Send the document again.'
                FROM (
                    SELECT document_id, number FROM document_revisions
                    WHERE state = 'claimed' AND lease_expires_at < now() - make_interval(secs => $1)
                    FOR UPDATE SKIP LOCKED
                ) abandoned
                WHERE r.document_id = abandoned.document_id AND r.number = abandoned.number",
                &[(&ABANDONED_AFTER_S, Type::FLOAT8)],
            )
            .await?;
            Ok(())
        })
        .await
}
