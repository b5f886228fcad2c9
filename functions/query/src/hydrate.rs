//! Candidates become hits: the join that every hit passes before it leaves (P1).

use shared::{
    db::{Db, DbError},
    domain::{ChunkId, DocumentId, InvalidValue, KnowledgeBaseId},
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    error::QueryError,
    filter::sql::Condition,
    refill::Alive,
    response::{ByteRange, Extras, Hit, HitDocument, Neighbour},
    scope::{SCOPE, View, readable},
};

/// Which of the candidates are wanted as hits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Those after so many ...
    pub(crate) after: usize,
    /// ... of the first so many. The others are only looked at.
    pub(crate) of: usize,
    /// At most so many.
    pub(crate) hits_max: usize,
    /// Of each document only the first.
    pub(crate) by_document: bool,
    /// With so many chunks before and behind each.
    pub(crate) context: usize,
}

/// What PostgreSQL says of the candidates.
#[derive(Debug)]
pub(crate) struct Joined {
    /// What the caller may read now.
    pub(crate) readable: Vec<KnowledgeBaseId>,
    /// The candidates that are alive and visible and pass the filter, in their order.
    pub(crate) alive: Vec<Alive>,
    /// Those that are alive and visible, and do not pass it.
    pub(crate) left_out: Vec<ChunkId>,
    /// Those that are wanted, in the same order; their score is still to be set.
    pub(crate) hits: Vec<Hit>,
}

/// Joins `candidates` to what is alive, visible in `view` and passes its filter.
///
/// One statement, so one snapshot: of a document it sees the chunks of one revision, the active one. Rights are taken from
/// it alone: what was known of them before is a guess that only saved asking.
///
/// "Fresh" is a minute by PostgreSQL's clock: `finished_at` is the time at which the activation's transaction began, and it
/// becomes visible when that ends, which `DatabaseConfig::transaction_timeout` bounds to less.
pub(crate) async fn hydrate(
    db: &Db,
    view: &View,
    candidates: &[ChunkId],
    wanted: Wanted,
) -> Result<Joined, QueryError> {
    let (named, documents) = (view.named(), view.documents());
    let ids: Vec<Uuid> = candidates.iter().map(|id| id.0).collect();
    let [after, of, hits_max, context] = [wanted.after, wanted.of, wanted.hits_max, wanted.context].map(number);
    let condition = Condition::new(view.filter.as_ref(), 9);
    let statement = format!(
        "-- query::hydrate
        WITH {SCOPE}, joined AS (
            SELECT c.id, c.rank, p.ordinal, p.byte_start, p.byte_end, p.page, p.heading_path,
                d.id AS document_id, d.title, d.source_uri, d.knowledge_base_id,
                r.number AS revision, r.content_hash,
                coalesce(r.finished_at > now() - interval '1 minute', true) AS fresh, ({}) AS passes
            FROM unnest($3::uuid[]) WITH ORDINALITY AS c (id, rank)
            JOIN chunk_positions p ON p.chunk_id = c.id
            JOIN documents d ON d.id = p.document_id AND d.active_revision = p.revision
            JOIN document_revisions r ON r.document_id = d.id AND r.number = d.active_revision
            WHERE d.knowledge_base_id IN (SELECT id FROM scope)
                AND ($4::uuid[] IS NULL OR d.id = ANY ($4::uuid[]))
        ), marked AS (
            SELECT j.*, passes AND rank > $5 AND rank <= $6 AND row_number() OVER (
                PARTITION BY passes, CASE WHEN $7 THEN document_id ELSE id END ORDER BY rank
            ) = 1 AS possible
            FROM joined j
        ), counted AS (
            SELECT m.*, possible AND count(*) FILTER (WHERE possible) OVER (ORDER BY rank) <= $8 AS wanted
            FROM marked m
        )
        SELECT (SELECT array_agg(id ORDER BY id) FROM scope) AS readable,
            n.id AS chunk_id, n.document_id, n.revision, n.fresh, n.passes, n.wanted, n.byte_start, n.byte_end, n.page,
            n.knowledge_base_id, n.content_hash,
            CASE WHEN n.wanted THEN n.title END AS title, CASE WHEN n.wanted THEN n.source_uri END AS source_uri,
            CASE WHEN n.wanted THEN n.heading_path END AS heading_path, m.text, around.chunks AS around
        FROM (SELECT 1) AS one
        LEFT JOIN counted n ON true
        LEFT JOIN chunk_metadata m ON m.id = n.id AND n.wanted
        LEFT JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('chunk_id', o.chunk_id, 'distance', o.ordinal - n.ordinal,
                'text', om.text, 'byte_range', jsonb_build_object('start', o.byte_start, 'end', o.byte_end),
                'page', o.page, 'heading_path', o.heading_path) ORDER BY o.ordinal) AS chunks
            FROM chunk_positions o JOIN chunk_metadata om ON om.id = o.chunk_id
            WHERE n.wanted AND $9 > 0 AND o.document_id = n.document_id AND o.revision = n.revision
                AND o.ordinal BETWEEN n.ordinal - $9 AND n.ordinal + $9 AND o.ordinal <> n.ordinal
        ) AS around ON true
        ORDER BY n.rank",
        condition.text
    );
    let mut parameters: Vec<shared::db::Parameter<'_>> = vec![
        (&view.user.0, Type::UUID),
        (&named, Type::UUID_ARRAY),
        (&ids, Type::UUID_ARRAY),
        (&documents, Type::UUID_ARRAY),
        (&after, Type::INT8),
        (&of, Type::INT8),
        (&wanted.by_document, Type::BOOL),
        (&hits_max, Type::INT8),
        (&context, Type::INT8),
    ];
    parameters.extend(condition.parameters());
    let rows = db.query("hydrate candidates", &statement, &parameters).await?;
    let first = rows.first().ok_or(DbError::RowCount { statement: "query::hydrate", rows: 0 })?;
    let mut joined =
        Joined { readable: readable(first, view)?, alive: Vec::new(), left_out: Vec::new(), hits: Vec::new() };
    for row in &rows {
        let Some(alive) = alive(row)? else { continue };
        if !row.try_get::<_, bool>("passes").map_err(DbError::from)? {
            joined.left_out.push(alive.id);
            continue;
        }
        joined.alive.push(alive);
        if row.try_get("wanted").map_err(DbError::from)? {
            joined.hits.push(hit(row)?);
        }
    }
    Ok(joined)
}

