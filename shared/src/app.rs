//! What a function's handlers share, for the life of a container.

use std::sync::Arc;

use crate::{
    config::{Config, ConfigError},
    db::Db,
    embed::{self, Embedder},
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
        let embedder = embed::from_config(&config.embedding)?;
        Ok(Self {
            db: Db::new(&config.database)?,
            index: Arc::new(QdrantIndex::new(&config.qdrant, embedder.space().clone())?),
            verifier: Verifier::new(&config.tokens)?,
            embedder,
            config: Arc::new(config),
        })
    }
}
