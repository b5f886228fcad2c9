//! The end of documents: one door for all who may end them, whatever they belong to.

use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use crate::{
    db::DbError,
    domain::{DocumentId, KnowledgeBaseId},
};

/// How long ids that somebody may still be writing to Qdrant stay on the list of retired points once that somebody's
/// lease has ended: a request that was sent before may arrive after.
pub const IN_FLIGHT_GRACE_S: f64 = 60.0;

/// Chunks that retire in the transaction that deletes their documents: a second or two. What has more is taken out of sight
/// by it, and retires afterwards: a million takes longer than a transaction may.
const CHUNKS_AT_ONCE: i64 = 50_000;

/// Chunks that retire in one transaction afterwards: some hundred milliseconds, so that an invocation's end cuts little.
const CHUNKS_PER_BATCH: i64 = 10_000;

/// Deletes these documents, in the caller's transaction: from its commit on no reader sees them, and an ingestion in flight
/// finds its revision gone. The ids of all their chunks go on the list of what is to be removed from Qdrant, where they stay
/// until the lease of whoever may be writing them has ended, and [`IN_FLIGHT_GRACE_S`] beyond. Of more than
/// 50,000 chunks that is left to [`retire_remains`].
///
/// The answers that idempotency keys keep show the document (title, attributes) and are forgotten. The keys stay, with
/// the document's id: a late retry of the request that made it must not bring it back.
///
/// The caller holds the documents' rows `FOR UPDATE`: then no chunk can join them between the statements.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete(tx: &Transaction<'_>, documents: &[DocumentId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = documents.iter().map(|id| id.0).collect();
    // The proof that is asked for when nothing else of the document is left, and the note of what is still to be done.
    let row = tx
        .query_typed_one(
            "-- erasures::insert
            WITH counted AS (
                SELECT d.id, d.knowledge_base_id, staged.lease_expires_at,
                    (SELECT count(*) FROM chunk_metadata c WHERE c.document_id = d.id) AS points
                FROM documents d
                LEFT JOIN document_revisions staged ON staged.document_id = d.id AND staged.state = 'staged'
                WHERE d.id = ANY($1)
            ), noted AS (
                INSERT INTO erasures (document_id, knowledge_base_id, points, points_due_at, remains)
                SELECT id, knowledge_base_id, points,
                    GREATEST(now(), lease_expires_at) + make_interval(secs => $2), points > 0
                FROM counted
            )
            SELECT COALESCE(sum(points), 0)::bigint AS points FROM counted",
            &[(&ids, Type::UUID_ARRAY), (&IN_FLIGHT_GRACE_S, Type::FLOAT8)],
        )
        .await?;
    if row.try_get::<_, i64>("points")? <= CHUNKS_AT_ONCE {
        retire(tx, Some(&ids), CHUNKS_AT_ONCE).await?;
    }
    let rows = tx
        .execute_typed("-- documents::delete\nDELETE FROM documents WHERE id = ANY($1)", &[(&ids, Type::UUID_ARRAY)])
        .await?;
    if usize::try_from(rows) != Ok(ids.len()) {
        return Err(DbError::RowCount { statement: "documents::delete", rows });
    }
    // Only of keys with an answer: those without one are locked before the document by whoever works on it, and may be
    // waiting for it.
    tx.execute_typed(
        "-- documents::forget_answers
        UPDATE idempotency_keys
        SET response_status = NULL, response_headers = NULL, response_body = NULL, lease_expires_at = now()
        WHERE document_id = ANY($1) AND response_status IS NOT NULL",
        &[(&ids, Type::UUID_ARRAY)],
    )
    .await?;
    Ok(())
}

/// Retires chunks of deleted documents that were too many for the deletion itself, one batch in the caller's transaction.
/// False when there was nothing left to do.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn retire_remains(tx: &Transaction<'_>) -> Result<bool, DbError> {
    retire(tx, None, CHUNKS_PER_BATCH).await
}

/// Retires up to `limit` chunks, of these deleted documents or of any, and notes of which nothing remains. False when there
/// was nothing to do.
async fn retire(tx: &Transaction<'_>, documents: Option<&[Uuid]>, limit: i64) -> Result<bool, DbError> {
    // Who works on the same at the same time takes others.
    let row = tx
        .query_typed_one(
            "-- documents::retire_chunks
            WITH batch AS MATERIALIZED (
                SELECT c.id FROM erasures e JOIN chunk_metadata c ON c.document_id = e.document_id
                WHERE e.remains AND ($1::uuid[] IS NULL OR e.document_id = ANY($1))
                LIMIT $2 FOR UPDATE OF c SKIP LOCKED
            ), gone AS (
                DELETE FROM chunk_metadata c USING batch WHERE c.id = batch.id RETURNING c.id, c.document_id
            ), retired AS (
                INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
                SELECT gone.id, e.knowledge_base_id, e.document_id, e.points_due_at
                FROM gone JOIN erasures e ON e.document_id = gone.document_id
            )
            SELECT count(*) AS chunks, COALESCE(array_agg(DISTINCT document_id), '{}') AS documents FROM gone",
            &[(&documents, Type::UUID_ARRAY), (&limit, Type::INT8)],
        )
        .await?;
    let (chunks, touched): (i64, Vec<Uuid>) = (row.try_get("chunks")?, row.try_get("documents")?);
    // The last batch looks at all: of two that end the same document at once, neither sees that the other does.
    let ended = if chunks < limit { documents } else { Some(touched.as_slice()) };
    let noted = tx
        .execute_typed(
            "-- erasures::nothing_remains
            UPDATE erasures e SET remains = false
            WHERE e.remains AND ($1::uuid[] IS NULL OR e.document_id = ANY($1))
                AND NOT EXISTS (SELECT FROM chunk_metadata c WHERE c.document_id = e.document_id)",
            &[(&ended, Type::UUID_ARRAY)],
        )
        .await?;
    Ok(chunks > 0 || noted > 0)
}

/// Deletes all documents of these knowledge bases as [`delete`] does, and returns how many those were.
///
/// The caller holds the knowledge bases' rows `FOR UPDATE`: then no document can join them meanwhile.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_of(tx: &Transaction<'_>, knowledge_bases: &[KnowledgeBaseId]) -> Result<usize, DbError> {
    let ids: Vec<Uuid> = knowledge_bases.iter().map(|id| id.0).collect();
    let rows = tx
        .query_typed(
            "-- documents::lock_of
            SELECT id FROM documents WHERE knowledge_base_id = ANY($1) ORDER BY id FOR UPDATE",
            &[(&ids, Type::UUID_ARRAY)],
        )
        .await?;
    let documents = rows.iter().map(|row| row.try_get("id").map(DocumentId)).collect::<Result<Vec<_>, _>>()?;
    delete(tx, &documents).await?;
    Ok(documents.len())
}
