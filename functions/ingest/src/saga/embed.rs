//! Step 4: write the new chunks' points, batch by batch. After each batch the progress is committed, so that a later
//! invocation resumes where this one stopped. A batch that is written twice writes the same points.

use std::time::Duration;

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    retry, sparse,
    vectors::{IndexError, Point},
};
use tokio_postgres::{Row, types::Type};

use super::Lease;
use crate::{
    chunk,
    error::IngestError,
    failpoint::{self, reached},
};

/// Chunks of one batch: what is lost when an invocation is cut, about two seconds of inference on one core.
const BATCH: i64 = 32;

/// How often one write may reach Qdrant, the client's own second send included ([`IndexError::sends`]). Each time is safe: the
/// same id is the same point.
const SENDS_MAX: u32 = 6;

/// The first and the longest pause between attempts, of which [`retry::pause`] takes a part.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How far it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// All new chunks have their points.
    Done,
    /// The time is over; a later invocation goes on.
    OutOfTime,
}

/// A chunk that is still to be embedded.
pub(crate) struct Pending {
    id: ChunkId,
    ordinal: i32,
    input: String,
}

impl Pending {
    /// Of a row with `id`, `ordinal`, `text` and `heading_path`.
    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        let path: Vec<String> = row.try_get("heading_path")?;
        Ok(Self {
            id: ChunkId(row.try_get("id")?),
            ordinal: row.try_get("ordinal")?,
            input: chunk::embedding_input(&path, row.try_get("text")?),
        })
    }
}

/// Embeds all that is pending. While one batch is being written, the next is being embedded.
pub(super) async fn embed(app: &App, lease: Lease, deadline: Deadline) -> Result<Progress, IngestError> {
    app.index.ensure(deadline).await?;
    let mut through = -1;
    let mut embedded: Vec<(i32, Point)> = Vec::new();
    loop {
        let next = async {
            let pending = pending(app, lease, through).await?;
            let last = pending.last().map(|chunk| chunk.ordinal);
            let (knowledge_base, document) = (lease.knowledge_base, lease.document);
            let points = if deadline.passed() {
                Vec::new()
            } else {
                points(app, knowledge_base, document, pending, deadline).await?
            };
            Ok::<_, IngestError>((last, points))
        };
        let write = write(app, lease, std::mem::take(&mut embedded), deadline);
        let (next, written) = tokio::join!(next, write);
        // What was written counts, even when the next batch failed.
        match (written, next) {
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok((None, _))) => return Ok(Progress::Done),
            (Ok(()), Ok((Some(_), points))) if points.is_empty() => return Ok(Progress::OutOfTime),
            (Ok(()), Ok((Some(last), points))) => (through, embedded) = (last, points),
        }
    }
}

/// The next chunks without points, beyond `through` and beyond the committed progress.
async fn pending(app: &App, lease: Lease, through: i32) -> Result<Vec<Pending>, DbError> {
    app.db
        .transaction("read pending chunks", async move |tx| {
            let rows = tx
                .query_typed(
                    "-- chunks::pending
                    SELECT c.id, p.ordinal, c.text, p.heading_path
                    FROM document_revisions r
                    JOIN chunk_positions p ON p.document_id = r.document_id AND p.revision = r.number
                    JOIN chunk_metadata c ON c.id = p.chunk_id
                    WHERE r.document_id = $1 AND r.number = $2 AND c.first_revision = r.number
                        AND p.ordinal > GREATEST(r.embedded_through, $3)
                    ORDER BY p.ordinal LIMIT $4",
                    &[
                        (&lease.document.0, Type::UUID),
                        (&lease.revision, Type::INT4),
                        (&through, Type::INT4),
                        (&BATCH, Type::INT8),
                    ],
                )
                .await?;
            rows.iter().map(Pending::from_row).collect()
        })
        .await
}

/// The points of these chunks of one document, each with its ordinal.
pub(crate) async fn points(
    app: &App,
    knowledge_base: KnowledgeBaseId,
    document: DocumentId,
    pending: Vec<Pending>,
    deadline: Deadline,
) -> Result<Vec<(i32, Point)>, IngestError> {
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let inputs = pending.iter().map(|chunk| chunk.input.clone()).collect();
    let vectors = app.embedder.embed_passages(inputs, deadline.instant()).await?;
    Ok(pending
        .into_iter()
        .zip(vectors)
        .map(|(chunk, dense)| {
            let point = Point { id: chunk.id, knowledge_base, document, dense, sparse: sparse::passage(&chunk.input) };
            (chunk.ordinal, point)
        })
        .collect())
}

/// Writes one batch and commits the progress, if the lease is still held.
async fn write(app: &App, lease: Lease, batch: Vec<(i32, Point)>, deadline: Deadline) -> Result<(), IngestError> {
    let Some(through) = batch.last().map(|(ordinal, _)| *ordinal) else { return Ok(()) };
    let count = i32::try_from(batch.len()).unwrap_or(i32::MAX);
    reached(failpoint::EMBED_BEFORE_UPSERT);
    upsert(app, batch.into_iter().map(|(_, point)| point).collect(), deadline).await?;
    reached(failpoint::EMBED_UPSERTED);
    app.db
        .transaction("commit progress", async move |tx| {
            let rows = tx
                .execute_typed(
                    "-- revisions::progress
                    UPDATE document_revisions
                    SET embedded_through = $4, chunks_embedded = chunks_embedded + $5
                    WHERE document_id = $1 AND number = $2 AND fence = $3 AND state = 'staged' AND embedded_through < $4",
                    &[
                        (&lease.document.0, Type::UUID),
                        (&lease.revision, Type::INT4),
                        (&lease.fence, Type::INT8),
                        (&through, Type::INT4),
                        (&count, Type::INT4),
                    ],
                )
                .await
                .map_err(DbError::from)?;
            if rows == 1 { Ok(()) } else { Err(IngestError::Fenced) }
        })
        .await?;
    reached(failpoint::EMBED_COMMITTED);
    Ok(())
}

/// Writes points, again while that may help and there is time.
pub(crate) async fn upsert(app: &App, points: Vec<Point>, deadline: Deadline) -> Result<(), IngestError> {
    app.index_retries.note_call();
    let (mut attempt, mut sends) = (1, 0);
    loop {
        let Err(error) = app.index.upsert(points.clone(), deadline).await else { return Ok(()) };
        sends += error.sends();
        let pause = match &error {
            IndexError::Throttled { retry_after } => *retry_after,
            _ => retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempt),
        };
        let hopeless = !error.retryable() || sends >= SENDS_MAX || pause >= deadline.remaining();
        // The client's own second send comes out of the same budget.
        if hopeless || !(0..error.sends()).all(|_| app.index_retries.take()) {
            return Err(error.into());
        }
        tracing::warn!(index.attempt = attempt, error = %shared::problem::Causes(&error), "upsert tried again");
        tokio::time::sleep(pause).await;
        if matches!(error, IndexError::Missing) {
            // The index was lost while this container was warm.
            app.index.ensure(deadline).await?;
        }
        attempt += 1;
    }
}
