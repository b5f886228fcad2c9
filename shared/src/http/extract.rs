//! Extractors that refuse with a problem, and say what is wrong.

use std::str::FromStr;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::callers;
use crate::{
    App,
    deadline::Deadline,
    domain::{SessionId, UserId},
    problem::{Code, Problem},
    telemetry,
};

/// How many bodies' worth of a body that is too large is read and thrown away, so that a client that only reads after it
/// has written gets its 413 instead of a broken connection.
const DRAIN_FACTOR: usize = 8;

/// Characters of a client's words in a problem.
const ECHO_CHARS_MAX: usize = 300;

/// The request's id and deadline.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Stands in the log and in problems.
    pub request_id: String,
    /// When the answer must be there.
    pub deadline: Deadline,
}

impl<S: Send + Sync> FromRequestParts<S> for Invocation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::internal(NotFinished))
    }
}

/// A router that [`super::finish`] has not finished.
#[derive(Debug, thiserror::Error)]
#[error("the router lacks the invocation layer")]
struct NotFinished;

/// The caller, by the access token in `Authorization: Bearer`. API keys are refused here, whatever their scopes: a route
/// that takes them says so, see [`super::Reader`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Principal {
    /// The account.
    pub user: UserId,
    /// The session to which the token was issued.
    pub session: Option<SessionId>,
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match callers::bearer(parts, app).await? {
            callers::Bearer::Token(token) => {
                let claims =
                    app.verifier.check(&token).await.map_err(|error| callers::unauthenticated().caused_by(error))?;
                telemetry::note_user(claims.sub);
                Ok(Self { user: claims.sub, session: claims.sid })
            }
            callers::Bearer::Key(_) => {
                let detail = "This needs an access token: an API key does not stand for the person.";
                Err(Problem::new(Code::InsufficientScope, detail))
            }
        }
    }
}

/// The whole body, up to the limit.
#[derive(Clone, Debug)]
pub struct Body(pub Bytes);

impl FromRequest<App> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let detail = "The body has a `Content-Encoding`; supported: identity.";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let limit = app.config.limits.body_bytes_max;
        let mut stream = request.into_body().into_data_stream();
        let (mut body, mut seen) = (BytesMut::new(), 0);
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| {
                Problem::new(Code::InvalidRequest, "The body broke off before its end.").caused_by(error)
            })?;
            seen += part.len();
            if seen <= limit {
                body.extend_from_slice(&part);
            } else if seen > limit.saturating_mul(DRAIN_FACTOR) {
                break;
            }
        }
        if seen > limit {
            let detail = format!("A request body may have up to {limit} bytes.");
            return Err(Problem::new(Code::TooLarge, detail).with("limit_bytes", limit));
        }
        Ok(Self(body.freeze()))
    }
}

/// JSON: in a request strictly by its type, in a response as it is.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> Json<T> {
    /// Reads `body`; unknown fields and wrong values are refused by name.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn parse(body: &[u8]) -> Result<T, Problem> {
        // Serde would take an array for a struct, its members by position: field order is no part of the interface.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Problem::new(Code::InvalidRequest, "The body must be a JSON object."));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            match inner.classify() {
                serde_json::error::Category::Data => data_problem(&path, &inner.to_string()),
                // Some types meet `null` and the like with a syntax error, though it is JSON.
                _ if is_json(body) => data_problem(&path, &inner.to_string()),
                serde_json::error::Category::Io
                | serde_json::error::Category::Syntax
                | serde_json::error::Category::Eof => {
                    Problem::new(Code::InvalidRequest, format!("The body is not JSON: {inner}."))
                }
            }
        })?;
        deserializer
            .end()
            .map_err(|error| Problem::new(Code::InvalidRequest, format!("The body is not one JSON value: {error}.")))?;
        Ok(value)
    }
}

fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| serde_json::from_str::<IgnoredAny>(body).is_ok())
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        match media_type(request.headers()).as_deref() {
            Some("application/json") => {}
            other => return Err(unsupported_media_type(other, &["application/json"])),
        }
        let Body(body) = Body::from_request(request, app).await?;
        Self::parse(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
                .into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// The query string, strictly by its type.
#[derive(Clone, Copy, Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        params(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query string; unknown parameters and wrong values are refused by name.
///
/// # Errors
/// A problem that names the parameter, where that is known.
pub fn params<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    // What does not decode would become the replacement character, and two names one.
    if !percent_encoding_holds(query) {
        return Err(Problem::new(Code::InvalidRequest, "The query string is not percent-encoded UTF-8."));
    }
    let pairs = form_urlencoded::parse(query.as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
        .map_err(|error| data_problem(&error.path().to_string(), &error.inner().to_string()))
}

/// Whether every `%` is followed by two hexadecimal digits, and the bytes are UTF-8.
fn percent_encoding_holds(query: &str) -> bool {
    let digits = |rest: &str| rest.get(..2).is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
    query.split('%').skip(1).all(digits) && percent_encoding::percent_decode_str(query).decode_utf8().is_ok()
}

/// The id in a route with one parameter. What is not an id names nothing: 404.
#[derive(Clone, Copy, Debug)]
pub struct PathId<T>(pub T);

impl<T: FromStr + Send, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let not_found = || Problem::not_found("thing");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        text.parse().map(Self).map_err(|_| not_found())
    }
}

/// The ids in a route with two parameters. What is not an id names nothing: 404.
#[derive(Clone, Copy, Debug)]
pub struct PathIds<A, B>(pub A, pub B);

impl<A: FromStr + Send, B: FromStr + Send, S: Send + Sync> FromRequestParts<S> for PathIds<A, B> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Path::<(String, String)>::from_request_parts(parts, state).await.ok();
        let ids = found.and_then(|Path((a, b))| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        ids.ok_or_else(|| Problem::not_found("thing"))
    }
}

/// The media type of a request's body in lower case, without its parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// 415 with the list of what is taken.
#[must_use]
pub fn unsupported_media_type(got: Option<&str>, supported: &[&str]) -> Problem {
    let got = got.map_or_else(|| "no media type".to_owned(), |got| format!("`{got}`"));
    let detail = format!("The body has {got}; supported: {}.", supported.join(", "));
    Problem::new(Code::UnsupportedMediaType, detail).with("supported", supported.to_vec())
}

/// Serde says "unknown field `x`, expected one of ..." in words only.
fn data_problem(path: &str, message: &str) -> Problem {
    let (path, message) = (short(path), short(message.split(" at line ").next().unwrap_or(message)));
    let place = if path.is_empty() || path == "." || path == "?" { String::new() } else { format!(" (at `{path}`)") };
    let named = |prefix| Some(message.strip_prefix(prefix)?.split_once('`')?.0);
    let (code, field) = match (named("unknown field `"), named("missing field `")) {
        (Some(field), _) => (Code::UnknownField, field),
        (None, Some(field)) => (Code::InvalidField, field),
        (None, None) => (Code::InvalidField, path),
    };
    Problem::new(code, format!("{}{place}.", capitalise(message))).with("field", field)
}

/// What a client wrote comes back to it, but not megabytes of it.
fn short(text: &str) -> &str {
    text.char_indices().nth(ECHO_CHARS_MAX).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
