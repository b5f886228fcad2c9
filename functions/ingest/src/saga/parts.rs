//! Extract and Stage of a long text that lies in a bucket: part by part, each in a transaction of its own that also commits
//! how far it came. Memory holds one part, and an invocation that ends loses one at most.
//!
//! Until the last part is stored the revision stays claimed: nobody sees its chunks, no point of them is written, and
//! whoever discards it retires them. All of them are new; those that stand in the active revision already get its ids back in
//! the last transaction, before anything is embedded.

use shared::{App, db::DbError, deadline::Deadline};
use tokio_postgres::{Transaction, types::Type};

use super::{
    Lease, hold, out_of_time,
    passages::{self, Passage},
    revisions, stage,
    unread::{PartedObject, shifted},
};
use crate::{
    chunk,
    error::IngestError,
    extract::{self, ExtractError},
    failpoint::{self, reached},
};

/// Bytes of a part: about a second of counting tokens, and some thousand chunks.
const PART_BYTES: u64 = 1024 * 1024;

/// A part ends where a paragraph does, if one ends in its second half.
const CUT_FROM: usize = 512 * 1024;

/// How far it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// All is stored, and the revision staged.
    Done,
    /// The time is over; a later invocation goes on.
    OutOfTime,
}

/// How far the text is read.
#[derive(Clone, Copy)]
struct Cursor {
    bytes: u64,
    chunks: i32,
}

/// Reads and stores what is left of the text.
pub(super) async fn read(
    app: &App,
    lease: Lease,
    parted: &PartedObject,
    deadline: Deadline,
) -> Result<Progress, IngestError> {
    match go_on(app, lease, parted, deadline).await {
        Err(IngestError::OutOfTime) => Ok(Progress::OutOfTime),
        Err(error) if out_of_time(&error, deadline) => Ok(Progress::OutOfTime),
        done => done,
    }
}

async fn go_on(app: &App, lease: Lease, parted: &PartedObject, deadline: Deadline) -> Result<Progress, IngestError> {
    let mut cursor = cursor(app, lease).await?;
    while cursor.bytes < parted.object.size_bytes {
        if deadline.passed() {
            return Ok(Progress::OutOfTime);
        }
        let bytes = parted.object.range(app, cursor.bytes, PART_BYTES, deadline).await?;
        let last = cursor.bytes + bytes.len() as u64 >= parted.object.size_bytes;
        let length = if last { bytes.len() } else { cut(&bytes) };
        let part = bytes.slice(..length);
        let start = usize::try_from(cursor.bytes).unwrap_or(usize::MAX);
        let (format, embedder) = (parted.format, app.embedder.clone());
        let work = move || match extract::extract(&part, format) {
            Ok(extracted) => {
                let limits = passages::limits(embedder.as_ref());
                let chunks = chunk::chunk(&extracted, limits, &|text| embedder.count_tokens(text))?;
                Ok(Passage::each(chunks).map(|(passage, _)| passage).collect())
            }
            // White space; whether there is anything else is known at the end.
            Err(ExtractError::Empty) => Ok(Vec::new()),
            Err(error) => Err(IngestError::from(shifted(error, start))),
        };
        let passages = match tokio::time::timeout_at(deadline.instant(), tokio::task::spawn_blocking(work)).await {
            Ok(done) => done.map_err(IngestError::Panicked)??,
            Err(_) => return Ok(Progress::OutOfTime),
        };
        reached(failpoint::PART_BEFORE);
        cursor = store(app, lease, cursor, length as u64, passages).await?;
        reached(failpoint::PART_COMMITTED);
    }
    if cursor.chunks == 0 {
        return Err(ExtractError::Empty.into());
    }
    finish(app, lease, cursor.chunks).await?;
    Ok(Progress::Done)
}

/// Where a part may end: after an empty line, else after a line, else after a character. The rest begins the next one.
fn cut(bytes: &[u8]) -> usize {
    let tail = bytes.get(CUT_FROM..).unwrap_or_default();
    let after = |what: &[u8]| tail.windows(what.len()).rposition(|window| window == what).map(|at| at + what.len());
    if let Some(at) = after(b"\n\n").or_else(|| after(b"\r\n\r\n")).or_else(|| after(b"\n")) {
        return CUT_FROM + at;
    }
    // A character of UTF-8 begins with a byte that continues none, at most three before the end.
    let begins = |byte: &&u8| **byte & 0b1100_0000 != 0b1000_0000;
    let back = bytes.iter().rev().take(4).position(|byte| begins(&byte)).map_or(0, |at| at + 1);
    if back < bytes.len() { bytes.len() - back } else { bytes.len() }
}

async fn cursor(app: &App, lease: Lease) -> Result<Cursor, IngestError> {
    let row = app
        .db
        .query_opt(
            "find place in object",
            "-- revisions::cursor
            SELECT read_bytes, read_chunks FROM document_revisions
            WHERE document_id = $1 AND number = $2 AND fence = $3 AND state = 'claimed'",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4), (&lease.fence, Type::INT8)],
        )
        .await?
        .ok_or(IngestError::Fenced)?;
    let bytes = row.try_get::<_, i64>("read_bytes").map_err(DbError::from)?;
    let chunks = row.try_get("read_chunks").map_err(DbError::from)?;
    Ok(Cursor { bytes: u64::try_from(bytes).unwrap_or_default(), chunks })
}

