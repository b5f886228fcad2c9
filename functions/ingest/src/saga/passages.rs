//! Step 2: read the document and cut it, on threads of their own. What is cut can be taken while the rest is being cut.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use shared::{
    App,
    deadline::Deadline,
    embed::Embedder,
    sparse::{self, SparseVector, Terms, TsVector},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout_at};

use super::ahead::Inputs;
use crate::{
    chunk::{self, Chunk, Limits},
    error::IngestError,
    extract::{self, ExtractError, Extracted, Job, sandbox::Sandbox},
    request::Source,
};

/// Tokens of a chunk with its heading path, also for models that read more: a passage that is about one thing is found
/// better, and cited more exactly, than one about many.
const CHUNK_TOKENS_MAX: usize = 512;

/// Bytes of a text that is cut in a second or two, also by a part of a processor. A transaction can wait for that.
const SOON_CUT: usize = 8 * 1024 * 1024;

/// How large a chunk may be for this embedder.
pub(super) fn limits(embedder: &dyn Embedder) -> Limits {
    Limits { chunk_tokens_max: embedder.tokens_max().min(CHUNK_TOKENS_MAX), ..Limits::default() }
}

/// A chunk, and what is stored beside it and follows from its text.
pub(super) struct Passage {
    pub(super) chunk: Chunk,
    /// SHA-256 of what is embedded.
    pub(super) hash: [u8; 32],
    pub(super) words: TsVector,
}

impl Passage {
    /// Of each chunk, and the weights of its terms. Not for the async threads.
    pub(super) fn each(chunks: impl IntoIterator<Item = Chunk>) -> impl Iterator<Item = (Passage, SparseVector)> {
        let mut words = sparse::Passages::default();
        chunks.into_iter().map(move |chunk| {
            let input = chunk::embedding_input(&chunk.heading_path, &chunk.text);
            let above = input.strip_suffix(&chunk.text).unwrap_or_default();
            let Terms { weights, lexemes } = words.terms(above, &chunk.text);
            (Self { hash: Sha256::digest(&input).into(), words: lexemes, chunk }, weights)
        })
    }
}

/// A document that is to be read, or is being read.
#[derive(Debug)]
pub struct Opened {
    source: Arc<Source>,
    reading: Option<JoinHandle<Result<Extracted, ExtractError>>>,
}

impl Opened {
    /// To be read when it is time for that.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Self {
        Self { source, reading: None }
    }

    /// Read at once, if that is quickly done, by who does not know yet whether it must be. Then it waits for nothing.
    #[must_use]
    pub fn early(app: &App, source: Arc<Source>) -> Self {
        let reading = (!source.format.is_contained()).then(|| read_here(&source, job(app, &source)));
        Self { source, reading }
    }

    async fn read(self, app: &App, deadline: Deadline) -> Result<(Arc<Source>, Extracted), IngestError> {
        let Self { source, reading } = self;
        let job = job(app, &source);
        let extracted = if source.format.is_contained() {
            Sandbox::new(app.config.extraction.clone()).extract(source.bytes.clone(), job, deadline).await?
        } else {
            let reading = reading.unwrap_or_else(|| read_here(&source, job));
            let read = timeout_at(deadline.instant(), reading).await.map_err(|_| IngestError::OutOfTime)?;
            read.map_err(IngestError::Panicked)??
        };
        Ok((source, extracted))
    }
}

fn job(app: &App, source: &Source) -> Job {
    let config = &app.config.extraction;
    let limits = extract::Limits { text_bytes_max: config.text_bytes_max, pages_max: config.pages_max };
    Job { limits, charset: source.charset.clone(), ..Job::new(source.format) }
}

fn read_here(source: &Source, job: Job) -> JoinHandle<Result<Extracted, ExtractError>> {
    let bytes = source.bytes.clone();
    tokio::task::spawn_blocking(move || extract::extract_as(&bytes, &job))
}

