//! Proofs of erasure: a tombstone for each deleted document, without text, title or name, and what both stores say now.

use serde::Serialize;
use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{DocumentId, KnowledgeBaseId, UserId},
    problem::Causes,
    vectors::Part,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{collections, error::IngestError};

/// Tombstones that are looked at in one statement.
const PAGE: i64 = 100;

/// What both stores say of a document that was deleted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Erasure {
    /// The document.
    pub document: DocumentId,
    /// The knowledge base that it belonged to.
    pub knowledge_base: KnowledgeBaseId,
    /// Who deleted it; null when it went with its knowledge base or its owner's account.
    pub deleted_by: Option<UserId>,
    /// Since when no answer contains it.
    #[serde(with = "time::serde::rfc3339")]
    pub deleted_at: OffsetDateTime,
    /// How many points it had, or could have had.
    pub points: i64,
    /// PostgreSQL, now.
    pub postgresql: ErasedRows,
    /// Qdrant, now.
    pub qdrant: PointCount,
    /// Whether both stores were asked, and hold nothing of it now.
    pub erased: bool,
    /// Since when Qdrant is known to hold none of its points, and PostgreSQL none of its chunks.
    #[serde(with = "time::serde::rfc3339::option")]
    pub completed_at: Option<OffsetDateTime>,
    /// The stores that did not answer.
    pub degraded: Vec<&'static str>,
}

/// What PostgreSQL holds of a deleted document.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ErasedRows {
    /// Rows of it: document, revisions, chunks, positions. Those of a very large document go batch by batch.
    pub rows: i64,
    /// Ids that are still to be removed from Qdrant, or are removed once more when nobody can be writing them any longer.
    pub retired: i64,
}

/// An exact count of points.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct PointCount {
    /// The points; null when Qdrant does not answer.
    pub points: Option<u64>,
}

impl PointCount {
    /// The answer; says so if Qdrant did not give one.
    pub(crate) fn from(answer: Result<u64, IngestError>) -> Result<(Self, Vec<&'static str>), IngestError> {
        match answer {
            Ok(points) => Ok((Self { points: Some(points) }, Vec::new())),
            Err(IngestError::Index(error)) => {
                tracing::warn!(error = %Causes(&error), "points can not be counted");
                Ok((Self { points: None }, vec!["qdrant"]))
            }
            Err(error) => Err(error),
        }
    }
}

/// Notes who has deleted the document, in the transaction that does it.
pub(crate) async fn deleted_by(tx: &Transaction<'_>, document: DocumentId, user: UserId) -> Result<(), DbError> {
    let rows = tx
        .execute_typed(
            "-- erasures::deleted_by\nUPDATE erasures SET deleted_by = $2 WHERE document_id = $1",
            &[(&document.0, Type::UUID), (&user.0, Type::UUID)],
        )
        .await?;
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement: "erasures::deleted_by", rows }) }
}

/// The proof, for a member of the knowledge base that the document belonged to.
///
/// # Errors
/// [`IngestError::NoDocument`] for all others and for a document that was not deleted; or PostgreSQL's.
pub async fn prove(
    app: &App,
    caller: UserId,
    document: DocumentId,
    deadline: Deadline,
) -> Result<Erasure, IngestError> {
    let mut erasure = read(app, caller, document).await?;
    let points = collections::count_everywhere(app, Part::Document(document), deadline).await;
    (erasure.qdrant, erasure.degraded) = PointCount::from(points)?;
    erasure.erased = erasure.qdrant.points == Some(0) && erasure.postgresql.rows == 0;
    if let Some(points) = erasure.qdrant.points {
        erasure.completed_at = note(app, document, points == 0).await?;
    }
    Ok(erasure)
}

async fn read(app: &App, caller: UserId, document: DocumentId) -> Result<Erasure, IngestError> {
    let row = app
        .db
        .query_opt(
            "read erasure",
            "-- erasures::get_for
            SELECT e.document_id, e.knowledge_base_id, e.deleted_by, e.deleted_at, e.points, e.completed_at,
                (SELECT count(*) FROM documents WHERE id = $1)
                    + (SELECT count(*) FROM document_revisions WHERE document_id = $1)
                    + (SELECT count(*) FROM chunk_metadata WHERE document_id = $1)
                    + (SELECT count(*) FROM chunk_positions WHERE document_id = $1) AS rows,
                (SELECT count(*) FROM retired_points WHERE document_id = $1) AS retired
            FROM erasures e
            JOIN knowledge_base_members m ON m.knowledge_base_id = e.knowledge_base_id AND m.user_id = $2
            WHERE e.document_id = $1",
            &[(&document.0, Type::UUID), (&caller.0, Type::UUID)],
        )
        .await?
        .ok_or(IngestError::NoDocument)?;
    Ok(from_row(&row).map_err(DbError::from)?)
}

fn from_row(row: &Row) -> Result<Erasure, tokio_postgres::Error> {
    Ok(Erasure {
        document: DocumentId(row.try_get("document_id")?),
        knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
        deleted_by: row.try_get::<_, Option<Uuid>>("deleted_by")?.map(UserId),
        deleted_at: row.try_get("deleted_at")?,
        points: row.try_get("points")?,
        postgresql: ErasedRows { rows: row.try_get("rows")?, retired: row.try_get("retired")? },
        qdrant: PointCount { points: None },
        erased: false,
        completed_at: row.try_get("completed_at")?,
        degraded: Vec::new(),
    })
}

/// Notes whether Qdrant was seen to hold nothing of the document, and returns since when. A write that arrives late can bring
/// a point back until it is removed once more.
async fn note(app: &App, document: DocumentId, gone: bool) -> Result<Option<OffsetDateTime>, DbError> {
    let row = app.db.query_opt("note erasure", 
                    "-- erasures::note
                    UPDATE erasures SET completed_at = CASE WHEN $2 AND NOT remains THEN COALESCE(completed_at, now()) END
                    WHERE document_id = $1 RETURNING completed_at",
                    &[(&document.0, Type::UUID), (&gone, Type::BOOL)],
                )
                .await?;
    Ok(row.map(|row| row.try_get("completed_at")).transpose()?.flatten())
}

/// Completes this document's erasure, if nothing of it is left.
///
/// # Errors
/// When a store does not answer.
pub async fn complete_if_gone(app: &App, document: DocumentId, deadline: Deadline) -> Result<(), IngestError> {
    if collections::count_everywhere(app, Part::Document(document), deadline).await? == 0 {
        note(app, document, true).await?;
    }
    Ok(())
}

/// Completes all erasures of which nothing is left, until the time is over.
///
/// # Errors
/// When a store does not answer.
pub async fn complete_due(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    let mut after = Uuid::nil();
    while !deadline.passed() {
        let documents = due(app, after).await?;
        let Some(last) = documents.last() else { break };
        after = last.0;
        for document in &documents {
            complete_if_gone(app, *document, deadline).await?;
        }
    }
    Ok(())
}

async fn due(app: &App, after: Uuid) -> Result<Vec<DocumentId>, DbError> {
    let rows = app
        .db
        .query(
            "read unfinished erasures",
            "-- erasures::due
            SELECT document_id FROM erasures WHERE completed_at IS NULL AND NOT remains AND document_id > $1
            ORDER BY document_id LIMIT $2",
            &[(&after, Type::UUID), (&PAGE, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(DocumentId(row.try_get("document_id")?))).collect()
}