/// Commits one part's chunks, and how far the text is read.
async fn store(
    app: &App,
    lease: Lease,
    from: Cursor,
    length: u64,
    mut passages: Vec<Passage>,
) -> Result<Cursor, IngestError> {
    let start = usize::try_from(from.bytes).unwrap_or(usize::MAX);
    let first = usize::try_from(from.chunks).unwrap_or_default();
    for Passage { chunk, .. } in &mut passages {
        chunk.ordinal += first;
        chunk.byte_start += start;
        chunk.byte_end += start;
    }
    let to = Cursor { bytes: from.bytes + length, chunks: from.chunks + stage::count(passages.len()) };
    app.db
        .transaction("store part", async move |tx| {
            hold(tx, lease).await?;
            stage::insert(tx, lease, &passages).await?;
            advance(tx, lease, from, to).await
        })
        .await?;
    Ok(to)
}

async fn advance(tx: &Transaction<'_>, lease: Lease, from: Cursor, to: Cursor) -> Result<(), IngestError> {
    let bytes = |cursor: Cursor| i64::try_from(cursor.bytes).unwrap_or(i64::MAX);
    let rows = tx
        .execute_typed(
            "-- revisions::advance
            UPDATE document_revisions SET read_bytes = $4, read_chunks = $5
            WHERE document_id = $1 AND number = $2 AND state = 'claimed' AND read_bytes = $3",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&bytes(from), Type::INT8),
                (&bytes(to), Type::INT8),
                (&to.chunks, Type::INT4),
            ],
        )
        .await
        .map_err(DbError::from)?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "revisions::advance", rows }.into()) }
}

/// Makes the revision a staged one, as [`stage::stage`] does: what is older and unfinished goes, and what stands already in the
/// active revision keeps its id and vector.
async fn finish(app: &App, lease: Lease, total: i32) -> Result<(), IngestError> {
    reached(failpoint::STAGE_BEFORE);
    app.db
        .transaction("stage parts", async move |tx| {
            hold(tx, lease).await?;
            revisions::discard_before(tx, lease.document, lease.revision).await?;
            let reused = reuse(tx, lease).await?;
            stage::finish(tx, lease, total, reused, None).await
        })
        .await?;
    reached(failpoint::STAGE_COMMITTED);
    Ok(())
}

/// Puts the active revision's chunks in the place of new ones with the same text; of several equal ones, each in its order.
/// The new ones go: no point was ever written for them.
async fn reuse(tx: &Transaction<'_>, lease: Lease) -> Result<i32, DbError> {
    // The planner knows nothing yet of rows that have just been inserted, and would compare each with each.
    tx.execute_typed("-- positions::plan_reuse\nSET LOCAL enable_nestloop = off", &[]).await?;
    let rows = tx
        .execute_typed(
            "-- positions::reuse
            WITH standing AS (
                SELECT c.id, c.content_hash, row_number() OVER (PARTITION BY c.content_hash ORDER BY p.ordinal) AS nth
                FROM documents d
                JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
                JOIN chunk_metadata c ON c.id = p.chunk_id
                WHERE d.id = $1
            ), fresh AS (
                SELECT p.ordinal, c.content_hash, row_number() OVER (PARTITION BY c.content_hash ORDER BY p.ordinal) AS nth
                FROM chunk_positions p JOIN chunk_metadata c ON c.id = p.chunk_id
                WHERE p.document_id = $1 AND p.revision = $2
            )
            UPDATE chunk_positions p SET chunk_id = standing.id
            FROM standing JOIN fresh USING (content_hash, nth)
            WHERE p.document_id = $1 AND p.revision = $2 AND p.ordinal = fresh.ordinal",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4)],
        )
        .await?;
    if rows > 0 {
        tx.execute_typed(
            "-- chunks::drop_reused
            DELETE FROM chunk_metadata c WHERE c.document_id = $1 AND c.first_revision = $2
                AND NOT EXISTS (SELECT FROM chunk_positions p WHERE p.chunk_id = c.id)",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4)],
        )
        .await?;
    }
    Ok(i32::try_from(rows).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_behind_a_paragraph_or_a_line_or_a_character() {
        let long = |end: &str| format!("{}{end}", "x".repeat(CUT_FROM));
        assert_eq!(cut(long("a\nb\n\nc\nd").as_bytes()), CUT_FROM + 5);
        assert_eq!(cut(long("a\nb").as_bytes()), CUT_FROM + 2);
        let text = long("aé");
        let torn = text.as_bytes().get(..text.len() - 1).unwrap_or_default();
        assert_eq!(cut(torn), CUT_FROM + 1);
        assert_eq!(
            cut(text.as_bytes()),
            CUT_FROM + 1,
            "a whole character may wait for the next part, never a half one go"
        );
    }
}
