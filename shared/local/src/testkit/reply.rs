//! What a router answered.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

/// What a router answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; `Null` when it is something else.
    pub json: Value,
    /// The body as it is.
    pub bytes: Bytes,
}

impl Reply {
    pub(super) async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the body ends well").to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { status: parts.status, headers: parts.headers, json, bytes }
    }

    /// A header's value; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The reply, when it has this status; else the test ends with what was said instead.
    #[allow(clippy::return_self_not_must_use, reason = "often nothing but the status is asked for")]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// The problem's code, when it is a problem with this status.
    #[must_use]
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        let body = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/problem+json", "{body}");
        self.json.get("code").and_then(Value::as_str).unwrap_or_default()
    }
}
