//! What the client asks of the service.

use std::{fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use reqwest::{RequestBuilder, Response, Url};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::objects::s3::S3;
use tokio::time::Instant;

use super::{Options, files::File, report::Became};
use crate::{demo, failure::Failure, settings};

/// The largest file that is sent as a request's body; a larger one goes to the bucket. API Gateway and Lambda leave no
/// more than 6 MB, and what is binary grows by a third on the way.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// How often a request is made again that may succeed later, and the pause where the service names none.
const ATTEMPTS_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether a document is complete, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_mins(30);

/// Speaks to the service.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    knowledge_base: Option<String>,
    s3: Arc<S3>,
}

/// What an idempotency key brought back.
enum Answered {
    Became(Became),
    /// What was answered to an earlier request of the same key, whatever became of the document since.
    Replayed,
}

/// Why a file did not become a document.
struct Refused(String);

impl From<reqwest::Error> for Refused {
    fn from(error: reqwest::Error) -> Self {
        Self(format!("the service did not answer: {}", error.without_url()))
    }
}

impl Client {
    /// A client that may speak: with the given token, or as the demo's account of the local stack.
    pub(super) async fn connect(options: &Options, s3: Arc<S3>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().timeout(REQUEST_MAX).no_proxy().build();
        let http = http.map_err(Failure::because("no HTTP client"))?;
        let token = match &options.token {
            Some(token) => token.clone(),
            None => demo::sign_in(&options.url, &settings::data_dir()).await?,
        };
        let mut client =
            Self { http, url: options.url.clone(), token, knowledge_base: options.knowledge_base.clone(), s3 };
        if client.knowledge_base.is_none() {
            client.knowledge_base = client.personal().await;
        }
        Ok(client)
    }

    /// The caller's personal knowledge base: a document's name says only there which one it is. `None` leaves it to the
    /// service, as for a key that may not list them.
    async fn personal(&self) -> Option<String> {
        let response = self.ask(self.http.get(self.address("/knowledge-bases", &[]).ok()?)).await.ok()?;
        let list: Value = response.json().await.ok()?;
        let mut items = list.pointer("/items")?.as_array()?.iter();
        let personal = items.find(|item| item.pointer("/personal") == Some(&Value::Bool(true)))?;
        Some(text(personal, "/id"))
    }

    /// Sends a file, waits until it is a document, and says what became of it.
    pub(super) async fn send(&self, file: &File) -> Became {
        match self.try_send(file).await {
            Ok(became) => became,
            Err(Refused(reason)) => Became::Failed(reason),
        }
    }

    async fn try_send(&self, file: &File) -> Result<Became, Refused> {
        let bytes = file.read(&self.s3).await.map_err(|error| Refused(format!("it can not be read: {error}")))?;
        let hash = hex(&Sha256::digest(&bytes));
        if bytes.len() as u64 > BODY_BYTES_MAX {
            return self.upload(file, bytes, &hash).await;
        }
        if holds(&self.find(&file.name).await?, &hash) {
            return Ok(Became::Unchanged);
        }
        // The name's hash: a key has 255 bytes.
        let name = hex(&Sha256::digest(file.name.as_bytes()));
        let key = format!("ingest-{}-{}", name.get(..32).unwrap_or_default(), hash.get(..64).unwrap_or_default());
        match self.post(file, &bytes, &key).await? {
            Answered::Became(became) => Ok(became),
            Answered::Replayed if holds(&self.find(&file.name).await?, &hash) => Ok(Became::Done),
            // The answer is of an earlier time: the document was changed or deleted since.
            Answered::Replayed => match self.post(file, &bytes, &uuid::Uuid::new_v4().to_string()).await? {
                Answered::Became(became) => Ok(became),
                Answered::Replayed => Ok(Became::Done),
            },
        }
    }