/// A document's passages, in their order, while it is being cut.
pub(super) struct Passages {
    /// What has come so far.
    cut: Vec<Passage>,
    coming: mpsc::UnboundedReceiver<Passage>,
    /// The title that is found, or why there will be no more; until it has been asked.
    reading: Option<JoinHandle<Result<Option<String>, IngestError>>>,
    title: Option<String>,
    /// Whether a transaction can wait for them.
    pub(super) come_soon: bool,
    deadline: Deadline,
}

impl Passages {
    /// Reads, begins to cut, and waits for the first passage: by then it is known whether the document can be read. Who is
    /// `ahead` hears of each.
    pub(super) async fn begin(
        app: &App,
        opened: Opened,
        ahead: Option<Inputs>,
        deadline: Deadline,
    ) -> Result<Self, IngestError> {
        let (source, extracted) = opened.read(app, deadline).await?;
        let embedder = app.embedder.clone();
        let come_soon = extracted.text.len() <= SOON_CUT;
        let (cut_chunks, chunks) = std::sync::mpsc::channel();
        let (inputs, all_weights) = ahead.unzip();
        let cut = move || {
            let limits = self::limits(embedder.as_ref());
            let count = |text: &str| embedder.count_tokens(text);
            let title = source.title.as_ref().map(shared::domain::Title::as_str);
            let each = |limits, give: &mut dyn FnMut(Chunk)| chunk::each_chunk(&extracted, limits, &count, give);
            // A receiver is gone only when nobody waits for what comes any more.
            let mut give = |chunk: Chunk| {
                if let Some(inputs) = &inputs {
                    // Made once more beside the hash, which costs what a copy would.
                    drop(inputs.send(chunk::embedding_input(&chunk.heading_path, &chunk.text)));
                }
                drop(cut_chunks.send(chunk));
            };
            chunk::under_title(title, limits, &count, each, &mut give)?;
            Ok::<_, IngestError>(extracted.title)
        };
        let (finished, coming) = mpsc::unbounded_channel();
        // Beside the cutting, which takes about as long.
        let finish = move || {
            for (passage, weights) in Passage::each(chunks) {
                if let Some(all_weights) = &all_weights {
                    drop(all_weights.send(weights));
                }
                if finished.send(passage).is_err() {
                    break;
                }
            }
        };
        let reading = tokio::spawn(async move {
            let both = tokio::join!(tokio::task::spawn_blocking(cut), tokio::task::spawn_blocking(finish));
            let title = both.0.map_err(IngestError::Panicked)??;
            both.1.map_err(IngestError::Panicked)?;
            Ok(title)
        });
        let mut passages = Self { cut: Vec::new(), coming, reading: Some(reading), title: None, come_soon, deadline };
        passages.next(0, 1).await?;
        Ok(passages)
    }

    /// At most `count` passages behind the first `taken`, as soon as they are cut; none when there are no more.
    pub(super) async fn next(&mut self, taken: usize, count: usize) -> Result<&[Passage], IngestError> {
        let wanted = taken.saturating_add(count);
        while let Some(missing) = wanted.checked_sub(self.cut.len()).filter(|missing| *missing > 0) {
            let received = timeout_at(self.deadline.instant(), self.coming.recv_many(&mut self.cut, missing));
            if received.await.map_err(|_| IngestError::OutOfTime)? == 0 {
                if let Some(reading) = self.reading.take() {
                    self.title = reading.await.map_err(IngestError::Panicked)??;
                }
                break;
            }
        }
        let end = wanted.min(self.cut.len());
        Ok(self.cut.get(taken..end).unwrap_or_default())
    }

    /// Waits until all are cut.
    pub(super) async fn all(&mut self) -> Result<(), IngestError> {
        self.next(0, usize::MAX).await.map(drop)
    }

    /// The title that the document gives itself. Known when all are cut.
    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }
}
