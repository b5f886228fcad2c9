//! Steps 2 and 3: read the document, cut it into chunks, and commit those with their new ids. From then on it is this text
//! that counts: what is older and unfinished is discarded in the same transaction.

use std::{
    collections::{HashMap, VecDeque},
    sync::mpsc,
};

use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use sha2::{Digest, Sha256};
use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::ChunkId,
    embed::Embedder,
    sparse::{self, Terms, TsVector},
};
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use super::{Lease, ahead::Inputs, hold, revisions};
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

/// INSERTs on their way: PostgreSQL has the next one when it has done one.
const INSERTS_AT_ONCE: usize = 2;

/// Separates headings in the one text that carries a path to PostgreSQL. Heading paths have no control characters.
const PATH_SEPARATOR: &str = "\u{1f}";

/// Reads and cuts. Pure, and off the async threads: a large document takes a second.
pub(super) async fn chunks(
    app: &App,
    source: &Source,
    ahead: Option<Inputs>,
    deadline: Deadline,
) -> Result<(Vec<Passage>, Option<String>), IngestError> {
    let (bytes, embedder, config) = (source.bytes.clone(), app.embedder.clone(), &app.config.extraction);
    let limits = extract::Limits { text_bytes_max: config.text_bytes_max, pages_max: config.pages_max };
    let job = Job { limits, charset: source.charset.clone(), ..Job::new(source.format) };
    let contained = if source.format.is_contained() {
        Some(Sandbox::new(config.clone()).extract(bytes.clone(), job.clone(), deadline).await?)
    } else {
        None
    };
    let given = source.title.clone();
    let (cut_chunks, chunks) = mpsc::channel();
    let cut = move || {
        let extracted = contained.map_or_else(|| extract::extract_as(&bytes, &job), Ok)?;
        let limits = self::limits(embedder.as_ref());
        let count = |text: &str| embedder.count_tokens(text);
        let title = given.as_ref().map(shared::domain::Title::as_str);
        let each = |limits, give: &mut dyn FnMut(Chunk)| chunk::each_chunk(&extracted, limits, &count, give);
        // The receiver is gone only when it has panicked, which is an error below.
        let mut give = |chunk| drop(cut_chunks.send(chunk));
        chunk::under_title(title, limits, &count, each, &mut give)?;
        Ok::<_, IngestError>(extracted.title)
    };
    // Beside the cutting, which takes about as long.
    let passages = tokio::task::spawn_blocking(move || Passage::all(chunks, ahead.as_ref()));
    let both = async { tokio::join!(tokio::task::spawn_blocking(cut), passages) };
    match tokio::time::timeout_at(deadline.instant(), both).await {
        Ok((title, passages)) => {
            let title = title.map_err(IngestError::Panicked)??;
            Ok((passages.map_err(IngestError::Panicked)?, title))
        }
        Err(_) => Err(IngestError::OutOfTime),
    }
}

/// How large a chunk may be for this embedder.
pub(super) fn limits(embedder: &dyn Embedder) -> Limits {
    Limits { chunk_tokens_max: embedder.tokens_max().min(CHUNK_TOKENS_MAX), ..Limits::default() }
}

/// A chunk, and what is stored beside it and follows from its text.
pub(super) struct Passage {
    pub(super) chunk: Chunk,
    /// SHA-256 of what is embedded.
    hash: [u8; 32],
    words: TsVector,
}

impl Passage {
    /// Of each chunk; who is `ahead` hears of it at once. Not for the async threads.
    pub(super) fn all(chunks: impl IntoIterator<Item = Chunk>, ahead: Option<&Inputs>) -> Vec<Self> {
        let mut words = sparse::Passages::default();
        let passage = |chunk: Chunk| {
            let input = chunk::embedding_input(&chunk.heading_path, &chunk.text);
            let above = input.strip_suffix(&chunk.text).unwrap_or_default();
            let Terms { weights, lexemes } = words.terms(above, &chunk.text);
            let hash = Sha256::digest(&input).into();
            if let Some(ahead) = ahead {
                ahead.push(input, weights);
            }
            Self { hash, words: lexemes, chunk }
        };
        chunks.into_iter().map(passage).collect()
    }
}

/// Commits the chunks. Those whose embedded text stands in the active revision already keep their id, and with it their
/// vector; the others get a new one, committed here before any point is written. Whoever takes the work over finds them staged and goes on behind this step.
pub(super) async fn stage(
    app: &App,
    lease: Lease,
    passages: Vec<Passage>,
    title: Option<String>,
) -> Result<(), IngestError> {
    reached(failpoint::STAGE_BEFORE);
    app.db
        .transaction("stage chunks", async move |tx| {
            // One is sent behind the other, and done in this order.
            let ((), (), mut standing) = tokio::try_join!(
                biased;
                hold(tx, lease),
                revisions::discard_before(tx, lease.document, lease.revision).err_into(),
                standing(tx, lease).err_into::<IngestError>(),
            )?;
            let mut fresh = Vec::new();
            let mut placed = Vec::with_capacity(passages.len());
            for passage in &passages {
                // In order, so that of several equal chunks each keeps its own id.
                let standing = standing.get_mut(passage.hash.as_slice()).and_then(VecDeque::pop_front);
                let id = standing.unwrap_or_else(ChunkId::draw);
                if standing.is_none() {
                    fresh.push((id, passage));
                }
                placed.push((id, passage));
            }
            insert_rows(tx, lease, &fresh, &placed).await?;
            finish(tx, lease, count(placed.len()), count(placed.len() - fresh.len()), title.as_deref()).await
        })
        .await?;
    reached(failpoint::STAGE_COMMITTED);
    Ok(())
}

/// Inserts passages in their places, all with new ids.
pub(super) async fn insert(tx: &Transaction<'_>, lease: Lease, passages: &[Passage]) -> Result<(), DbError> {
    let rows: Vec<_> = passages.iter().map(|passage| (ChunkId::draw(), passage)).collect();
    insert_rows(tx, lease, &rows, &rows).await
}

/// Inserts the fresh ones of the passages, and the places of all. One statement is behind the other on the connection, and
/// does not wait for its answer.
async fn insert_rows(
    tx: &Transaction<'_>,
    lease: Lease,
    fresh: &[(ChunkId, &Passage)],
    placed: &[(ChunkId, &Passage)],
) -> Result<(), DbError> {
    let mut inserts = Vec::new();
    for rows in fresh.chunks(ROWS_PER_INSERT) {
        inserts.push(insert_chunks(tx, lease, rows).boxed());
    }
    for rows in placed.chunks(ROWS_PER_INSERT) {
        inserts.push(insert_positions(tx, lease, rows).boxed());
    }
    stream::iter(inserts).buffered(INSERTS_AT_ONCE).try_collect().await
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
