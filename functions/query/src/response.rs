//! The answer, as clients read it.

use serde::{Deserialize, Serialize};
use shared::domain::{ChunkId, ContentHash, DocumentId, KnowledgeBaseId};
use utoipa::ToSchema;

use crate::llm::Usage;

/// The body of the answer to `POST /query`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueryResponse {
    /// The passages that were found, best first: at most `k`, of active revisions in readable knowledge bases only.
    pub hits: Vec<Hit>,
    /// Where the next page begins: send the same request with this as `cursor`. Null when there are no more hits.
    pub next_cursor: Option<String>,
    /// The dependencies that this answer had to do without, by name. Empty: this is the best answer there is.
    pub degraded: Vec<&'static str>,
    /// The question that was searched with, when a conversation made another one of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten_query: Option<String>,
    /// The answer to the question, when `answer` was asked for; left out when the model failed (`degraded` names it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What the language model cost, when one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How the hits were found, when `debug` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<Debug>,
}

/// A passage that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hit {
    /// The passage's id. The same passage keeps it while its text stays, over all revisions.
    pub chunk_id: ChunkId,
    /// How well it fits, from 0 to 1, relative to the other candidates for this question: scores compare hits of one
    /// answer, not of two.
    pub score: f32,
    /// The reranker's score, by which the hits are ordered when there is one: a scale of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The passage itself: exactly the document's text in `byte_range`.
    pub text: String,
    /// The document that it stands in.
    pub document: HitDocument,
    /// Where it stands in the document's text.
    pub byte_range: ByteRange,
    /// The page on which it begins, counted from 1; `null` where the document has no pages.
    pub page: Option<i32>,
    /// The headings above it, outermost first, under the title that the document was given.
    pub heading_path: Vec<String>,
    /// What was asked for beside it.
    #[serde(flatten)]
    pub extras: Extras,
}

/// What a hit has when it was asked for.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Extras {
    /// With `context`: the chunks around it in the document, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<Neighbour>>,
    /// With `highlights`: where the question's words stand, as byte ranges in the hit's `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highlights: Option<Vec<ByteRange>>,
    /// With `debug`: where it stood in each leg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legs: Option<HitLegs>,
}

/// A chunk near a hit.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Neighbour {
    /// Its id.
    pub chunk_id: ChunkId,
    /// How far from the hit: -1 is the one before, 1 the one behind.
    pub distance: i32,
    /// Its text.
    pub text: String,
    /// Where it stands in the document's text.
    pub byte_range: ByteRange,
    /// The page on which it begins, if the document has pages.
    pub page: Option<i32>,
    /// The headings above it, outermost first.
    pub heading_path: Vec<String>,
}

/// Where a hit stood in each leg; null where it was not among the candidates.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct HitLegs {
    /// By meaning.
    pub dense: Option<PlaceInLeg>,
    /// By words; in a degraded answer, of full-text search.
    pub sparse: Option<PlaceInLeg>,
}

/// A place in a leg.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct PlaceInLeg {
    /// From 1.
    pub rank: usize,
    /// Cosine similarity in the dense leg, BM25 in the sparse one.
    pub score: f32,
}

/// The document that a hit stands in, as of its active revision.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HitDocument {
    /// The document's id.
    pub id: DocumentId,
    /// Its title, if it has one.
    pub title: Option<String>,
    /// Where it came from, as it was given at ingestion.
    pub source_uri: String,
    /// The knowledge base that it belongs to.
    pub knowledge_base: KnowledgeBaseId,
    /// The revision that the passage was taken from: the active one.
    pub revision: i32,
    /// SHA-256 of that revision's source as it was sent, in hexadecimal.
    pub content_hash: ContentHash,
}

