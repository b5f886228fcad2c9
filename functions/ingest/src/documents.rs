//! Documents as the API shows them, and what may be done with them beside ingesting.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    App,
    db::DbError,
    domain::{ContentHash, DocumentId, KnowledgeBaseId, Role, SourceUri, UserId},
    knowledge_bases,
    problem::Problem,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    erasures,
    error::IngestError,
    failpoint::{self, reached},
    idempotency::StoredResponse,
};

/// The page of a list when the client does not say.
const LIMIT_DEFAULT: i64 = 50;

/// The largest page of a list.
const LIMIT_MAX: i64 = 200;

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
const LATEST: &str = "ORDER BY state IN ('claimed', 'staged') DESC, number DESC LIMIT 1";

/// The columns of a view, with the revision whose way is shown.
fn select(ingestion: &str) -> String {
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

    fn from_row(row: &Row) -> Result<Self, DbError> {
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

/// The document, whoever asks; `None` when it does not exist.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get(tx: &Transaction<'_>, id: DocumentId) -> Result<Option<DocumentView>, DbError> {
    let statement = format!("-- documents::get{} WHERE d.id = $1", select(LATEST));
    let row = tx.query_typed_opt(&statement, &[(&id.0, Type::UUID)]).await?;
    row.as_ref().map(DocumentView::from_row).transpose()
}

/// The document with this revision's way into the stores, whatever came after it.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn get_at(tx: &Transaction<'_>, id: DocumentId, revision: i32) -> Result<Option<DocumentView>, DbError> {
    let statement = format!("-- documents::get_at{} WHERE d.id = $1", select("AND number = $2"));
    let row = tx.query_typed_opt(&statement, &[(&id.0, Type::UUID), (&revision, Type::INT4)]).await?;
    row.as_ref().map(DocumentView::from_row).transpose()
}

/// The document, whoever asks.
///
/// # Errors
/// [`IngestError::NoDocument`], or PostgreSQL's.
pub async fn require(app: &App, id: DocumentId) -> Result<DocumentView, IngestError> {
    app.db.transaction("get document", async move |tx| get(tx, id).await?.ok_or(IngestError::NoDocument)).await
}

/// The document, if `caller` is a member of its knowledge base.
///
/// # Errors
/// [`IngestError::NoDocument`], or PostgreSQL's.
pub async fn require_for(app: &App, caller: UserId, id: DocumentId) -> Result<DocumentView, IngestError> {
    app.db
        .transaction("get document for member", async move |tx| {
            let statement = format!(
                "-- documents::get_for{}
                JOIN knowledge_base_members m ON m.knowledge_base_id = d.knowledge_base_id AND m.user_id = $2
                WHERE d.id = $1",
                select(LATEST)
            );
            let row = tx
                .query_typed_opt(&statement, &[(&id.0, Type::UUID), (&caller.0, Type::UUID)])
                .await
                .map_err(DbError::from)?
                .ok_or(IngestError::NoDocument)?;
            Ok(DocumentView::from_row(&row)?)
        })
        .await
}

/// Which documents, and how many.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only those of this knowledge base.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// Only the one with this `source_uri` (in each knowledge base).
    #[param(value_type = Option<SourceUri>)]
    pub source_uri: Option<String>,
    /// At most so many, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// Where the page before ended: its `next_cursor`.
    #[param(value_type = Option<Uuid>)]
    pub cursor: Option<String>,
}

/// A page of documents, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DocumentPage {
    /// The documents.
    pub items: Vec<DocumentView>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// A list's parameters, checked.
#[derive(Clone, Debug)]
pub struct ListQuery {
    knowledge_base: Option<Uuid>,
    source_uri: Option<String>,
    limit: i64,
    before: Option<Uuid>,
}

impl ListParams {
    /// Checks the parameters.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn check(self) -> Result<ListQuery, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::invalid_field("limit", format!("is not between 1 and {LIMIT_MAX}")));
        }
        let before = self.cursor.map(|cursor| {
            Uuid::try_parse(&cursor).map_err(|_| Problem::invalid_field("cursor", "is not one that a list returned"))
        });
        let source_uri = self.source_uri.map(|uri| {
            uri.parse::<SourceUri>().map(|uri| uri.to_string()).map_err(|e| Problem::invalid_field("source_uri", e))
        });
        Ok(ListQuery {
            knowledge_base: self.knowledge_base.map(|id| id.0),
            source_uri: source_uri.transpose()?,
            limit,
            before: before.transpose()?,
        })
    }
}

