//! Steps 2 and 3: read the document, cut it into chunks, and commit those with their new ids. From then on it is this text
//! that counts: what is older and unfinished is discarded in the same transaction.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use shared::{App, db::DbError, deadline::Deadline, domain::ChunkId, embed::Embedder, sparse};
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use super::{Lease, hold, revisions};
use crate::{
    chunk::{self, Chunk, Limits},
    error::IngestError,
    extract::{self, Job, sandbox::Sandbox},
    failpoint::{self, reached},
    request::Source,
};

/// Tokens of a chunk with its heading path, also for models that read more: a passage that is about one thing is found
/// better, and cited more exactly, than one about many.
const CHUNK_TOKENS_MAX: usize = 512;

/// Rows of one INSERT: few round trips, and a message of some hundred kilobytes.
const ROWS_PER_INSERT: usize = 500;

/// Separates headings in the one text that carries a path to PostgreSQL. Heading paths have no control characters.
const PATH_SEPARATOR: &str = "\u{1f}";

/// Reads and cuts. Pure, and off the async threads: a large document takes a second.
pub(super) async fn chunks(
    app: &App,
    source: &Source,
    deadline: Deadline,
) -> Result<(Vec<Chunk>, Option<String>), IngestError> {
    let (bytes, embedder, config) = (source.bytes.clone(), app.embedder.clone(), &app.config.extraction);
    let limits = extract::Limits { text_bytes_max: config.text_bytes_max, pages_max: config.pages_max };
    let job = Job { limits, charset: source.charset.clone(), ..Job::new(source.format) };
    let contained = if source.format.is_contained() {
        Some(Sandbox::new(config.clone()).extract(bytes.clone(), job.clone(), deadline).await?)
    } else {
        None
    };
    let given = source.title.clone();
    let work = move || {
        let extracted = contained.map_or_else(|| extract::extract_as(&bytes, &job), Ok)?;
        let limits = self::limits(embedder.as_ref());
        let count = |text: &str| embedder.count_tokens(text);
        let title = given.as_ref().map(shared::domain::Title::as_str);
        let chunks = chunk::under_title(title, limits, &count, |limits| chunk::chunk(&extracted, limits, &count))?;
        Ok((chunks, extracted.title))
    };
    match tokio::time::timeout_at(deadline.instant(), tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.map_err(IngestError::Panicked)?,
        Err(_) => Err(IngestError::OutOfTime),
    }
}

/// How large a chunk may be for this embedder.
pub(super) fn limits(embedder: &dyn Embedder) -> Limits {
    Limits { chunk_tokens_max: embedder.tokens_max().min(CHUNK_TOKENS_MAX), ..Limits::default() }
}

/// What is stored beside a chunk and follows from its text.
pub(super) struct Derived {
    /// SHA-256 of what is embedded.
    hash: [u8; 32],
    /// A `tsvector`.
    words: String,
}

impl Derived {
    /// Of each chunk. Not for the async threads.
    pub(super) fn of(chunks: &[Chunk]) -> Vec<Self> {
        let mut words = sparse::Passages::default();
        let derived = |chunk: &Chunk| Self {
            hash: Sha256::digest(chunk::embedding_input(&chunk.heading_path, &chunk.text)).into(),
            words: words.tsvector(&chunk.text),
        };
        chunks.iter().map(derived).collect()
    }
}

