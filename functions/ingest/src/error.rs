//! What can go wrong in `ingest`, and the one place where it becomes a problem.

use std::time::Duration;

use shared::{
    db::{AsDbError, DbError},
    embed::EmbedError,
    problem::{Code, Problem},
    vectors::IndexError,
};

use crate::extract::{ExtractError, Format};

/// Why an ingestion, or another call on documents, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// PostgreSQL.
    #[error("PostgreSQL")]
    Db(#[from] DbError),
    /// Qdrant.
    #[error("Qdrant")]
    Index(#[from] IndexError),
    /// The embedder.
    #[error("the embedder")]
    Embed(#[from] EmbedError),
    /// The document can not be read.
    #[error("the document can not be read")]
    Extract(#[from] ExtractError),
    /// A parser panicked.
    #[error("a parser panicked")]
    Parser(#[source] tokio::task::JoinError),
    /// The answer could not be written.
    #[error("the answer could not be written")]
    Answer(#[source] Problem),
    /// There is no such knowledge base, or the caller is not a member.
    #[error("no such knowledge base")]
    NoKnowledgeBase,
    /// There is no such document, or the caller may not see it.
    #[error("no such document")]
    NoDocument,
    /// The caller may read the knowledge base, but not change it.
    #[error("the caller may not change the knowledge base")]
    ReadOnly,
    /// Another ingestion of the document holds its lease.
    #[error("the document is being ingested")]
    Busy {
        /// When the lease ends.
        retry_after: Duration,
    },
    /// Somebody else has taken the work over, or the document was deleted: nothing more was written.
    #[error("the lease is lost")]
    Fenced,
    /// The idempotency key came with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The idempotency key's request is running.
    #[error("the idempotency key's request is running")]
    KeyInFlight {
        /// When its lease ends.
        retry_after: Duration,
    },
    /// The document that the idempotency key had begun was deleted before it was complete.
    #[error("the document was deleted meanwhile")]
    DeletedMeanwhile,
}

impl AsDbError for IngestError {
    fn as_db_error(&self) -> Option<&DbError> {
        if let Self::Db(error) = self { Some(error) } else { None }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Db(error) => error.into(),
            IngestError::Index(error) => error.into(),
            IngestError::Embed(error) => error.into(),
            IngestError::Extract(error) => unreadable(&error),
            IngestError::Parser(error) => Self::internal(error),
            IngestError::Answer(problem) => problem,
            IngestError::NoKnowledgeBase => Self::not_found("knowledge base"),
            IngestError::NoDocument => Self::not_found("document"),
            IngestError::ReadOnly => Self::new(Code::Forbidden, "You may read this knowledge base, but not change it."),
            IngestError::Busy { retry_after } => {
                Self::new(Code::DocumentBusy, "Another ingestion of this document is running.").retry_after(retry_after)
            }
            IngestError::Fenced => Self::new(
                Code::Superseded,
                "The document was deleted, or its ingestion taken over, while this request worked on it.",
            ),
            IngestError::KeyReused => {
                Self::new(Code::IdempotencyKeyReused, "Use a new idempotency key for a new request.")
            }
            IngestError::KeyInFlight { retry_after } => {
                Self::new(Code::IdempotencyKeyInFlight, "The first request with this idempotency key is running.")
                    .retry_after(retry_after)
            }
            IngestError::DeletedMeanwhile => Self::new(
                Code::Superseded,
                "The document was deleted while it was ingested. Use a new idempotency key to ingest it again.",
            ),
        }
    }
}

/// A document that can not be read: which rule it breaks, and where.
fn unreadable(error: &ExtractError) -> Problem {
    let detail = format!("The document can not be read: {error}.");
    match *error {
        ExtractError::NotUtf8 { byte_offset } => {
            Problem::new(Code::InvalidUtf8, detail).with("byte_offset", byte_offset)
        }
        ExtractError::ControlCharacter { byte_offset, .. } => {
            Problem::new(Code::ControlCharacter, detail).with("byte_offset", byte_offset)
        }
        ExtractError::Empty => Problem::new(Code::EmptyDocument, detail),
        ExtractError::HtmlTooDeep { limit }
        | ExtractError::HtmlTooManyAttributes { limit }
        | ExtractError::HtmlTooManyElements { limit } => {
            Problem::new(Code::DocumentTooComplex, detail).with("limit", limit)
        }
    }
}

/// 415 with the list of what is read.
pub(crate) fn unsupported(media_type: Option<&str>) -> Problem {
    let supported: Vec<&str> = std::iter::once("application/json").chain(Format::ALL.map(Format::media_type)).collect();
    shared::http::unsupported_media_type(media_type, &supported)
}
