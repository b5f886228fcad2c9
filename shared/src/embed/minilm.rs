//! all-MiniLM-L6-v2 (384 dimensions, 256 tokens), int8, in this process.
//!
//! `shared/local/model/build` makes the two files that are read here. The runtime is rten: pure
//! Rust, no shared library, tens of milliseconds from file to first vector.
//!
//! **One text a run.** Activations are quantised with one scale for the whole batch, so a text's
//! vector would depend on its neighbours (cosines down to 0.99 were measured) and the same text
//! would have many vectors. Alone, it has one; passages of 128 tokens or more are no slower, there
//! is no padding to compute, and no attention mask to need.

use std::{
    fmt,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rten::{Model, ModelOptions, RunOptions, ThreadPool};
use rten_tensor::{AsView as _, NdTensor};
use tokio::{
    sync::Semaphore,
    task,
    time::{Instant, timeout_at},
};

use super::{EmbedError, Embedder, Source, Space, wordpiece::WordPiece};

const MODEL_FILE: &str = "model.onnx";
const VOCABULARY_FILE: &str = "vocab.txt";
const DIMENSION: usize = 384;
/// The model reads 256 tokens, `[CLS]` and `[SEP]` among them.
const TOKENS_MAX: usize = 254;

/// all-MiniLM-L6-v2, loaded from a folder when it is first needed.
#[derive(Clone)]
pub struct MiniLm {
    space: Space,
    folder: PathBuf,
    /// Runs at the same time, each on one thread.
    permits: Arc<Semaphore>,
    threads: usize,
    vocabulary: Arc<Lazy<WordPiece>>,
    network: Arc<Lazy<Network>>,
}

impl MiniLm {
    /// An embedder over the files in `folder`, which is not looked at yet. Runs on as many threads
    /// as the machine has.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self {
            space: Self::its_space(),
            folder: folder.into(),
            permits: Arc::new(Semaphore::new(threads.get())),
            threads: threads.get(),
            vocabulary: Arc::default(),
            network: Arc::default(),
        }
    }

    /// The space of its vectors.
    pub(super) fn its_space() -> Space {
        Space { model: "all-minilm-l6-v2-int8".to_owned(), dimension: DIMENSION }
    }

    /// The same with another number of threads.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZero<usize>) -> Self {
        self.permits = Arc::new(Semaphore::new(threads.get()));
        self.threads = threads.get();
        self
    }

    /// Loads the files now, so that the first text need not wait (a Lambda's init has a full CPU).
    ///
    /// # Errors
    /// [`EmbedError::Model`].
    pub async fn load(&self) -> Result<(), EmbedError> {
        let embedder = self.clone();
        off_thread(move || {
            embedder.vocabulary()?;
            embedder.network().map(|_| ())
        })
        .await
    }

    async fn embed(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        let turn = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.map_err(|error| EmbedError::Inference { source: error.into() })?;
            let embedder = self.clone();
            off_thread(move || {
                // The closure holds the permit: a caller that gives up does not stop the run.
                let _permit = permit;
                let ids = embedder.vocabulary()?.encode(&text, TOKENS_MAX);
                embedder.network()?.run(ids)
            })
            .await
        };
        timeout_at(deadline, turn).await.unwrap_or(Err(EmbedError::Timeout))
    }

    fn vocabulary(&self) -> Result<&WordPiece, EmbedError> {
        let path = self.folder.join(VOCABULARY_FILE);
        self.vocabulary.get_or_load(|| WordPiece::load(&path))
    }

    fn network(&self) -> Result<&Network, EmbedError> {
        let path = self.folder.join(MODEL_FILE);
        self.network.get_or_load(|| Network::load(&path, self.threads))
    }
}

#[async_trait]
impl Embedder for MiniLm {
    fn space(&self) -> &Space {
        &self.space
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        // As many in the queue as can run: a question that comes meanwhile waits for a passage,
        // not for all of them.
        stream::iter(texts).map(|text| self.embed(text, deadline)).buffered(self.threads).try_collect().await
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        self.embed(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        Ok(self.vocabulary()?.count(text))
    }

    fn tokens_max(&self) -> usize {
        TOKENS_MAX
    }
}

impl fmt::Debug for MiniLm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MiniLm").field("folder", &self.folder).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The graph, and one single-threaded pool for each run that may be under way.
struct Network {
    model: Model,
    pools: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Network {
    fn load(path: &Path, threads: usize) -> Result<Self, EmbedError> {
        let model = ModelOptions::with_all_ops()
            .prepack_weights(true)
            .load_file(path)
            .map_err(|error| EmbedError::Model { path: path.to_owned(), source: error.into() })?;
        Ok(Self { model, pools: Mutex::new(Vec::with_capacity(threads)) })
    }

    fn run(&self, ids: Vec<i32>) -> Result<Vec<f32>, EmbedError> {
        let pool = self.pools().pop();
        let pool = pool.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1)));
        let outcome = self.vector(ids, Arc::clone(&pool));
        self.pools().push(pool);
        outcome.map_err(|source| EmbedError::Inference { source })
    }

    fn vector(&self, ids: Vec<i32>, pool: Arc<ThreadPool>) -> Result<Vec<f32>, Source> {
        let ids = NdTensor::from_data([1, ids.len()], ids);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let vector: NdTensor<f32, 2> = self.model.run_one(ids.into(), Some(options))?.try_into()?;
        // A copy: the tensor may sit in a buffer that held an activation a thousand times its size.
        let vector = vector.to_vec();
        if vector.len() != DIMENSION {
            return Err(format!("{} components instead of {DIMENSION}", vector.len()).into());
        }
        Ok(vector)
    }

    fn pools(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ThreadPool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that is loaded once. Who comes while it is loading waits; a failure is not kept.
struct Lazy<T> {
    value: OnceLock<T>,
    loading: Mutex<()>,
}

impl<T> Lazy<T> {
    fn get_or_load<E>(&self, load: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = load()?;
        Ok(self.value.get_or_init(|| value))
    }
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), loading: Mutex::new(()) }
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbedError> + Send + 'static,
) -> Result<T, EmbedError> {
    task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(EmbedError::Inference { source: panic.into() }))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn sixteen_first_users_share_one_load() {
        let (lazy, loads) = (Lazy::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let value = lazy.get_or_load(|| {
                        thread::sleep(Duration::from_millis(20));
                        Ok::<_, ()>(loads.fetch_add(1, Ordering::Relaxed))
                    });
                    assert_eq!(value, Ok(&0));
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn a_failed_load_is_tried_again() {
        let lazy = Lazy::default();
        assert_eq!(lazy.get_or_load(|| Err("no file")), Err("no file"));
        assert_eq!(lazy.get_or_load(|| Ok::<_, ()>(7)), Ok(&7));
    }
}
