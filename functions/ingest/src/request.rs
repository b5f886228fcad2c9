//! `POST /documents`, parsed: JSON with the text in it, or the document itself as the body.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::{
    domain::{ContentHash, IdempotencyKey, InvalidValue, KnowledgeBaseId, SourceUri, Title},
    http::{Json, media_type},
    problem::{Code, Problem},
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::{unreadable, unsupported},
    extract::{Charset, Format},
};

/// Bytes of a document's attributes as JSON: they are copied with every revision and returned in every list.
const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;

/// Levels of nesting in attributes: enough for any filter, and far from a stack's end.
const ATTRIBUTES_DEPTH_MAX: usize = 8;

/// A document as it was sent.
#[derive(Clone, Debug)]
pub struct Source {
    /// The knowledge base; `None` stands for the caller's personal one.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// Names the document within its knowledge base.
    pub source_uri: SourceUri,
    /// The title, if the client gave one.
    pub title: Option<Title>,
    /// What the bytes are.
    pub format: Format,
    /// The encoding that they were sent in, if they are text.
    pub charset: Charset,
    /// The user's own keys and values; `None` leaves those that the document has.
    pub attributes: Option<Map<String, Value>>,
    /// The document itself.
    pub bytes: Bytes,
    /// Of the bytes.
    pub content_hash: ContentHash,
}

/// A document whose text stands in the JSON body.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DocumentText, examples(json!({
    "text": "The Eiffel Tower is 330 metres tall.", "source_uri": "https://example.org/eiffel", "title": "Eiffel Tower",
    "attributes": {"lang": "en", "year": 2024}
})))]
pub struct Description {
    /// The caller's personal one unless told.
    knowledge_base: Option<KnowledgeBaseId>,
    /// Names the document within its knowledge base; without it, the document is named by its content's hash.
    #[schema(value_type = Option<SourceUri>)]
    source_uri: Option<String>,
    /// Unless given, it is looked for in the text.
    #[schema(value_type = Option<Title>)]
    title: Option<String>,
    /// Keys and values to filter by; at most 16 KiB of JSON, nested at most 8 deep. Left out: those that the document has stay.
    #[schema(value_type = Option<Object>)]
    attributes: Option<Map<String, Value>>,
    /// Of the text: `text/plain` unless told.
    media_type: Option<String>,
    /// The document itself.
    #[schema(required = true, nullable = false)]
    text: Option<String>,
}

/// The query string of a raw upload.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawParams {
    /// The knowledge base; the caller's personal one unless told. What a JSON body says comes before all of these.
    knowledge_base: Option<KnowledgeBaseId>,
    /// Names the document within its knowledge base; without it, its content's hash does.
    #[param(value_type = Option<SourceUri>)]
    source_uri: Option<String>,
    /// Unless given, it is looked for in the document.
    #[param(value_type = Option<Title>)]
    title: Option<String>,
    /// Keys and values to filter by, as a JSON object.
    attributes: Option<String>,
}

/// Reads the request.
///
/// # Errors
/// A problem that names what is wrong.
pub fn parse(headers: &HeaderMap, query: Option<&str>, body: Bytes) -> Result<Source, Problem> {
    let media_type = media_type(headers);
    let params = Description::try_from(shared::http::params::<RawParams>(query.unwrap_or_default())?)?;
    if media_type.as_deref() == Some("application/json") {
        return from_json(&body, params);
    }
    let media_type = media_type.ok_or_else(|| unsupported(None))?;
    let charset = charset(headers)?;
    let name = params.source_uri.as_deref().unwrap_or_default();
    let format = Format::detect(Some(&media_type), name, &body).map_err(|error| unreadable(&error))?;
    source(params, format, charset, body)
}

impl TryFrom<RawParams> for Description {
    type Error = Problem;

    fn try_from(params: RawParams) -> Result<Self, Problem> {
        let invalid = |error| Problem::invalid_field("attributes", format!("is not a JSON object: {error}"));
        let attributes = params.attributes.map(|json| serde_json::from_str(&json).map_err(invalid)).transpose()?;
        let RawParams { knowledge_base, source_uri, title, .. } = params;
        Ok(Self { knowledge_base, source_uri, title, attributes, media_type: None, text: None })
    }
}

