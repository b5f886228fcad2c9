//! What a function's handlers share, for the life of a container.

use std::sync::Arc;

use crate::{
    config::{Config, ConfigError, EmbeddingConfig},
    db::Db,
    deadline::Deadline,
    embed::{Absent, Embedder, HttpConfig, HttpEmbedder, MiniLm, Space},
    objects::{ObjectStore, s3::S3},
    retry::RetryBudget,
    tokens::Verifier,
    vectors::{VectorIndex, qdrant::QdrantIndex},
};

/// What a function's handlers share. Cheap to clone. Nothing in it connects or loads before it is first used, so
/// that a cold start pays only for what its request needs; but to PostgreSQL, which next to all requests need, it begins to
/// connect when it is made ([`Db::connect_early`]), on tokio's runtime.
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
    /// The other model, while one takes the other's place: its space is written too, and never searched.
    pub next: Option<Model>,
    /// Buckets: documents that arrive as objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Checks access tokens.
    pub verifier: Verifier,
}

/// A model, and the index of its space.
#[derive(Clone, Debug)]
pub struct Model {
    /// Text to vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Its space's alias.
    pub index: Arc<dyn VectorIndex>,
}

impl App {
    /// The app for `config`.
    ///
    /// # Errors
    /// When the configuration does not hold.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let embedder = embedder(&config.embedding)?;
        let next = config.embedding_next.as_ref().map(|next| Model::new(next, &config)).transpose()?;
        Self::with(config, embedder, next)
    }

    /// The same for a function that embeds nothing: what a model needs is not linked into it.
    ///
    /// # Errors
    /// When the configuration does not hold.
    pub fn without_model(config: Config) -> Result<Self, ConfigError> {
        let absent = Arc::new(Absent::of(&config.embedding));
        Self::with(config, absent, None)
    }

    fn with(config: Config, embedder: Arc<dyn Embedder>, next: Option<Model>) -> Result<Self, ConfigError> {
        let db = Db::new(&config.database)?;
        db.connect_early();
        Ok(Self {
            db,
            index: Arc::new(QdrantIndex::new(&config.qdrant, embedder.space())?),
            index_retries: RetryBudget::new("qdrant"),
            objects: Arc::new(S3::new(&config.objects)),
            verifier: Verifier::new(&config.tokens)?,
            embedder,
            next,
            config: Arc::new(config),
        })
    }

    /// The model that queries use, and the space that they search.
    #[must_use]
    pub fn model(&self) -> Model {
        Model { embedder: Arc::clone(&self.embedder), index: Arc::clone(&self.index) }
    }

    /// The model that fills `space`, if this function has it.
    #[must_use]
    pub fn model_of(&self, space: &Space) -> Option<Model> {
        let next = self.next.clone().filter(|next| next.embedder.space() == space);
        (self.embedder.space() == space).then(|| self.model()).or(next)
    }

    /// The same app, for work that must end by `deadline`: its calls to PostgreSQL do. Calls to Qdrant and the embedder
    /// take a deadline each.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Self { db: self.db.until(deadline), ..self.clone() }
    }
}

impl Model {
    fn new(embedding: &EmbeddingConfig, config: &Config) -> Result<Self, ConfigError> {
        let embedder = embedder(embedding)?;
        Ok(Self { index: Arc::new(QdrantIndex::new(&config.qdrant, embedder.space())?), embedder })
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
