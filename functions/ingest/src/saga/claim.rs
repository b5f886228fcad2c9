//! Step 1: one transaction that claims the idempotency key, finds or creates the document, and opens a staged revision
//! under a lease. Repeated, it finds what the first one made.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    documents::IN_FLIGHT_GRACE_S,
    domain::{DocumentId, KnowledgeBaseId, Role, UserId},
    knowledge_bases,
    problem::Problem,
};
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use super::Lease;
use crate::{
    documents,
    error::IngestError,
    failpoint::{self, reached},
    idempotency::{Claim, KeyedRequest, StoredResponse},
    request::Source,
};

/// A lease outlives its holder's time by this much, so that it never ends before the holder's last write.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// When to look again whether a running request has ended: most end long before their lease does.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// An ingestion as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub caller: UserId,
    /// The document.
    pub source: Arc<Source>,
    /// The idempotency key, if there is one.
    pub key: Option<KeyedRequest>,
    /// Stands in a refusal.
    pub request_id: String,
}

/// What a claim found.
#[derive(Debug)]
pub enum Claimed {
    /// There is work to do, under this lease. The chunks are not staged yet.
    Begun(Lease),
    /// There is work to do, under this lease. The chunks are staged.
    Resumed(Lease),
    /// The document stands as it was sent.
    Unchanged(StoredResponse),
    /// The key has its answer.
    Replay(StoredResponse),
    /// The key's work can not be done any more, and never will be.
    Refused(Problem),
}

/// Claims the work.
///
/// # Errors
/// See [`IngestError`].
pub async fn claim(app: &App, request: Request, deadline: Deadline) -> Result<Claimed, IngestError> {
    let lease = deadline.remaining() + LEASE_MARGIN;
    reached(failpoint::CLAIM_BEFORE);
    let claimed = app.db.transaction("claim ingestion", async move |tx| attempt(tx, &request, lease).await).await?;
    reached(failpoint::CLAIM_COMMITTED);
    Ok(claimed)
}

async fn attempt(tx: &Transaction<'_>, request: &Request, lease: Duration) -> Result<Claimed, IngestError> {
    let fence = draw_fence(tx).await?;
    let mut began = None;
    if let Some(key) = &request.key {
        match key.claim(tx, fence, lease).await? {
            Claim::Replay(stored) => return Ok(Claimed::Replay(stored)),
            Claim::TakenOver(document, revision) => began = Some((document, revision)),
            Claim::Fresh => {}
        }
    }
    let knowledge_base = writable(tx, request.caller, request.source.knowledge_base).await?;
    let Some(document) = lock_document(tx, knowledge_base, &request.source, began.map(|(id, _)| id)).await? else {
        return refuse(tx, request, fence, IngestError::DeletedMeanwhile).await;
    };
    // A late retry of an older request does not undo what was sent after it.
    let superseded = began.is_some_and(|(_, revision)| revision < document.latest_revision);
    let claimed = match staged(tx, document.id).await? {
        Some(staged) if staged.lease_s > 0.0 => {
            return Err(IngestError::Busy { retry_after: Duration::from_secs_f64(staged.lease_s).min(LOOK_AGAIN) });
        }
        Some(staged) if staged.same_content(&request.source) => {
            let lease = take_over(tx, document.id, knowledge_base, staged.number, fence, lease).await?;
            describe(tx, lease, &request.source).await?;
            if staged.has_chunks { Claimed::Resumed(lease) } else { Claimed::Begun(lease) }
        }
        Some(_) if superseded => return refuse(tx, request, fence, IngestError::Superseded).await,
        Some(staged) => {
            // Its text was replaced before it was complete: the newer one counts.
            discard(tx, document.id, staged.number).await?;
            Claimed::Begun(open(tx, &document, knowledge_base, &request.source, fence, lease).await?)
        }
        None if unchanged(tx, &document, &request.source).await? => {
            let view = documents::get(tx, document.id).await?.ok_or(IngestError::NoDocument)?;
            let answer = view.answer(super::status(false))?;
            if let Some((key, revision)) = request.key.as_ref().zip(view.revision) {
                key.began(tx, document.id, revision).await?;
                key.finish(tx, fence, &answer).await?;
            }
            return Ok(Claimed::Unchanged(answer));
        }
        None if superseded => return refuse(tx, request, fence, IngestError::Superseded).await,
        None => Claimed::Begun(open(tx, &document, knowledge_base, &request.source, fence, lease).await?),
    };
    if let (Some(key), Claimed::Begun(lease) | Claimed::Resumed(lease)) = (&request.key, &claimed) {
        key.began(tx, lease.document, lease.revision).await?;
    }
    Ok(claimed)
}

