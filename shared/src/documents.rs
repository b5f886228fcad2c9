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

/// Deletes these documents, in the caller's transaction: from its commit on no reader sees them, the ids of all their
/// chunks are on the list of what is to be removed from Qdrant, and an ingestion in flight finds its revision gone. Ids
/// that it may still be writing stay on the list until its lease has ended, and [`IN_FLIGHT_GRACE_S`] beyond.
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
    tx.execute_typed(
        "-- documents::retire_chunks
        INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        SELECT c.id, d.knowledge_base_id, d.id,
            GREATEST(now(), staged.lease_expires_at) + make_interval(secs => $2)
        FROM documents d
        JOIN chunk_metadata c ON c.document_id = d.id
        LEFT JOIN document_revisions staged ON staged.document_id = d.id AND staged.state = 'staged'
        WHERE d.id = ANY($1)",
        &[(&ids, Type::UUID_ARRAY), (&IN_FLIGHT_GRACE_S, Type::FLOAT8)],
    )
    .await?;
    // The proof that is asked for when nothing else of the document is left.
    tx.execute_typed(
        "-- erasures::insert
        INSERT INTO erasures (document_id, knowledge_base_id, points)
        SELECT d.id, d.knowledge_base_id, (SELECT count(*) FROM chunk_metadata c WHERE c.document_id = d.id)
        FROM documents d WHERE d.id = ANY($1)",
        &[(&ids, Type::UUID_ARRAY)],
    )
    .await?;
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
