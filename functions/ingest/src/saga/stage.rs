//! Step 3: commit the chunks with their new ids. From then on it is this text that counts: what is older and unfinished is
//! discarded in the same transaction.

use std::collections::{HashMap, VecDeque};

use futures::TryFutureExt as _;
use shared::{App, db::DbError, domain::ChunkId, sparse::TsVector};
use tokio::sync::Mutex;
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use super::{
    Lease, hold,
    passages::{Passage, Passages},
    revisions,
};
use crate::{
    error::IngestError,
    failpoint::{self, reached},
};

/// Rows of one INSERT: few round trips, and a message of some hundred kilobytes.
const ROWS_PER_INSERT: usize = 500;

/// Separates headings in the one text that carries a path to PostgreSQL. Heading paths have no control characters.
const PATH_SEPARATOR: &str = "\u{1f}";

/// Commits the chunks. Those whose embedded text stands in the active revision already keep their id, and with it their
/// vector; the others get a new one, committed here before any point is written. Whoever takes the work over finds them staged and goes on behind this step.
///
/// A new document's are inserted while the rest is being cut, if that will not take long: a transaction is short. One that
/// was there before is not locked before all are cut: somebody may want to change it.
pub(super) async fn stage(app: &App, lease: Lease, passages: Passages) -> Result<(), IngestError> {
    reached(failpoint::STAGE_BEFORE);
    // For whichever attempt it is.
    let passages = Mutex::new(passages);
    app.db
        .transaction("stage chunks", async move |tx| {
            let mut passages = passages.lock().await;
            let mut standing = begin(tx, lease, &mut passages).await?;
            let (mut total, mut reused) = (0, 0);
            loop {
                let next = passages.next(total, ROWS_PER_INSERT).await?;
                if next.is_empty() {
                    break;
                }
                let mut fresh = Vec::new();
                let mut placed = Vec::with_capacity(next.len());
                for passage in next {
                    // In order, so that of several equal chunks each keeps its own id.
                    let standing = standing.get_mut(passage.hash.as_slice()).and_then(VecDeque::pop_front);
                    let id = standing.unwrap_or_else(ChunkId::draw);
                    if standing.is_none() {
                        fresh.push((id, passage));
                    }
                    placed.push((id, passage));
                }
                insert_rows(tx, lease, &fresh, &placed).await?;
                (total, reused) = (total + placed.len(), reused + placed.len() - fresh.len());
            }
            finish(tx, lease, count(total), count(reused), passages.title()).await
        })
        .await?;
    reached(failpoint::STAGE_COMMITTED);
    Ok(())
}

/// Locks the document, discards what is older and unfinished, and returns what stands.
async fn begin(tx: &Transaction<'_>, lease: Lease, passages: &mut Passages) -> Result<Standing, IngestError> {
    if lease.revision == 1 && passages.come_soon {
        hold(tx, lease).await?;
        return Ok(Standing::new());
    }
    passages.all().await?;
    // One is sent behind the other, and done in this order.
    let ((), (), standing) = tokio::try_join!(
        biased;
        hold(tx, lease),
        revisions::discard_before(tx, lease.document, lease.revision).err_into(),
        standing(tx, lease).err_into::<IngestError>(),
    )?;
    Ok(standing)
}

/// Inserts passages in their places, all with new ids.
pub(super) async fn insert(tx: &Transaction<'_>, lease: Lease, passages: &[Passage]) -> Result<(), DbError> {
    for passages in passages.chunks(ROWS_PER_INSERT) {
        let rows: Vec<_> = passages.iter().map(|passage| (ChunkId::draw(), passage)).collect();
        insert_rows(tx, lease, &rows, &rows).await?;
    }
    Ok(())
}

/// Inserts the fresh ones of the passages, and the places of all. One is sent behind the other.
async fn insert_rows(
    tx: &Transaction<'_>,
    lease: Lease,
    fresh: &[(ChunkId, &Passage)],
    placed: &[(ChunkId, &Passage)],
) -> Result<(), DbError> {
    let positions = insert_positions(tx, lease, placed);
    if fresh.is_empty() {
        return positions.await;
    }
    tokio::try_join!(biased; insert_chunks(tx, lease, fresh), positions)?;
    Ok(())
}

