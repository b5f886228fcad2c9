//! S3, and what speaks like it: signed by AWS's own signer, sent like every other request of ours. The whole SDK for S3
//! would double the time that a build takes, for three kinds of requests.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningParams, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::{ObjectError, ObjectHead, ObjectId, ObjectStore, PresignedPut};
use crate::{config::ObjectsConfig, deadline::Deadline};

/// How long a request of our own is valid: its clock and ours may differ.
const OWN_VALID: Duration = Duration::from_mins(5);

/// The most time of one request.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: usize = 4_096;

/// What stays as it is in a path: RFC 3986's unreserved characters, and the slashes between a key's parts.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Likewise in a query.
const QUERY: AsciiSet = PATH.add(b'/');

/// One client for all, as each keeps its own connections.
static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);

/// S3. Credentials are looked for when the first request is signed: a start that needs none pays nothing.
#[derive(Debug)]
pub struct S3 {
    config: ObjectsConfig,
    provider: OnceCell<Option<SharedCredentialsProvider>>,
}

impl S3 {
    /// The S3 that the configuration names.
    #[must_use]
    pub fn new(config: &ObjectsConfig) -> Self {
        Self { config: config.clone(), provider: OnceCell::new() }
    }

    /// The URL of an object: in the bucket's own host on AWS, below the endpoint elsewhere.
    fn url(&self, object: &ObjectId) -> String {
        let base = format!("{}/{}", self.bucket(&object.bucket), utf8_percent_encode(&object.key, &PATH));
        match &object.version {
            Some(version) => format!("{base}?versionId={}", utf8_percent_encode(version, &QUERY)),
            None => base,
        }
    }

    fn bucket(&self, bucket: &str) -> String {
        match &self.config.endpoint {
            Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            // A dot in the bucket's name would be one label too many for the certificate.
            None if bucket.contains('.') => format!("https://s3.{}.amazonaws.com/{bucket}", self.config.region),
            None => format!("https://{bucket}.s3.{}.amazonaws.com", self.config.region),
        }
    }

    /// A page of a bucket's list, in the order of the keys: those that begin with `prefix` and come after `after`, with their
    /// sizes in bytes. At most 1,000; an empty page is the end.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
    ///
    /// # Errors
    /// [`ObjectError::Missing`] when there is no such bucket.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        deadline: Deadline,
    ) -> Result<Vec<(String, u64)>, ObjectError> {
        let [prefix, after] = [prefix, after].map(|text| utf8_percent_encode(text, &QUERY).to_string());
        let url = format!("{}/?list-type=2&prefix={prefix}&start-after={after}", self.bucket(bucket));
        let url = self.presign_url(&Method::GET, url, &[], OWN_VALID).await?;
        let response =
            CLIENT.get(url).timeout(deadline.at_most(REQUEST_MAX).remaining()).send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, response).await);
        }
        let page = response.text().await.map_err(failed)?;
        Ok(page.split("<Contents>").skip(1).filter_map(listed).collect())
    }

    /// Given ones, or what the platform has: the function's role, a profile.
    async fn credentials(&self) -> Result<Credentials, ObjectError> {
        if let Some((id, secret)) = &self.config.credentials {
            return Ok(Credentials::new(id, secret.expose_secret(), None, None, "configuration"));
        }
        let load = async || {
            let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
            sdk.credentials_provider()
        };
        let provider = self.provider.get_or_init(load).await;
        let provider = provider.as_ref().ok_or_else(|| ObjectError::Unsigned("there are no credentials".into()))?;
        provider.provide_credentials().await.map_err(|error| ObjectError::Unsigned(error.into()))
    }

    /// The URL with a signature in its query that covers these headers.
    async fn presign(
        &self,
        method: &Method,
        object: &ObjectId,
        headers: &[(&str, &str)],
        valid: Duration,
    ) -> Result<String, ObjectError> {
        self.presign_url(method, self.url(object), headers, valid).await
    }

    async fn presign_url(
        &self,
        method: &Method,
        url: String,
        headers: &[(&str, &str)],
        valid: Duration,
    ) -> Result<String, ObjectError> {
        let unsigned = |error: Box<dyn std::error::Error + Send + Sync>| ObjectError::Unsigned(error);
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(valid);
        // S3 alone takes a path as it is sent.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let identity = self.credentials().await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.config.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unsigned(error.into()))?;
        let body = SignableBody::UnsignedPayload;
        let request = SignableRequest::new(method.as_str(), url.as_str(), headers.iter().copied(), body)
            .map_err(|error| unsigned(error.into()))?;
        let params = SigningParams::from(params);
        let (instructions, _) = sign(request, &params).map_err(|error| unsigned(error.into()))?.into_parts();
        let mut signed = url;
        for (name, value) in instructions.params() {
            signed.push(if signed.contains('?') { '&' } else { '?' });
            signed.extend([*name, "="]);
            signed.extend(utf8_percent_encode(value, &QUERY));
        }
        Ok(signed)
    }

    async fn send(
        &self,
        method: Method,
        object: &ObjectId,
        headers: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<Response, ObjectError> {
        let url = self.presign(&method, object, headers, OWN_VALID).await?;
        let mut request = CLIENT.request(method, url).timeout(deadline.at_most(REQUEST_MAX).remaining());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(refusal(status, response).await) }
    }
}

