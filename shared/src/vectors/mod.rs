//! The vector index: a derived copy of what PostgreSQL decides.
//!
//! A point's id is its chunk's id; its payload is the two link keys `kb` and `doc`, and nothing else.

pub mod qdrant;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    problem::Problem,
    sparse::SparseVector,
};

/// A chunk's vectors and link keys.
#[derive(Clone, Debug)]
pub struct Point {
    /// The chunk's id, committed in PostgreSQL before the point is written.
    pub id: ChunkId,
    /// The knowledge base it belongs to.
    pub knowledge_base: KnowledgeBaseId,
    /// The document it belongs to.
    pub document: DocumentId,
    /// The embedding, as long as the space's dimension.
    pub dense: Vec<f32>,
    /// The BM25 term weights.
    pub sparse: SparseVector,
}

/// One search over both legs.
#[derive(Clone, Debug)]
pub struct Search {
    /// The question's embedding; `None` leaves the leg out.
    pub dense: Option<Vec<f32>>,
    /// The question's terms; `None` leaves the leg out.
    pub sparse: Option<SparseVector>,
    /// Only points of these knowledge bases. Empty: nothing is asked and nothing found.
    pub knowledge_bases: Vec<KnowledgeBaseId>,
    /// Only points of these documents, when set.
    pub documents: Option<Vec<DocumentId>>,
    /// Candidates of each leg.
    pub limit: usize,
    /// Leave out these points: seen before, and found to be dead.
    pub except: Vec<ChunkId>,
}

/// A point and its score: cosine similarity in the dense leg, BM25 in the sparse one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The point.
    pub id: ChunkId,
    /// Higher is better.
    pub score: f32,
}

/// The candidates of each leg, best first.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Of the dense leg.
    pub dense: Vec<Scored>,
    /// Of the sparse leg.
    pub sparse: Vec<Scored>,
}

/// Which points: those of everything, of one knowledge base, or of one document, by their payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// All points.
    Whole,
    /// Those of a knowledge base.
    KnowledgeBase(KnowledgeBaseId),
    /// Those of a document.
    Document(DocumentId),
}

/// A point without its vectors: its id and what its payload says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Linked {
    /// The point.
    pub id: ChunkId,
    /// `kb`; `None` when it is missing or no id.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// `doc`; `None` when it is missing or no id.
    pub document: Option<DocumentId>,
}

/// An index of points in one space. Every write waits until it is applied, and is safe to apply twice and late:
/// an error does not mean that it was not applied.
#[async_trait]
pub trait VectorIndex: Send + Sync + std::fmt::Debug {
    /// What it is called in Qdrant: the space's alias, or a collection's own name.
    fn name(&self) -> &str;

    /// The same space under another name: one collection of it, whatever the alias says.
    fn collection(&self, name: &str) -> Arc<dyn VectorIndex>;

    /// Creates the collection of this name, where it is missing. Not for an alias.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn ensure(&self, deadline: Deadline) -> Result<(), IndexError>;

    /// Drops the collection of this name, and the aliases that name it; that it is not there does not matter.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn drop_collection(&self, deadline: Deadline) -> Result<(), IndexError>;

    /// The collection that the alias of this name stands for, if there is such an alias.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn behind(&self, deadline: Deadline) -> Result<Option<String>, IndexError>;

    /// Makes the alias of this name stand for `collection` from now on, in one step.
    ///
    /// # Errors
    /// [`IndexError::Missing`] when there is no such collection; see [`IndexError`].
    async fn point_to(&self, collection: &str, deadline: Deadline) -> Result<(), IndexError>;

    /// Writes points, replacing those with the same ids.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn upsert(&self, points: &[Point], deadline: Deadline) -> Result<(), IndexError>;

    /// Removes points by id; those that are not there do not matter.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn delete(&self, ids: &[ChunkId], deadline: Deadline) -> Result<(), IndexError>;

    /// Counts exactly how many of these points are there.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn count(&self, ids: &[ChunkId], deadline: Deadline) -> Result<usize, IndexError>;

    /// Which of these points are there, in any order.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn present(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<ChunkId>, IndexError>;

    /// Those of these points that are there, with their link keys, in any order.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn linked(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<Linked>, IndexError>;

    /// The first `limit` points of `part`, from the id `from` on (inclusive), in the order of their ids, which is
    /// PostgreSQL's order of UUIDs. Fewer than `limit`: there are no more. No collection, no points.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn scroll(
        &self,
        part: Part,
        from: ChunkId,
        limit: u32,
        deadline: Deadline,
    ) -> Result<Vec<Linked>, IndexError>;

    /// Counts the points of `part` exactly. No collection, no points.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn count_part(&self, part: Part, deadline: Deadline) -> Result<u64, IndexError>;

    /// Finds the best candidates of both legs, in one request.
    ///
    /// # Errors
    /// See [`IndexError`].
    async fn search(&self, search: Search, deadline: Deadline) -> Result<Candidates, IndexError>;
}

/// What went wrong at the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It can not be reached, or failed.
    #[error("Qdrant can not be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer in time.
    #[error("Qdrant did not answer in time")]
    Timeout,
    /// It asks for patience.
    #[error("Qdrant asks for patience")]
    Throttled {
        /// How long it asks to wait.
        retry_after: Duration,
    },
    /// The collection is not there: nothing was ever written, or the index is lost and must be made again.
    #[error("Qdrant has no such collection")]
    Missing,
    /// It refuses the request: a defect of ours, or of its configuration.
    #[error("Qdrant refused the request")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not hold what was written, though it said that it does.
    #[error("Qdrant holds {found} of {expected} points")]
    Incomplete {
        /// The points that must be there.
        expected: usize,
        /// The points that are.
        found: usize,
    },
}

impl IndexError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Timeout | Self::Throttled { .. } | Self::Missing | Self::Incomplete { .. } => {
                true
            }
            Self::Refused(_) => false,
        }
    }
}

impl IndexError {
    /// How often the request may have been sent before this error came back: `qdrant-client` makes point calls once more
    /// by itself when the server answers Internal, Unavailable, Cancelled or Unknown (`ChannelPool::with_channel`).
    #[must_use]
    pub fn sends(&self) -> u32 {
        match self {
            Self::Unavailable(_) | Self::Timeout => 2,
            Self::Throttled { .. } | Self::Missing | Self::Refused(_) | Self::Incomplete { .. } => 1,
        }
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        match &error {
            IndexError::Throttled { retry_after } => Self::unavailable("qdrant", *retry_after, error),
            IndexError::Unavailable(_) | IndexError::Timeout | IndexError::Missing | IndexError::Incomplete { .. } => {
                Self::unavailable("qdrant", Duration::from_secs(2), error)
            }
            IndexError::Refused(_) => Self::internal(error),
        }
    }
}
