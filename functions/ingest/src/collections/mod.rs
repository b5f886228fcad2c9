//! Qdrant's collections: PostgreSQL decides which there are, which are written, and which one an alias stands for.
//!
//! | state | behind the alias | written | how it ends |
//! |---|---|---|---|
//! | building | no | once it was made | complete, it becomes live |
//! | live | yes | yes | its successor becomes live |
//! | previous | no, it was | yes, for a rollback | `finish`, or the next build's end |
//! | leaving | no | no | dropped by its own name |
//!
//! Whoever writes or removes points reads which collections there are after it has read the chunks.
//! So a chunk that is written without regard to a build was committed before that build began to read chunks, and the build
//! reads it; all others are written to both.

mod points;

use std::sync::Arc;

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::InvalidValue,
    embed::Space,
    vectors::{Part, VectorIndex},
};
use tokio_postgres::{Row, Transaction, types::Type};

pub(crate) use self::points::{Batch, Pending, Vectors, embed, remove, upsert};
use crate::error::IngestError;

/// A collection that is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Collection {
    pub(crate) id: i64,
    /// Its own name.
    pub(crate) name: String,
    /// Its space's alias.
    pub(crate) alias: String,
    /// The model that fills it.
    pub(crate) space: Space,
    state: State,
    made: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Building,
    Live,
    Previous,
}

impl Collection {
    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        let invalid = |column, reason: &str| DbError::column(column)(InvalidValue::new(reason));
        let dimension = usize::try_from(row.try_get::<_, i32>("dimension")?);
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            alias: row.try_get("alias")?,
            space: Space {
                model: row.try_get("model")?,
                dimension: dimension.map_err(|_| invalid("dimension", "is negative"))?,
            },
            state: match row.try_get("state")? {
                "building" => State::Building,
                "live" => State::Live,
                "previous" => State::Previous,
                _ => return Err(invalid("state", "is none of a collection that is written")),
            },
            made: row.try_get("made")?,
        })
    }

    /// Its index, by its own name. Fit for everything but [`VectorIndex::ensure`], which must know the space.
    pub(crate) fn index(&self, app: &App) -> Arc<dyn VectorIndex> {
        app.index.collection(&self.name)
    }

    /// Creates it in Qdrant where it is missing.
    pub(crate) async fn ensure(&self, app: &App, deadline: Deadline) -> Result<(), IngestError> {
        let model = app.model_of(&self.space).ok_or_else(|| no_embedder(&self.space))?;
        model.index.collection(&self.name).ensure(deadline).await?;
        if self.state == State::Live {
            let alias = app.index.collection(&self.alias);
            if alias.behind(deadline).await?.is_none() {
                alias.point_to(&self.name, deadline).await?;
            }
        }
        Ok(())
    }
}

/// A collection is to be written for which this function has no model. Leaving it out would make it incomplete in silence.
pub(crate) fn no_embedder(space: &Space) -> IngestError {
    tracing::error!(
        space.model,
        space.dimension,
        "a collection must be written whose model this function does not have: configure it as EMBEDDING_NEXT_*, or end the reindex"
    );
    IngestError::NoEmbedder { space: space.clone() }
}

/// The collections that are to be written now. Read after the chunks that are to be written.
///
/// One that is building counts once it was made: it reads its first chunk after that, and so the chunks that were read
/// here before.
pub(crate) async fn read(app: &App) -> Result<Vec<Collection>, DbError> {
    let rows = app
        .db
        .query(
            "read collections",
            "-- collections::read
            SELECT id, name, alias, model, dimension, state, made FROM collections
            WHERE state IN ('live', 'previous') OR state = 'building' AND made ORDER BY id",
            &[],
        )
        .await?;
    rows.iter().map(Collection::from_row).collect()
}

/// Sees to it that there is a collection to write to: the first one is registered, and made. One that is lost is noticed
/// by the write that misses it.
///
/// # Errors
/// When a store does not answer.
pub async fn ready(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    let mut collections = read(app).await?;
    if collections.is_empty() {
        let first = First::of(app);
        app.db.transaction("register collection", async move |tx| register(tx, &first).await).await?;
        collections = read(app).await?;
    }
    collections.retain(|collection| collection.state == State::Live && !collection.made);
    for collection in &collections {
        collection.ensure(app, deadline).await?;
        let id = collection.id;
        app.db
            .transaction("note collection", async move |tx| {
                tx.execute_typed(
                    "-- collections::made\nUPDATE collections SET made = true WHERE id = $1 AND state = 'live'",
                    &[(&id, Type::INT8)],
                )
                .await?;
                Ok::<_, DbError>(())
            })
            .await?;
    }
    Ok(())
}

