//! Step 6: one transaction in which the staged revision becomes the one that queries see, the former one retires, what
//! fell out of the text retires, and the idempotency keys get their answer. Guarded by the fence, so it happens once.

use futures::TryFutureExt as _;
use shared::{App, db::DbError, documents::IN_FLIGHT_GRACE_S, metrics};
use tokio_postgres::{Transaction, types::Type};

use super::{Lease, hold};
use crate::{
    documents,
    error::IngestError,
    failpoint::{self, reached},
    idempotency::{self, StoredResponse},
};

/// Activates, and returns the answer.
pub(super) async fn activate(app: &App, lease: Lease) -> Result<StoredResponse, IngestError> {
    reached(failpoint::ACTIVATE_BEFORE);
    let (answer, chunks, bytes) = app
        .db
        .transaction("activate revision", async move |tx| {
            // One is sent behind the other, and none waits for an answer: they are done in this order, and only together.
            let ((), (), former, (), view) = tokio::try_join!(
                biased;
                idempotency::lock_ingestion(tx, lease.document, lease.revision).err_into(),
                hold(tx, lease),
                retire(tx, lease).err_into(),
                switch(tx, lease).err_into(),
                // A newer one may be claimed already; the answer is this one's.
                documents::get_at(tx, lease.document, lease.revision).err_into::<IngestError>(),
            )?;
            if let Some(former) = former {
                drop_former(tx, lease, former).await?;
            }
            let view = view.ok_or(IngestError::NoDocument)?;
            let answer = view.answer(super::status(former.is_none()))?;
            idempotency::finish_ingestion(tx, lease.document, lease.revision, &answer).await?;
            let embedded = view.ingestion.chunks.map_or(0, |chunks| chunks.embedded);
            Ok::<_, IngestError>((answer, embedded, view.size_bytes))
        })
        .await?;
    metrics::ingested(u64::try_from(chunks).unwrap_or_default(), u64::try_from(bytes).unwrap_or_default());
    reached(failpoint::ACTIVATE_COMMITTED);
    Ok(answer)
}

/// Retires the active revision and returns its number. First, so that there are never two active ones.
async fn retire(tx: &Transaction<'_>, lease: Lease) -> Result<Option<i32>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- revisions::retire
            UPDATE document_revisions SET state = 'retired', finished_at = now()
            WHERE document_id = $1 AND state = 'active' RETURNING number",
            &[(&lease.document.0, Type::UUID)],
        )
        .await?;
    Ok(row.map(|row| row.try_get("number")).transpose()?)
}

async fn switch(tx: &Transaction<'_>, lease: Lease) -> Result<(), DbError> {
    let rows = tx
        .execute_typed(
            "-- documents::activate
            WITH revision AS (
                UPDATE document_revisions SET state = 'active', finished_at = now(), lease_expires_at = now()
                WHERE document_id = $1 AND number = $2 AND fence = $3 AND state = 'staged'
                RETURNING number, title, attributes
            )
            UPDATE documents d SET active_revision = r.number, title = COALESCE(r.title, d.title), attributes = r.attributes,
                updated_at = now()
            FROM revision r WHERE d.id = $1",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4), (&lease.fence, Type::INT8)],
        )
        .await?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "documents::activate", rows }) }
}

/// Removes the former revision's positions, and the chunks that stand in no other: their ids go on the list. A newer
/// revision that is being read part by part keeps what it has brought in so far.
async fn drop_former(tx: &Transaction<'_>, lease: Lease, former: i32) -> Result<(), DbError> {
    tx.execute_typed(
        "-- chunks::retire
        WITH gone AS (
            DELETE FROM chunk_metadata c
            WHERE c.document_id = $1 AND c.first_revision <= $2
                AND NOT EXISTS (SELECT FROM chunk_positions p WHERE p.chunk_id = c.id AND p.revision = $2)
            RETURNING c.id
        )
        INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        SELECT id, $3, $1, now() + make_interval(secs => $4) FROM gone",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&lease.knowledge_base.0, Type::UUID),
            (&IN_FLIGHT_GRACE_S, Type::FLOAT8),
        ],
    )
    .await?;
    tx.execute_typed(
        "-- positions::delete
        DELETE FROM chunk_positions WHERE document_id = $1 AND revision = $2",
        &[(&lease.document.0, Type::UUID), (&former, Type::INT4)],
    )
    .await?;
    Ok(())
}
