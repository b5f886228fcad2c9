//! Points that PostgreSQL does not know: removed, or left to an operator when they are suspiciously many.
//!
//! Deletions never come this way: they have the list of retired points. Many orphans at once mean that something is wrong
//! with what they are compared to, such as a database that was restored to an earlier state, or is another one.

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ChunkId, KnowledgeBaseId},
    vectors::Part,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{ledger::Lease, repair::gone};
use crate::{collections, error::IngestError};

/// Orphans of up to so many documents are removed unasked.
const DOCUMENTS_MAX: i64 = 10;

/// So are orphans of any number of documents, if they are at most this share of the points (a tenth).
const SHARE: u64 = 10;

/// Ids of one removal: a request of some ten kilobytes.
const PAGE: i64 = 500;

/// Condemns what the audit found, or withholds it: each knowledge base of which more than ten documents and more than a
/// tenth of the points would go, and all of them if that holds for everything that was compared.
pub(super) async fn decide(app: &App, lease: Lease, deadline: Deadline) -> Result<(), IngestError> {
    let total = total(app, lease).await?;
    let index = collections::live(app).await?;
    let all = total.documents > DOCUMENTS_MAX && {
        let part = lease.scope.map_or(Part::Whole, Part::KnowledgeBase);
        too_many(total.points, index.count_part(part, deadline).await?)
    };
    let mut withheld = Vec::new();
    // What is withheld altogether needs no second reason.
    for group in if all { Vec::new() } else { groups(app, lease).await? } {
        // A payload that names no knowledge base: they are compared to everything.
        let part = group.knowledge_base.map_or(Part::Whole, Part::KnowledgeBase);
        if too_many(group.points, index.count_part(part, deadline).await?) {
            withheld.push(group.knowledge_base.map_or(Uuid::nil(), |id| id.0));
        }
    }
    app.db
        .transaction("decide on orphans", async move |tx| {
            let scope = lease.scope.map(|id| id.0);
            // What was not found again has gone.
            tx.execute_typed(
                "-- orphaned_points::forget
                DELETE FROM orphaned_points
                WHERE last_audit_id < $1 AND ($2::uuid IS NULL OR knowledge_base_id = $2)",
                &[(&lease.id, Type::INT8), (&scope, Type::UUID)],
            )
            .await?;
            tx.execute_typed(
                "-- orphaned_points::decide
                WITH decided AS (
                    UPDATE orphaned_points SET
                        withheld_by = CASE WHEN too_many THEN $1 END,
                        condemned_by = CASE WHEN NOT too_many THEN $1 END
                    FROM (
                        SELECT chunk_id AS id, $4 OR COALESCE(knowledge_base_id, $5) = ANY($3) AS too_many
                        FROM orphaned_points
                    ) AS o
                    WHERE chunk_id = o.id AND condemned_by IS NULL AND first_audit_id <= $1 AND last_audit_id >= $1
                        AND ($2::uuid IS NULL OR knowledge_base_id = $2)
                    RETURNING withheld_by
                )
                UPDATE audits SET withheld = (SELECT count(withheld_by) FROM decided) WHERE id = $1",
                &[
                    (&lease.id, Type::INT8),
                    (&scope, Type::UUID),
                    (&withheld, Type::UUID_ARRAY),
                    (&all, Type::BOOL),
                    (&Uuid::nil(), Type::UUID),
                ],
            )
            .await?;
            Ok::<_, DbError>(())
        })
        .await?;
    Ok(())
}

/// Whether so many orphans are more than their share of these points.
fn too_many(orphans: i64, points: u64) -> bool {
    u64::try_from(orphans).unwrap_or_default().saturating_mul(SHARE) > points
}

/// The undecided orphans of all that was compared.
struct Total {
    documents: i64,
    points: i64,
}

async fn total(app: &App, lease: Lease) -> Result<Total, DbError> {
    let row = app
        .db
        .query_one(
            "count orphans",
            "-- orphaned_points::total
            SELECT count(DISTINCT COALESCE(document_id, chunk_id)) AS documents, count(*) AS points
            FROM orphaned_points
            WHERE condemned_by IS NULL AND first_audit_id <= $1 AND last_audit_id >= $1
                AND ($2::uuid IS NULL OR knowledge_base_id = $2)",
            &[(&lease.id, Type::INT8), (&lease.scope.map(|id| id.0), Type::UUID)],
        )
        .await?;
    Ok(Total { documents: row.try_get("documents")?, points: row.try_get("points")? })
}

/// The undecided orphans of one knowledge base.
struct Group {
    knowledge_base: Option<KnowledgeBaseId>,
    points: i64,
}