/// A page of the documents that `caller` may read.
///
/// # Errors
/// [`IngestError::NoKnowledgeBase`] when one is named that the caller may not read, or PostgreSQL's.
pub async fn list(app: &App, caller: UserId, query: ListQuery) -> Result<DocumentPage, IngestError> {
    app.db
        .transaction("list documents", async move |tx| {
            let memberships = knowledge_bases::list_memberships(tx, caller).await?;
            let readable: Vec<Uuid> = memberships
                .iter()
                .map(|membership| membership.id.0)
                .filter(|id| query.knowledge_base.is_none_or(|wanted| wanted == *id))
                .collect();
            if readable.is_empty() && query.knowledge_base.is_some() {
                return Err(IngestError::NoKnowledgeBase);
            }
            let statement = format!(
                "-- documents::list{}
                WHERE d.knowledge_base_id = ANY($1) AND ($2::uuid IS NULL OR d.id < $2)
                    AND ($3::text IS NULL OR d.source_uri = $3)
                ORDER BY d.id DESC LIMIT $4",
                select(LATEST)
            );
            // One more than asked for tells whether there is a next page.
            let rows = tx
                .query_typed(
                    &statement,
                    &[
                        (&readable, Type::UUID_ARRAY),
                        (&query.before, Type::UUID),
                        (&query.source_uri, Type::TEXT),
                        (&(query.limit + 1), Type::INT8),
                    ],
                )
                .await
                .map_err(DbError::from)?;
            let mut items = rows.iter().map(DocumentView::from_row).collect::<Result<Vec<_>, _>>()?;
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            let more = items.len() > limit;
            items.truncate(limit);
            let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
            Ok(DocumentPage { items, next_cursor })
        })
        .await
}

/// Takes the document out of sight and puts its points on the list of what is to be removed from Qdrant. An ingestion in
/// flight finds its revision gone; ids that it may still be writing stay on the list until its lease has ended.
///
/// # Errors
/// [`IngestError::NoDocument`], [`IngestError::ReadOnly`], or PostgreSQL's.
pub async fn delete(app: &App, caller: UserId, id: DocumentId) -> Result<(), IngestError> {
    reached(failpoint::DELETE_BEFORE);
    app.db
        .transaction("delete document", async move |tx| {
            lock_for_change(tx, caller, id).await?;
            shared::documents::delete(tx, &[id]).await?;
            Ok::<_, IngestError>(erasures::deleted_by(tx, id, caller).await?)
        })
        .await?;
    reached(failpoint::DELETE_COMMITTED);
    Ok(())
}

/// Keeps all others off a document that `caller` may change, until the transaction ends, and returns its knowledge base.
///
/// # Errors
/// [`IngestError::NoDocument`], [`IngestError::ReadOnly`], or PostgreSQL's.
pub async fn lock_for_change(
    tx: &Transaction<'_>,
    caller: UserId,
    id: DocumentId,
) -> Result<KnowledgeBaseId, IngestError> {
    let row = tx
        .query_typed_opt(
            "-- documents::lock_for_change
            SELECT d.knowledge_base_id, m.role FROM documents d
            JOIN knowledge_base_members m ON m.knowledge_base_id = d.knowledge_base_id AND m.user_id = $2
            WHERE d.id = $1 FOR UPDATE OF d",
            &[(&id.0, Type::UUID), (&caller.0, Type::UUID)],
        )
        .await
        .map_err(DbError::from)?
        .ok_or(IngestError::NoDocument)?;
    let role: Role = row
        .try_get::<_, &str>("role")
        .map_err(DbError::from)?
        .parse()
        .map_err(DbError::column("knowledge_base_members.role"))?;
    if role < Role::Editor {
        return Err(IngestError::ReadOnly);
    }
    Ok(KnowledgeBaseId(row.try_get("knowledge_base_id").map_err(DbError::from)?))
}

/// Removes a document that has no revision: its first one could not be read.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_if_empty(tx: &Transaction<'_>, id: DocumentId) -> Result<(), DbError> {
    tx.execute_typed(
        "-- documents::delete_if_empty
        DELETE FROM documents d WHERE d.id = $1
            AND NOT EXISTS (SELECT FROM document_revisions r WHERE r.document_id = d.id)",
        &[(&id.0, Type::UUID)],
    )
    .await?;
    Ok(())
}
