//! The collections' table, as builds change it.

use std::time::Duration;

use shared::{
    App,
    db::DbError,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
};
use tokio_postgres::{Row, Transaction, types::Type};
use uuid::Uuid;

use super::orders::lock;
use crate::{
    collections::{Collection, Pending},
    error::IngestError,
};

/// Chunks of one batch: what is lost when an invocation is cut, about two seconds of inference on one core.
const BATCH: i64 = 32;

/// The right to work on a build, until another draws a higher fence.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) collection: Collection,
    pub(super) fence: i64,
    pub(super) made: bool,
    pub(super) scanned: bool,
    /// The first chunk that is not written, or not compared.
    pub(super) next: ChunkId,
}

/// What Qdrant may not have followed yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Each alias, and the collection that it must stand for.
    pub(super) live: Vec<(String, String)>,
    /// What is to be dropped.
    pub(super) leaving: Vec<Leaving>,
}

/// A collection that is to be dropped.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) id: i64,
    pub(super) alias: String,
    pub(super) name: String,
}

/// Takes the build that is to be worked on; `None` when there is none.
pub(super) async fn open(app: &App, lease: Duration) -> Result<Option<Build>, IngestError> {
    app.db
        .transaction("open build", async move |tx| {
            let row = tx
                .query_typed_opt(
                    "-- collections::open
                    UPDATE collections SET fence = nextval('fencing_tokens'),
                        lease_expires_at = now() + make_interval(secs => $1)
                    WHERE state = 'building' AND lease_expires_at <= now()
                    RETURNING id, name, alias, model, dimension, state, made, scanned, next_id, fence",
                    &[(&lease.as_secs_f64(), Type::FLOAT8)],
                )
                .await
                .map_err(DbError::from)?;
            match row {
                Some(row) => Ok(Some(build_from(&row)?)),
                None => held(tx).await,
            }
        })
        .await
}

async fn held(tx: &Transaction<'_>) -> Result<Option<Build>, IngestError> {
    let row = tx
        .query_typed_opt(
            "-- collections::lease_left
            SELECT GREATEST(extract(epoch FROM lease_expires_at - now())::float8, 0) AS lease_s
            FROM collections WHERE state = 'building'",
            &[],
        )
        .await
        .map_err(DbError::from)?;
    let Some(row) = row else { return Ok(None) };
    let lease_s: f64 = row.try_get("lease_s").map_err(DbError::from)?;
    Err(IngestError::BuildRunning { retry_after: Duration::from_secs_f64(lease_s) })
}

fn build_from(row: &Row) -> Result<Build, DbError> {
    Ok(Build {
        collection: Collection::from_row(row)?,
        fence: row.try_get("fence")?,
        made: row.try_get("made")?,
        scanned: row.try_get("scanned")?,
        next: ChunkId(row.try_get("next_id")?),
    })
}

/// The collection is there: from here on all others write to it as well, and the scan may read its first chunk.
pub(super) async fn made(app: &App, build: &Build) -> Result<(), IngestError> {
    let statement = "-- collections::build_made
        UPDATE collections SET made = true, next_id = $3, written = $4
        WHERE id = $1 AND fence = $2 AND state = 'building'";
    change(app, build, statement, build.next, 0).await
}

/// The next chunks, whichever revision they stand in.
pub(super) async fn chunks(app: &App, from: ChunkId) -> Result<Vec<Pending>, DbError> {
    let rows = app
        .db
        .query(
            "read chunks to build",
            "-- collections::chunks
            SELECT c.id, c.document_id, d.knowledge_base_id, c.text, p.heading_path
            FROM chunk_metadata c
            JOIN documents d ON d.id = c.document_id
            CROSS JOIN LATERAL (
                SELECT heading_path FROM chunk_positions WHERE chunk_id = c.id ORDER BY revision LIMIT 1
            ) p
            WHERE c.id >= $1 ORDER BY c.id LIMIT $2",
            &[(&from.0, Type::UUID), (&BATCH, Type::INT8)],
        )
        .await?;
    let pending = |row: &Row| {
        let knowledge_base = KnowledgeBaseId(row.try_get("knowledge_base_id")?);
        Pending::from_row(row, knowledge_base, DocumentId(row.try_get("document_id")?))
    };
    rows.iter().map(pending).collect()
}

/// A batch is written.
pub(super) async fn advance(app: &App, build: &mut Build, next: ChunkId, written: usize) -> Result<(), IngestError> {
    let written = i64::try_from(written).unwrap_or(i64::MAX);
    let statement = "-- collections::advance
        UPDATE collections SET next_id = $3, written = written + $4
        WHERE id = $1 AND fence = $2 AND state = 'building'";
    change(app, build, statement, next, written).await?;
    build.next = next;
    Ok(())
}

/// All chunks are written once.
pub(super) async fn scanned(app: &App, build: &mut Build) -> Result<(), IngestError> {
    let statement = "-- collections::scanned
        UPDATE collections SET scanned = true, faults = 0, next_id = $3, written = written + $4
        WHERE id = $1 AND fence = $2 AND state = 'building'";
    let first = ChunkId(Uuid::nil());
    change(app, build, statement, first, 0).await?;
    (build.scanned, build.next) = (true, first);
    Ok(())
}

