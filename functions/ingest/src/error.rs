//! What can go wrong in `ingest`, and the one place where it becomes a problem.

use std::time::Duration;

use shared::{
    db::{AsDbError, DbError},
    embed::{EmbedError, Space},
    objects::ObjectError,
    problem::{Code, Problem},
    vectors::IndexError,
};

use crate::extract::{ExtractError, Format, sandbox::SandboxError};

/// How long an audit that was taken over takes somebody else, more or less.
const AUDIT_RETRY: Duration = Duration::from_secs(5);

/// How long a deployment takes that brings the model which is missing, more or less.
const EMBEDDER_RETRY: Duration = Duration::from_secs(30);

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
    /// The bucket in which the document is.
    #[error("the bucket")]
    Object(#[from] ObjectError),
    /// The document can not be read.
    #[error("the document can not be read")]
    Extract(#[from] ExtractError),
    /// The process that reads documents could not be started, or not be talked to.
    #[error("the process that reads documents")]
    Reader(#[source] std::io::Error),
    /// The work panicked.
    #[error("the work panicked")]
    Panicked(#[source] tokio::task::JoinError),
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
    /// The latest revision can not be completed without the client, who alone has the text.
    #[error("the ingestion can not be resumed")]
    NotResumable {
        /// Why the revision failed, if that is known.
        failure: Option<String>,
    },
    /// The invocation's time was over before the text was stored.
    #[error("the time was over before the text was stored")]
    OutOfTime,
    /// The document was sent again, with another text, after the idempotency key's request had begun.
    #[error("a newer text was sent meanwhile")]
    Superseded,
    /// There is no such audit, or it has not ended: there is nothing to approve.
    #[error("there is no such audit, or it has not ended")]
    NoAudit,
    /// Another request audits the same knowledge base.
    #[error("an audit is running")]
    AuditRunning {
        /// When its lease ends.
        retry_after: Duration,
    },
    /// Somebody else has taken the audit over: nothing more was recorded.
    #[error("the audit was taken over")]
    AuditLost,
    /// A collection must be written of a space for which this function has no model.
    #[error("no embedder for {space:?}, whose collection must be written")]
    NoEmbedder {
        /// The collection's space.
        space: Space,
    },
    /// Another process builds the collection.
    #[error("another process builds the collection")]
    BuildRunning {
        /// When its lease ends.
        retry_after: Duration,
    },
    /// Somebody else has taken the build over, or it was cancelled: nothing more was recorded.
    #[error("the build was taken over, or cancelled")]
    BuildLost,
    /// What the operator asks for can not be done now.
    #[error("not possible: {0}")]
    NotPossible(&'static str),
    /// The document that the idempotency key had begun was deleted before it was complete.
    #[error("the document was deleted meanwhile")]
    DeletedMeanwhile,
}

impl IngestError {
    /// Whether the same work may succeed later without anyone changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Db(error) => error.retryable(),
            Self::Index(error) => error.retryable(),
            Self::Embed(error) => error.retryable(),
            Self::Object(error) => error.retryable(),
            Self::Answer(problem) => problem.code().retryable(),
            Self::Busy { .. }
            | Self::Fenced
            | Self::KeyInFlight { .. }
            | Self::OutOfTime
            | Self::AuditRunning { .. }
            | Self::AuditLost
            | Self::Reader(_)
            // Until somebody configures the model, or ends the reindex.
            | Self::NoEmbedder { .. }
            | Self::BuildRunning { .. }
            | Self::BuildLost => true,
            Self::Extract(_)
            | Self::Panicked(_)
            | Self::NoKnowledgeBase
            | Self::NoDocument
            | Self::ReadOnly
            | Self::KeyReused
            | Self::NotResumable { .. }
            | Self::Superseded
            | Self::NoAudit
            | Self::NotPossible(_)
            | Self::DeletedMeanwhile => false,
        }
    }
}

impl AsDbError for IngestError {
    fn as_db_error(&self) -> Option<&DbError> {
        if let Self::Db(error) = self { Some(error) } else { None }
    }
}

impl From<SandboxError> for IngestError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Document(error) => Self::Extract(error),
            SandboxError::OutOfTime => Self::OutOfTime,
            SandboxError::Process(error) => Self::Reader(error),
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Db(error) => error.into(),
            IngestError::Index(error) => error.into(),
            IngestError::Embed(error) => error.into(),
            IngestError::Object(error) => error.into(),
            IngestError::Extract(error) => unreadable(&error),
            IngestError::Reader(error) => Self::internal(error),
            IngestError::Panicked(error) => Self::internal(error),
            IngestError::Answer(problem) => problem,
            IngestError::NoKnowledgeBase => Self::not_found("knowledge base"),
            IngestError::NoDocument => Self::not_found("document"),
            IngestError::ReadOnly => Self::new(Code::Forbidden, "You may read this knowledge base, but not change it."),
            IngestError::Busy { retry_after } => {
                Self::new(Code::DocumentBusy, "Another ingestion of this document is running.").retry_after(retry_after)
            }
            IngestError::OutOfTime => {
                Self::new(Code::DeadlineExceeded, "The document could not be read within the request's time.")
                    .retry_after(Duration::from_secs(1))
            }
            IngestError::Superseded => Self::new(
                Code::Superseded,
                "A newer text of the document was sent after this request. Use a new idempotency key to send this one again.",
            ),
            IngestError::Fenced => Self::new(
                Code::LeaseLost,
                "The document was deleted, or its ingestion taken over, while this request worked on it.",
            ),
            IngestError::KeyReused => {
                Self::new(Code::IdempotencyKeyReused, "Use a new idempotency key for a new request.")
            }
            IngestError::KeyInFlight { retry_after } => {
                Self::new(Code::IdempotencyKeyInFlight, "The first request with this idempotency key is running.")
                    .retry_after(retry_after)
            }
            IngestError::NotResumable { failure } => Self::new(
                Code::NotResumable,
                failure.unwrap_or_else(|| {
                    "The text was not stored before the request broke off. Send the document again.".to_owned()
                }),
            ),
            IngestError::NoAudit => Self::not_found("audit"),
            IngestError::AuditRunning { retry_after } => {
                Self::new(Code::AuditRunning, "Another request audits this knowledge base.").retry_after(retry_after)
            }
            IngestError::AuditLost => {
                Self::new(Code::AuditRunning, "Another request has taken this audit over.").retry_after(AUDIT_RETRY)
            }
            // A deployment is under way: the other functions are next.
            IngestError::NoEmbedder { .. } => Self::unavailable("embedder", EMBEDDER_RETRY, error),
            // Only operators meet these, and not over HTTP.
            IngestError::BuildRunning { .. } | IngestError::BuildLost | IngestError::NotPossible(_) => {
                Self::internal(error)
            }
            IngestError::DeletedMeanwhile => Self::new(
                Code::Superseded,
                "The document was deleted while it was ingested. Use a new idempotency key to ingest it again.",
            ),
        }
    }
}