/// A refusal that is final: the key keeps it.
async fn refuse(
    tx: &Transaction<'_>,
    request: &Request,
    fence: i64,
    error: IngestError,
) -> Result<Claimed, IngestError> {
    let problem = error.into();
    let refusal = StoredResponse::refusal(&problem, &request.request_id);
    if let Some((key, refusal)) = request.key.as_ref().zip(refusal.as_ref()) {
        key.finish(tx, fence, refusal).await?;
    }
    Ok(Claimed::Refused(problem))
}

/// Takes over one staged revision that nobody works on and whose pause is over: for the sweeper. `None` when there is none.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn take_over_expired(app: &App, deadline: Deadline) -> Result<Option<Lease>, IngestError> {
    let lease_s = (deadline.remaining() + LEASE_MARGIN).as_secs_f64();
    app.db
        .transaction("take over expired lease", async move |tx| {
            let row = tx
                .query_typed_opt(
                    "-- saga::take_over_expired
                    WITH due AS MATERIALIZED (
                        SELECT document_id, number FROM document_revisions
                        WHERE state = 'staged' AND chunks_total IS NOT NULL
                            AND lease_expires_at <= now() AND next_attempt_at <= now()
                        ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
                    )
                    UPDATE document_revisions r
                    SET fence = nextval('fencing_tokens'), attempt = r.attempt + 1,
                        lease_expires_at = now() + make_interval(secs => $1)
                    FROM due, documents d
                    WHERE r.document_id = due.document_id AND r.number = due.number AND d.id = r.document_id
                    RETURNING r.document_id, d.knowledge_base_id, r.number, r.fence, r.attempt",
                    &[(&lease_s, Type::FLOAT8)],
                )
                .await
                .map_err(DbError::from)?;
            Ok(row.as_ref().map(lease_from).transpose().map_err(DbError::from)?)
        })
        .await
}

/// The knowledge base that the caller may write to: the one that is named, or the personal one. It can not be deleted
/// before the transaction ends.
async fn writable(
    tx: &Transaction<'_>,
    caller: UserId,
    wanted: Option<KnowledgeBaseId>,
) -> Result<KnowledgeBaseId, IngestError> {
    match knowledge_bases::hold(tx, caller, wanted).await?.ok_or(IngestError::NoKnowledgeBase)? {
        m if m.role >= Role::Editor => Ok(m.id),
        _ => Err(IngestError::ReadOnly),
    }
}

/// The attributes that the request brings, if it brings any.
fn attributes(source: &Source) -> Option<Value> {
    source.attributes.clone().map(Value::Object)
}

struct LockedDocument {
    id: DocumentId,
    active_revision: Option<i32>,
    latest_revision: i32,
}

/// Finds or creates the document, and keeps all others off it until the transaction ends. `None`: it was deleted.
async fn lock_document(
    tx: &Transaction<'_>,
    knowledge_base: KnowledgeBaseId,
    source: &Source,
    began: Option<DocumentId>,
) -> Result<Option<LockedDocument>, IngestError> {
    let title = source.title.as_ref().map(shared::domain::Title::as_str);
    let row = if let Some(began) = began {
        // A key that had begun a document does not bring it back once it was deleted.
        tx.query_typed_opt(
            "-- documents::lock
            SELECT id, active_revision, latest_revision FROM documents WHERE id = $1 FOR NO KEY UPDATE",
            &[(&began.0, Type::UUID)],
        )
        .await
    } else {
        // The update changes nothing; it locks the row and returns it, in the same statement that finds no row to insert
        // beside: between two, a deletion could come.
        tx.query_typed_opt(
            "-- documents::insert_or_lock
            INSERT INTO documents (id, knowledge_base_id, source_uri, title, attributes)
            VALUES ($1, $2, $3, $4, COALESCE($5, '{}'))
            ON CONFLICT ON CONSTRAINT documents_source_unique DO UPDATE SET source_uri = EXCLUDED.source_uri
            RETURNING id, active_revision, latest_revision",
            &[
                (&DocumentId::draw().0, Type::UUID),
                (&knowledge_base.0, Type::UUID),
                (&source.source_uri.as_str(), Type::TEXT),
                (&title, Type::TEXT),
                (&attributes(source), Type::JSONB),
            ],
        )
        .await
    };
    let read = |row: &Row| -> Result<LockedDocument, tokio_postgres::Error> {
        Ok(LockedDocument {
            id: DocumentId(row.try_get("id")?),
            active_revision: row.try_get("active_revision")?,
            latest_revision: row.try_get("latest_revision")?,
        })
    };
    let row = row.map_err(DbError::from)?;
    Ok(row.as_ref().map(read).transpose().map_err(DbError::from)?)
}

pub(super) struct Staged {
    pub(super) number: i32,
    content_hash: Vec<u8>,
    media_type: String,
    pub(super) has_chunks: bool,
    pub(super) lease_s: f64,
}

impl Staged {
    fn same_content(&self, source: &Source) -> bool {
        self.content_hash == source.content_hash.0 && self.media_type == source.format.media_type()
    }
}

