//! `GET /citations/{chunk}@{revision}`: whether a cited text still stands.

use axum::extract::{Path, State};
use serde::Serialize;
use shared::{
    App,
    db::DbError,
    domain::{ChunkId, ContentHash, DocumentId, KnowledgeBaseId, UserId},
    http::{Json, Reader, Route},
    problem::Problem,
    routes,
};
use tokio_postgres::types::Type;
use utoipa::ToSchema;

use crate::response::ByteRange;

/// The answer to `GET /citations/{chunk}@{revision}`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CitationStatus {
    /// Whether the cited passage stands, word for word and under the same headings, in its document's active revision. False
    /// also for what never existed and for what the caller may not read: neither can be told from the other.
    pub stands: bool,
    /// Where it stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage: Option<Passage>,
}

/// Where a cited passage stands now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Passage {
    /// The document.
    pub document_id: DocumentId,
    /// The knowledge base that it belongs to.
    pub knowledge_base: KnowledgeBaseId,
    /// The active revision. When it is not the one that was cited, the document has changed elsewhere.
    pub revision: i32,
    /// SHA-256 of that revision's source, in hexadecimal: equal to the citation's when nothing in the document changed.
    pub content_hash: ContentHash,
    /// SHA-256 of the passage's text with its headings, in hexadecimal. It holds for as long as the passage has this id.
    pub text_hash: ContentHash,
    /// The passage's place in that revision's text.
    pub byte_range: ByteRange,
    /// The passage.
    pub text: String,
}

pub(crate) fn route() -> Route {
    routes!(show)
}

/// Says whether a cited text still stands.
#[utoipa::path(
    get,
    path = "/citations/{citation}",
    tag = "query",
    operation_id = "check_citation",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(("citation" = String, Path, description = "`chunk_id@revision` of the citation.", pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}@[0-9]{1,9}$")),
    responses((status = 200, description = "Whether it stands, and where.", body = CitationStatus)),
)]
async fn show(
    State(app): State<App>,
    principal: Reader,
    Path(citation): Path<String>,
) -> Result<Json<CitationStatus>, Problem> {
    let not_found = || Problem::not_found("citation");
    let (chunk, revision) = citation.split_once('@').ok_or_else(not_found)?;
    let chunk = chunk.parse().map_err(|_| not_found())?;
    let revision = revision.parse().map_err(|_| not_found())?;
    let passage = find(&app, principal.user, chunk, revision).await?;
    Ok(Json(CitationStatus { stands: passage.is_some(), passage }))
}

/// The passage, if it stood in `revision`, stands in the active one, and `user` may read it. Its id alone says that the text
/// is the same: an id is drawn for a text, and retires with it.
async fn find(app: &App, user: UserId, chunk: ChunkId, revision: i32) -> Result<Option<Passage>, DbError> {
    let row = app
        .db
        .query_opt(
            "look a citation up",
            "-- citations::find
            SELECT d.id AS document_id, d.knowledge_base_id, r.number AS revision, r.content_hash,
                c.content_hash AS text_hash, p.byte_start, p.byte_end, c.text
            FROM chunk_metadata c
            JOIN documents d ON d.id = c.document_id
            JOIN document_revisions r ON r.document_id = d.id AND r.number = d.active_revision
            JOIN chunk_positions p ON p.chunk_id = c.id AND p.revision = d.active_revision
            JOIN knowledge_base_members m ON m.knowledge_base_id = d.knowledge_base_id AND m.user_id = $2
            WHERE c.id = $1 AND $3 BETWEEN c.first_revision AND d.active_revision",
            &[(&chunk.0, Type::UUID), (&user.0, Type::UUID), (&revision, Type::INT4)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let hash = |column: &'static str| -> Result<ContentHash, DbError> {
        row.try_get::<_, &[u8]>(column)?.try_into().map_err(DbError::column(column))
    };
    Ok(Some(Passage {
        document_id: DocumentId(row.try_get("document_id")?),
        knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
        revision: row.try_get("revision")?,
        content_hash: hash("content_hash")?,
        text_hash: hash("text_hash")?,
        byte_range: ByteRange {
            // The table's check keeps them from being negative.
            start: row.try_get::<_, i64>("byte_start")?.cast_unsigned(),
            end: row.try_get::<_, i64>("byte_end")?.cast_unsigned(),
        },
        text: row.try_get("text")?,
    }))
}
