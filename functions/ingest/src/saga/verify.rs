//! Step 5: Qdrant must hold exactly the points that PostgreSQL expects, those of carried-over chunks included. What is
//! missing is written again; reading repeatedly is harmless.

use std::collections::HashSet;

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::ChunkId,
    vectors::{IndexError, VectorIndex},
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Lease;
use crate::{
    collections::{self, Collection, Pending},
    error::IngestError,
    failpoint::{self, reached},
};

/// Ids of one count: a request of some eighty kilobytes.
const PAGE: i64 = 2_000;

/// Chunks that are embedded at once when they turn out to be missing.
const REPAIR_BATCH: usize = 32;

/// Chunks by their places.
pub(super) type Page = Vec<(i32, ChunkId)>;

/// The revision's first chunks. They are the same from the time when all are stored: to be read beside other work.
pub(super) async fn first(app: &App, lease: Lease) -> Result<Page, DbError> {
    page(app, lease, -1).await
}

/// Verifies the whole revision, page by page, the first of which was read before.
pub(super) async fn verify(app: &App, lease: Lease, first: Page, deadline: Deadline) -> Result<(), IngestError> {
    reached(failpoint::VERIFY_BEFORE);
    let index = &*collections::live(app).await?;
    let mut next = first;
    while let Some((through, _)) = next.last() {
        let through = *through;
        let ids: Vec<ChunkId> = std::mem::take(&mut next).into_iter().map(|(_, id)| id).collect();
        let (found, following) = tokio::join!(count(index, &ids, deadline), page(app, lease, through));
        next = following?;
        if found? == ids.len() {
            continue;
        }
        repair(app, index, lease, &ids, deadline).await?;
        let found = count(index, &ids, deadline).await?;
        if found != ids.len() {
            return Err(IndexError::Incomplete { expected: ids.len(), found }.into());
        }
    }
    reached(failpoint::VERIFY_DONE);
    Ok(())
}

/// A collection that is lost holds none; the write that follows makes it again.
async fn count(index: &dyn VectorIndex, ids: &[ChunkId], deadline: Deadline) -> Result<usize, IndexError> {
    match index.count(ids, deadline).await {
        Err(IndexError::Missing) => Ok(0),
        counted => counted,
    }
}

/// Embeds and writes those of these chunks that Qdrant does not hold.
async fn repair(
    app: &App,
    index: &dyn VectorIndex,
    lease: Lease,
    ids: &[ChunkId],
    deadline: Deadline,
) -> Result<(), IngestError> {
    let present: HashSet<ChunkId> = index.linked(ids, deadline).await?.into_iter().map(|point| point.id).collect();
    let missing: Vec<Uuid> = ids.iter().filter(|id| !present.contains(id)).map(|id| id.0).collect();
    tracing::warn!(document.id = %lease.document, missing = missing.len(), "points were missing and are written again");
    for batch in missing.chunks(REPAIR_BATCH) {
        let (pending, targets) = by_id(app, lease, batch.to_vec()).await?;
        if pending.is_empty() {
            // The revision was deleted or discarded meanwhile.
            return Err(IngestError::Fenced);
        }
        let batch = collections::embed(app, targets, &pending, None, deadline).await?;
        collections::upsert(app, batch, deadline).await?;
    }
    Ok(())
}

async fn page(app: &App, lease: Lease, through: i32) -> Result<Page, DbError> {
    let rows = app
        .db
        .query(
            "read revision's ids",
            "-- positions::page
            SELECT ordinal, chunk_id FROM chunk_positions
            WHERE document_id = $1 AND revision = $2 AND ordinal > $3 ORDER BY ordinal LIMIT $4",
            &[
                (&lease.document.0, Type::UUID),
                (&lease.revision, Type::INT4),
                (&through, Type::INT4),
                (&PAGE, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get("ordinal")?, ChunkId(row.try_get("chunk_id")?)))).collect()
}

async fn by_id(app: &App, lease: Lease, ids: Vec<Uuid>) -> Result<(Vec<Pending>, Vec<Collection>), DbError> {
    let rows = app
        .db
        .query(
            "read missing chunks",
            "-- chunks::by_id
            SELECT c.id, p.ordinal, c.text, p.heading_path
            FROM chunk_positions p JOIN chunk_metadata c ON c.id = p.chunk_id
            WHERE p.document_id = $1 AND p.revision = $2 AND p.chunk_id = ANY($3) ORDER BY p.ordinal",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4), (&ids, Type::UUID_ARRAY)],
        )
        .await?;
    let pending = rows.iter().map(|row| Pending::from_row(row, lease.knowledge_base, lease.document));
    Ok((pending.collect::<Result<_, _>>()?, collections::read(app).await?))
}