#[async_trait]
impl ObjectStore for S3 {
    async fn head(&self, object: &ObjectId, deadline: Deadline) -> Result<ObjectHead, ObjectError> {
        let response = self.send(Method::HEAD, object, &[], deadline).await?;
        let headers = response.headers();
        let size = text(headers, header::CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        Ok(ObjectHead {
            size_bytes: size.ok_or_else(|| ObjectError::Unavailable("a HEAD without a length".into()))?,
            media_type: text(headers, header::CONTENT_TYPE.as_str()),
            // A bucket that has never kept versions says so with this word.
            version: text(headers, "x-amz-version-id").filter(|version| version != "null"),
            etag: text(headers, header::ETAG.as_str()),
        })
    }

    async fn get(
        &self,
        object: &ObjectId,
        etag: Option<&str>,
        start: u64,
        length: u64,
        deadline: Deadline,
    ) -> Result<Bytes, ObjectError> {
        let range = format!("bytes={start}-{}", start + length.max(1) - 1);
        let mut headers = vec![("range", range.as_str())];
        headers.extend(etag.map(|etag| ("if-match", etag)));
        let mut response = self.send(Method::GET, object, &headers, deadline).await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(length.min(1 << 20));
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            // Whoever ignores the range is not listened to any longer than needed.
            if bytes.len() >= length {
                bytes.truncate(length);
                break;
            }
        }
        Ok(bytes.freeze())
    }

    async fn presign_put(
        &self,
        object: &ObjectId,
        media_type: &str,
        size_bytes: u64,
        valid: Duration,
    ) -> Result<PresignedPut, ObjectError> {
        let size = size_bytes.to_string();
        let headers = [("content-length", size.as_str()), ("content-type", media_type)];
        let url = self.presign(&Method::PUT, object, &headers, valid).await?;
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Ok(PresignedPut { url, headers })
    }
}

/// The key and the size of one entry of a list.
fn listed(entry: &str) -> Option<(String, u64)> {
    let part = |name: &str| {
        let (_, rest) = entry.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
    };
    let key = part("Key")?.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    let key = key.replace("&#39;", "'").replace("&#x2F;", "/").replace("&amp;", "&");
    Some((key, part("Size")?.parse().ok()?))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn failed(error: reqwest::Error) -> ObjectError {
    // The URL carries a signature.
    let error = error.without_url();
    if error.is_timeout() { ObjectError::Timeout } else { ObjectError::Unavailable(error.into()) }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
async fn refusal(status: StatusCode, mut response: Response) -> ObjectError {
    let mut body = Vec::new();
    // An error's body is a help, and its absence no further error: a HEAD has none.
    while body.len() < ERROR_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8_lossy(&body);
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    match (status, code) {
        (_, Some("InvalidObjectState")) => ObjectError::Archived,
        // 405: a marker is asked for by its version. 400: what S3 does not take for a version was never one.
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)
        | (StatusCode::BAD_REQUEST, Some("NoSuchVersion" | "InvalidArgument")) => ObjectError::Missing,
        // Asked beyond the end: it was longer before.
        (StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE, _) => ObjectError::Changed,
        (status, code) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            ObjectError::Unavailable(format!("status {status}, {}", code.unwrap_or("no code")).into())
        }
        (status, code) => {
            ObjectError::Refused { status: status.as_u16(), reason: code.unwrap_or("no code").to_owned() }
        }
    }
}