/// A page is compared; true when that was the end of a pass that has found nothing. One that has found something is
/// followed by another.
pub(super) async fn compared(
    app: &App,
    build: &mut Build,
    next: Option<ChunkId>,
    faults: usize,
    repaired: usize,
    removed: usize,
) -> Result<bool, IngestError> {
    let begin = next.unwrap_or(ChunkId(Uuid::nil()));
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (fence, id, ends) = (build.fence, build.collection.id, next.is_none());
    let clean = app
        .db
        .transaction("record compared page", async move |tx| {
            let row = tx
                .query_typed_opt(
                    "-- collections::compared
                    WITH before AS (SELECT faults + $4 AS faults FROM collections WHERE id = $1)
                    UPDATE collections c SET next_id = $3, repaired = repaired + $5, removed = removed + $6,
                        faults = CASE WHEN $7 THEN 0 ELSE before.faults END
                    FROM before WHERE c.id = $1 AND c.fence = $2 AND c.state = 'building'
                    RETURNING $7 AND before.faults = 0 AS clean",
                    &[
                        (&id, Type::INT8),
                        (&fence, Type::INT8),
                        (&begin.0, Type::UUID),
                        (&count(faults), Type::INT8),
                        (&count(repaired), Type::INT8),
                        (&count(removed), Type::INT8),
                        (&ends, Type::BOOL),
                    ],
                )
                .await
                .map_err(DbError::from)?
                .ok_or(IngestError::BuildLost)?;
            Ok::<_, IngestError>(row.try_get("clean").map_err(DbError::from)?)
        })
        .await?;
    build.next = begin;
    Ok(clean)
}

/// The collection is complete: it is live, the former one of its space is kept, and the one that was kept before may go.
pub(super) async fn switch(app: &App, build: &Build) -> Result<(), IngestError> {
    let (id, fence) = (build.collection.id, build.fence);
    app.db
        .transaction("switch collections", async move |tx| {
            lock(tx).await?;
            let former = tx
                .execute_typed(
                    "-- collections::make_room
                    UPDATE collections c SET state = 'leaving', left_at = now()
                    FROM collections b WHERE b.id = $1 AND b.fence = $2 AND b.state = 'building'
                        AND c.alias = b.alias AND c.state = 'previous'",
                    &[(&id, Type::INT8), (&fence, Type::INT8)],
                )
                .await
                .map_err(DbError::from)?;
            tracing::debug!(former, "collections leave");
            tx.execute_typed(
                "-- collections::keep_former
                UPDATE collections c SET state = 'previous', built_at = COALESCE(c.built_at, now())
                FROM collections b WHERE b.id = $1 AND b.fence = $2 AND b.state = 'building'
                    AND c.alias = b.alias AND c.state = 'live'",
                &[(&id, Type::INT8), (&fence, Type::INT8)],
            )
            .await
            .map_err(DbError::from)?;
            let rows = tx
                .execute_typed(
                    "-- collections::switch
                    UPDATE collections SET state = 'live', built_at = COALESCE(built_at, now()), lease_expires_at = now()
                    WHERE id = $1 AND fence = $2 AND state = 'building' AND scanned",
                    &[(&id, Type::INT8), (&fence, Type::INT8)],
                )
                .await
                .map_err(DbError::from)?;
            if rows == 1 { Ok(()) } else { Err(IngestError::BuildLost) }
        })
        .await
}

/// Gives the lease back; the schedule does not go on before `pause` is over.
pub(super) async fn release(app: &App, id: i64, fence: i64, pause: Duration) -> Result<(), DbError> {
    app.db
        .transaction("release build", async move |tx| {
            tx.execute_typed(
                "-- collections::release
                UPDATE collections SET lease_expires_at = now() + make_interval(secs => $3)
                WHERE id = $1 AND fence = $2 AND state = 'building'",
                &[(&id, Type::INT8), (&fence, Type::INT8), (&pause.as_secs_f64(), Type::FLOAT8)],
            )
            .await?;
            Ok(())
        })
        .await
}

/// What Qdrant must follow.
pub(super) async fn unsettled(app: &App) -> Result<Unsettled, DbError> {
    let rows = app
        .db
        .query(
            "read what is to follow",
            "-- collections::unsettled
            SELECT id, alias, name, state FROM collections WHERE state = 'live' AND made OR state = 'leaving'",
            &[],
        )
        .await?;
    let mut unsettled = Unsettled::default();
    for row in rows {
        match row.try_get("state")? {
            "live" => unsettled.live.push((row.try_get("alias")?, row.try_get("name")?)),
            _ => unsettled.leaving.push(Leaving {
                id: row.try_get("id")?,
                alias: row.try_get("alias")?,
                name: row.try_get("name")?,
            }),
        }
    }
    Ok(unsettled)
}

/// It was dropped. Its row stays, so that its name is not used again.
pub(super) async fn gone(app: &App, id: i64) -> Result<(), DbError> {
    app.db
        .transaction("note dropped collection", async move |tx| {
            tx.execute_typed(
                "-- collections::gone\nUPDATE collections SET state = 'gone' WHERE id = $1 AND state = 'leaving'",
                &[(&id, Type::INT8)],
            )
            .await?;
            Ok(())
        })
        .await
}

/// Changes the build's row, if the lease is still held.
async fn change(
    app: &App,
    build: &Build,
    statement: &'static str,
    next: ChunkId,
    written: i64,
) -> Result<(), IngestError> {
    let (id, fence) = (build.collection.id, build.fence);
    // Owned: with a borrowed one, the compiler does not see that the future may change threads.
    let statement = statement.to_owned();
    app.db
        .transaction("record build", async move |tx| {
            let rows = tx
                .execute_typed(
                    &statement,
                    &[(&id, Type::INT8), (&fence, Type::INT8), (&next.0, Type::UUID), (&written, Type::INT8)],
                )
                .await
                .map_err(DbError::from)?;
            if rows == 1 { Ok(()) } else { Err(IngestError::BuildLost) }
        })
        .await
}