pub(super) async fn staged(tx: &Transaction<'_>, document: DocumentId) -> Result<Option<Staged>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- revisions::staged
            SELECT number, content_hash, media_type, chunks_total IS NOT NULL AS has_chunks,
                extract(epoch FROM lease_expires_at - now())::float8 AS lease_s
            FROM document_revisions WHERE document_id = $1 AND state = 'staged' FOR UPDATE",
            &[(&document.0, Type::UUID)],
        )
        .await?;
    row.map(|row| {
        Ok(Staged {
            number: row.try_get("number")?,
            content_hash: row.try_get("content_hash")?,
            media_type: row.try_get("media_type")?,
            has_chunks: row.try_get("has_chunks")?,
            lease_s: row.try_get("lease_s")?,
        })
    })
    .transpose()
}

/// Whether the active revision holds this content. Title and attributes are brought up to date on the spot: no vector
/// depends on them.
async fn unchanged(tx: &Transaction<'_>, document: &LockedDocument, source: &Source) -> Result<bool, DbError> {
    let Some(active) = document.active_revision else { return Ok(false) };
    let rows = tx
        .execute_typed(
            "-- revisions::redescribe
            WITH same AS (
                UPDATE document_revisions SET title = COALESCE($5, title), attributes = COALESCE($6, attributes)
                WHERE document_id = $1 AND number = $2 AND content_hash = $3 AND media_type = $4
                RETURNING title, attributes
            )
            UPDATE documents d SET title = same.title, attributes = same.attributes,
                updated_at = CASE WHEN d.title IS NOT DISTINCT FROM same.title AND d.attributes = same.attributes
                    THEN d.updated_at ELSE now() END
            FROM same WHERE d.id = $1",
            &[
                (&document.id.0, Type::UUID),
                (&active, Type::INT4),
                (&source.content_hash.0.as_slice(), Type::BYTEA),
                (&source.format.media_type(), Type::TEXT),
                (&source.title.as_ref().map(shared::domain::Title::as_str), Type::TEXT),
                (&attributes(source), Type::JSONB),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Opens the next revision.
async fn open(
    tx: &Transaction<'_>,
    document: &LockedDocument,
    knowledge_base: KnowledgeBaseId,
    source: &Source,
    fence: i64,
    lease: Duration,
) -> Result<Lease, IngestError> {
    let number = document.latest_revision + 1;
    let size_bytes = i64::try_from(source.bytes.len()).unwrap_or(i64::MAX);
    tx.execute_typed(
        "-- revisions::insert
        WITH document AS (UPDATE documents SET latest_revision = $2 WHERE id = $1)
        INSERT INTO document_revisions (document_id, number, state, title, media_type, attributes, content_hash,
            size_bytes, fence, lease_expires_at)
        VALUES ($1, $2, 'staged', $3, $4, COALESCE($5, (SELECT attributes FROM documents WHERE id = $1)), $6, $7, $8, now() + make_interval(secs => $9))",
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
    Ok(Lease { document: document.id, knowledge_base, revision: number, fence, attempt: 1 })
}

/// Takes over a staged revision whose lease has run out: from here on its former holder's writes change nothing.
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

/// Gives a staged revision the title and attributes of the request that goes on with it.
async fn describe(tx: &Transaction<'_>, lease: Lease, source: &Source) -> Result<(), DbError> {
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

/// Removes a staged revision that will not become active. The ids that it brought in retire, and stay on the list for as
/// long as a write of its former holder may still be under way.
pub(super) async fn discard(tx: &Transaction<'_>, document: DocumentId, number: i32) -> Result<(), DbError> {
    tx.execute_typed(
        "-- revisions::discard_chunks
        WITH gone AS (
            DELETE FROM chunk_metadata WHERE document_id = $1 AND first_revision = $2 RETURNING id
        )
        INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        SELECT gone.id, d.knowledge_base_id, d.id, now() + make_interval(secs => $3)
        FROM gone, documents d WHERE d.id = $1",
        &[(&document.0, Type::UUID), (&number, Type::INT4), (&IN_FLIGHT_GRACE_S, Type::FLOAT8)],
    )
    .await?;
    tx.execute_typed(
        "-- revisions::discard
        DELETE FROM document_revisions WHERE document_id = $1 AND number = $2 AND state = 'staged'",
        &[(&document.0, Type::UUID), (&number, Type::INT4)],
    )
    .await?;
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

fn lease_from(row: &Row) -> Result<Lease, tokio_postgres::Error> {
    Ok(Lease {
        document: DocumentId(row.try_get::<_, Uuid>("document_id")?),
        knowledge_base: KnowledgeBaseId(row.try_get::<_, Uuid>("knowledge_base_id")?),
        revision: row.try_get("number")?,
        fence: row.try_get("fence")?,
        attempt: row.try_get("attempt")?,
    })
}
