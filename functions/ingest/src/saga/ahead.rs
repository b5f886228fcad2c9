//! Embeds the passages of a new document while the rest of it is being cut and all of it is being stored, so that none waits for
//! the other. Nothing is written before its chunk is committed: what is here are vectors, and which chunk's they are is known by
//! their place alone.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use futures::{StreamExt as _, stream};
use shared::{
    App,
    deadline::Deadline,
    embed::{EmbedError, Embedder},
    sparse::SparseVector,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tracing::Instrument as _;

use super::Lease;
use crate::{collections::Vectors, error::IngestError};

/// What is embedded at a time, in batches: the embedder need not wait for the next one when it has done one.
const BATCHES_AT_ONCE: usize = 2;

/// Batches under way or waiting to be written, and no more: they are all in memory.
const BATCHES_MAX: usize = 6;

/// The work that is ahead. Dropped, it ends.
pub(super) struct Ahead {
    calls: mpsc::Receiver<Result<Vec<Dense>, EmbedError>>,
    /// What was received, from the passage `taken` on.
    waiting: VecDeque<Dense>,
    taken: usize,
    weights: mpsc::UnboundedReceiver<SparseVector>,
    _work: JoinSet<()>,
}

/// What was embedded, and its vector.
type Dense = (String, Vec<f32>);

/// The same, with both vectors.
pub(super) type Embedded = (String, Vectors);

/// Take what is to be embedded, and the terms' weights, each in the chunks' order. The weights may come later: nobody waits for
/// them before all is stored. Dropped, there is no more. When a call has failed nobody listens any more, and the error is
/// waiting to be read.
pub(super) type Inputs = (mpsc::UnboundedSender<String>, mpsc::UnboundedSender<SparseVector>);

impl Ahead {
    /// Begins. `None` where the document may have had chunks before: most of them have their points then.
    pub(super) fn begin(app: &App, lease: Lease, deadline: Deadline) -> Option<(Self, Inputs)> {
        if lease.revision != 1 {
            return None;
        }
        let embedder = Arc::clone(&app.embedder);
        let size = embedder.passages_in_call();
        let calls_in_batch = embedder.passages_at_once().div_ceil(size);
        let (sender, calls) = mpsc::channel(BATCHES_MAX * calls_in_batch);
        // As large as the text, which is in memory.
        let (inputs, cut) = mpsc::unbounded_channel();
        let (all_weights, weights) = mpsc::unbounded_channel();
        let cut = stream::unfold(cut, async |mut cut| Some((cut.recv().await?, cut)));
        let work = cut
            .chunks(size)
            // A call that is begun must be read, else it runs out of its time: so first the place for its answer.
            .then(move |inputs| {
                let sender = sender.clone();
                async move { (inputs, sender.reserve_owned().await) }
            })
            .map(move |(inputs, place)| {
                let embedder = Arc::clone(&embedder);
                async move { (place, embed(embedder.as_ref(), inputs, deadline).await) }
            })
            .buffered(BATCHES_AT_ONCE * calls_in_batch);
        let work = async move {
            let mut work = pin!(work);
            while let Some((Ok(place), embedded)) = work.next().await {
                let failed = embedded.is_err();
                place.send(embedded);
                if failed {
                    return;
                }
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(work.in_current_span());
        Some((Self { calls, waiting: VecDeque::new(), taken: 0, weights, _work: tasks }, (inputs, all_weights)))
    }

    /// What is there of the next `most` chunks, if they begin at `first`: waits for some, and not for all of them. What comes
    /// as long as its taker is not yet `idle` comes along.
    ///
    /// # Errors
    /// The embedder's, once.
    pub(super) async fn next(
        &mut self,
        first: usize,
        most: usize,
        idle: &Notify,
    ) -> Result<Option<Vec<Embedded>>, IngestError> {
        if first != self.taken {
            return Ok(None);
        }
        if self.waiting.is_empty() {
            let Some(embedded) = self.calls.recv().await else { return Ok(None) };
            self.waiting.extend(embedded?);
        }
        idle.notified().await;
        while self.waiting.len() < most
            && let Ok(embedded) = self.calls.try_recv()
        {
            self.waiting.extend(embedded?);
        }
        let count = most.min(self.waiting.len());
        self.taken += count;
        let mut embedded = Vec::with_capacity(count);
        for (input, dense) in self.waiting.drain(..count) {
            let Some(sparse) = self.weights.recv().await else { return Ok(None) };
            embedded.push((input, Vectors { dense, sparse }));
        }
        Ok(Some(embedded))
    }
}

async fn embed(embedder: &dyn Embedder, passages: Vec<String>, deadline: Deadline) -> Result<Vec<Dense>, EmbedError> {
    let vectors = embedder.embed_passages(passages.clone(), deadline.instant()).await?;
    Ok(passages.into_iter().zip(vectors).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_while_a_batch_is_written_comes_with_the_next() {
        let (sender, calls) = mpsc::channel(3);
        let (all_weights, weights) = mpsc::unbounded_channel();
        let mut ahead = Ahead { calls, waiting: VecDeque::new(), taken: 0, weights, _work: JoinSet::new() };
        for _ in 0..4 {
            all_weights.send(SparseVector::default()).unwrap();
        }
        let embedded = || (String::new(), Vec::new());
        let idle = Notify::new();
        sender.send(Ok(vec![embedded(), embedded()])).await.unwrap();
        let write = async {
            sender.send(Ok(vec![embedded(), embedded()])).await.unwrap();
            idle.notify_one();
        };
        let (next, ()) = tokio::join!(ahead.next(0, 3, &idle), write);
        assert_eq!(next.unwrap().unwrap().len(), 3);
        // What is left of it, at once.
        idle.notify_one();
        assert_eq!(ahead.next(3, 9, &idle).await.unwrap().unwrap().len(), 1);
    }
}