/// What the body says comes first.
fn from_json(body: &[u8], params: Description) -> Result<Source, Problem> {
    let mut description: Description = Json::parse(body)?;
    description.knowledge_base = description.knowledge_base.or(params.knowledge_base);
    description.source_uri = description.source_uri.or(params.source_uri);
    description.title = description.title.or(params.title);
    description.attributes = description.attributes.or(params.attributes);
    let text = description.text.take().ok_or_else(|| Problem::invalid_field("text", "is missing"))?;
    let format = match description.media_type.take() {
        None => Format::Plain,
        Some(media_type) => Format::from_media_type(&media_type)
            .filter(|format| format.is_text())
            .ok_or_else(|| unsupported(Some(&media_type)))?,
    };
    source(description, format, Charset::Utf8, text.into())
}

fn source(description: Description, format: Format, charset: Charset, bytes: Bytes) -> Result<Source, Problem> {
    let content_hash = ContentHash(Sha256::digest(&bytes).into());
    let source_uri = match description.source_uri {
        Some(uri) => parsed("source_uri", &uri)?,
        // Without a name, a document is named by its content, so that sending it twice does not double it.
        None => parsed("source_uri", &format!("urn:sha256:{content_hash}"))?,
    };
    let title = description.title.map(|title| parsed("title", &title)).transpose()?;
    if let Some(attributes) = &description.attributes {
        check_attributes(attributes)?;
    }
    Ok(Source {
        knowledge_base: description.knowledge_base,
        source_uri,
        title,
        format,
        charset,
        attributes: description.attributes,
        bytes,
        content_hash,
    })
}

fn parsed<T: std::str::FromStr<Err = InvalidValue>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::invalid_field(field, error))
}

/// The idempotency key, if the client sent one.
///
/// # Errors
/// When it is empty, too long, or not plain text.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid_field("Idempotency-Key", "stands there more than once"));
    }
    let text = value
        .to_str()
        .map_err(|_| Problem::invalid_field("Idempotency-Key", "has characters outside printable ASCII"))?;
    // The draft makes it a structured field: a string in double quotes. Bare ones are common, and taken as well.
    let bare = text.trim().strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if bare.contains('"') {
        return Err(Problem::invalid_field("Idempotency-Key", "is neither a string in double quotes nor free of them"));
    }
    parsed("Idempotency-Key", bare).map(Some)
}

