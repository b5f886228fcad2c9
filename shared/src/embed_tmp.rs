//! tmp
#![allow(missing_docs)]
use std::sync::Arc;
#[derive(Clone, Debug)]
pub struct Space {
    pub model: String,
    pub dimension: usize,
}
impl Space {
    pub fn collection_name(&self) -> String {
        format!("{}-{}", self.model, self.dimension)
    }
}
#[async_trait::async_trait]
pub trait Embedder: Send + Sync + std::fmt::Debug {
    fn space(&self) -> &Space;
    async fn embed_passages(
        &self,
        texts: Vec<String>,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Vec<f32>>, EmbedError>;
    async fn embed_query(&self, text: String, deadline: tokio::time::Instant) -> Result<Vec<f32>, EmbedError>;
    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError>;
    fn tokens_max(&self) -> usize;
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct EmbedError;
impl EmbedError {
    pub fn retryable(&self) -> bool {
        true
    }
}
impl From<EmbedError> for crate::problem::Problem {
    fn from(e: EmbedError) -> Self {
        Self::internal(e)
    }
}
pub fn from_config(_: &crate::config::EmbeddingConfig) -> Result<Arc<dyn Embedder>, crate::config::ConfigError> {
    Err(crate::config::ConfigError::Missing("x"))
}
