//! Candidates become hits: the join that every hit passes before it leaves (P1).

use shared::{
    db::{Db, DbError},
    domain::{ChunkId, DocumentId, KnowledgeBaseId, UserId},
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    error::QueryError,
    refill::Alive,
    response::{ByteRange, Hit, HitDocument},
};

/// Whose eyes see the hits, and where they look.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) user: UserId,
    pub(crate) knowledge_bases: Vec<KnowledgeBaseId>,
    pub(crate) documents: Option<Vec<DocumentId>>,
}

/// A chunk that is part of an active revision, as a hit whose score is still to be set.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) hit: Hit,
    /// Whether its revision was activated a moment ago.
    fresh: bool,
}

impl Found {
    /// What [`crate::refill`] must know of it.
    pub(crate) fn alive(&self) -> Alive {
        let document = &self.hit.document;
        Alive { id: self.hit.chunk_id, document: document.id, revision: document.revision, fresh: self.fresh }
    }
}

/// The first `hits_max` of `candidates` that are alive and visible in `view`, in their order.
///
/// One statement, so one snapshot: of a document it sees the chunks of one revision, the active one. Rights are
/// checked here once more, because they may have changed since the scope was resolved, and because the index is not
/// trusted with them.
///
/// "A moment ago" is a minute by PostgreSQL's clock: `finished_at` is the time at which the activation's transaction
/// began, and it becomes visible when that ends, which `DatabaseConfig::transaction_timeout` bounds to less.
pub(crate) async fn hydrate(
    db: &Db,
    view: &View,
    candidates: &[ChunkId],
    hits_max: usize,
) -> Result<Vec<Found>, QueryError> {
    let user = view.user.0;
    let ids: Vec<Uuid> = candidates.iter().map(|id| id.0).collect();
    let knowledge_bases: Vec<Uuid> = view.knowledge_bases.iter().map(|id| id.0).collect();
    let documents: Option<Vec<Uuid>> = view.documents.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
    let limit = i64::try_from(hits_max).unwrap_or(i64::MAX);
    let rows = db.transaction("hydrate candidates", async move |tx| {
        tx.query_typed(
            "-- query::hydrate
            SELECT c.id AS chunk_id, m.text, p.byte_start, p.byte_end, p.page, p.heading_path,
                d.id AS document_id, d.title, d.source_uri, d.knowledge_base_id,
                r.number AS revision, r.content_hash,
                coalesce(r.finished_at > now() - interval '1 minute', true) AS fresh
            FROM unnest($1::uuid[]) WITH ORDINALITY AS c (id, rank)
            JOIN chunk_positions p ON p.chunk_id = c.id
            JOIN documents d ON d.id = p.document_id AND d.active_revision = p.revision
            JOIN document_revisions r ON r.document_id = d.id AND r.number = d.active_revision
            JOIN knowledge_base_members kbm ON kbm.knowledge_base_id = d.knowledge_base_id AND kbm.user_id = $2
            JOIN chunk_metadata m ON m.id = c.id
            WHERE d.knowledge_base_id = ANY ($3::uuid[]) AND ($4::uuid[] IS NULL OR d.id = ANY ($4::uuid[]))
            ORDER BY c.rank LIMIT $5",
            &[
                (&ids, Type::UUID_ARRAY),
                (&user, Type::UUID),
                (&knowledge_bases, Type::UUID_ARRAY),
                (&documents, Type::UUID_ARRAY),
                (&limit, Type::INT8),
            ],
        )
        .await?
        .iter()
        .map(found)
        .collect::<Result<Vec<Found>, DbError>>()
    });
    Ok(rows.await?)
}

/// Whether any document in these knowledge bases answers queries.
pub(crate) async fn anything(db: &Db, view: &View) -> Result<bool, QueryError> {
    let knowledge_bases: Vec<Uuid> = view.knowledge_bases.iter().map(|id| id.0).collect();
    let row = db.transaction("look for active documents", async move |tx| {
        let row = tx
            .query_typed_one(
                "-- query::anything
                SELECT EXISTS (
                    SELECT FROM documents WHERE knowledge_base_id = ANY ($1::uuid[]) AND active_revision IS NOT NULL
                )",
                &[(&knowledge_bases, Type::UUID_ARRAY)],
            )
            .await?;
        Ok::<bool, DbError>(row.try_get(0)?)
    });
    Ok(row.await?)
}

fn found(row: &Row) -> Result<Found, DbError> {
    Ok(Found {
        hit: Hit {
            chunk_id: ChunkId(row.try_get("chunk_id")?),
            score: 0.0,
            rerank_score: None,
            text: row.try_get("text")?,
            document: HitDocument {
                id: DocumentId(row.try_get("document_id")?),
                title: row.try_get("title")?,
                source_uri: row.try_get("source_uri")?,
                knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
                revision: row.try_get("revision")?,
                content_hash: row
                    .try_get::<_, &[u8]>("content_hash")?
                    .try_into()
                    .map_err(DbError::column("document_revisions.content_hash"))?,
            },
            byte_range: ByteRange {
                // The table's check keeps them from being negative.
                start: row.try_get::<_, i64>("byte_start")?.cast_unsigned(),
                end: row.try_get::<_, i64>("byte_end")?.cast_unsigned(),
            },
            page: row.try_get("page")?,
            heading_path: row.try_get("heading_path")?,
        },
        fresh: row.try_get("fresh")?,
    })
}