/// Commits the chunks. Those whose embedded text stands in the active revision already keep their id, and with it their
/// vector; the others get a new one, committed here before any point is written. Whoever takes the work over finds them staged and goes on behind this step.
pub(super) async fn stage(
    app: &App,
    lease: Lease,
    chunks: Arc<Vec<Chunk>>,
    title: Option<String>,
) -> Result<(), IngestError> {
    let texts = Arc::clone(&chunks);
    let derived = tokio::task::spawn_blocking(move || Derived::of(&texts)).await.map_err(IngestError::Panicked)?;
    reached(failpoint::STAGE_BEFORE);
    app.db
        .transaction("stage chunks", async move |tx| {
            hold(tx, lease).await?;
            revisions::discard_before(tx, lease.document, lease.revision).await?;
            let mut standing = standing(tx, lease).await?;
            let mut fresh = Vec::new();
            let mut placed = Vec::with_capacity(chunks.len());
            for (chunk, derived) in chunks.iter().zip(&derived) {
                // In order, so that of several equal chunks each keeps its own id.
                let standing = standing.get_mut(derived.hash.as_slice()).and_then(VecDeque::pop_front);
                let id = standing.unwrap_or_else(ChunkId::draw);
                if standing.is_none() {
                    fresh.push((id, chunk, derived));
                }
                placed.push((id, chunk));
            }
            for rows in fresh.chunks(ROWS_PER_INSERT) {
                insert_chunks(tx, lease, rows).await?;
            }
            for rows in placed.chunks(ROWS_PER_INSERT) {
                insert_positions(tx, lease, rows).await?;
            }
            finish(tx, lease, count(placed.len()), count(placed.len() - fresh.len()), title.as_deref()).await
        })
        .await?;
    reached(failpoint::STAGE_COMMITTED);
    Ok(())
}

/// Inserts chunks in their places, all with new ids.
pub(super) async fn insert(
    tx: &Transaction<'_>,
    lease: Lease,
    chunks: &[Chunk],
    derived: &[Derived],
) -> Result<(), DbError> {
    for (chunks, derived) in chunks.chunks(ROWS_PER_INSERT).zip(derived.chunks(ROWS_PER_INSERT)) {
        let mut fresh = Vec::with_capacity(chunks.len());
        for (chunk, derived) in chunks.iter().zip(derived) {
            fresh.push((ChunkId::draw(), chunk, derived));
        }
        insert_chunks(tx, lease, &fresh).await?;
        let placed: Vec<_> = fresh.iter().map(|(id, chunk, _)| (*id, *chunk)).collect();
        insert_positions(tx, lease, &placed).await?;
    }
    Ok(())
}

/// The active revision's chunks by the hash of what was embedded, in the order of the text.
async fn standing(tx: &Transaction<'_>, lease: Lease) -> Result<HashMap<Vec<u8>, VecDeque<ChunkId>>, DbError> {
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
    let mut standing = HashMap::<Vec<u8>, VecDeque<ChunkId>>::with_capacity(rows.len());
    for row in rows {
        standing.entry(row.try_get("content_hash")?).or_default().push_back(ChunkId(row.try_get("id")?));
    }
    Ok(standing)
}

async fn insert_chunks(
    tx: &Transaction<'_>,
    lease: Lease,
    rows: &[(ChunkId, &Chunk, &Derived)],
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, _, _)| id.0).collect();
    let texts: Vec<&str> = rows.iter().map(|(_, chunk, _)| chunk.text.as_str()).collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|(_, _, derived)| derived.hash.as_slice()).collect();
    let words: Vec<&str> = rows.iter().map(|(_, _, derived)| derived.words.as_str()).collect();
    let tokens: Vec<i32> = rows.iter().map(|(_, chunk, _)| count(chunk.tokens)).collect();
    tx.execute_typed(
        "-- chunks::insert
        INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count, words)
        SELECT id, $1, $2, text, content_hash, token_count, words::tsvector
        FROM unnest($3, $4, $5, $6, $7) AS new (id, text, content_hash, token_count, words)",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&ids, Type::UUID_ARRAY),
            (&texts, Type::TEXT_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
            (&tokens, Type::INT4_ARRAY),
            (&words, Type::TEXT_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_positions(tx: &Transaction<'_>, lease: Lease, rows: &[(ChunkId, &Chunk)]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let ordinals: Vec<i32> = rows.iter().map(|(_, chunk)| count(chunk.ordinal)).collect();
    let starts: Vec<i64> = rows.iter().map(|(_, chunk)| offset(chunk.byte_start)).collect();
    let ends: Vec<i64> = rows.iter().map(|(_, chunk)| offset(chunk.byte_end)).collect();
    let pages: Vec<Option<i32>> =
        rows.iter().map(|(_, chunk)| chunk.page.and_then(|page| i32::try_from(page).ok())).collect();
    // PostgreSQL has no arrays of arrays of unequal length.
    let paths: Vec<String> = rows.iter().map(|(_, chunk)| chunk.heading_path.join(PATH_SEPARATOR)).collect();
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