impl ExtractError {
    /// The stable code of the reason, for problems and for failed revisions.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotUtf8 { .. } => Code::InvalidUtf8,
            Self::ControlCharacter { .. } => Code::ControlCharacter,
            Self::Empty => Code::EmptyDocument,
            Self::NoText { .. } => Code::ScannedDocument,
            Self::PasswordProtected => Code::PasswordProtected,
            Self::Unsupported { .. } => Code::UnsupportedMediaType,
            Self::Malformed { .. } => Code::MalformedDocument,
            Self::TooComplex { .. }
            | Self::TooDeep
            | Self::HtmlTooDeep { .. }
            | Self::HtmlTooManyAttributes { .. }
            | Self::HtmlTooManyElements { .. } => Code::DocumentTooComplex,
            Self::InputTooLarge { .. } => Code::TooLarge,
            Self::TextTooLarge { .. } => Code::TextTooLarge,
            Self::TimedOut { .. } => Code::ExtractionTimedOut,
            Self::OutOfMemory { .. } => Code::ExtractionOutOfMemory,
            Self::Crashed => Code::ExtractionCrashed,
        }
    }
}

/// A document that can not be read: which rule it breaks, and where.
pub(crate) fn unreadable(error: &ExtractError) -> Problem {
    let problem = Problem::new(error.code(), format!("The document can not be read: {error}."));
    match *error {
        ExtractError::NotUtf8 { byte_offset } | ExtractError::ControlCharacter { byte_offset, .. } => {
            problem.with("byte_offset", byte_offset)
        }
        ExtractError::HtmlTooDeep { limit }
        | ExtractError::HtmlTooManyAttributes { limit }
        | ExtractError::HtmlTooManyElements { limit }
        | ExtractError::InputTooLarge { limit }
        | ExtractError::TextTooLarge { limit } => problem.with("limit", limit),
        ExtractError::TooComplex { limit, .. } | ExtractError::OutOfMemory { limit } => problem.with("limit", limit),
        ExtractError::TimedOut { limit_ms } => problem.with("limit_ms", limit_ms),
        ExtractError::NoText { pages } => problem.with("pages", pages),
        ExtractError::Unsupported { ref found, declared: None } => unsupported(Some(found)),
        ExtractError::Unsupported { .. } => problem.with("supported", Format::ALL.map(Format::media_type).to_vec()),
        ExtractError::Empty
        | ExtractError::PasswordProtected
        | ExtractError::Malformed { .. }
        | ExtractError::TooDeep
        | ExtractError::Crashed => problem,
    }
}

/// 415 with the list of what is read.
pub(crate) fn unsupported(media_type: Option<&str>) -> Problem {
    let supported = Format::ALL.map(Format::media_type);
    shared::http::unsupported_media_type(media_type, &supported)
}
