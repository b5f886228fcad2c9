//! The audits' table: who works on which, how far it is, and how it has ended.

use std::time::Duration;

use shared::{
    App,
    db::DbError,
    domain::{ChunkId, ContentHash, KnowledgeBaseId},
};
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use super::{Audit, digest};
use crate::{error::IngestError, saga};

/// The right to work on an audit, until another draws a higher fence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) scope: Option<KnowledgeBaseId>,
    pub(super) fence: i64,
}

/// How far an audit is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first id that is not compared; `None` once all are.
    pub(super) next: Option<ChunkId>,
    /// Of the ids that PostgreSQL expects, so far.
    pub(super) expected_digest: ContentHash,
    /// Of the ids that Qdrant holds, so far.
    pub(super) found_digest: ContentHash,
}

/// Begins an audit of `scope`, or goes on with one that was cut.
pub(super) async fn open(app: &App, scope: Option<KnowledgeBaseId>, lease: Duration) -> Result<Lease, IngestError> {
    let scope_id = scope.map(|id| id.0);
    app.db
        .transaction("open audit", async move |tx| {
            let fence = saga::draw_fence(tx).await?;
            // An unfinished audit keeps another from being inserted; its lease decides whether it may be had.
            let row = tx
                .query_typed_opt(
                    "-- audits::open
                    INSERT INTO audits AS a
                        (knowledge_base_id, fence, lease_expires_at, next_id, expected_digest, found_digest)
                    VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5, $5)
                    ON CONFLICT (COALESCE(knowledge_base_id, '00000000-0000-0000-0000-000000000000'))
                        WHERE finished_at IS NULL
                    DO UPDATE SET fence = EXCLUDED.fence, lease_expires_at = EXCLUDED.lease_expires_at
                        WHERE a.lease_expires_at <= now()
                    RETURNING id, knowledge_base_id, fence",
                    &[
                        (&scope_id, Type::UUID),
                        (&fence, Type::INT8),
                        (&lease.as_secs_f64(), Type::FLOAT8),
                        (&Uuid::nil(), Type::UUID),
                        (&digest::NONE.0.as_slice(), Type::BYTEA),
                    ],
                )
                .await
                .map_err(DbError::from)?;
            match row {
                Some(row) => Ok(lease_from(&row)?),
                None => Err(IngestError::AuditRunning { retry_after: left(tx, scope_id).await? }),
            }
        })
        .await
}

/// How long the lease of the running audit lasts at most.
async fn left(tx: &Transaction<'_>, scope: Option<Uuid>) -> Result<Duration, DbError> {
    let row = tx
        .query_typed_opt(
            "-- audits::lease_left
            SELECT GREATEST(extract(epoch FROM lease_expires_at - now())::float8, 0) AS lease_s FROM audits
            WHERE knowledge_base_id IS NOT DISTINCT FROM $1 AND finished_at IS NULL",
            &[(&scope, Type::UUID)],
        )
        .await?;
    let lease_s = row.map(|row| row.try_get::<_, f64>("lease_s")).transpose()?;
    Ok(Duration::from_secs_f64(lease_s.unwrap_or_default()))
}

/// Takes over the audit that was left alone the longest, if there is one.
pub(super) async fn take_over_cut(app: &App, lease: Duration) -> Result<Option<Lease>, IngestError> {
    app.db
        .transaction("take over audit", async move |tx| {
            let row = tx
                .query_typed_opt(
                    "-- audits::take_over_cut
                    UPDATE audits SET fence = nextval('fencing_tokens'),
                        lease_expires_at = now() + make_interval(secs => $1)
                    WHERE id = (
                        SELECT id FROM audits WHERE finished_at IS NULL AND lease_expires_at <= now()
                        ORDER BY lease_expires_at LIMIT 1 FOR UPDATE SKIP LOCKED
                    )
                    RETURNING id, knowledge_base_id, fence",
                    &[(&lease.as_secs_f64(), Type::FLOAT8)],
                )
                .await
                .map_err(DbError::from)?;
            Ok(row.as_ref().map(lease_from).transpose()?)
        })
        .await
}