/// A half-open range of bytes, in UTF-8. It counts in the document's text: in the source itself for plain text and
/// Markdown, in its reading as Markdown for other formats.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ToSchema)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// An answer to the question, every statement of it with its citation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Answer {
    /// How it was made.
    pub kind: AnswerKind,
    /// Whether the hits support an answer. If not, there are no statements.
    pub found: bool,
    /// What the answer says: in an extractive one the best supported first, in a generated one in its own order.
    pub statements: Vec<Statement>,
    /// What a model wrote and the passages do not bear out; it is not in `statements`. Left out when that is nothing.
    #[serde(skip_serializing_if = "Removed::is_nothing")]
    pub removed: Removed,
}

impl Answer {
    /// No answer.
    #[must_use]
    pub fn none(kind: AnswerKind) -> Self {
        Self { kind, found: false, statements: Vec::new(), removed: Removed::default() }
    }
}

/// What was removed from a model's answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
pub struct Removed {
    /// Citations of passages that it was not given.
    pub citations: usize,
    /// Statements that cite no passage, or one that has hardly a word in common with them.
    pub statements: usize,
}

impl Removed {
    /// Whether nothing was.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How an answer was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// Of sentences from the hits, word for word.
    Extractive,
    /// By a language model, in its own words; each statement was checked against the passages that it cites.
    Generated,
}

/// One statement of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Statement {
    /// What it says. In an extractive answer: exactly the document's text in the citation's `byte_range`.
    pub text: String,
    /// From 0 to 1. In an extractive answer: how well it fits the question, comparable between questions. In a generated one:
    /// the share of its words that stand in the passages that it cites.
    pub support: f32,
    /// Where that stands: at least one place.
    pub citations: Vec<Citation>,
}

/// Where a statement stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Citation {
    /// The passage, one of the hits.
    pub chunk_id: ChunkId,
    /// The document.
    pub document_id: DocumentId,
    /// Its revision.
    pub revision: i32,
    /// The statement's place in the document's text.
    pub byte_range: ByteRange,
    /// The page on which the passage begins, if the document has pages.
    pub page: Option<i32>,
    /// The headings above the passage, outermost first.
    pub heading_path: Vec<String>,
    /// SHA-256 of the revision's source as it was sent, in hexadecimal.
    pub content_hash: ContentHash,
}

impl Citation {
    /// The citation of `byte_range` in a hit's document.
    pub(crate) fn of(hit: &Hit, byte_range: ByteRange) -> Self {
        let Hit { chunk_id, document, page, heading_path, .. } = hit;
        Self {
            chunk_id: *chunk_id,
            document_id: document.id,
            revision: document.revision,
            byte_range,
            page: *page,
            heading_path: heading_path.clone(),
            content_hash: document.content_hash,
        }
    }
}

/// How the hits were found. For people: its members may change.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Debug {
    /// In which order the stores were asked: `unfiltered`, `documents_first` (the filter was resolved to documents, which
    /// Qdrant looked among) or `index_first` (what does not pass the filter was left out at the join).
    pub plan: &'static str,
    /// How many documents pass the filter, where it was resolved to documents.
    pub documents_passing: Option<usize>,
    /// How many candidates each leg returned, dead ones included.
    pub legs: Legs,
    /// Requests to Qdrant. More than one means that it held points that are not (or no longer) part of an active
    /// revision or do not pass the filter, or that a document changed at this very moment.
    pub rounds: u32,
    /// Joins with PostgreSQL.
    pub joins: u32,
    /// Candidates that were found dead, or that do not pass the filter, and left out.
    pub dead: usize,
    /// False when the index held more dead points than a query gets over: there may be better hits.
    pub complete: bool,
    /// Where the time went.
    pub timings_ms: Timings,
}

/// A number for each leg.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Legs {
    /// By meaning.
    pub dense: usize,
    /// By words.
    pub sparse: usize,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Timings {
    /// Finding the readable knowledge bases.
    pub authorise: f64,
    /// Making the question stand alone.
    pub rewrite: f64,
    /// Embedding the question.
    pub embed: f64,
    /// Qdrant, all rounds.
    pub search: f64,
    /// The join with PostgreSQL, all rounds.
    pub hydrate: f64,
    /// Ordering the best candidates anew.
    pub rerank: f64,
    /// Answering the question.
    pub answer: f64,
    /// All of it.
    pub total: f64,
}
