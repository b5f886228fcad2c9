//! What a function's handlers share, for the life of a container.

use std::sync::Arc;

use crate::{
    config::{Config, ConfigError, EmbeddingConfig},
    db::Db,
    deadline::Deadline,
    embed::{Embedder, HttpConfig, HttpEmbedder, MiniLm},
    retry::RetryBudget,
    tokens::Verifier,
    vectors::{VectorIndex, qdrant::QdrantIndex},
};

/// What a function's handlers share. Cheap to clone. Nothing in it connects or loads before it is first used, so
/// that a cold start pays only for what its request needs.
#[derive(Clone, Debug)]
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// PostgreSQL: accounts, document metadata, chunk text.
    pub db: Db,
    /// Qdrant: embeddings.
    pub index: Arc<dyn VectorIndex>,
    /// The retries that are left for Qdrant.
    pub index_retries: RetryBudget,
    /// Text to vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Checks access tokens.
    pub verifier: Verifier,
}

impl App {
    /// The app for `config`.
    ///
    /// # Errors
    /// When the configuration does not hold.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let embedder = embedder(&config.embedding)?;
        Ok(Self {
            db: Db::new(&config.database)?,
            index: Arc::new(QdrantIndex::new(&config.qdrant, embedder.space())?),
            index_retries: RetryBudget::new("qdrant"),
            verifier: Verifier::new(&config.tokens)?,
            embedder,
            config: Arc::new(config),
        })
    }

    /// The same app, for work that must end by `deadline`: its calls to PostgreSQL do. Calls to Qdrant and the embedder
    /// take a deadline each.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Self { db: self.db.until(deadline), ..self.clone() }
    }
}

fn embedder(config: &EmbeddingConfig) -> Result<Arc<dyn Embedder>, ConfigError> {
    Ok(match config {
        EmbeddingConfig::MiniLm { dir, threads } => Arc::new(MiniLm::new(dir).with_threads(*threads)),
        EmbeddingConfig::Http { base_url, model, dimension, api_key } => {
            let mut http = HttpConfig::new(base_url, model, *dimension);
            http.api_key.clone_from(api_key);
            Arc::new(HttpEmbedder::new(http).map_err(|error| ConfigError::invalid("EMBEDDING_URL", error))?)
        }
    })
}