/// Whether everything must be audited again: one has not ended, or the last is older than `interval`.
pub(super) async fn is_due(app: &App, interval: Duration) -> Result<bool, DbError> {
    let interval_s = interval.as_secs_f64();
    let row = app
        .db
        .query_one(
            "look for a due audit",
            "-- audits::is_due
            SELECT NOT EXISTS (
                SELECT FROM audits
                WHERE knowledge_base_id IS NULL AND finished_at > now() - make_interval(secs => $1)
            )",
            &[(&interval_s, Type::FLOAT8)],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// How far the audit is.
pub(super) async fn place(app: &App, lease: Lease) -> Result<Place, IngestError> {
    let row = app
        .db
        .query_opt(
            "read audit's place",
            "-- audits::place
            SELECT next_id, merged, expected_digest, found_digest FROM audits
            WHERE id = $1 AND fence = $2 AND finished_at IS NULL",
            &[(&lease.id, Type::INT8), (&lease.fence, Type::INT8)],
        )
        .await?
        .ok_or(IngestError::AuditLost)?;
    let read = |row: &Row| -> Result<Place, DbError> {
        let merged: bool = row.try_get("merged")?;
        let next = ChunkId(row.try_get("next_id")?);
        Ok(Place {
            next: (!merged).then_some(next),
            expected_digest: hash(row, "expected_digest")?,
            found_digest: hash(row, "found_digest")?,
        })
    };
    Ok(read(&row)?)
}

/// Gives the lease back; nobody goes on with the audit before `pause` is over.
pub(super) async fn release(app: &App, lease: Lease, pause: Duration) -> Result<(), DbError> {
    let pause_s = pause.as_secs_f64();
    app.db
        .transaction("release audit", async move |tx| {
            tx.execute_typed(
                "-- audits::release
                UPDATE audits SET lease_expires_at = now() + make_interval(secs => $3)
                WHERE id = $1 AND fence = $2 AND finished_at IS NULL",
                &[(&lease.id, Type::INT8), (&lease.fence, Type::INT8), (&pause_s, Type::FLOAT8)],
            )
            .await?;
            Ok(())
        })
        .await
}

/// How long the record of an audit is kept.
const KEPT_DAYS: i32 = 30;

/// Ends the audit. Results that it replaces go.
pub(super) async fn finish(app: &App, lease: Lease) -> Result<(), IngestError> {
    app.db
        .transaction("finish audit", async move |tx| {
            let rows = tx
                .execute_typed(
                    "-- audits::finish
                    UPDATE audits SET finished_at = now(), lease_expires_at = now()
                    WHERE id = $1 AND fence = $2 AND merged AND finished_at IS NULL",
                    &[(&lease.id, Type::INT8), (&lease.fence, Type::INT8)],
                )
                .await
                .map_err(DbError::from)?;
            if rows != 1 {
                return Err(IngestError::AuditLost);
            }
            tx.execute_typed(
                "-- audit_results::delete_older
                DELETE FROM audit_results
                WHERE audit_id < $1 AND ($2::uuid IS NULL OR knowledge_base_id = $2)",
                &[(&lease.id, Type::INT8), (&lease.scope.map(|id| id.0), Type::UUID)],
            )
            .await
            .map_err(DbError::from)?;
            tx.execute_typed(
                "-- audits::delete_older
                DELETE FROM audits WHERE finished_at < now() - make_interval(days => $1)",
                &[(&KEPT_DAYS, Type::INT4)],
            )
            .await
            .map_err(DbError::from)?;
            Ok(())
        })
        .await
}

const AUDIT: &str = "
    SELECT id, knowledge_base_id, expected, expected_digest, found, found_digest, in_flight, missing, mislinked,
        orphaned, repaired, removed, withheld, started_at, finished_at
    FROM audits";

/// The audit.
pub(super) async fn require(app: &App, id: i64) -> Result<Audit, IngestError> {
    let statement = format!("-- audits::require{AUDIT} WHERE id = $1");
    let row = app.db.query_one("read audit", &statement, &[(&id, Type::INT8)]).await?;
    Ok(audit_from(&row)?)
}

/// The last audit that has compared this knowledge base, with its counts for it.
///
/// # Errors
/// When PostgreSQL does not answer.
pub(crate) async fn last_of(tx: &Transaction<'_>, knowledge_base: KnowledgeBaseId) -> Result<Option<Row>, DbError> {
    let row = tx
        .query_typed_opt(
            "-- audits::last_of
            SELECT a.id, a.started_at, a.finished_at, COALESCE(r.expected, 0) AS expected,
                COALESCE(r.found, 0) AS found, COALESCE(r.missing, 0) AS missing,
                COALESCE(r.mislinked, 0) AS mislinked, COALESCE(r.orphaned, 0) AS orphaned,
                COALESCE(r.repaired, 0) AS repaired
            FROM audits a LEFT JOIN audit_results r ON r.audit_id = a.id AND r.knowledge_base_id = $1
            WHERE a.finished_at IS NOT NULL AND (a.knowledge_base_id IS NULL OR a.knowledge_base_id = $1)
            ORDER BY a.id DESC LIMIT 1",
            &[(&knowledge_base.0, Type::UUID)],
        )
        .await?;
    Ok(row)
}

fn audit_from(row: &Row) -> Result<Audit, DbError> {
    Ok(Audit {
        id: row.try_get("id")?,
        knowledge_base: row.try_get::<_, Option<Uuid>>("knowledge_base_id")?.map(KnowledgeBaseId),
        expected: row.try_get("expected")?,
        expected_digest: hash(row, "expected_digest")?,
        found: row.try_get("found")?,
        found_digest: hash(row, "found_digest")?,
        in_flight: row.try_get("in_flight")?,
        missing: row.try_get("missing")?,
        mislinked: row.try_get("mislinked")?,
        orphaned: row.try_get("orphaned")?,
        repaired: row.try_get("repaired")?,
        removed: row.try_get("removed")?,
        withheld: row.try_get("withheld")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

fn lease_from(row: &Row) -> Result<Lease, DbError> {
    Ok(Lease {
        id: row.try_get("id")?,
        scope: row.try_get::<_, Option<Uuid>>("knowledge_base_id")?.map(KnowledgeBaseId),
        fence: row.try_get("fence")?,
    })
}

fn hash(row: &Row, column: &'static str) -> Result<ContentHash, DbError> {
    row.try_get::<_, &[u8]>(column)?.try_into().map_err(DbError::column(column))
}