/// SHA-256 of all that makes the request what it is.
#[must_use]
pub fn fingerprint(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [
        headers.get(header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes()),
        query.unwrap_or_default().as_bytes(),
        body,
    ] {
        // The length first, so that no two requests run together into the same bytes.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The encoding that the header names. One that nobody knows is refused before the text turns out unreadable.
fn charset(headers: &HeaderMap) -> Result<Charset, Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let label = value.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let Some(label) = label else { return Ok(Charset::Unknown) };
    Charset::from_label(label).ok_or_else(|| {
        let detail = format!("The charset `{label}` is not one of https://encoding.spec.whatwg.org/#names-and-labels.");
        Problem::new(Code::UnsupportedMediaType, detail)
    })
}

fn check_attributes(attributes: &Map<String, Value>) -> Result<(), Problem> {
    let invalid = |reason: String| Err(Problem::invalid_field("attributes", reason));
    if serde_json::to_vec(attributes).map_err(Problem::internal)?.len() > ATTRIBUTES_BYTES_MAX {
        return invalid(format!("has more than {ATTRIBUTES_BYTES_MAX} bytes as JSON"));
    }
    // An explicit stack: the depth is the client's choice.
    let mut open: Vec<(usize, &Value)> = Vec::new();
    for (key, value) in attributes {
        if key.is_empty() || key.chars().any(char::is_control) {
            return invalid(format!("has a key that is empty or contains a control character: {key:?}"));
        }
        open.push((1, value));
    }
    while let Some((depth, value)) = open.pop() {
        if depth > ATTRIBUTES_DEPTH_MAX {
            return invalid(format!("is nested more than {ATTRIBUTES_DEPTH_MAX} deep"));
        }
        match value {
            // PostgreSQL's jsonb can not hold it: https://www.postgresql.org/docs/current/datatype-json.html
            Value::String(text) if text.contains('\0') => return invalid("contains a NUL character".to_owned()),
            Value::Array(items) => open.extend(items.iter().map(|item| (depth + 1, item))),
            Value::Object(members) => {
                if members.keys().any(|key| key.contains('\0')) {
                    return invalid("contains a NUL character".to_owned());
                }
                open.extend(members.values().map(|value| (depth + 1, value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])
    }

    fn code(result: Result<Source, Problem>) -> Code {
        result.expect_err("a problem").code()
    }

    #[test]
    fn json_and_raw_bodies_describe_the_same_document() {
        let json = br##"{"text":"# Hello","media_type":"text/markdown","source_uri":"a/b","attributes":{"n":1}}"##;
        let from_json = parse(&headers("application/json"), None, Bytes::from_static(json)).unwrap();
        let query = "source_uri=a%2Fb&attributes=%7B%22n%22%3A1%7D";
        let raw = parse(&headers("text/markdown; charset=UTF-8"), Some(query), Bytes::from_static(b"# Hello")).unwrap();
        assert_eq!(from_json.content_hash, raw.content_hash);
        assert_eq!((from_json.source_uri, from_json.format), (raw.source_uri, raw.format));
        assert_eq!(from_json.attributes, raw.attributes);
    }

    #[test]
    fn a_document_without_a_name_is_named_by_its_content() {
        let uri = |body| parse(&headers("text/plain"), None, Bytes::from_static(body)).unwrap().source_uri.to_string();
        assert_eq!(uri(b"one"), uri(b"one"));
        assert_ne!(uri(b"one"), uri(b"two"));
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let json = |body: &'static str| parse(&headers("application/json"), None, Bytes::from_static(body.as_bytes()));
        assert_eq!(code(json(r#"{"text":"x","colour":"red"}"#)), Code::UnknownField);
        assert_eq!(code(json(r#"{"text":1}"#)), Code::InvalidField);
        assert_eq!(code(json(r#"{"title":"x"}"#)), Code::InvalidField);
        assert_eq!(code(json(r#"{"text":"x","title":"a\u0000b"}"#)), Code::InvalidField);
        assert_eq!(code(json(r#"{"text":"x","attributes":{"a":"\u0000"}}"#)), Code::InvalidField);
        assert_eq!(code(json(r#"{"text":"x","attributes":{"a":[[[[[[[[[1]]]]]]]]]}}"#)), Code::InvalidField);
        assert_eq!(code(json(r#"{"text":"x","media_type":"image/png"}"#)), Code::UnsupportedMediaType);
        assert_eq!(code(json("{")), Code::InvalidRequest);
        let raw = |content_type, query| parse(&headers(content_type), Some(query), Bytes::from_static(b"x"));
        assert_eq!(code(raw("text/plain", "colour=red")), Code::UnknownField);
        assert_eq!(code(raw("image/png", "")), Code::UnsupportedMediaType);
        assert_eq!(code(raw("application/pdf", "")), Code::MalformedDocument);
        assert_eq!(code(raw("text/plain; charset=klingon", "")), Code::UnsupportedMediaType);
        assert_eq!(code(json(r#"{"text":"x","media_type":"application/pdf"}"#)), Code::UnsupportedMediaType);
    }

    #[test]
    fn a_document_is_what_its_bytes_are_in_the_charset_that_is_said() {
        let read = |content_type, body| parse(&headers(content_type), None, Bytes::from_static(body)).unwrap();
        assert_eq!(read("text/plain", b"%PDF-1.7").format, Format::Pdf);
        assert_eq!(read("application/octet-stream", b"<!doctype html><p>x").format, Format::Html);
        assert_eq!(read("text/plain", b"x").charset, Charset::Unknown);
        assert_eq!(read("text/plain; charset=\"UTF-8\"", b"x").charset, Charset::Utf8);
        assert_eq!(read("text/plain; charset=latin1", b"x").charset, Charset::Named("windows-1252".to_owned()));
    }

    #[test]
    fn a_key_may_stand_in_quotes_or_bare() {
        let key = |text: &str| {
            idempotency_key(&HeaderMap::from_iter([("idempotency-key".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(key("\"abc\"").unwrap(), key("abc").unwrap());
        assert!(key("").is_err() && key("\"\"").is_err() && key(&"x".repeat(256)).is_err());
    }
}
