//! Text to vectors: in this process ([`MiniLm`]) or over HTTP ([`HttpEmbedder`]).
//!
//! Vectors of two models never meet: a model and its dimension make a [`Space`], and every space
//! has a Qdrant collection of its own.

mod absent;
mod http;
mod minilm;
mod wordpiece;

use std::{fmt::Debug, path::PathBuf, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::problem::Problem;

pub use absent::Absent;
pub use http::{HttpConfig, HttpEmbedder};
pub use minilm::MiniLm;

/// When a client may try again, if the endpoint does not say.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What an adapter puts under an [`EmbedError`].
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A model that turns text into vectors of one space.
#[async_trait]
pub trait Embedder: Send + Sync + Debug {
    /// The space that the vectors live in.
    fn space(&self) -> &Space;

    /// Embeds passages: one vector for each text, in order, each of the space's dimension and of
    /// length 1.
    ///
    /// # Errors
    /// Any [`EmbedError`]; [`EmbedError::Timeout`] once `deadline` has passed. All or nothing.
    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// Embeds a question; the vector is like a passage's.
    ///
    /// # Errors
    /// As [`Embedder::embed_passages`].
    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError>;

    /// Tokens that `text` costs in this model, without the special ones around it.
    ///
    /// # Errors
    /// [`EmbedError::Model`] when the vocabulary cannot be read.
    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError>;

    /// Most tokens of one passage that the model reads, without the special ones. What lies
    /// beyond does not reach the vector.
    fn tokens_max(&self) -> usize;

    /// Passages that one call of [`Embedder::embed_passages`] should have: as many as keep it busy. Two such calls
    /// are what is lost when an invocation is cut, so no more.
    fn passages_at_once(&self) -> usize {
        PASSAGES_AT_ONCE
    }

    /// The fewest of them that one call may have, of several at a time, for the same speed. At least one.
    fn passages_in_call(&self) -> usize {
        self.passages_at_once()
    }
}

/// About two seconds of inference on one core.
const PASSAGES_AT_ONCE: usize = 32;

/// A vector space: the model that made it and its dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Space {
    /// The model's name, quantisation included: whatever changes the vectors.
    pub model: String,
    /// Components of a vector.
    pub dimension: usize,
}

impl Space {
    /// The Qdrant collection's name, such as `all-minilm-l6-v2-int8_384`. Characters that a
    /// collection's name or a URL cannot carry (`BAAI/bge-m3`) become `-`.
    #[must_use]
    pub fn collection_name(&self) -> String {
        let model: String = self
            .model
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => c,
                _ => '-',
            })
            .collect();
        format!("{model}_{}", self.dimension)
    }
}

/// Why there are no vectors. No variant's text holds a secret or an embedded text.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The model's files are missing or damaged.
    #[error("the embedding model cannot be loaded from {}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: Source,
    },
    /// The endpoint's settings make no sense.
    #[error("the embedding endpoint is not configured")]
    Config {
        /// What is wrong with them.
        source: Source,
    },
    /// The model was loaded and then failed on an input.
    #[error("the embedding model failed")]
    Inference {
        /// What the runtime said.
        source: Source,
    },
    /// The caller's deadline passed.
    #[error("the embeddings were not ready in time")]
    Timeout,
    /// The endpoint could not be reached, broke off, or answered with a server's error.
    #[error("the embedding endpoint is unavailable")]
    Unavailable {
        /// The last attempt's fault.
        source: Source,
    },
    /// The endpoint wants fewer requests.
    #[error("the embedding endpoint throttles")]
    Throttled {
        /// How long it asked to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// The endpoint refused the request: a wrong key, an unknown model, an input it will not take.
    #[error("the embedding endpoint refused the request with status {status}: {detail}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The start of the answer's body, the key cut out.
        detail: String,
    },
    /// The endpoint answered, but not with the vectors that were asked for.
    #[error("the embedding endpoint's answer is unusable: {0}")]
    BadAnswer(String),
}

impl EmbedError {
    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable { .. } | Self::Throttled { .. } => true,
            Self::Model { .. }
            | Self::Config { .. }
            | Self::Inference { .. }
            | Self::Rejected { .. }
            | Self::BadAnswer(_) => false,
        }
    }
}

impl From<EmbedError> for Problem {
    fn from(error: EmbedError) -> Self {
        match &error {
            EmbedError::Throttled { retry_after } => {
                let pause = retry_after.unwrap_or(RETRY_AFTER);
                Self::unavailable("embedder", pause, error)
            }
            EmbedError::Timeout | EmbedError::Unavailable { .. } => Self::unavailable("embedder", RETRY_AFTER, error),
            EmbedError::Model { .. }
            | EmbedError::Config { .. }
            | EmbedError::Inference { .. }
            | EmbedError::Rejected { .. }
            | EmbedError::BadAnswer(_) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_named_by_model_and_dimension() {
        let space = |model: &str| Space { model: model.to_owned(), dimension: 1024 };
        assert_eq!(space("BAAI/bge-m3").collection_name(), "BAAI-bge-m3_1024");
        assert_eq!(space("../ä b?").collection_name(), "..---b-_1024");
    }
}
