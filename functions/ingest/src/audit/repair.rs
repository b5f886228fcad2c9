//! Writes again what Qdrant has lost, or holds with wrong link keys.

use std::collections::{BTreeMap, HashSet};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::compare::Finding;
use crate::{
    error::IngestError,
    saga::{self, Pending},
};

/// Chunks that are embedded at once.
const BATCH: usize = 32;

/// Embeds and writes those of these findings that need it, document by document, and returns the ids that were written.
pub(super) async fn repair(
    app: &App,
    findings: &[Finding],
    deadline: Deadline,
) -> Result<HashSet<ChunkId>, IngestError> {
    let mut documents: BTreeMap<(KnowledgeBaseId, DocumentId), Vec<ChunkId>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.verdict.needs_repair()) {
        if let Some(link) = finding.knowledge_base.zip(finding.document) {
            documents.entry(link).or_default().push(finding.id);
        }
    }
    if documents.is_empty() {
        return Ok(HashSet::new());
    }
    app.index.ensure(deadline).await?;
    let mut repaired = HashSet::new();
    for ((knowledge_base, document), ids) in documents {
        for batch in ids.chunks(BATCH) {
            tracing::warn!(document.id = %document, points = batch.len(), "points have drifted and are written again");
            let pending = active(app, document, batch).await?;
            let points = saga::points(app, knowledge_base, document, pending, deadline).await?;
            let points: Vec<_> = points.into_iter().map(|(_, point)| point).collect();
            if points.is_empty() {
                continue;
            }
            let written: Vec<ChunkId> = points.iter().map(|point| point.id).collect();
            saga::upsert(app, points, deadline).await?;
            // The document can have gone meanwhile, and its points with it, before ours arrived.
            let gone = gone(app, &written).await?;
            if !gone.is_empty() {
                app.index.delete(&gone, deadline).await?;
            }
            repaired.extend(written.into_iter().filter(|id| !gone.contains(id)));
        }
    }
    Ok(repaired)
}

/// The texts of those of these chunks that stand in the document's active revision now.
async fn active(app: &App, document: DocumentId, ids: &[ChunkId]) -> Result<Vec<Pending>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    app.db
        .transaction("read drifted chunks", async move |tx| {
            let rows = tx
                .query_typed(
                    "-- audit::active_chunks
                    SELECT c.id, p.ordinal, c.text, p.heading_path
                    FROM documents d
                    JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
                    JOIN chunk_metadata c ON c.id = p.chunk_id
                    WHERE d.id = $1 AND c.id = ANY($2)",
                    &[(&document.0, Type::UUID), (&ids, Type::UUID_ARRAY)],
                )
                .await?;
            rows.iter().map(Pending::from_row).collect()
        })
        .await
}

/// Those of these ids that PostgreSQL does not know.
pub(super) async fn gone(app: &App, ids: &[ChunkId]) -> Result<Vec<ChunkId>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    app.db
        .transaction("find dead ids", async move |tx| {
            let rows = tx
                .query_typed(
                    "-- audit::dead_ids
                    SELECT id FROM unnest($1) AS asked (id)
                    WHERE NOT EXISTS (SELECT FROM chunk_metadata c WHERE c.id = asked.id)",
                    &[(&ids, Type::UUID_ARRAY)],
                )
                .await?;
            rows.iter().map(|row| Ok(ChunkId(row.try_get("id")?))).collect()
        })
        .await
}
