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
    collections::{self, Collection, Pending},
    error::IngestError,
};

/// Chunks that are embedded at once.
const BATCH: usize = 32;

/// Embeds and writes those of these findings that need it, document by document, and returns the ids that were written:
/// to `only`, or to all collections.
pub(crate) async fn repair(
    app: &App,
    findings: &[Finding],
    only: Option<&Collection>,
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
    collections::ready(app, deadline).await?;
    let mut repaired = HashSet::new();
    for ((knowledge_base, document), ids) in documents {
        for batch in ids.chunks(BATCH) {
            tracing::warn!(document.id = %document, points = batch.len(), "points have drifted and are written again");
            let (pending, targets) = active(app, knowledge_base, document, batch).await?;
            let targets = only.map_or(targets, |only| vec![only.clone()]);
            let written: Vec<ChunkId> = pending.iter().map(|chunk| chunk.id).collect();
            let batch = collections::embed(app, targets.clone(), &pending, None, deadline).await?;
            collections::upsert(app, batch, deadline).await?;
            let gone = remove_gone(app, &targets, &written, deadline).await?;
            repaired.extend(written.into_iter().filter(|id| !gone.contains(id)));
        }
    }
    Ok(repaired)
}

/// A document can go while its points are written, and its points with it, before ours arrive: PostgreSQL is asked again,
/// and what has gone meanwhile is removed. Returns that.
pub(crate) async fn remove_gone(
    app: &App,
    targets: &[Collection],
    written: &[ChunkId],
    deadline: Deadline,
) -> Result<Vec<ChunkId>, IngestError> {
    let gone = gone(app, written).await?;
    if !gone.is_empty() {
        collections::remove(app, targets, &gone, deadline).await?;
    }
    Ok(gone)
}

/// The texts of those of these chunks that stand in the document's active revision now, and where they belong.
async fn active(
    app: &App,
    knowledge_base: KnowledgeBaseId,
    document: DocumentId,
    ids: &[ChunkId],
) -> Result<(Vec<Pending>, Vec<Collection>), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = app
        .db
        .query(
            "read drifted chunks",
            "-- audit::active_chunks
            SELECT c.id, p.ordinal, c.text, p.heading_path
            FROM documents d
            JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
            JOIN chunk_metadata c ON c.id = p.chunk_id
            WHERE d.id = $1 AND c.id = ANY($2)",
            &[(&document.0, Type::UUID), (&ids, Type::UUID_ARRAY)],
        )
        .await?;
    let pending = rows.iter().map(|row| Pending::from_row(row, knowledge_base, document));
    Ok((pending.collect::<Result<_, _>>()?, collections::read(app).await?))
}

/// Those of these ids that PostgreSQL does not know.
pub(super) async fn gone(app: &App, ids: &[ChunkId]) -> Result<Vec<ChunkId>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = app
        .db
        .query(
            "find dead ids",
            "-- audit::dead_ids
            SELECT id FROM unnest($1) AS asked (id)
            WHERE NOT EXISTS (SELECT FROM chunk_metadata c WHERE c.id = asked.id)",
            &[(&ids, Type::UUID_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok(ChunkId(row.try_get("id")?))).collect()
}
