//! A revision's row, from its opening to its discarding: the statements that claims, retries and refusals share.

use std::time::Duration;

use futures::TryFutureExt as _;
use serde_json::Value;
use shared::{
    db::{DbError, Parameter},
    documents::IN_FLIGHT_GRACE_S,
    domain::{DocumentId, KnowledgeBaseId},
};
use tokio_postgres::{Transaction, types::Type};

use super::Lease;
use crate::{error::IngestError, objects::StoredObject, request::Source};

/// A document whose row the transaction has locked.
pub(super) struct LockedDocument {
    pub(super) id: DocumentId,
    pub(super) active_revision: Option<i32>,
    pub(super) latest_revision: i32,
}

/// A revision that may still become active, as a claim finds it.
pub(super) struct Unfinished {
    pub(super) number: i32,
    /// Its chunks are stored: nobody needs the client to complete it.
    pub(super) staged: bool,
    /// Its text can be read again where it came from: likewise.
    pub(super) readable: bool,
    content_hash: Vec<u8>,
    media_type: String,
    pub(super) lease_s: f64,
}

impl Unfinished {
    pub(super) fn same_content(&self, source: &Source) -> bool {
        self.content_hash == source.content_hash.0 && self.media_type == source.format.media_type()
    }
}

/// The revisions that may still become active, newest first: any number that are claimed, and behind them at most one that
/// is staged. The transaction has locked the document.
pub(super) async fn unfinished(tx: &Transaction<'_>, document: DocumentId) -> Result<Vec<Unfinished>, DbError> {
    let rows = tx
        .query_typed(
            "-- revisions::unfinished
            SELECT number, state = 'staged' AS staged, object_key IS NOT NULL AS readable, content_hash, media_type,
                extract(epoch FROM lease_expires_at - now())::float8 AS lease_s
            FROM document_revisions WHERE document_id = $1 AND state IN ('claimed', 'staged')
            ORDER BY number DESC FOR UPDATE",
            &[(&document.0, Type::UUID)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Unfinished {
                number: row.try_get("number")?,
                staged: row.try_get("staged")?,
                readable: row.try_get("readable")?,
                content_hash: row.try_get("content_hash")?,
                media_type: row.try_get("media_type")?,
                lease_s: row.try_get("lease_s")?,
            })
        })
        .collect()
}

/// How long somebody may still work on one of these; `None` when nobody does.
pub(super) fn lease_left(unfinished: &[Unfinished]) -> Option<Duration> {
    let left = unfinished.iter().map(|revision| revision.lease_s).fold(0.0, f64::max);
    (left > 0.0).then(|| Duration::from_secs_f64(left))
}

