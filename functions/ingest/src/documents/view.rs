//! A document as the API shows it.

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use shared::{
    db::DbError,
    domain::{ContentHash, DocumentId, KnowledgeBaseId},
};
use time::OffsetDateTime;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::{error::IngestError, idempotency::StoredResponse};

/// A document, as every route shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DocumentView {
    /// Its id.
    pub id: DocumentId,
    /// The knowledge base it belongs to.
    pub knowledge_base: KnowledgeBaseId,
    /// Where it came from; names it within its knowledge base.
    pub source_uri: String,
    /// Its title: the client's, or the one found in the text.
    pub title: Option<String>,
    /// What is happening to it.
    pub state: State,
    /// The revision that queries see; null until the first one is complete in both stores.
    pub revision: Option<i32>,
    /// Of the source of that revision; before there is one, of the latest.
    pub media_type: String,
    /// Of the same source; null if it was refused unread.
    pub content_hash: Option<ContentHash>,
    /// Bytes of the same source.
    pub size_bytes: i64,
    /// The user's own keys and values.
    #[schema(value_type = Object)]
    pub attributes: Value,
    /// The way into the stores of the newest revision that is on it; when there is none, of the newest.
    pub ingestion: IngestionView,
    /// When it was first sent.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its text, title or attributes last changed for queries.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What is happening to a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A revision is on its way; `revision` says which one answers queries meanwhile.
    Ingesting,
    /// Complete in both stores.
    Active,
    /// It could not be ingested.
    Failed,
}

/// A revision's way into the stores.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IngestionView {
    /// The revision.
    pub revision: i32,
    /// Its state.
    pub state: State,
    /// Its chunks; null until they are cut.
    pub chunks: Option<ChunkCounts>,
    /// The share of the chunks that have their points, 0 to 1.
    pub progress: f64,
    /// How often the work was begun since it last made all the progress that its time allowed.
    pub attempt: i32,
    /// Why it failed, if it did.
    pub failure: Option<FailureView>,
}

/// Why a revision failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FailureView {
    /// Stable, `snake_case`.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

/// Chunks of a revision.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ChunkCounts {
    /// All.
    pub total: i32,
    /// Those that kept id and vector from the revision before.
    pub reused: i32,
    /// Those that were embedded for this revision, so far.
    pub embedded: i32,
}

/// Which revision's way into the stores is shown: the newest of those that may still become active; else the newest.
pub(super) const LATEST: &str = "ORDER BY state IN ('claimed', 'staged') DESC, number DESC LIMIT 1";

/// The columns of a view, with the revision whose way is shown.
pub(super) fn select(ingestion: &str) -> String {
    format!(
        "
    SELECT d.id, d.knowledge_base_id, d.source_uri, COALESCE(d.title, r.title) AS title, d.active_revision, d.attributes,
        d.created_at, d.updated_at, shown.media_type, shown.content_hash, shown.size_bytes,
        r.number, r.state, r.chunks_total, r.chunks_reused, r.chunks_embedded, r.attempt, r.failure_code, r.failure_detail
    FROM documents d
    JOIN LATERAL (
        SELECT * FROM document_revisions WHERE document_id = d.id {ingestion}
    ) r ON true
    JOIN document_revisions shown
        ON shown.document_id = d.id AND shown.number = COALESCE(d.active_revision, r.number)"
    )
}

impl DocumentView {
    /// The answer to an ingestion.
    ///
    /// # Errors
    /// Never in practice: the view is plain JSON.
    pub fn answer(&self, status: StatusCode) -> Result<StoredResponse, IngestError> {
        StoredResponse::json(status, Some(self.location()), self).map_err(IngestError::Answer)
    }

    /// Its path.
    #[must_use]
    pub fn location(&self) -> String {
        format!("/documents/{}", self.id)
    }

    pub(super) fn from_row(row: &Row) -> Result<Self, DbError> {
        let ingestion = match row.try_get::<_, &str>("state")? {
            "active" | "retired" => State::Active,
            "failed" => State::Failed,
            _ => State::Ingesting,
        };
        let revision = row.try_get::<_, Option<i32>>("active_revision")?;
        // A failed update leaves the document as it was.
        let state = if ingestion == State::Failed && revision.is_some() { State::Active } else { ingestion };
        let failure = row.try_get::<_, Option<String>>("failure_code")?.map(|code| -> Result<_, DbError> {
            Ok(FailureView { code, detail: row.try_get::<_, Option<String>>("failure_detail")?.unwrap_or_default() })
        });
        let reused = row.try_get::<_, Option<i32>>("chunks_reused")?.unwrap_or_default();
        let chunks = row.try_get::<_, Option<i32>>("chunks_total")?.map(|total| -> Result<_, DbError> {
            Ok(ChunkCounts { total, reused, embedded: row.try_get("chunks_embedded")? })
        });
        let chunks = chunks.transpose()?;
        Ok(Self {
            id: DocumentId(row.try_get("id")?),
            knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
            source_uri: row.try_get("source_uri")?,
            title: row.try_get("title")?,
            state,
            revision,
            media_type: row.try_get("media_type")?,
            content_hash: row
                .try_get::<_, Option<&[u8]>>("content_hash")?
                .map(ContentHash::try_from)
                .transpose()
                .map_err(DbError::column("document_revisions.content_hash"))?,
            size_bytes: row.try_get("size_bytes")?,
            attributes: row.try_get("attributes")?,
            ingestion: IngestionView {
                revision: row.try_get("number")?,
                state: ingestion,
                progress: if ingestion == State::Active { 1.0 } else { chunks.map_or(0.0, ChunkCounts::progress) },
                chunks,
                attempt: row.try_get("attempt")?,
                failure: failure.transpose()?,
            },
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl ChunkCounts {
    fn progress(self) -> f64 {
        f64::from(self.reused + self.embedded) / f64::from(self.total.max(1))
    }
}