/// The first collection of an installation: of the space that queries search.
pub(crate) struct First {
    alias: String,
    model: String,
    dimension: i32,
}

impl First {
    pub(crate) fn of(app: &App) -> Self {
        let space = app.embedder.space();
        Self {
            alias: app.index.name().to_owned(),
            model: space.model.clone(),
            dimension: i32::try_from(space.dimension).unwrap_or(i32::MAX),
        }
    }
}

/// Registers the first collection of all. Never beside another one: then it takes a build to fill it.
pub(crate) async fn register(tx: &Transaction<'_>, first: &First) -> Result<(), DbError> {
    // Two containers may begin at once, with two models.
    tx.batch_execute("LOCK TABLE collections IN SHARE ROW EXCLUSIVE MODE").await?;
    tx.execute_typed(
        "-- collections::register
        INSERT INTO collections (alias, version, name, model, dimension, state)
        SELECT $1, 1, $1 || '-v1', $2, $3, 'live' WHERE NOT EXISTS (SELECT FROM collections)",
        &[(&first.alias, Type::TEXT), (&first.model, Type::TEXT), (&first.dimension, Type::INT4)],
    )
    .await?;
    Ok(())
}

/// The index of the collection that PostgreSQL holds for live: behind the alias, or about to be. The alias itself as long
/// as there is none.
pub(crate) async fn live(app: &App) -> Result<Arc<dyn VectorIndex>, DbError> {
    let collections = read(app).await?;
    let mut live = collections.iter().filter(|collection| collection.state == State::Live);
    let own = live.clone().find(|collection| collection.alias == app.index.name()).or_else(|| live.next());
    Ok(own.map_or_else(|| Arc::clone(&app.index), |collection| collection.index(app)))
}

/// Counts the points of `part` exactly, in every collection that is not known to be gone.
pub(crate) async fn count_everywhere(app: &App, part: Part, deadline: Deadline) -> Result<u64, IngestError> {
    let statement = "-- collections::not_gone\nSELECT name FROM collections WHERE state <> 'gone'";
    let rows = app.db.query("read all collections", statement, &[]).await?;
    let names: Vec<String> =
        rows.iter().map(|row| row.try_get("name")).collect::<Result<_, _>>().map_err(DbError::from)?;
    if names.is_empty() {
        return Ok(app.index.count_part(part, deadline).await?);
    }
    let mut count = 0;
    for name in names {
        count += app.index.collection(&name).count_part(part, deadline).await?;
    }
    Ok(count)
}

/// What is to be done about a target that Qdrant does not have. True: it was made again, and the write is worth another
/// attempt; false: it is not to be written.
async fn missing(app: &App, collection: &Collection, deadline: Deadline) -> Result<bool, IngestError> {
    let now = read(app).await?.into_iter().find(|now| now.id == collection.id);
    match now.as_ref().map(|now| now.state) {
        Some(State::Live) => {
            tracing::error!(collection = collection.name, "the index was lost, and is made again: reindex");
            collection.ensure(app, deadline).await?;
            Ok(true)
        }
        Some(State::Building) => {
            tracing::error!(collection = collection.name, "the collection was lost, and its build begins anew");
            begin_anew(app, collection.id).await?;
            Ok(false)
        }
        Some(State::Previous) => {
            // Before anybody goes back to it, it is compared and completed.
            tracing::warn!(collection = collection.name, "the collection that is kept for a rollback is lost");
            Ok(false)
        }
        None => Ok(false),
    }
}

/// Sets a build back to its beginning. Whoever works on it is told at its next commit, and what is committed before that
/// is read by the new scan.
async fn begin_anew(app: &App, id: i64) -> Result<(), DbError> {
    app.db
        .transaction("begin build anew", async move |tx| {
            tx.execute_typed(
                "-- collections::begin_anew
                UPDATE collections SET made = false, scanned = false, faults = 0, built_at = NULL,
                    next_id = '00000000-0000-0000-0000-000000000000',
                    fence = nextval('fencing_tokens'), lease_expires_at = now()
                WHERE id = $1 AND state = 'building'",
                &[(&id, Type::INT8)],
            )
            .await?;
            Ok(())
        })
        .await
}
