//! The first minute: an account, a few documents, a question, and what to try next. All over the HTTP API.

use std::{
    fmt::{self, Write},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{failure::Failure, folder, settings};

/// The demo's account. `example.com` belongs to nobody (RFC 2606).
const EMAIL: &str = "demo@example.com";

/// Asked of the sample documents.
const QUESTION: &str = "What happens to a value when its owner goes out of scope?";

/// A document's ingestion may take this long: on a slow machine the model reads a long one for a while.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// Statements of the answer that are shown.
const STATEMENTS_MAX: usize = 3;

/// What stands on the terminal when the stack serves.
#[derive(Debug)]
pub struct Banner<'a> {
    /// The gateway.
    pub url: &'a str,
    /// S3.
    pub s3: &'a str,
    /// The data folder.
    pub data: &'a Path,
    /// When the start began.
    pub started: Instant,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.started.elapsed().as_secs_f32();
        writeln!(f, "\n  Lockstep serves on {} (after {seconds:.1} s). Ctrl-C ends it.\n", self.url)?;
        writeln!(f, "  data   {}", self.data.display())?;
        writeln!(f, "  logs   {}/{{postgres,qdrant}}/server.log", self.data.display())?;
        writeln!(f, "  S3     {}/{} (keys in {}/s3)", self.s3, crate::s3::INBOX, self.data.display())
    }
}

/// Makes the demo's account and documents unless they are there, asks a question, and says what to try.
///
/// # Errors
/// When the API refuses something.
pub async fn run(url: &str, data: &Path, say: fn(&str)) -> Result<(), Failure> {
    let client = Client::builder().timeout(REQUEST_MAX).no_proxy().build();
    let demo = Demo { client: client.map_err(Failure::because("no HTTP client"))?, url };
    let password = password(data)?;
    let token = demo.sign_in(&password).await?;
    let ingested = demo.ingest_all(&token, say).await?;
    say(&format!("  demo   {EMAIL}, password {password}, {ingested}\n"));
    let asked = Instant::now();
    let body = json!({ "query": QUESTION, "k": 5, "answer": true });
    let (_, answer) = demo.send(demo.client.post(demo.path("/query")).bearer_auth(&token).json(&body)).await?;
    say(&format!("\n  {QUESTION} ({} ms)\n\n{}", asked.elapsed().as_millis(), cited(&answer)));
    say(&what_to_try(url, &token));
    Ok(())
}

/// A token of the demo's account of the stack at `url`, whose data lie in `data`.
///
/// # Errors
/// When there is no such stack.
pub async fn sign_in(url: &str, data: &Path) -> Result<String, Failure> {
    let client = Client::builder().timeout(REQUEST_MAX).no_proxy().build();
    let demo = Demo { client: client.map_err(Failure::because("no HTTP client"))?, url };
    demo.sign_in(&password(data)?).await
}

fn password(data: &Path) -> Result<String, Failure> {
    folder::secret(&data.join("keys/demo-password"), || Ok(format!("{:x}", uuid::Uuid::new_v4().as_u128())))
}

struct Demo<'a> {
    client: Client,
    url: &'a str,
}

impl Demo<'_> {
    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends a request; a problem becomes a failure with its `detail`.
    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let broken = || Failure::because("the gateway did not answer");
        let response = request.send().await.map_err(broken())?;
        let status = response.status();
        let body: Value = response.json().await.map_err(broken())?;
        if status.is_success() {
            return Ok((status, body));
        }
        Err(Failure::new(format!("{status}: {}", body.get("detail").and_then(Value::as_str).unwrap_or_default())))
    }

    /// A token of the demo's account: registered once, then signed in to.
    async fn sign_in(&self, password: &str) -> Result<String, Failure> {
        let body = json!({ "email": EMAIL, "password": password });
        let post = |path| self.client.post(self.path(path)).json(&body);
        let answer = match self.send(post("/auth/login")).await {
            Ok((_, answer)) => answer,
            Err(_) => match self.send(post("/auth/register")).await {
                Ok((_, answer)) => answer,
                // Somebody else has registered it meanwhile: the stack itself, which has just started.
                Err(refused) => self.send(post("/auth/login")).await.map_err(|_| refused)?.1,
            },
        };
        let token = answer.get("access_token").and_then(Value::as_str).map(ToOwned::to_owned);
        token.ok_or_else(|| Failure::new("signing in gave no token"))
    }

    /// Sends all sample documents; those that are there already are not worked on again.
    async fn ingest_all(&self, token: &str, say: fn(&str)) -> Result<String, Failure> {
        let (mut new, mut all) = (0, 0);
        let started = Instant::now();
        for (uri, path, media_type) in samples() {
            let bytes = fs::read(&path).map_err(Failure::because(format!("{} can not be read", path.display())))?;
            // The content is part of the key: the same file again replays the answer, a changed one is a new request.
            let mut key = String::new();
            for byte in Sha256::digest(&bytes) {
                write!(key, "{byte:02x}").ok();
            }
            let url = Url::parse_with_params(&self.path("/documents"), [("source_uri", &uri)])
                .map_err(Failure::because("the gateway's URL is none"))?;
            let request = self.client.post(url).bearer_auth(token);
            let request = request.header("content-type", media_type).header("idempotency-key", format!("{key}-{uri}"));
            let was = Instant::now();
            let (status, _) = self.send(request.body(bytes)).await.map_err(Failure::because(uri.clone()))?;
            all += 1;
            // A replayed 201 takes a few milliseconds; only what the user waits for is worth a line.
            if status != StatusCode::OK && was.elapsed() > Duration::from_millis(200) {
                new += 1;
                say(&format!("  + {uri} ({} ms)\n", was.elapsed().as_millis()));
            }
        }
        Ok(match new {
            0 => format!("{all} documents, all there"),
            _ => format!("{all} documents, {new} of them read in {:.1} s", started.elapsed().as_secs_f32()),
        })
    }
}

