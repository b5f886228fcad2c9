//! Step 1: one transaction that claims the idempotency key, finds or creates the document, and opens a revision under a
//! lease. Repeated, it finds what the first one made. It discards nothing: this request may die before its text is stored,
//! or can not be read, and what was accepted before must not be lost to it. See [`super::stage`].

use std::{sync::Arc, time::Duration};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{DocumentId, KnowledgeBaseId, Role, UserId},
    knowledge_bases,
    problem::Problem,
};
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use super::{
    Lease,
    revisions::{
        LockedDocument, attributes, describe, draw_fence, lease_left, open, superseded, take_over, unfinished,
    },
};
use crate::{
    documents,
    error::IngestError,
    failpoint::{self, reached},
    idempotency::{Claim, KeyedRequest, LOOK_AGAIN, StoredResponse},
    request::Source,
};

/// A lease outlives its holder's time by this much, so that it never ends before the holder's last write.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(1);

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
    let unfinished = if document.latest_revision > 0 { unfinished(tx, document.id).await? } else { Vec::new() };
    if let Some(left) = lease_left(&unfinished) {
        return Err(IngestError::Busy { retry_after: left.min(LOOK_AGAIN) });
    }
    // What the key began, or else what is the newest and the same.
    let own = unfinished.iter().find(|revision| began.is_some_and(|(_, began)| began == revision.number));
    let same = unfinished.first().filter(|newest| newest.same_content(&request.source));
    let claimed = if let Some(revision) = own.or(same) {
        let lease = take_over(tx, document.id, knowledge_base, revision.number, fence, lease).await?;
        describe(tx, lease, &request.source).await?;
        if revision.staged { Claimed::Resumed(lease) } else { Claimed::Begun(lease) }
    } else if unfinished.is_empty() && unchanged(tx, &document, &request.source).await? {
        let view = documents::get(tx, document.id).await?.ok_or(IngestError::NoDocument)?;
        let answer = view.answer(super::status(false))?;
        if let Some((key, revision)) = request.key.as_ref().zip(view.revision) {
            key.began(tx, document.id, revision).await?;
            key.finish(tx, fence, &answer).await?;
        }
        return Ok(Claimed::Unchanged(answer));
    } else if let Some((id, began)) = began
        && superseded(tx, id, began).await?
    {
        // A late retry of an older request does not undo what was sent after it.
        return refuse(tx, request, fence, IngestError::Superseded).await;
    } else {
        Claimed::Begun(open(tx, &document, knowledge_base, &request.source, None, fence, lease).await?)
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

/// Takes over one revision that nobody works on and whose pause is over, staged or with a text that can be read again: for the sweeper. `None` when there is none.
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
                        WHERE (state = 'staged' OR (state = 'claimed' AND object_key IS NOT NULL))
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

/// Finds or creates the document, and keeps all others off it until the transaction ends. `None`: it was deleted.
pub(super) async fn lock_document(
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

/// Whether the active revision holds this content. Title and attributes are brought up to date on the spot: no vector
/// depends on them.
pub(super) async fn unchanged(
    tx: &Transaction<'_>,
    document: &LockedDocument,
    source: &Source,
) -> Result<bool, DbError> {
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

fn lease_from(row: &Row) -> Result<Lease, tokio_postgres::Error> {
    Ok(Lease {
        document: DocumentId(row.try_get::<_, Uuid>("document_id")?),
        knowledge_base: KnowledgeBaseId(row.try_get::<_, Uuid>("knowledge_base_id")?),
        revision: row.try_get("number")?,
        fence: row.try_get("fence")?,
        attempt: row.try_get("attempt")?,
    })
}
