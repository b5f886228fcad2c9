//! What an event of a bucket asks for, each in one transaction that also moves the ledger's mark: so an older event never
//! undoes a newer one. From a claim's commit on, anybody can complete it, because the object can be read again.
//!
//! A newer object does not wait for an older one that is being worked on, as a request does: it opens its revision beside it,
//! and replaces it when it is staged. Else a busy document would send its events back to the queue, until they are dropped.

use std::{sync::Arc, time::Duration};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{DocumentId, KnowledgeBaseId, SourceUri},
    knowledge_bases,
};
use tokio_postgres::{Transaction, types::Type};

use super::{
    Lease,
    claim::{LEASE_MARGIN, lock_document, unchanged},
    revisions::{LockedDocument, describe, draw_fence, open, set_object, take_over, unfinished},
};
use crate::{
    error::IngestError,
    events::{ledger, notice::Notice},
    failpoint::{self, reached},
    objects::StoredObject,
    request::Source,
};

/// What a claim of an object found.
#[derive(Debug)]
pub enum ClaimedObject {
    /// There is work to do, under this lease. The chunks are not staged yet.
    Begun(Lease),
    /// There is work to do, under this lease. The chunks are staged.
    Resumed(Lease),
    /// Somebody is at it.
    UnderWay,
    /// The document stands as it is in the bucket.
    Unchanged,
    /// A newer event was acted on, or this one.
    Stale,
    /// There is no such knowledge base.
    NoKnowledgeBase,
}

/// Claims the work on an object. The bucket is the operator's, and so is what is put into it: that the knowledge base exists
/// is all that is asked.
///
/// # Errors
/// See [`IngestError`].
pub async fn claim_object(
    app: &App,
    notice: &Notice,
    knowledge_base: KnowledgeBaseId,
    source: Arc<Source>,
    object: StoredObject,
    deadline: Deadline,
) -> Result<ClaimedObject, IngestError> {
    let claim =
        Claim { notice: notice.clone(), knowledge_base, source, object, lease: deadline.remaining() + LEASE_MARGIN };
    reached(failpoint::CLAIM_BEFORE);
    let claimed = app.db.transaction("claim object", async move |tx| claim.attempt(tx).await).await?;
    reached(failpoint::CLAIM_COMMITTED);
    Ok(claimed)
}

struct Claim {
    notice: Notice,
    knowledge_base: KnowledgeBaseId,
    source: Arc<Source>,
    object: StoredObject,
    lease: Duration,
}

impl Claim {
    async fn attempt(&self, tx: &Transaction<'_>) -> Result<ClaimedObject, IngestError> {
        let Self { notice, knowledge_base, source, object, lease } = self;
        if !ledger::advance(tx, notice).await? {
            return Ok(ClaimedObject::Stale);
        }
        if !knowledge_bases::hold_any(tx, *knowledge_base).await? {
            return Ok(ClaimedObject::NoKnowledgeBase);
        }
        let document = lock_document(tx, *knowledge_base, source, None).await?.ok_or(IngestError::NoDocument)?;
        let unfinished = unfinished(tx, document.id).await?;
        let fence = draw_fence(tx).await?;
        if let Some(same) = unfinished.first().filter(|newest| newest.same_content(source)) {
            set_object(tx, document.id, same.number, object).await?;
            if same.lease_s > 0.0 {
                return Ok(ClaimedObject::UnderWay);
            }
            let lease = take_over(tx, document.id, *knowledge_base, same.number, fence, *lease).await?;
            describe(tx, lease, source).await?;
            return Ok(if same.staged { ClaimedObject::Resumed(lease) } else { ClaimedObject::Begun(lease) });
        }
        if unfinished.is_empty() && unchanged(tx, &document, source).await? {
            return Ok(ClaimedObject::Unchanged);
        }
        Ok(ClaimedObject::Begun(open(tx, &document, *knowledge_base, source, Some(object), fence, *lease).await?))
    }
}

/// Why an object can not become a document.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Of the object.
    pub size_bytes: u64,
    /// As it was stored with.
    pub media_type: String,
    /// Stable, for clients.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
}

/// Notes that an object can not become a document, and why: the document has failed, and the text that it had before goes on
/// answering. False when a newer event was acted on, or there is no such knowledge base.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn fail_object(
    app: &App,
    notice: &Notice,
    knowledge_base: KnowledgeBaseId,
    source: Arc<Source>,
    refusal: Refusal,
) -> Result<bool, IngestError> {
    let notice = notice.clone();
    app.db
        .transaction("fail object", async move |tx| {
            if !ledger::advance(tx, &notice).await? || !knowledge_bases::hold_any(tx, knowledge_base).await? {
                return Ok(false);
            }
            let document = lock_document(tx, knowledge_base, &source, None).await?.ok_or(IngestError::NoDocument)?;
            let fence = draw_fence(tx).await?;
            refusal.insert(tx, &document, fence).await?;
            Ok::<_, IngestError>(true)
        })
        .await
}

impl Refusal {
    async fn insert(&self, tx: &Transaction<'_>, document: &LockedDocument, fence: i64) -> Result<(), DbError> {
        let size_bytes = i64::try_from(self.size_bytes).unwrap_or(i64::MAX);
        tx.execute_typed(
            "-- revisions::insert_failed
            WITH document AS (UPDATE documents SET latest_revision = $2 WHERE id = $1)
            INSERT INTO document_revisions (document_id, number, state, media_type, size_bytes, fence,
                lease_expires_at, finished_at, failure_code, failure_detail)
            VALUES ($1, $2, 'failed', $3, $4, $5, now(), now(), $6, $7)",
            &[
                (&document.id.0, Type::UUID),
                (&(document.latest_revision + 1), Type::INT4),
                (&self.media_type, Type::TEXT),
                (&size_bytes, Type::INT8),
                (&fence, Type::INT8),
                (&self.code, Type::TEXT),
                (&self.detail, Type::TEXT),
            ],
        )
        .await?;
        Ok(())
    }
}

/// What a removal found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeletedObject {
    /// The document is out of sight.
    Deleted(DocumentId),
    /// There was none.
    Absent,
    /// A newer event was acted on, or this one.
    Stale,
}

/// Deletes the document of an object that is gone.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_object(
    app: &App,
    notice: &Notice,
    knowledge_base: KnowledgeBaseId,
    source_uri: &SourceUri,
) -> Result<DeletedObject, IngestError> {
    let (notice, source_uri) = (notice.clone(), source_uri.clone());
    reached(failpoint::DELETE_BEFORE);
    let deleted = app
        .db
        .transaction("delete object's document", async move |tx| {
            if !ledger::advance(tx, &notice).await? {
                return Ok(DeletedObject::Stale);
            }
            let row = tx
                .query_typed_opt(
                    "-- documents::lock_by_source
                    SELECT id FROM documents WHERE knowledge_base_id = $1 AND source_uri = $2 FOR UPDATE",
                    &[(&knowledge_base.0, Type::UUID), (&source_uri.as_str(), Type::TEXT)],
                )
                .await?;
            let Some(row) = row else { return Ok(DeletedObject::Absent) };
            let id = DocumentId(row.try_get("id")?);
            shared::documents::delete(tx, &[id]).await?;
            Ok::<_, DbError>(DeletedObject::Deleted(id))
        })
        .await?;
    reached(failpoint::DELETE_COMMITTED);
    Ok(deleted)
}
