//! Points, and how they get into all collections that are to hold them, and out again.

use std::{sync::Arc, time::Duration};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    embed::Embedder,
    retry,
    sparse::{self, SparseVector},
    vectors::{IndexError, Point},
};
use tokio_postgres::Row;

use super::{Collection, missing, no_embedder};
use crate::{chunk, error::IngestError};

/// How often one write may reach Qdrant, the client's own second send included ([`IndexError::sends`]). Each time is safe: the
/// same id is the same point.
const SENDS_MAX: u32 = 6;

/// The first and the longest pause between attempts, of which [`retry::pause`] takes a part.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A chunk that is to be embedded.
pub(crate) struct Pending {
    pub(crate) id: ChunkId,
    knowledge_base: KnowledgeBaseId,
    document: DocumentId,
    input: String,
}

impl Pending {
    /// Of a row with `id`, `text` and `heading_path`.
    pub(crate) fn from_row(row: &Row, knowledge_base: KnowledgeBaseId, document: DocumentId) -> Result<Self, DbError> {
        let path: Vec<String> = row.try_get("heading_path")?;
        let input = chunk::embedding_input(&path, row.try_get("text")?);
        Self::with_input(row, input, knowledge_base, document)
    }

    /// Of a row with `id`.
    pub(crate) fn with_input(
        row: &Row,
        input: String,
        knowledge_base: KnowledgeBaseId,
        document: DocumentId,
    ) -> Result<Self, DbError> {
        Ok(Self { id: ChunkId(row.try_get("id")?), knowledge_base, document, input })
    }
}

/// What is searched of a passage.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    pub(crate) dense: Vec<f32>,
    pub(crate) sparse: SparseVector,
}

/// The points of some chunks, for each collection that is to hold them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    points: Vec<(Collection, Vec<Point>)>,
}

/// Embeds chunks once for each space among the targets. `ahead` has their vectors of [`App::embedder`], if that has been done.
///
/// # Errors
/// [`IngestError::NoEmbedder`] when one of the spaces is none of ours; the embedder's.
pub(crate) async fn embed(
    app: &App,
    targets: Vec<Collection>,
    pending: &[Pending],
    mut ahead: Option<Vec<Vectors>>,
    deadline: Deadline,
) -> Result<Batch, IngestError> {
    let mut batch = Batch::default();
    if pending.is_empty() {
        return Ok(batch);
    }
    for target in targets {
        let done = batch.points.iter().find(|(other, _)| other.space == target.space).map(|(_, points)| points.clone());
        let points = if let Some(points) = done {
            points
        } else {
            let ready = ahead.take_if(|_| target.space == *app.embedder.space());
            of_space(app, &target, pending, ready, deadline).await?
        };
        batch.points.push((target, points));
    }
    Ok(batch)
}

async fn of_space(
    app: &App,
    target: &Collection,
    pending: &[Pending],
    ready: Option<Vec<Vectors>>,
    deadline: Deadline,
) -> Result<Vec<Point>, IngestError> {
    let model = app.model_of(&target.space).ok_or_else(|| no_embedder(&target.space))?;
    let vectors = match ready {
        Some(vectors) => vectors,
        None => vectors(&model.embedder, pending.iter().map(|chunk| chunk.input.clone()).collect(), deadline).await?,
    };
    let point = |(chunk, Vectors { dense, sparse }): (&Pending, Vectors)| Point {
        id: chunk.id,
        knowledge_base: chunk.knowledge_base,
        document: chunk.document,
        dense,
        sparse,
    };
    Ok(pending.iter().zip(vectors).map(point).collect())
}

/// The vectors of passages, in their order.
///
/// # Errors
/// The embedder's.
async fn vectors(
    embedder: &Arc<dyn Embedder>,
    inputs: Vec<String>,
    deadline: Deadline,
) -> Result<Vec<Vectors>, IngestError> {
    let passages = inputs.clone();
    // Stemming takes a tenth of what an endpoint takes, and has time while that is waited for.
    let terms = tokio::task::spawn_blocking(move || {
        let mut words = sparse::Passages::default();
        passages.iter().map(|text| words.terms("", text).weights).collect::<Vec<_>>()
    });
    let (dense, terms) = tokio::join!(embedder.embed_passages(inputs, deadline.instant()), terms);
    let both = dense?.into_iter().zip(terms.map_err(IngestError::Panicked)?);
    Ok(both.map(|(dense, sparse)| Vectors { dense, sparse }).collect())
}

/// Writes a batch to all its collections. One that fails fails the batch: what was written is written again then, which
/// changes nothing.
pub(crate) async fn upsert(app: &App, batch: Batch, deadline: Deadline) -> Result<(), IngestError> {
    for (collection, points) in batch.points {
        upsert_to(app, &collection, &points, deadline).await?;
    }
    Ok(())
}

/// Writes points, again while that may help and there is time.
async fn upsert_to(
    app: &App,
    collection: &Collection,
    points: &[Point],
    deadline: Deadline,
) -> Result<(), IngestError> {
    let index = collection.index(app);
    app.index_retries.note_call();
    let (mut attempt, mut sends) = (1, 0);
    loop {
        let Err(error) = index.upsert(points, deadline).await else { return Ok(()) };
        sends += error.sends();
        let pause = match &error {
            IndexError::Throttled { retry_after } => *retry_after,
            _ => retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempt),
        };
        let hopeless = !error.retryable() || sends >= SENDS_MAX || pause >= deadline.remaining();
        // The client's own second send comes out of the same budget.
        if hopeless || !(0..error.sends()).all(|_| app.index_retries.take()) {
            return Err(error.into());
        }
        tracing::warn!(collection = collection.name, index.attempt = attempt, error = %shared::problem::Causes(&error), "upsert tried again");
        tokio::time::sleep(pause).await;
        if matches!(error, IndexError::Missing) && !missing(app, collection, deadline).await? {
            return Ok(());
        }
        attempt += 1;
    }
}

/// Removes points by id from all these collections; from the one behind the alias as long as none is registered.
pub(crate) async fn remove(
    app: &App,
    targets: &[Collection],
    ids: &[ChunkId],
    deadline: Deadline,
) -> Result<(), IngestError> {
    if targets.is_empty() {
        app.index.delete(ids, deadline).await?;
    }
    for target in targets {
        target.index(app).delete(ids, deadline).await?;
    }
    Ok(())
}
