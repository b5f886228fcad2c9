//! Failures that the same work would meet again: how often it is tried all the same, and how a revision ends that can not
//! be completed.

use shared::{App, db::DbError, embed::EmbedError, objects::ObjectError, vectors::IndexError};
use tokio_postgres::{Transaction, types::Type};

use super::{Lease, hold, retry_pause, revisions};
use crate::{error::IngestError, idempotency};

/// Refusals after which a revision is given up. Their pauses add up to a quarter of an hour: what refuses may be mended
/// meanwhile (a key that has changed, a quota), and a revision that somebody was promised is not given up lightly.
const REFUSALS_MAX: i32 = 10;

/// How long a client may take to send a document again whose first request ended before its text was stored.
const ABANDONED_AFTER_S: f64 = 15.0 * 60.0;

/// Why a revision has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Its client did not come again before its text was stored.
    Interrupted,
    /// The embedder refuses the text, or can not work at all.
    EmbedderRefused,
    /// Qdrant refuses the points.
    IndexRefused,
    /// The object was changed or removed before its text was stored.
    SourceGone,
    /// A defect of ours, or of the database's.
    Internal,
}

/// How a failed revision says why.
pub(super) struct End {
    /// Stable, for clients.
    pub(super) code: &'static str,
    /// A sentence for people.
    pub(super) detail: String,
}

impl Failure {
    /// What this error is, if the same work would meet it again. `None` for what may pass by itself.
    pub(super) fn of(error: &IngestError) -> Option<Self> {
        if error.retryable() {
            return None;
        }
        Some(match error {
            IngestError::Embed(EmbedError::Rejected { .. } | EmbedError::BadAnswer(_)) => Self::EmbedderRefused,
            IngestError::Index(IndexError::Refused(_)) => Self::IndexRefused,
            IngestError::Object(ObjectError::Missing | ObjectError::Changed | ObjectError::Archived) => {
                Self::SourceGone
            }
            _ => Self::Internal,
        })
    }

    fn end(self) -> End {
        End { code: self.code(), detail: self.detail().to_owned() }
    }

    /// Stable, for clients.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::EmbedderRefused => "embedder_refused",
            Self::IndexRefused => "index_refused",
            Self::SourceGone => "source_gone",
            Self::Internal => "internal",
        }
    }

    /// A sentence for people, and what to do.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Interrupted => "The request broke off before the text was stored. Send the document again.",
            Self::EmbedderRefused => {
                "The embedding model refused the text each time. Send the document again when that is mended."
            }
            Self::IndexRefused => "Qdrant refused the points each time. Send the document again when that is mended.",
            Self::SourceGone => {
                "The object was changed, removed or archived before its text was stored. Store it again."
            }
            Self::Internal => {
                "The ingestion failed each time, for a reason that is logged. Send the document again when that is mended."
            }
        }
    }
}

/// Ends the lease after a failure that would come again. The revision is left for another attempt after a pause; when it
/// was refused too often, it has failed: its chunks retire, and the active revision goes on answering. Its keys keep no
/// answer, as for all that is no fault of the request: sent again, it begins anew.
pub(super) async fn refused(app: &App, lease: Lease, failure: Failure) -> Result<(), IngestError> {
    app.db
        .transaction("note refusal", async move |tx| {
            idempotency::release_ingestion(tx, lease.document, lease.fence).await?;
            match hold(tx, lease).await {
                // Whoever has it now, it is theirs.
                Err(IngestError::Fenced) => return Ok(()),
                held => held?,
            }
            if note(tx, lease).await? >= REFUSALS_MAX {
                tracing::error!(document.id = %lease.document, document.revision = lease.revision, revision.failure = failure.code(), "ingestion given up");
                revisions::retire_chunks(tx, lease.document, lease.revision, lease.revision).await?;
                fail(tx, lease, &failure.end()).await?;
            }
            Ok(())
        })
        .await
}

/// Ends the lease, and returns how often the revision was refused.
async fn note(tx: &Transaction<'_>, lease: Lease) -> Result<i32, DbError> {
    let row = tx
        .query_typed_one(
            "-- revisions::refused
            UPDATE document_revisions SET refusals = refusals + 1, lease_expires_at = now(),
                next_attempt_at = now() + make_interval(secs => $3)
            WHERE document_id = $1 AND number = $2 RETURNING refusals",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&retry_pause(lease.attempt).as_secs_f64(), Type::FLOAT8),
            ],
        )
        .await?;
    Ok(row.try_get("refusals")?)
}

/// Ends an unfinished revision as failed; its chunks are retired already.
pub(super) async fn fail(tx: &Transaction<'_>, lease: Lease, end: &End) -> Result<(), DbError> {
    tx.execute_typed(
        "-- revisions::fail
        WITH positions AS (DELETE FROM chunk_positions WHERE document_id = $1 AND revision = $2)
        UPDATE document_revisions SET state = 'failed', finished_at = now(), failure_code = $3, failure_detail = $4
        WHERE document_id = $1 AND number = $2",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&end.code, Type::TEXT),
            (&end.detail, Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

/// Ends revisions that only their client could go on with, and it does not: nobody waits for them any more.
///
/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn fail_abandoned(app: &App) -> Result<(), DbError> {
    app.db
        .transaction("fail abandoned revisions", async move |tx| {
            // Locked in the order in which claims do it.
            tx.execute_typed(
                "-- revisions::fail_abandoned
                UPDATE document_revisions r
                SET state = 'failed', finished_at = now(), failure_code = $2, failure_detail = $3
                FROM (
                    SELECT document_id, number FROM document_revisions
                    WHERE state = 'claimed' AND object_key IS NULL AND lease_expires_at < now() - make_interval(secs => $1)
                    ORDER BY document_id, number DESC FOR UPDATE
                ) abandoned
                WHERE r.document_id = abandoned.document_id AND r.number = abandoned.number",
                &[
                    (&ABANDONED_AFTER_S, Type::FLOAT8),
                    (&Failure::Interrupted.code(), Type::TEXT),
                    (&Failure::Interrupted.detail(), Type::TEXT),
                ],
            )
            .await?;
            Ok(())
        })
        .await
}
