//! Step 7: remove retired points by id, then their rows. An id is never used again, so removing it twice or late hits
//! only what is dead. Never by filter: that could match what is being written.

use shared::{
    App,
    db::{DbError, Parameter},
    deadline::Deadline,
    domain::{ChunkId, DocumentId},
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    collections,
    error::IngestError,
    failpoint::{self, reached},
};

/// Ids of one removal: a request of some ten kilobytes.
const PAGE: i64 = 500;

/// Removes a document's retired points. Those that a write in flight could still bring back stay on the list until that
/// is over, and are removed once more then.
///
/// # Errors
/// When a store does not answer; the list keeps what is left.
pub async fn clean_document(app: &App, document: DocumentId, deadline: Deadline) -> Result<(), IngestError> {
    let mut after = Uuid::nil();
    while let Some(last) = clean_page(app, Some(document), after, deadline).await? {
        after = last;
    }
    reached(failpoint::CLEAN_DONE);
    Ok(())
}

/// Removes one page of retired points that are due, of any document; false when there was nothing to do.
///
/// # Errors
/// When a store does not answer; the list keeps what is left.
pub async fn clean_due(app: &App, deadline: Deadline) -> Result<bool, IngestError> {
    Ok(clean_page(app, None, Uuid::nil(), deadline).await?.is_some())
}

/// Retires what remains of deleted documents, batch by batch, until there is no more or the time is over.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn retire_remains(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    while !deadline.passed()
        && app.db.transaction("retire what remains", async |tx| shared::documents::retire_remains(tx).await).await?
    {
    }
    Ok(())
}

async fn clean_page(
    app: &App,
    document: Option<DocumentId>,
    after: Uuid,
    deadline: Deadline,
) -> Result<Option<Uuid>, IngestError> {
    let rows = if let Some(document) = document {
        let statement = "-- retired_points::of_document
            SELECT chunk_id, due_at <= now() AS due FROM retired_points
            WHERE document_id = $1 AND chunk_id > $2
            ORDER BY chunk_id LIMIT $3";
        let parameters: [Parameter<'_>; 3] = [(&document.0, Type::UUID), (&after, Type::UUID), (&PAGE, Type::INT8)];
        app.db.query("read document's retired points", statement, &parameters).await?
    } else {
        let statement = "-- retired_points::due
            SELECT chunk_id, true AS due FROM retired_points WHERE due_at <= now() ORDER BY due_at LIMIT $1";
        app.db.query("read retired points", statement, &[(&PAGE, Type::INT8)]).await?
    };
    let point = |row: &Row| Ok((ChunkId(row.try_get("chunk_id")?), row.try_get("due")?));
    let points: Vec<(ChunkId, bool)> = rows.iter().map(point).collect::<Result<_, DbError>>()?;
    let Some((last, _)) = points.last().copied() else { return Ok(None) };
    // After the ids: a build that begins later does not find their chunks any more.
    let targets = collections::read(app).await?;
    let ids: Vec<ChunkId> = points.iter().map(|(id, _)| *id).collect();
    // What was not due when it was read stays on the list, even if it is due by now: a late write may have brought it back
    // after the removal below.
    let due: Vec<Uuid> = points.iter().filter(|(_, due)| *due).map(|(id, _)| id.0).collect();
    reached(failpoint::CLEAN_BEFORE_DELETE);
    collections::remove(app, &targets, &ids, deadline).await?;
    reached(failpoint::CLEAN_DELETED);
    let statement = "-- retired_points::delete
        DELETE FROM retired_points WHERE chunk_id = ANY($1)";
    app.db.query("forget retired points", statement, &[(&due, Type::UUID_ARRAY)]).await?;
    Ok(Some(last.0))
}
