//! What an operator orders: a build, a way back, an end. Each only changes the collections' table; builds and Qdrant follow.

use shared::{App, app::Model, db::DbError};
use tokio_postgres::{Row, Transaction, types::Type};

use super::Progress;
use crate::{collections, error::IngestError};

/// The other spaces that were begun after the space `$1`.
const LATER: &str = "
    SELECT alias FROM collections WHERE state IN ('building', 'live', 'previous') AND alias <> $1
    GROUP BY alias HAVING min(id) > (
        SELECT min(id) FROM collections WHERE state IN ('building', 'live', 'previous') AND alias = $1
    )";

/// Registers a collection to be built for this model. When one of its space is being built already, that goes on.
pub(super) async fn start(app: &App, model: &Model) -> Result<(), IngestError> {
    let (alias, space) = (model.index.name().to_owned(), model.embedder.space().clone());
    let first = collections::First::of(app);
    app.db
        .transaction("begin build", async move |tx| {
            // Locks the table: who starts at the same moment finds our row.
            collections::register(tx, &first).await?;
            if let Some(building) = building(tx).await? {
                return if building == alias {
                    Ok(())
                } else {
                    Err(IngestError::NotPossible("another space's collection is being built"))
                };
            }
            let rows = tx
                .execute_typed(
                    "-- collections::start
                    INSERT INTO collections (alias, version, name, model, dimension, state, expected)
                    SELECT $1, version, $1 || '-v' || version, $2, $3, 'building', (SELECT count(*) FROM chunk_metadata)
                    FROM (SELECT COALESCE(max(version), 0) + 1 AS version FROM collections WHERE alias = $1) AS latest",
                    &[
                        (&alias, Type::TEXT),
                        (&space.model, Type::TEXT),
                        (&i32::try_from(space.dimension).unwrap_or(i32::MAX), Type::INT4),
                    ],
                )
                .await
                .map_err(DbError::from)?;
            exactly_one("collections::start", rows)
        })
        .await
}

/// The alias of what is being built.
async fn building(tx: &Transaction<'_>) -> Result<Option<String>, DbError> {
    let statement = "-- collections::building\nSELECT alias FROM collections WHERE state = 'building'";
    let row = tx.query_typed_opt(statement, &[]).await?;
    Ok(row.map(|row| row.try_get("alias")).transpose()?)
}

/// Makes a build of the previous collection: it is compared, and takes its place again. It goes on being written.
pub(super) async fn roll_back(app: &App) -> Result<(), IngestError> {
    let alias = app.index.name().to_owned();
    app.db
        .transaction("begin rollback", async move |tx| {
            lock(tx).await?;
            if building(tx).await?.is_some() {
                return Err(IngestError::NotPossible("a collection is being built: cancel that, or let it end"));
            }
            let rows = tx
                .execute_typed(
                    "-- collections::roll_back
                    UPDATE collections SET state = 'building', scanned = true, faults = 0,
                        next_id = '00000000-0000-0000-0000-000000000000', lease_expires_at = now()
                    WHERE state = 'previous' AND alias = $1",
                    &[(&alias, Type::TEXT)],
                )
                .await
                .map_err(DbError::from)?;
            if rows == 1 { Ok(()) } else { Err(IngestError::NotPossible("no previous collection is kept")) }
        })
        .await
}

/// Lets the previous collections go, and those of other spaces. What is live in another space and came later is complete
/// and waits for the functions to use it: then it is this one that is to go, and not by this function's word.
pub(super) async fn finish(app: &App) -> Result<(), IngestError> {
    let alias = app.index.name().to_owned();
    app.db
        .transaction("finish reindex", async move |tx| {
            lock(tx).await?;
            if building(tx).await?.is_some() {
                return Err(IngestError::NotPossible("a collection is being built: cancel that, or let it end"));
            }
            let row = tx
                .query_typed_one(
                    &format!(
                        "-- collections::is_latest
                        SELECT EXISTS (SELECT FROM collections WHERE state = 'live' AND alias = $1) AS there,
                            NOT EXISTS ({LATER}) AS latest"
                    ),
                    &[(&alias, Type::TEXT)],
                )
                .await
                .map_err(DbError::from)?;
            if !row.try_get::<_, bool>("there").map_err(DbError::from)? {
                return Err(IngestError::NotPossible("the space that queries search has no collection: start a build"));
            }
            if !row.try_get::<_, bool>("latest").map_err(DbError::from)? {
                return Err(IngestError::NotPossible(
                    "the other model's collection is newer: deploy that model as the first one before, or cancel it",
                ));
            }
            leave(tx, "(state = 'previous' OR state = 'live' AND alias <> $1)", &alias).await
        })
        .await
}

/// Gives up the build. One that had been live is kept as the previous one again; another is dropped, and so is what other
/// spaces have got since the live collection of this one was built.
pub(super) async fn cancel(app: &App) -> Result<(), IngestError> {
    let alias = app.index.name().to_owned();
    app.db
        .transaction("cancel reindex", async move |tx| {
            lock(tx).await?;
            tx.execute_typed(
                "-- collections::cancel_rollback
                UPDATE collections SET state = 'previous', fence = nextval('fencing_tokens')
                WHERE state = 'building' AND built_at IS NOT NULL",
                &[],
            )
            .await
            .map_err(DbError::from)?;
            leave(tx, &format!("(state = 'building' OR alias IN (SELECT alias FROM ({LATER}) later))"), &alias).await
        })
        .await
}

async fn leave(tx: &Transaction<'_>, which: &str, alias: &String) -> Result<(), IngestError> {
    let statement = format!(
        "-- collections::leave
        UPDATE collections SET state = 'leaving', fence = nextval('fencing_tokens'), left_at = now()
        WHERE state IN ('building', 'live', 'previous') AND {which}"
    );
    tx.execute_typed(&statement, &[(alias, Type::TEXT)]).await.map_err(DbError::from)?;
    Ok(())
}

/// Orders those who change what is built. Readers and writers of points are not held up.
pub(super) async fn lock(tx: &Transaction<'_>) -> Result<(), DbError> {
    Ok(tx.batch_execute("LOCK TABLE collections IN SHARE ROW EXCLUSIVE MODE").await?)
}

/// All collections that are not gone.
pub(super) async fn list(app: &App) -> Result<Vec<Progress>, DbError> {
    let rows = app
        .db
        .query(
            "list collections",
            "-- collections::list
            SELECT name, model, dimension, state, scanned, expected, written, repaired, removed, started_at,
                built_at
            FROM collections WHERE state <> 'gone' ORDER BY id",
            &[],
        )
        .await?;
    rows.iter().map(progress_from).collect()
}

fn progress_from(row: &Row) -> Result<Progress, DbError> {
    Ok(Progress {
        name: row.try_get("name")?,
        model: row.try_get("model")?,
        dimension: row.try_get("dimension")?,
        state: row.try_get("state")?,
        scanned: row.try_get("scanned")?,
        expected: row.try_get("expected")?,
        written: row.try_get("written")?,
        repaired: row.try_get("repaired")?,
        removed: row.try_get("removed")?,
        started_at: row.try_get("started_at")?,
        built_at: row.try_get("built_at")?,
    })
}

fn exactly_one(statement: &'static str, rows: u64) -> Result<(), IngestError> {
    if rows == 1 { Ok(()) } else { Err(DbError::RowCount { statement, rows }.into()) }
}
