//! Documents as the API shows them, and what may be done with them beside ingesting.

mod list;
mod view;

use shared::{
    App,
    db::DbError,
    domain::{DocumentId, KnowledgeBaseId, Role, UserId},
};
use tokio_postgres::{Transaction, types::Type};

use self::view::{LATEST, select};
pub use self::{
    list::{DocumentPage, ListParams, ListQuery, list},
    view::{ChunkCounts, DocumentView, FailureView, IngestionView, State},
};
use crate::{
    erasures,
    error::IngestError,
    failpoint::{self, reached},
};

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
    let statement = format!(
        "-- documents::get_for{}
                JOIN knowledge_base_members m ON m.knowledge_base_id = d.knowledge_base_id AND m.user_id = $2
                WHERE d.id = $1",
        select(LATEST)
    );
    let row = app
        .db
        .query_opt("get document for member", &statement, &[(&id.0, Type::UUID), (&caller.0, Type::UUID)])
        .await?
        .ok_or(IngestError::NoDocument)?;
    Ok(DocumentView::from_row(&row)?)
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
