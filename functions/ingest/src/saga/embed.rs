//! Step 4: write the new chunks' points, batch by batch. After each batch the progress is committed, so that a later
//! invocation resumes where this one stopped. A batch that is written twice writes the same points.

use shared::{App, db::DbError, deadline::Deadline};
use tokio_postgres::{Row, types::Type};

use super::{Lease, ahead::Ahead};
use crate::{
    collections::{self, Batch, Collection, Pending},
    error::IngestError,
    failpoint::{self, reached},
};

/// How far it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// All new chunks have their points.
    Done,
    /// The time is over; a later invocation goes on.
    OutOfTime,
}

/// What is pending, in its order, and where it is to go.
struct Next {
    rows: Vec<Row>,
    targets: Vec<Collection>,
}

/// A batch that is embedded and not written yet.
#[derive(Default)]
struct Embedded {
    batch: Batch,
    through: i32,
    count: i32,
}

/// Embeds all that is pending. While one batch is being written, the next is being embedded, or taken from what was embedded
/// ahead.
pub(super) async fn embed(
    app: &App,
    lease: Lease,
    mut ahead: Option<Ahead>,
    deadline: Deadline,
) -> Result<Progress, IngestError> {
    collections::ready(app, deadline).await?;
    let mut through = -1;
    let mut embedded = Embedded::default();
    loop {
        let next = next(app, lease, through, &mut ahead, deadline);
        let write = write(app, lease, std::mem::take(&mut embedded), deadline);
        let (next, written) = tokio::join!(next, write);
        // What was written counts, even when the next batch failed.
        match (written, next) {
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok(None)) => return Ok(Progress::Done),
            (Ok(()), Ok(Some(next))) if next.count == 0 => return Ok(Progress::OutOfTime),
            (Ok(()), Ok(Some(next))) => (through, embedded) = (next.through, next),
        }
    }
}

/// The next batch beyond `through`, or what ended when there was time for none. `None` at the end.
async fn next(
    app: &App,
    lease: Lease,
    through: i32,
    ahead: &mut Option<Ahead>,
    deadline: Deadline,
) -> Result<Option<Embedded>, IngestError> {
    loop {
        let Next { rows, targets } = pending(app, lease, through, ahead.is_none()).await?;
        let place = |row: Option<&Row>| row.map(|row| row.try_get::<_, i32>("ordinal")).transpose();
        let (first, last) = (place(rows.first()).map_err(DbError::from)?, place(rows.last()).map_err(DbError::from)?);
        let (Some(first), Some(through)) = (first, last) else { return Ok(None) };
        if deadline.passed() {
            return Ok(Some(Embedded { through, ..Embedded::default() }));
        }
        let (knowledge_base, document) = (lease.knowledge_base, lease.document);
        let (chunks, ready) = if let Some(running) = ahead {
            // Vectors are told by their places: between these there must be none that is not pending.
            let gapless = usize::try_from(through - first).is_ok_and(|steps| steps + 1 == rows.len());
            let first = usize::try_from(first).ok().filter(|_| gapless);
            let embedded = match first {
                Some(first) => running.next(first, rows.len()).await?,
                None => None,
            };
            let Some(embedded) = embedded else {
                // It is of no use, and the texts are needed.
                *ahead = None;
                continue;
            };
            let (inputs, vectors): (Vec<_>, _) = embedded.into_iter().unzip();
            let both = rows.iter().zip(inputs);
            let chunks = both.map(|(row, input)| Pending::with_input(row, input, knowledge_base, document));
            (chunks.collect::<Result<Vec<_>, _>>()?, Some(vectors))
        } else {
            let chunks = rows.iter().map(|row| Pending::from_row(row, knowledge_base, document));
            (chunks.collect::<Result<_, _>>()?, None)
        };
        let batch = collections::embed(app, targets, &chunks, ready, deadline).await?;
        return Ok(Some(Embedded { batch, through, count: i32::try_from(rows.len()).unwrap_or(i32::MAX) }));
    }
}

/// The next chunks without points, beyond `through` and beyond the committed progress; with their texts, if they are needed.
async fn pending(app: &App, lease: Lease, through: i32, texts: bool) -> Result<Next, DbError> {
    // What is lost when an invocation is cut.
    let batch = i64::try_from(app.embedder.passages_at_once()).unwrap_or(i64::MAX);
    let rows = app
        .db
        .query(
            "read pending chunks",
            // In the order of the index of positions, from where it goes on: a page costs the same at a long text's end.
            "-- chunks::pending
            SELECT c.id, p.ordinal, CASE WHEN $5 THEN c.text END AS text, p.heading_path
            FROM chunk_positions p JOIN chunk_metadata c ON c.id = p.chunk_id
            WHERE p.document_id = $1 AND p.revision = $2 AND c.first_revision = $2 AND p.ordinal > GREATEST($3,
                (SELECT embedded_through FROM document_revisions WHERE document_id = $1 AND number = $2))
            ORDER BY p.ordinal LIMIT $4",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&through, Type::INT4),
                (&batch, Type::INT8),
                (&texts, Type::BOOL),
            ],
        )
        .await?;
    // After the chunks: see there.
    Ok(Next { rows, targets: collections::read(app).await? })
}

/// Writes one batch and commits the progress, if the lease is still held.
async fn write(app: &App, lease: Lease, embedded: Embedded, deadline: Deadline) -> Result<(), IngestError> {
    let Embedded { batch, through, count } = embedded;
    if count == 0 {
        return Ok(());
    }
    reached(failpoint::EMBED_BEFORE_UPSERT);
    collections::upsert(app, batch, deadline).await?;
    reached(failpoint::EMBED_UPSERTED);
    // Done twice by the same holder, it is as done once.
    let committed = app
        .db
        .query_opt(
            "commit progress",
            "-- revisions::progress
            UPDATE document_revisions
            SET embedded_through = GREATEST(embedded_through, $4),
                chunks_embedded = chunks_embedded + CASE WHEN embedded_through < $4 THEN $5 ELSE 0 END
            WHERE document_id = $1 AND number = $2 AND fence = $3 AND state = 'staged' RETURNING number",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&lease.fence, Type::INT8),
                (&through, Type::INT4),
                (&count, Type::INT4),
            ],
        )
        .await?;
    committed.ok_or(IngestError::Fenced)?;
    reached(failpoint::EMBED_COMMITTED);
    Ok(())
}