/// Name, file and media type of the sample documents, in order: this repository's own pages, and others' files.
fn samples() -> Vec<(String, PathBuf, &'static str)> {
    let checkout = settings::checkout();
    let mut found = vec![("README.md".to_owned(), checkout.join("README.md"), "text/markdown")];
    for (prefix, dir) in [("docs", checkout.join("docs")), ("samples", checkout.join("shared/local/samples"))] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let media_type = match path.extension().and_then(|extension| extension.to_str()) {
                Some("md") => "text/markdown",
                Some("txt") => "text/plain",
                Some("html") => "text/html",
                _ => continue,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "NOTICE.md" {
                found.push((format!("{prefix}/{name}"), path, media_type));
            }
        }
    }
    found.retain(|(_, path, _)| path.is_file());
    found.sort();
    found
}

/// The answer's statements, each with the number of its source, and the sources.
fn cited(answer: &Value) -> String {
    let text = |value: &Value, pointer: &str| match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let statements = answer.pointer("/answer/statements").and_then(Value::as_array);
    let statements: Vec<&Value> = statements.into_iter().flatten().take(STATEMENTS_MAX).collect();
    if statements.is_empty() {
        return "    The documents do not say.\n".to_owned();
    }
    let (mut said, mut sources) = (String::new(), String::new());
    for (at, statement) in statements.iter().enumerate() {
        let number = at + 1;
        writeln!(said, "    {} [{number}]", text(statement, "/text")).ok();
        let citations = statement.pointer("/citations").and_then(Value::as_array);
        for citation in citations.into_iter().flatten() {
            let document = text(citation, "/document_id");
            let hits = answer.pointer("/hits").and_then(Value::as_array);
            let hit = hits.into_iter().flatten().find(|hit| text(hit, "/document/id") == document);
            let headings = citation.pointer("/heading_path").and_then(Value::as_array);
            let headings: Vec<&str> = headings.into_iter().flatten().filter_map(Value::as_str).collect();
            writeln!(
                sources,
                "    [{number}] {}, bytes {}-{}, revision {}: {}",
                hit.map_or(document, |hit| text(hit, "/document/source_uri")),
                text(citation, "/byte_range/start"),
                text(citation, "/byte_range/end"),
                text(citation, "/revision"),
                headings.join(" > "),
            )
            .ok();
        }
    }
    format!("{said}\n{sources}")
}

fn what_to_try(url: &str, token: &str) -> String {
    format!(
        r#"
  To try in another terminal (the token holds for 15 minutes):

    TOKEN={token}

    curl -s {url}/query -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
      -d '{{"query": "How do threads share memory?", "k": 3, "answer": true}}'

    curl -s {url}/documents -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
      -H "idempotency-key: my-first" -d '{{"source_uri": "note-1", "text": "The spare key lies under the third flowerpot."}}'

    curl -s {url}/query -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
      -d '{{"query": "Where is the spare key?", "k": 1, "answer": true}}'

    curl -s {url}/documents -H "authorization: Bearer $TOKEN"

"#
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_shown_with_the_places_where_it_stands() {
        // As `POST /query` answers; see `query::response`.
        let answer = json!({
            "hits": [{ "document": { "id": "d1", "source_uri": "notes.md" } }],
            "answer": { "statements": [{
                "text": "The value is dropped.",
                "citations": [{
                    "document_id": "d1", "revision": 2, "byte_range": { "start": 10, "end": 31 }, "heading_path": ["Ownership", "Scope"],
                }],
            }] },
        });
        let shown = cited(&answer);
        assert!(shown.contains("The value is dropped. [1]"), "{shown}");
        assert!(shown.contains("[1] notes.md, bytes 10-31, revision 2: Ownership > Scope"), "{shown}");
    }
}
