//! The one place where an error becomes a response: `application/problem+json`, RFC 9457.

mod code;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

pub use self::code::Code;

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

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
