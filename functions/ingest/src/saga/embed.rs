//! Step 4: write the new chunks' points, batch by batch. After each batch the progress is committed, so that a later
//! invocation resumes where this one stopped. A batch that is written twice writes the same points.

use std::collections::VecDeque;

use futures::FutureExt as _;
use shared::{App, db::DbError, deadline::Deadline};
use tokio::sync::Notify;
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

/// What is pending and not yet taken, in its order, and where it is to go.
struct Page {
    rows: VecDeque<Row>,
    /// Up to which place it was read.
    through: i32,
    targets: Vec<Collection>,
}

/// A batch that is embedded and not written yet.
#[derive(Default)]
struct Embedded {
    batch: Batch,
    through: i32,
    count: i32,
}

/// Embeds all that is pending. While one batch is being written, the next is being embedded; or what was embedded ahead until
/// then is the next one.
pub(super) async fn embed(
    app: &App,
    lease: Lease,
    mut ahead: Option<Ahead>,
    deadline: Deadline,
) -> Result<Progress, IngestError> {
    collections::ready(app, deadline).await?;
    let mut page = Page { rows: VecDeque::new(), through: -1, targets: Vec::new() };
    let mut embedded = Embedded::default();
    loop {
        let idle = Notify::new();
        let next = next(app, lease, &mut page, &mut ahead, &idle, deadline);
        let write = write(app, lease, std::mem::take(&mut embedded), deadline);
        let (next, written) = tokio::join!(next, write.inspect(|_| idle.notify_one()));
        // What was written counts, even when the next batch failed.
        match (written, next) {
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok(None)) => return Ok(Progress::Done),
            (Ok(()), Ok(Some(next))) if next.count == 0 => return Ok(Progress::OutOfTime),
            (Ok(()), Ok(Some(next))) => embedded = next,
        }
    }
}

/// The next batch, or an empty one when there is no time for it. `None` at the end.
async fn next(
    app: &App,
    lease: Lease,
    page: &mut Page,
    ahead: &mut Option<Ahead>,
    idle: &Notify,
    deadline: Deadline,
) -> Result<Option<Embedded>, IngestError> {
    let (knowledge_base, document) = (lease.knowledge_base, lease.document);
    loop {
        if page.rows.is_empty() {
            *page = pending(app, lease, page.through, ahead.is_none()).await?;
        }
        let Some(first) = page.rows.front().map(ordinal).transpose()? else { return Ok(None) };
        if deadline.passed() {
            return Ok(Some(Embedded::default()));
        }
        let (chunks, ready, through) = if let Some(running) = ahead {
            // Vectors are told by their places: up to a gap, if there is one.
            let gapless = |&(row, place): &(&Row, i32)| ordinal(row).is_ok_and(|found| found == place);
            let most = page.rows.iter().zip(first..).take_while(gapless).count();
            let taken = match usize::try_from(first) {
                Ok(first) => running.next(first, most, idle).await?,
                Err(_) => None,
            };
            let Some(embedded) = taken else {
                // It is of no use, and the texts are needed.
                *ahead = None;
                *page = Page { rows: VecDeque::new(), through: first - 1, targets: Vec::new() };
                continue;
            };
            let (inputs, vectors): (Vec<_>, Vec<_>) = embedded.into_iter().unzip();
            let rows: Vec<Row> = page.rows.drain(..inputs.len()).collect();
            let through = rows.last().map_or(Ok(first), ordinal)?;
            let both = rows.iter().zip(inputs);
            let chunks = both.map(|(row, input)| Pending::with_input(row, input, knowledge_base, document));
            (chunks.collect::<Result<Vec<_>, _>>()?, Some(vectors), through)
        } else {
            let rows = std::mem::take(&mut page.rows);
            let chunks = rows.iter().map(|row| Pending::from_row(row, knowledge_base, document));
            (chunks.collect::<Result<_, _>>()?, None, page.through)
        };
        let count = i32::try_from(chunks.len()).unwrap_or(i32::MAX);
        let batch = collections::embed(app, page.targets.clone(), &chunks, ready, deadline).await?;
        return Ok(Some(Embedded { batch, through, count }));
    }
}

fn ordinal(row: &Row) -> Result<i32, DbError> {
    Ok(row.try_get("ordinal")?)
}

/// The next chunks without points, beyond `through` and beyond the committed progress; with their texts, if they are needed.
async fn pending(app: &App, lease: Lease, through: i32, texts: bool) -> Result<Page, DbError> {
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
    let through = rows.last().map_or(Ok(through), ordinal)?;
    // After the chunks: see there.
    Ok(Page { rows: rows.into(), through, targets: collections::read(app).await? })
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