/// Whether any document in these knowledge bases answers queries.
pub(crate) async fn anything(db: &Db, knowledge_bases: &[KnowledgeBaseId]) -> Result<bool, QueryError> {
    let ids: Vec<Uuid> = knowledge_bases.iter().map(|id| id.0).collect();
    let rows = db
        .query(
            "look for active documents",
            "-- query::anything
            SELECT FROM documents WHERE knowledge_base_id = ANY ($1::uuid[]) AND active_revision IS NOT NULL LIMIT 1",
            &[(&ids, Type::UUID_ARRAY)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// A number as PostgreSQL holds it; all of ours are small.
fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The candidate in a row; none where no candidate is alive and the row only tells what is readable.
fn alive(row: &Row) -> Result<Option<Alive>, DbError> {
    let Some(id) = row.try_get::<_, Option<Uuid>>("chunk_id")? else { return Ok(None) };
    Ok(Some(Alive {
        id: ChunkId(id),
        document: DocumentId(row.try_get("document_id")?),
        revision: row.try_get("revision")?,
        fresh: row.try_get("fresh")?,
    }))
}

fn hit(row: &Row) -> Result<Hit, DbError> {
    let around: Option<serde_json::Value> = row.try_get("around")?;
    let context = around
        .map(serde_json::from_value::<Vec<Neighbour>>)
        .transpose()
        .map_err(|error| DbError::column("around")(InvalidValue::new(error.to_string())))?;
    Ok(Hit {
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
        extras: Extras { context, ..Extras::default() },
    })
}