/// Ids of the active revision's chunks by the hash of what was embedded, in the order of the text.
type Standing = HashMap<Vec<u8>, VecDeque<ChunkId>>;

/// What stands in the active revision.
async fn standing(tx: &Transaction<'_>, lease: Lease) -> Result<Standing, DbError> {
    let rows = tx
        .query_typed(
            "-- chunks::standing
            SELECT c.id, c.content_hash
            FROM documents d
            JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
            JOIN chunk_metadata c ON c.id = p.chunk_id
            WHERE d.id = $1 ORDER BY p.ordinal",
            &[(&lease.document.0, Type::UUID)],
        )
        .await?;
    let mut standing = Standing::with_capacity(rows.len());
    for row in rows {
        standing.entry(row.try_get("content_hash")?).or_default().push_back(ChunkId(row.try_get("id")?));
    }
    Ok(standing)
}

async fn insert_chunks(tx: &Transaction<'_>, lease: Lease, rows: &[(ChunkId, &Passage)]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let texts: Vec<&str> = rows.iter().map(|(_, passage)| passage.chunk.text.as_str()).collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|(_, passage)| passage.hash.as_slice()).collect();
    let words: Vec<&TsVector> = rows.iter().map(|(_, passage)| &passage.words).collect();
    let tokens: Vec<i32> = rows.iter().map(|(_, passage)| count(passage.chunk.tokens)).collect();
    tx.execute_typed(
        "-- chunks::insert
        INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count, words)
        SELECT id, $1, $2, text, content_hash, token_count, words
        FROM unnest($3, $4, $5, $6, $7) AS new (id, text, content_hash, token_count, words)",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&ids, Type::UUID_ARRAY),
            (&texts, Type::TEXT_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
            (&tokens, Type::INT4_ARRAY),
            (&words, Type::TS_VECTOR_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_positions(tx: &Transaction<'_>, lease: Lease, rows: &[(ChunkId, &Passage)]) -> Result<(), DbError> {
    let chunks = || rows.iter().map(|(_, passage)| &passage.chunk);
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let ordinals: Vec<i32> = chunks().map(|chunk| count(chunk.ordinal)).collect();
    let starts: Vec<i64> = chunks().map(|chunk| offset(chunk.byte_start)).collect();
    let ends: Vec<i64> = chunks().map(|chunk| offset(chunk.byte_end)).collect();
    let pages: Vec<Option<i32>> = chunks().map(|chunk| chunk.page.and_then(|page| i32::try_from(page).ok())).collect();
    // PostgreSQL has no arrays of arrays of unequal length.
    let paths: Vec<String> = chunks().map(|chunk| chunk.heading_path.join(PATH_SEPARATOR)).collect();
    tx.execute_typed(
        "-- positions::insert
        INSERT INTO chunk_positions
            (document_id, revision, ordinal, chunk_id, byte_start, byte_end, page, heading_path)
        SELECT $1, $2, ordinal, chunk_id, byte_start, byte_end, page, string_to_array(path, $3)
        FROM unnest($4, $5, $6, $7, $8, $9) AS new (ordinal, chunk_id, byte_start, byte_end, page, path)",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&PATH_SEPARATOR, Type::TEXT),
            (&ordinals, Type::INT4_ARRAY),
            (&ids, Type::UUID_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&ends, Type::INT8_ARRAY),
            (&pages, Type::INT4_ARRAY),
            (&paths, Type::TEXT_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

/// Makes it a staged one: from here on it can be completed without the client.
pub(super) async fn finish(
    tx: &Transaction<'_>,
    lease: Lease,
    total: i32,
    reused: i32,
    title: Option<&str>,
) -> Result<(), IngestError> {
    let rows = tx
        .execute_typed(
            "-- revisions::staged_chunks
        UPDATE document_revisions
        SET state = 'staged', chunks_total = $3, chunks_reused = $4, title = COALESCE(title, $5)
        WHERE document_id = $1 AND number = $2 AND state = 'claimed'",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&total, Type::INT4),
                (&reused, Type::INT4),
                (&title, Type::TEXT),
            ],
        )
        .await
        .map_err(DbError::from)?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "revisions::staged_chunks", rows }.into()) }
}

/// A count as PostgreSQL holds it. A document has at most as many chunks as bytes, and those are limited.
pub(super) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn offset(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
