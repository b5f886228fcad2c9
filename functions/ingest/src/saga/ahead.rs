//! Embeds the passages of a new document while they are being stored, so that neither waits for the other. Nothing is written
//! before its chunk is committed: what is here are vectors, and which chunk's they are is known by their place alone.

use std::{pin::pin, sync::Arc};

use futures::{StreamExt as _, stream};
use shared::{App, deadline::Deadline};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Instrument as _;

use super::Lease;
use crate::{
    chunk::{self, Chunk},
    collections::{self, Vectors},
    error::IngestError,
};

/// Calls of the embedder at a time: it need not wait for the next one when it has done one.
const CALLS_AT_ONCE: usize = 2;

/// Batches under way or waiting to be written, and no more: they are all in memory.
const BATCHES_MAX: usize = 6;

/// The vectors of some neighbouring chunks.
struct Batch {
    /// The first one's place.
    first: usize,
    vectors: Result<Vec<Vectors>, IngestError>,
}

/// The work that is ahead. Dropped, it ends.
pub(super) struct Ahead {
    batches: mpsc::Receiver<Batch>,
    _work: JoinSet<()>,
}

impl Ahead {
    /// Begins with the first chunk. `None` where the document may have had chunks before: most of them have their points then.
    pub(super) fn begin(app: &App, lease: Lease, chunks: &Arc<Vec<Chunk>>, deadline: Deadline) -> Option<Self> {
        if lease.revision != 1 {
            return None;
        }
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let (embedder, chunks) = (Arc::clone(&app.embedder), Arc::clone(chunks));
        let size = embedder.passages_at_once();
        let work = stream::iter((0..chunks.len()).step_by(size))
            // A call that is begun must be read, else it runs out of its time: so first the place for its answer.
            .then(move |first| {
                let sender = sender.clone();
                async move { (first, sender.reserve_owned().await) }
            })
            .map(move |(first, place)| {
                let (embedder, chunks) = (Arc::clone(&embedder), Arc::clone(&chunks));
                async move {
                    let batch = chunks.iter().skip(first).take(size);
                    let inputs = batch.map(|chunk| chunk::embedding_input(&chunk.heading_path, &chunk.text)).collect();
                    (place, Batch { first, vectors: collections::vectors(&embedder, inputs, deadline).await })
                }
            })
            .buffered(CALLS_AT_ONCE);
        let work = async move {
            let mut work = pin!(work);
            while let Some((Ok(place), batch)) = work.next().await {
                let failed = batch.vectors.is_err();
                place.send(batch);
                if failed {
                    return;
                }
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(work.in_current_span());
        Some(Self { batches, _work: tasks })
    }

    /// The vectors of the next `count` chunks, if they begin at `first`.
    ///
    /// # Errors
    /// The embedder's, once.
    pub(super) async fn next(&mut self, first: usize, count: usize) -> Result<Option<Vec<Vectors>>, IngestError> {
        let Some(batch) = self.batches.recv().await.filter(|batch| batch.first == first) else { return Ok(None) };
        Ok(Some(batch.vectors?).filter(|vectors| vectors.len() == count))
    }
}