/// The knowledge bases with orphans of more documents than are removed unasked: at most one for each eleven orphans.
async fn groups(app: &App, lease: Lease) -> Result<Vec<Group>, DbError> {
    let rows = app
        .db
        .query(
            "count orphans of each",
            "-- orphaned_points::groups
            SELECT knowledge_base_id, count(*) AS points
            FROM orphaned_points
            WHERE condemned_by IS NULL AND first_audit_id <= $1 AND last_audit_id >= $1
                AND ($2::uuid IS NULL OR knowledge_base_id = $2)
            GROUP BY knowledge_base_id HAVING count(DISTINCT COALESCE(document_id, chunk_id)) > $3",
            &[(&lease.id, Type::INT8), (&lease.scope.map(|id| id.0), Type::UUID), (&DOCUMENTS_MAX, Type::INT8)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Group {
                knowledge_base: row.try_get::<_, Option<Uuid>>("knowledge_base_id")?.map(KnowledgeBaseId),
                points: row.try_get("points")?,
            })
        })
        .collect()
}

/// Lets the removals that an audit withheld go on, and does what can be done of them in time; the sweeper does the rest.
/// Returns how many points that are. For operators: no route leads here.
///
/// # Errors
/// [`IngestError::NoAudit`] when there is no such audit, or it has not ended; or a store's.
pub async fn approve(app: &App, audit: i64, deadline: Deadline) -> Result<u64, IngestError> {
    let condemned = app
        .db
        .transaction("approve removals", async move |tx| {
            let row = tx
                .query_typed_opt(
                    "-- audits::approve
                    UPDATE audits SET approved_at = now() WHERE id = $1 AND finished_at IS NOT NULL
                    RETURNING knowledge_base_id",
                    &[(&audit, Type::INT8)],
                )
                .await
                .map_err(DbError::from)?
                .ok_or(IngestError::NoAudit)?;
            let scope: Option<Uuid> = row.try_get("knowledge_base_id").map_err(DbError::from)?;
            // All that this audit has found, whichever audits have found it before and since.
            let condemned = tx
                .execute_typed(
                    "-- orphaned_points::approve
                    UPDATE orphaned_points SET condemned_by = $1
                    WHERE condemned_by IS NULL AND first_audit_id <= $1 AND last_audit_id >= $1
                        AND ($2::uuid IS NULL OR knowledge_base_id = $2)",
                    &[(&audit, Type::INT8), (&scope, Type::UUID)],
                )
                .await
                .map_err(DbError::from)?;
            Ok::<_, IngestError>(condemned)
        })
        .await?;
    tracing::warn!(audit.id = audit, points = condemned, "withheld removals are approved");
    remove(app, deadline).await?;
    Ok(condemned)
}

/// Removes what is condemned, page by page, until there is no more or the time is over. What PostgreSQL knows again (it was
/// restored, or put right) stays in Qdrant.
pub(super) async fn remove(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    while !deadline.passed() {
        let ids = condemned(app).await?;
        if ids.is_empty() {
            break;
        }
        let (dead, targets) = (gone(app, &ids).await?, collections::read(app).await?);
        if !dead.is_empty() {
            collections::remove(app, &targets, &dead, deadline).await?;
        }
        forget(app, &ids, &dead).await?;
    }
    Ok(())
}

async fn condemned(app: &App) -> Result<Vec<ChunkId>, DbError> {
    let rows = app
        .db
        .query(
            "read condemned points",
            "-- orphaned_points::condemned
            SELECT chunk_id FROM orphaned_points WHERE condemned_by IS NOT NULL ORDER BY chunk_id LIMIT $1",
            &[(&PAGE, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(ChunkId(row.try_get("chunk_id")?))).collect()
}

async fn forget(app: &App, ids: &[ChunkId], removed: &[ChunkId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let removed: Vec<Uuid> = removed.iter().map(|id| id.0).collect();
    app.db
        .transaction("forget orphans", async move |tx| {
            tx.execute_typed(
                "-- orphaned_points::delete
                WITH gone AS (
                    DELETE FROM orphaned_points WHERE chunk_id = ANY($1) RETURNING chunk_id, condemned_by
                ), removed AS (
                    SELECT condemned_by AS id, count(*) AS points FROM gone WHERE chunk_id = ANY($2) GROUP BY 1
                )
                UPDATE audits a SET removed = a.removed + r.points FROM removed r WHERE a.id = r.id",
                &[(&ids, Type::UUID_ARRAY), (&removed, Type::UUID_ARRAY)],
            )
            .await?;
            Ok(())
        })
        .await
}
