//! The one place where an error becomes a response: `application/problem+json`, RFC 9457.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, as clients tell it apart: stable, `snake_case`, listed in the API's contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// The request can not be understood.
    InvalidRequest,
    /// A field, a parameter or a filter key that does not exist.
    UnknownField,
    /// A value outside what its field takes.
    InvalidField,
    /// The text is not UTF-8.
    InvalidUtf8,
    /// A character that text does not have: NUL and other control characters.
    ControlCharacter,
    /// A document without any text.
    EmptyDocument,
    /// A document whose structure passes a limit (nesting, attributes).
    DocumentTooComplex,
    /// A document with pages and no text on them: pictures of a text.
    ScannedDocument,
    /// A document that is encrypted.
    PasswordProtected,
    /// A document that is damaged, or not what it was said to be.
    MalformedDocument,
    /// A document with more text than is kept.
    TextTooLarge,
    /// A document that takes too long to read.
    ExtractionTimedOut,
    /// A document that takes too much memory to read.
    ExtractionOutOfMemory,
    /// A document over which its parser breaks down.
    ExtractionCrashed,
    /// No token or key, or one that does not hold.
    Unauthenticated,
    /// E-mail or password is wrong.
    InvalidCredentials,
    /// The caller may see the thing, but not do this with it.
    Forbidden,
    /// The API key lacks the scope, or the route takes no API keys.
    InsufficientScope,
    /// It does not exist, or it is somebody else's.
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// The e-mail address has an account.
    EmailTaken,
    /// The account's e-mail address is not confirmed yet.
    EmailUnverified,
    /// The same idempotency key came with another request.
    IdempotencyKeyReused,
    /// A request with the same idempotency key is still running.
    IdempotencyKeyInFlight,
    /// Another ingestion of the same document is still running.
    DocumentBusy,
    /// An audit of the same knowledge base is still running.
    AuditRunning,
    /// An ingestion that can not be gone on with: only the client has the text.
    NotResumable,
    /// A personal knowledge base goes only with its account.
    PersonalKnowledgeBase,
    /// There are as many of these as there may be.
    LimitReached,
    /// Nobody would be left who owns the knowledge base.
    LastOwner,
    /// The document changed or went away after this request: it is not done, and never will be.
    Superseded,
    /// Somebody else took over this request's work, or the document went away meanwhile.
    LeaseLost,
    /// The body passes the limit.
    TooLarge,
    /// The media type is not one of those that are read.
    UnsupportedMediaType,
    /// Too many requests.
    RateLimited,
    /// A dependency is down, slow or refuses work; the member `dependency` names it.
    DependencyUnavailable,
    /// The work did not end within the invocation's time.
    DeadlineExceeded,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// All of them, in their order.
    pub const ALL: [Self; 38] = [
        Self::InvalidRequest,
        Self::UnknownField,
        Self::InvalidField,
        Self::InvalidUtf8,
        Self::ControlCharacter,
        Self::EmptyDocument,
        Self::DocumentTooComplex,
        Self::ScannedDocument,
        Self::PasswordProtected,
        Self::MalformedDocument,
        Self::TextTooLarge,
        Self::ExtractionTimedOut,
        Self::ExtractionOutOfMemory,
        Self::ExtractionCrashed,
        Self::Unauthenticated,
        Self::InvalidCredentials,
        Self::Forbidden,
        Self::InsufficientScope,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::EmailTaken,
        Self::EmailUnverified,
        Self::IdempotencyKeyReused,
        Self::IdempotencyKeyInFlight,
        Self::DocumentBusy,
        Self::AuditRunning,
        Self::NotResumable,
        Self::PersonalKnowledgeBase,
        Self::LimitReached,
        Self::LastOwner,
        Self::Superseded,
        Self::LeaseLost,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::DependencyUnavailable,
        Self::DeadlineExceeded,
        Self::Internal,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// A short title, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::IdempotencyKeyInFlight
            | Self::DocumentBusy
            | Self::LeaseLost
            | Self::AuditRunning
            | Self::RateLimited
            | Self::DependencyUnavailable
            | Self::DeadlineExceeded => true,
            Self::InvalidRequest
            | Self::UnknownField
            | Self::InvalidField
            | Self::InvalidUtf8
            | Self::ControlCharacter
            | Self::EmptyDocument
            | Self::DocumentTooComplex
            | Self::ScannedDocument
            | Self::PasswordProtected
            | Self::MalformedDocument
            | Self::TextTooLarge
            | Self::ExtractionTimedOut
            | Self::ExtractionOutOfMemory
            | Self::ExtractionCrashed
            | Self::Unauthenticated
            | Self::InvalidCredentials
            | Self::Forbidden
            | Self::InsufficientScope
            | Self::LastOwner
            | Self::LimitReached
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::EmailTaken
            | Self::EmailUnverified
            | Self::IdempotencyKeyReused
            | Self::Superseded
            | Self::NotResumable
            | Self::PersonalKnowledgeBase
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::Internal => false,
        }
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST, "The request can not be understood"),
            Self::UnknownField => ("unknown_field", StatusCode::BAD_REQUEST, "There is no such field"),
            Self::InvalidField => {
                ("invalid_field", StatusCode::BAD_REQUEST, "A field has a value that it does not take")
            }
            Self::InvalidUtf8 => ("invalid_utf8", StatusCode::BAD_REQUEST, "The text is not UTF-8"),
            Self::ControlCharacter => {
                ("control_character", StatusCode::BAD_REQUEST, "The text contains a control character")
            }
            Self::EmptyDocument => ("empty_document", StatusCode::UNPROCESSABLE_ENTITY, "The document has no text"),
            Self::DocumentTooComplex => {
                ("document_too_complex", StatusCode::UNPROCESSABLE_ENTITY, "The document is too complex")
            }
            Self::ScannedDocument => {
                ("scanned_document", StatusCode::UNPROCESSABLE_ENTITY, "The document's pages have no text")
            }
            Self::PasswordProtected => {
                ("password_protected", StatusCode::UNPROCESSABLE_ENTITY, "The document is protected by a password")
            }
            Self::MalformedDocument => {
                ("malformed_document", StatusCode::UNPROCESSABLE_ENTITY, "The document is damaged")
            }
            Self::TextTooLarge => {
                ("text_too_large", StatusCode::UNPROCESSABLE_ENTITY, "The document has too much text")
            }
            Self::ExtractionTimedOut => {
                ("extraction_timed_out", StatusCode::UNPROCESSABLE_ENTITY, "The document takes too long to read")
            }
            Self::ExtractionOutOfMemory => (
                "extraction_out_of_memory",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The document takes too much memory to read",
            ),
            Self::ExtractionCrashed => {
                ("extraction_crashed", StatusCode::UNPROCESSABLE_ENTITY, "The document breaks its parser")
            }
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "Authentication is required"),
            Self::InvalidCredentials => {
                ("invalid_credentials", StatusCode::UNAUTHORIZED, "E-mail or password is wrong")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "This is not allowed to you"),
            Self::InsufficientScope => {
                ("insufficient_scope", StatusCode::FORBIDDEN, "The API key does not reach this far")
            }
            Self::LimitReached => ("limit_reached", StatusCode::CONFLICT, "There are as many as there may be"),
            Self::LastOwner => ("last_owner", StatusCode::CONFLICT, "The knowledge base would have no owner"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "The route does not take this method")
            }
            Self::EmailUnverified => {
                ("email_unverified", StatusCode::FORBIDDEN, "The e-mail address is not confirmed yet")
            }
            Self::EmailTaken => ("email_taken", StatusCode::CONFLICT, "The e-mail address has an account"),
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key was used with another request",
            ),
            Self::IdempotencyKeyInFlight => {
                ("idempotency_key_in_flight", StatusCode::CONFLICT, "A request with this idempotency key is running")
            }
            Self::DocumentBusy => ("document_busy", StatusCode::CONFLICT, "The document is being ingested"),
            Self::NotResumable => ("not_resumable", StatusCode::CONFLICT, "The document must be sent again"),
            Self::PersonalKnowledgeBase => {
                ("personal_knowledge_base", StatusCode::CONFLICT, "The knowledge base goes only with its account")
            }
            Self::Superseded => ("superseded", StatusCode::CONFLICT, "The document changed meanwhile"),
            Self::AuditRunning => ("audit_running", StatusCode::CONFLICT, "An audit of the same is running"),
            Self::LeaseLost => ("lease_lost", StatusCode::CONFLICT, "Another request has taken over"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The media type is not supported")
            }
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::DependencyUnavailable => {
                ("dependency_unavailable", StatusCode::SERVICE_UNAVAILABLE, "A service that is needed is not available")
            }
            Self::DeadlineExceeded => {
                ("deadline_exceeded", StatusCode::SERVICE_UNAVAILABLE, "The request took too long")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something is wrong on our side"),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An error on its way to the client. What stands in `detail` and the members is public; the source is
/// logged and never leaves.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    members: Map<String, Value>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem with a sentence that helps this client with this request.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), members: Map::new(), retry_after: None, source: None }
    }

    /// The thing does not exist, or is somebody else's: the two are never told apart.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}, or you may not see it."))
    }

    /// `field` has a value that it does not take; `reason` reads as the end of "`field` ...".
    pub fn invalid_field(field: &str, reason: impl fmt::Display) -> Self {
        Self::new(Code::InvalidField, format!("`{field}` {reason}.")).with("field", field)
    }

    /// `dependency` can not do its part; the same request may succeed after `retry_after`.
    pub fn unavailable(
        dependency: &'static str,
        retry_after: Duration,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(Code::DependencyUnavailable, format!("{dependency} is not available at the moment."))
            .with("dependency", dependency)
            .retry_after(retry_after)
            .caused_by(source)
    }

    /// A defect of ours.
    pub fn internal(source: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Code::Internal, "The error has been logged under this request id.").caused_by(source)
    }

    /// Adds a public member beside those of RFC 9457.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// Sets the `Retry-After` header (whole seconds, rounded up).
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Keeps what caused this, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for this client.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The body, as RFC 9457 has it.
    #[must_use]
    pub fn body(&self, request_id: &str) -> String {
        let mut body = self.members.clone();
        body.extend([
            ("type".to_owned(), json!(format!("urn:lockstep:problem:{}", self.code.as_str()))),
            ("title".to_owned(), json!(self.code.title())),
            ("status".to_owned(), json!(self.code.status().as_u16())),
            ("detail".to_owned(), json!(self.detail)),
            ("code".to_owned(), json!(self.code.as_str())),
            ("request_id".to_owned(), json!(request_id)),
            ("retryable".to_owned(), json!(self.code.retryable())),
        ]);
        Value::Object(body).to_string()
    }

    /// The finished response. A problem of ours (5xx) is logged here, once, with its sources.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> Response {
        let status = self.code.status();
        if status.is_server_error() {
            let causes = self.source.as_deref().map(|source| Causes(source).to_string());
            tracing::error!(
                request.id = request_id,
                problem.code = self.code.as_str(),
                problem.detail = self.detail,
                causes,
                "request failed"
            );
        }
        let mut response = (status, self.body(request_id)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Leaves the body open: [`crate::http::finish`] writes it, because it knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Rounded up, and at least one: zero would mean "at once".
fn whole_seconds(delay: Duration) -> u64 {
    let up = u64::from(delay.subsec_nanos() > 0);
    (delay.as_secs() + up).max(1)
}

/// An error and all its sources on one line.
pub struct Causes<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_are_listed_in_their_order() {
        assert!(Code::ALL.iter().enumerate().all(|(n, code)| *code as usize == n));
        assert_eq!(Code::Internal as usize + 1, Code::ALL.len(), "the last one is the last");
    }
}
