//! The place of a model in a function that embeds nothing.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{EmbedError, Embedder, MiniLm, Space};
use crate::config::EmbeddingConfig;

/// Knows the space that the others' model fills, and has no model: none is linked into a function that has only this.
#[derive(Debug)]
pub struct Absent(Space);

impl Absent {
    /// In the place of the model of `config`.
    #[must_use]
    pub fn of(config: &EmbeddingConfig) -> Self {
        Self(match config {
            EmbeddingConfig::MiniLm { .. } => MiniLm::its_space(),
            EmbeddingConfig::Http { model, dimension, .. } => Space { model: model.clone(), dimension: *dimension },
        })
    }

    fn refusal() -> EmbedError {
        EmbedError::Config { source: "this function has no model".into() }
    }
}

#[async_trait]
impl Embedder for Absent {
    fn space(&self) -> &Space {
        &self.0
    }

    async fn embed_passages(&self, _: Vec<String>, _: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        Err(Self::refusal())
    }

    async fn embed_query(&self, _: String, _: Instant) -> Result<Vec<f32>, EmbedError> {
        Err(Self::refusal())
    }

    fn count_tokens(&self, _: &str) -> Result<usize, EmbedError> {
        Err(Self::refusal())
    }

    fn tokens_max(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_stands_for_the_model_s_space_and_embeds_nothing() {
        let config = EmbeddingConfig::MiniLm { dir: "model".into(), threads: std::num::NonZero::<usize>::MIN };
        let absent = Absent::of(&config);
        assert_eq!(absent.space(), MiniLm::new("model").space());
        let refused = absent.embed_query("text".to_owned(), Instant::now()).await.unwrap_err();
        assert!(matches!(refused, EmbedError::Config { .. }), "{refused}");
    }
}
