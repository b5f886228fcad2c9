//! A function as a process of its own, of which a test reads the log.

use std::process::Stdio;

use local::testkit::TestApp;
use reqwest::{Client, Method};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

/// A function on the stores of a test.
pub struct Process {
    child: Child,
    url: String,
}

impl Process {
    /// Starts it; `variables` are set beside those that it needs.
    pub async fn start(app: &TestApp, function: &str, variables: &[(&str, &str)]) -> Self {
        let tokens = &app.app.config.tokens;
        let mut child = Command::new(env!("CARGO_BIN_EXE_test-function"))
            .arg(function)
            .env("DATABASE_URL", app.database_url().expose_secret())
            .env("QDRANT_URL", &app.app.config.qdrant.url)
            .env("QDRANT_PREFIX", &app.app.config.qdrant.prefix)
            // Not read: it has the quick embedder.
            .env("EMBEDDING_MODEL_DIR", "model")
            .env("TOKEN_ISSUER", &tokens.issuer)
            .env("TOKEN_JWKS", &tokens.jwks)
            .env("TOKEN_SIGNING_KEY", tokens.signing_key.as_ref().unwrap().expose_secret())
            .env("MAIL_DIR", app.mail_dir())
            .env("AUTH_REGISTRATION", "open")
            .env("AUTH_REQUESTS_PER_MINUTE", "1000000")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.as_mut().unwrap()).lines().next_line().await.unwrap();
        let url = line.as_deref().and_then(|line| line.strip_prefix("ready ")).unwrap().to_owned();
        Self { child, url }
    }

    /// Sends a request with a JSON body; the status and the body of the answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, String) {
        let request = Client::new().request(method, format!("{}{path}", self.url));
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// All that it logs until it ends.
    pub fn log(&mut self) -> JoinHandle<String> {
        let mut stderr = self.child.stderr.take().unwrap();
        tokio::spawn(async move {
            let mut log = String::new();
            stderr.read_to_string(&mut log).await.unwrap();
            log
        })
    }

    /// The most memory that it ever had resident, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}