/// Whether a newer text than this revision's was stored since.
pub(super) async fn superseded(tx: &Transaction<'_>, document: DocumentId, number: i32) -> Result<bool, DbError> {
    let row = tx
        .query_typed_one(
            "-- revisions::superseded
            SELECT EXISTS (SELECT FROM document_revisions
                WHERE document_id = $1 AND number > $2 AND chunks_total IS NOT NULL)",
            &[(&document.0, Type::UUID), (&number, Type::INT4)],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// The attributes that the request brings, if it brings any.
pub(super) fn attributes(source: &Source) -> Option<Value> {
    source.attributes.clone().map(Value::Object)
}

/// Opens the next revision, beside those that are unfinished: they stay as they are until this one is staged.
pub(super) async fn open(
    tx: &Transaction<'_>,
    document: &LockedDocument,
    knowledge_base: KnowledgeBaseId,
    source: &Source,
    object: Option<&StoredObject>,
    fence: i64,
    lease: Duration,
) -> Result<Lease, IngestError> {
    let number = document.latest_revision + 1;
    let size_bytes = object.map_or(source.bytes.len() as u64, |object| object.size_bytes);
    let size_bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
    tx.execute_typed(
        "-- revisions::insert
        WITH document AS (UPDATE documents SET latest_revision = $2 WHERE id = $1)
        INSERT INTO document_revisions (document_id, number, state, title, media_type, attributes, content_hash,
            size_bytes, fence, lease_expires_at)
        VALUES ($1, $2, 'claimed', $3, $4, COALESCE($5, (SELECT attributes FROM documents WHERE id = $1)), $6, $7, $8, now() + make_interval(secs => $9))",
        &[
            (&document.id.0, Type::UUID),
            (&number, Type::INT4),
            (&source.title.as_ref().map(shared::domain::Title::as_str), Type::TEXT),
            (&source.format.media_type(), Type::TEXT),
            (&attributes(source), Type::JSONB),
            (&source.content_hash.0.as_slice(), Type::BYTEA),
            (&size_bytes, Type::INT8),
            (&fence, Type::INT8),
            (&lease.as_secs_f64(), Type::FLOAT8),
        ],
    )
    .await
    .map_err(DbError::from)?;
    let lease = Lease { document: document.id, knowledge_base, revision: number, fence, attempt: 1 };
    if let Some(object) = object {
        set_object(tx, lease.document, lease.revision, object).await?;
    }
    Ok(lease)
}

/// Notes where a revision's text can be read again.
pub(super) async fn set_object(
    tx: &Transaction<'_>,
    document: DocumentId,
    number: i32,
    object: &StoredObject,
) -> Result<(), DbError> {
    tx.execute_typed(
        "-- revisions::set_object
        UPDATE document_revisions
        SET object_bucket = $3, object_key = $4, object_version = $5, object_etag = $6
        WHERE document_id = $1 AND number = $2",
        &[
            (&document.0, Type::UUID),
            (&number, Type::INT4),
            (&object.id.bucket, Type::TEXT),
            (&object.id.key, Type::TEXT),
            (&object.id.version, Type::TEXT),
            (&object.etag, Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

/// Whether a revision's text can be read again where it came from.
pub(super) async fn has_object(tx: &Transaction<'_>, lease: Lease) -> Result<bool, DbError> {
    let row = tx
        .query_typed_one(
            "-- revisions::has_object
            SELECT object_key IS NOT NULL FROM document_revisions WHERE document_id = $1 AND number = $2",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4)],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Takes over an unfinished revision whose lease has run out: from here on its former holder's writes change nothing.
pub(super) async fn take_over(
    tx: &Transaction<'_>,
    document: DocumentId,
    knowledge_base: KnowledgeBaseId,
    number: i32,
    fence: i64,
    lease: Duration,
) -> Result<Lease, IngestError> {
    let row = tx
        .query_typed_one(
            "-- revisions::take_over
            UPDATE document_revisions
            SET fence = $3, lease_expires_at = now() + make_interval(secs => $4), attempt = attempt + 1
            WHERE document_id = $1 AND number = $2 RETURNING attempt",
            &[
                (&document.0, Type::UUID),
                (&number, Type::INT4),
                (&fence, Type::INT8),
                (&lease.as_secs_f64(), Type::FLOAT8),
            ],
        )
        .await
        .map_err(DbError::from)?;
    let attempt = row.try_get("attempt").map_err(DbError::from)?;
    Ok(Lease { document, knowledge_base, revision: number, fence, attempt })
}

/// Gives an unfinished revision the title and attributes of the request that goes on with it.
pub(super) async fn describe(tx: &Transaction<'_>, lease: Lease, source: &Source) -> Result<(), DbError> {
    tx.execute_typed(
        "-- revisions::describe
        UPDATE document_revisions SET title = COALESCE($3, title), attributes = COALESCE($4, attributes)
        WHERE document_id = $1 AND number = $2",
        &[
            (&lease.document.0, Type::UUID),
            (&lease.revision, Type::INT4),
            (&source.title.as_ref().map(shared::domain::Title::as_str), Type::TEXT),
            (&attributes(source), Type::JSONB),
        ],
    )
    .await?;
    Ok(())
}

/// Removes the unfinished revisions that are older than this one: once it is staged, its text is the one that counts.
pub(super) async fn discard_before(tx: &Transaction<'_>, document: DocumentId, number: i32) -> Result<(), DbError> {
    discard_between(tx, document, i32::MIN, number - 1).await
}

/// Removes an unfinished revision.
pub(super) async fn discard(tx: &Transaction<'_>, document: DocumentId, number: i32) -> Result<(), DbError> {
    discard_between(tx, document, number, number).await
}

async fn discard_between(tx: &Transaction<'_>, document: DocumentId, first: i32, last: i32) -> Result<(), DbError> {
    let parameters: [Parameter<'_>; 3] = [(&document.0, Type::UUID), (&first, Type::INT4), (&last, Type::INT4)];
    let discard = tx.execute_typed(
        "-- revisions::discard
        DELETE FROM document_revisions
        WHERE document_id = $1 AND number BETWEEN $2 AND $3 AND state IN ('claimed', 'staged')",
        &parameters,
    );
    // One is sent behind the other, and done in this order.
    tokio::try_join!(biased; retire_chunks(tx, document, first, last), discard.err_into())?;
    Ok(())
}

/// Takes the chunks of unfinished revisions away. The ids that they brought in retire, and stay on the list for as long as
/// somebody may be writing them: until the lease ends, which may be another's than the caller's, and the grace beyond.
pub(super) async fn retire_chunks(
    tx: &Transaction<'_>,
    document: DocumentId,
    first: i32,
    last: i32,
) -> Result<(), DbError> {
    let between: [Parameter<'_>; 3] = [(&document.0, Type::UUID), (&first, Type::INT4), (&last, Type::INT4)];
    let [document, first, last] = between.clone();
    let and_grace = [document, first, last, (&IN_FLIGHT_GRACE_S, Type::FLOAT8)];
    let chunks = tx.execute_typed(
        "-- revisions::discard_chunks
        WITH gone AS (
            DELETE FROM chunk_metadata c USING document_revisions r
            WHERE r.document_id = $1 AND r.number BETWEEN $2 AND $3 AND r.state IN ('claimed', 'staged')
                AND c.document_id = r.document_id AND c.first_revision = r.number
            RETURNING c.id, r.lease_expires_at
        )
        INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        SELECT gone.id, d.knowledge_base_id, d.id, GREATEST(now(), gone.lease_expires_at) + make_interval(secs => $4)
        FROM gone, documents d WHERE d.id = $1",
        &and_grace,
    );
    // Those of carried-over chunks, which stay.
    let positions = tx.execute_typed(
        "-- positions::discard
        DELETE FROM chunk_positions p USING document_revisions r
        WHERE r.document_id = $1 AND r.number BETWEEN $2 AND $3 AND r.state IN ('claimed', 'staged')
            AND p.document_id = r.document_id AND p.revision = r.number",
        &between,
    );
    tokio::try_join!(biased; chunks, positions)?;
    Ok(())
}

/// A fencing token, higher than all before.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn draw_fence(tx: &Transaction<'_>) -> Result<i64, DbError> {
    let row = tx.query_typed_one("-- saga::draw_fence\nSELECT nextval('fencing_tokens')", &[]).await?;
    Ok(row.try_get(0)?)
}
