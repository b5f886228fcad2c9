//! A function's process, as a test holds it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use reqwest::{Client, Method};
use secrecy::ExposeSecret;
use serde_json::Value;
use shared::{
    config::{Config, EmbeddingConfig},
    db::migrations,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::testkit::{Reply, TestApp, TestUser};

/// A process may be slow to start, or to come to its point, when others are busy.
const START_MAX: Duration = Duration::from_mins(2);

/// A running `test-function` on a test's stores. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Function {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Function {
    /// Starts it; at the failpoint `stop_at` it will stand still.
    pub async fn start(app: &TestApp, stop_at: Option<&str>) -> Self {
        let mut config = Config::clone(&app.app.config);
        config.database.url = migrations::as_app_role(app.database_url());
        Self::launch(&config, stop_at.as_slice()).await
    }

    /// Starts it on other stores, with these arguments: see [`super::run`].
    pub async fn launch(config: &Config, arguments: &[&str]) -> Self {
        Self::launch_with(config, arguments, |_| {}).await
    }

    /// The same, with another environment than the configuration's.
    pub async fn launch_with(config: &Config, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(binary());
        if let EmbeddingConfig::Http { base_url, model, dimension, .. } = &config.embedding {
            command.env("EMBEDDING_URL", base_url).env("EMBEDDING_MODEL", model);
            command.env("EMBEDDING_DIMENSION", dimension.to_string());
        }
        if let (Some(endpoint), Some((id, secret))) = (&config.objects.endpoint, &config.objects.credentials) {
            command.env("S3_ENDPOINT", endpoint).env("S3_ACCESS_KEY_ID", id);
            command.env("S3_SECRET_ACCESS_KEY", secret.expose_secret());
        }
        command
            .args(arguments)
            .env("DATABASE_URL", config.database.url.expose_secret())
            .env("QDRANT_URL", &config.qdrant.url)
            .env("QDRANT_PREFIX", &config.qdrant.prefix)
            .env("TOKEN_ISSUER", &config.tokens.issuer)
            .env("TOKEN_AUDIENCE", &config.tokens.audience)
            .env("TOKEN_JWKS", &config.tokens.jwks)
            // As in template.yaml.
            .env("MALLOC_ARENA_MAX", "1")
            .env("REQUEST_TIMEOUT_MS", config.limits.request_timeout.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        change(&mut command);
        let mut child = command.spawn().expect("the function starts");
        let stdin = child.stdin.take().expect("it is piped");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut function = Self { child, stdin, lines, url: String::new() };
        let line = function.line().await;
        let Some(url) = line.strip_prefix("ready ") else { panic!("the function says {line:?}") };
        url.clone_into(&mut function.url);
        function
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(START_MAX, self.lines.next_line()).await;
        line.expect("the function says something").expect("it can be read").expect("the function lives")
    }

    /// Returns when it stands at its failpoint.
    pub async fn reached(&mut self, point: &str) {
        assert_eq!(self.line().await, format!("reached {point}"));
    }

    /// Lets it go on from its failpoint.
    pub async fn go_on(&mut self) {
        self.stdin.write_all(b"go on\n").await.expect("the function listens");
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// What Linux says of its memory, in KiB: `VmRSS` is resident now, `VmHWM` was at most.
    #[must_use]
    pub fn memory_kib(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().expect("it lives"));
        let status = std::fs::read_to_string(path).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        line.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).expect("Linux tells")
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// A client for it, which may outlive it.
    #[must_use]
    pub fn client(&self, user: &TestUser) -> Caller {
        Caller { client: Client::new(), url: self.url.clone(), token: user.token.clone() }
    }
}

/// The program beside ours: tests stand in a folder below it.
fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("we have a file");
    let mut folders = here.ancestors().skip(1).take(2).map(|folder| folder.join("test-function"));
    folders.find(|path| path.exists()).expect("`test-function` is built: cargo build --package local --bins")
}

/// Somebody who calls a function.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client,
    url: String,
    token: String,
}

impl Caller {
    /// Sends a document under a key.
    ///
    /// # Errors
    /// When the process ends meanwhile.
    pub async fn send(&self, key: &str, body: &Value) -> reqwest::Result<Reply> {
        self.post("/documents", Some(key), body).await
    }

    /// Deletes what is at this path.
    ///
    /// # Errors
    /// When the process ends meanwhile.
    pub async fn delete(&self, path: &str) -> reqwest::Result<Reply> {
        self.call(self.client.request(Method::DELETE, format!("{}{path}", self.url))).await
    }

    /// Sends JSON to this path, under a key if there is one.
    ///
    /// # Errors
    /// When the process ends meanwhile.
    pub async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> reqwest::Result<Reply> {
        let mut request = self.client.post(format!("{}{path}", self.url)).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.call(request).await
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
        let response = request.bearer_auth(&self.token).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Reply { status, headers, json, bytes })
    }
}