    /// Sends a small file as a request's body, until there is an answer that stays.
    async fn post(&self, file: &File, bytes: &Bytes, key: &str) -> Result<Answered, Refused> {
        let mut parameters = vec![("source_uri", file.name.as_str())];
        parameters.extend(self.knowledge_base.as_deref().map(|id| ("knowledge_base", id)));
        let url = self.address("/documents", &parameters)?;
        let mut attempt = 1;
        loop {
            let request = self.http.post(url.clone()).header("content-type", body_type(&file.name));
            let response = self.ask(request.header("idempotency-key", key).body(bytes.clone())).await?;
            let (status, again) = (response.status(), pause(&response));
            let replayed = response.headers().contains_key("idempotency-replayed");
            let body: Value = response.json().await.unwrap_or_default();
            match status {
                StatusCode::CREATED | StatusCode::OK if replayed => return Ok(Answered::Replayed),
                StatusCode::CREATED => return Ok(Answered::Became(Became::Done)),
                // Replaced by a new revision, or found to be the same.
                StatusCode::OK if is_new(&body) => return Ok(Answered::Became(Became::Done)),
                StatusCode::OK => return Ok(Answered::Became(Became::Unchanged)),
                StatusCode::ACCEPTED => return self.wait(&text(&body, "/id")).await.map(Answered::Became),
                _ if body.pointer("/retryable") == Some(&Value::Bool(true)) && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    tokio::time::sleep(again).await;
                }
                _ => return Err(refusal(status, &body)),
            }
        }
    }

    /// Puts a large file into the bucket, unless the document there has this content.
    async fn upload(&self, file: &File, bytes: Bytes, hash: &str) -> Result<Became, Refused> {
        let media_type = media_type(&file.name);
        let mut body = json!({ "path": file.name.trim_start_matches("s3://"), "media_type": media_type, "size_bytes": bytes.len() });
        if let (Some(id), Some(body)) = (&self.knowledge_base, body.as_object_mut()) {
            body.insert("knowledge_base".to_owned(), json!(id));
        }
        let response = self.ask(self.http.post(self.address("/uploads", &[])?).json(&body)).await?;
        let status = response.status();
        let upload: Value = response.json().await.unwrap_or_default();
        if status != StatusCode::CREATED {
            return Err(refusal(status, &upload));
        }
        let source_uri = text(&upload, "/source_uri");
        let before = self.find(&source_uri).await?;
        if holds(&before, hash) {
            return Ok(Became::Unchanged);
        }
        let request = self.http.put(text(&upload, "/url")).header("content-type", media_type).timeout(LOOK_MAX);
        let status = request.body(bytes).send().await?.status();
        if !status.is_success() {
            return Err(Refused(format!("the bucket answered {status}")));
        }
        let revision = |document: &Value| document.pointer("/ingestion/revision").and_then(Value::as_i64).unwrap_or(0);
        let started = Instant::now();
        while started.elapsed() < LOOK_MAX {
            let document = self.find(&source_uri).await?;
            if revision(&document) > revision(&before) {
                return self.wait(&text(&document, "/id")).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Refused("the service was not told of the upload in time".to_owned()))
    }

    /// Waits for the end of a document's ingestion.
    async fn wait(&self, id: &str) -> Result<Became, Refused> {
        let started = Instant::now();
        while started.elapsed() < LOOK_MAX {
            let response = self.ask(self.http.get(self.address(&format!("/documents/{id}"), &[])?)).await?;
            let document: Value = response.json().await.unwrap_or_default();
            match document.pointer("/ingestion/state").and_then(Value::as_str) {
                Some("active") => return Ok(Became::Done),
                Some("failed") => return Err(Refused(text(&document, "/ingestion/failure/detail"))),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Err(Refused("it is still being ingested; look at it later".to_owned()))
    }

    /// The document of this name; null when there is none.
    async fn find(&self, source_uri: &str) -> Result<Value, Refused> {
        let mut parameters = vec![("source_uri", source_uri)];
        parameters.extend(self.knowledge_base.as_deref().map(|id| ("knowledge_base", id)));
        let response = self.ask(self.http.get(self.address("/documents", &parameters)?)).await?;
        let list: Value = response.json().await.unwrap_or_default();
        Ok(list.pointer("/items/0").cloned().unwrap_or_default())
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Response, Refused> {
        Ok(request.bearer_auth(&self.token).send().await?)
    }

    fn address(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Url, Refused> {
        let url = Url::parse(&format!("{}{path}", self.url.trim_end_matches('/')));
        let mut url = url.map_err(|error| Refused(format!("the service's URL is none: {error}")))?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Ok(url)
    }
}

/// Whether a document has this content, and nothing is on its way to replace it.
fn holds(document: &Value, hash: &str) -> bool {
    text(document, "/state") == "active"
        && text(document, "/content_hash") == hash
        && text(document, "/ingestion/state") != "ingesting"
}

/// Whether the answer is of a revision that this request made.
fn is_new(document: &Value) -> bool {
    document.pointer("/ingestion/chunks/embedded").and_then(Value::as_i64).unwrap_or(0) > 0
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn refusal(status: StatusCode, body: &Value) -> Refused {
    let detail = text(body, "/detail");
    Refused(if detail.is_empty() { status.to_string() } else { detail })
}

/// The pause that the service asks for.
fn pause(response: &Response) -> Duration {
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    header.and_then(|seconds| seconds.parse().ok()).map_or(PAUSE, Duration::from_secs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// The type of a file that is a request's body: JSON there is the description of a document, and not one, so the name
/// alone says what it is.
fn body_type(name: &str) -> &'static str {
    match media_type(name) {
        "application/json" => "application/octet-stream",
        other => other,
    }
}

/// What a file's ending says; the service looks at the bytes as well.
fn media_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "txt" | "text" | "log" => "text/plain",
        "md" | "markdown" => "text/markdown",
        "html" | "htm" => "text/html",
        "pdf" => "application/pdf",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "doc" => "application/msword",
        "ppt" => "application/vnd.ms-powerpoint",
        "xls" => "application/vnd.ms-excel",
        "csv" => "text/csv",
        "json" => "application/json",
        "eml" => "message/rfc822",
        "epub" => "application/epub+zip",
        "rtf" => "application/rtf",
        _ => "application/octet-stream",
    }
}
