//! Embedders for tests.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use shared::embed::{EmbedError, Embedder, Space};
use tokio::time::Instant;

/// How many texts were embedded: passages and questions.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    passages: Arc<AtomicUsize>,
    queries: Arc<AtomicUsize>,
}

impl Embedded {
    /// Passages that were asked for.
    #[must_use]
    pub fn passages(&self) -> usize {
        self.passages.load(Ordering::Relaxed)
    }

    /// Questions that were asked for.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

/// Counts what another embedder is asked for.
#[derive(Debug)]
pub struct CountingEmbedder {
    inner: Arc<dyn Embedder>,
    embedded: Embedded,
}

impl CountingEmbedder {
    /// Counts what `inner` is asked for in `embedded`.
    #[must_use]
    pub fn new(inner: Arc<dyn Embedder>, embedded: Embedded) -> Self {
        Self { inner, embedded }
    }
}

#[async_trait]
impl Embedder for CountingEmbedder {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedded.passages.fetch_add(texts.len(), Ordering::Relaxed);
        self.inner.embed_passages(texts, deadline).await
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        self.embedded.queries.fetch_add(1, Ordering::Relaxed);
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }

    fn passages_at_once(&self) -> usize {
        self.inner.passages_at_once()
    }

    fn passages_in_call(&self) -> usize {
        self.inner.passages_in_call()
    }
}

/// A quick embedder without a model: texts that share words are near each other, and nothing else is. For tests in
/// which meaning plays no part.
#[derive(Debug)]
pub struct HashEmbedder {
    space: Space,
}

/// Enough that two words seldom meet.
const DIMENSION: usize = 256;

impl Default for HashEmbedder {
    fn default() -> Self {
        Self { space: Space { model: "hash".to_owned(), dimension: DIMENSION } }
    }
}

impl HashEmbedder {
    /// Another space than the default one.
    #[must_use]
    pub fn of(model: &str, dimension: usize) -> Self {
        Self { space: Space { model: model.to_owned(), dimension } }
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.0_f32; self.space.dimension];
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let mut hasher = DefaultHasher::new();
            word.to_lowercase().hash(&mut hasher);
            let place = usize::try_from(hasher.finish() % self.space.dimension as u64).unwrap_or_default();
            if let Some(component) = vector.get_mut(place) {
                *component += 1.0;
            }
        }
        let length = vector.iter().map(|component| component * component).sum::<f32>().sqrt();
        if length == 0.0 {
            // A text without a word: any direction is as good, none is not a vector.
            vector.first_mut().expect("the dimension is not 0").add_assign(1.0);
            return vector;
        }
        vector.iter().map(|component| component / length).collect()
    }
}

#[async_trait]
impl Embedder for HashEmbedder {
    fn space(&self) -> &Space {
        &self.space
    }

    async fn embed_passages(&self, texts: Vec<String>, _: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.embed(text)).collect())
    }

    async fn embed_query(&self, text: String, _: Instant) -> Result<Vec<f32>, EmbedError> {
        Ok(self.embed(&text))
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        Ok(text.split_whitespace().count())
    }

    fn tokens_max(&self) -> usize {
        256
    }
}
