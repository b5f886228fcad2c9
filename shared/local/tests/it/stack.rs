//! `lockstep up` as a real process: it serves, ends, is killed, and comes back with everything.

mod ingest;

use std::{
    fmt::Write,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use local::{
    folder::TempFolder,
    process::{self, Signal},
    testkit::HashEmbedder,
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use shared::embed::Embedder;

use crate::sigv4;

/// A running stack.
struct Stack {
    child: Child,
    url: String,
    s3: String,
}

fn command(data: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.args(["up", "--quiet", "--port", &port.to_string()]).env("LOCKSTEP_DATA_DIR", data);
    // These tests are about the private servers.
    command.env_remove("DATABASE_URL").env_remove("QDRANT_URL").env_remove("PORT").stdin(Stdio::null());
    command
}

impl Stack {
    fn up(data: &Path) -> Self {
        Self::spawn(command(data, 0))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", url, "s3", s3] = words[..] else { panic!("the stack says {line:?}") };
        Self { url: url.to_owned(), s3: s3.to_owned(), child }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        let request = Client::new().post(self.path(path)).bearer_auth(token).json(&body);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn ready(&self) -> bool {
        match Client::new().get(self.path("/ready")).send().await {
            Ok(response) => response.status() == StatusCode::OK,
            Err(_) => false,
        }
    }

    /// All processes below it.
    fn descendants(&self) -> Vec<u32> {
        let table = process::run(&["ps", "-e", "-o", "pid=,ppid="].map(ToOwned::to_owned)).unwrap();
        let table: Vec<(u32, u32)> = table
            .lines()
            .filter_map(|line| line.trim().split_once(char::is_whitespace))
            .map(|(pid, parent)| (pid.parse().unwrap(), parent.trim().parse().unwrap()))
            .collect();
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(table.iter().filter(|row| row.1 == parent).map(|row| row.0));
            at += 1;
        }
        found.split_off(1)
    }

    fn kill(&mut self) {
        process::signal(self.child.id(), Signal::Kill);
        self.child.wait().unwrap();
    }

    /// As Ctrl-C does; returns the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        process::signal(self.child.id(), Signal::Int);
        assert!(process::wait_until(Duration::from_secs(15), || self.child.try_wait().unwrap().is_some()));
        self.child.wait().unwrap().code()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn alive(pids: &[u32]) -> Vec<String> {
    pids.iter().filter_map(|pid| process::program(*pid)).collect()
}

fn refused(data: &Path, port: u16) -> String {
    let Output { status, stderr, .. } = command(data, port).output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[tokio::test]
async fn ctrl_c_ends_the_stack_and_all_its_processes() {
    let data = TempFolder::new().unwrap();
    let mut stack = Stack::up(data.path());
    assert!(stack.ready().await);
    let processes = stack.descendants();
    assert!(alive(&processes).len() >= 4, "{:?}", alive(&processes));
    let asked = Instant::now();
    assert_eq!(stack.interrupt(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert_eq!(alive(&processes), Vec::<String>::new());
}

#[tokio::test]
async fn after_kill_9_nothing_is_left_and_a_restart_has_everything() {
    let data = TempFolder::new().unwrap();
    let mut stack = Stack::up(data.path());
    let credentials = json!({ "email": "ada@example.com", "password": "the spare key lies there" });
    let (status, account) = stack.post("/auth/register", "", credentials.clone()).await;
    assert_eq!(status, 201, "{account}");
    let document = json!({ "source_uri": "note", "text": "The spare key lies under the third flowerpot." });
    let (status, body) = stack.post("/documents", account["access_token"].as_str().unwrap(), document).await;
    assert_eq!(status, 201, "{body}");

    let processes = stack.descendants();
    stack.kill();
    // At once, while the processes of the first are still ending.
    let stack = Stack::up(data.path());
    assert!(process::wait_until(Duration::from_secs(5), || alive(&processes).is_empty()), "{:?}", alive(&processes));
    let (status, account) = stack.post("/auth/login", "", credentials).await;
    assert_eq!(status, 200, "{account}");
    let question = json!({ "query": "Where is the spare key?", "k": 1 });
    let (status, answer) = stack.post("/query", account["access_token"].as_str().unwrap(), question).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["hits"][0]["document"]["source_uri"], "note", "{answer}");
}

#[tokio::test]
async fn a_store_that_is_killed_is_started_again() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    for name in ["postgres", "local-qdrant"] {
        // The first `postgres` in the list is the server itself: its workers are below it.
        let is_it = |pid: &u32| process::program(*pid).is_some_and(|program| program.contains(name));
        let victim = stack.descendants().into_iter().find(is_it);
        process::signal(victim.unwrap(), Signal::Kill);
        let end = Instant::now() + Duration::from_secs(20);
        tokio::time::sleep(Duration::from_millis(100)).await;
        while !stack.ready().await {
            assert!(Instant::now() < end, "{name} does not come back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let credentials = json!({ "email": "ada@example.com", "password": "the spare key lies there" });
    assert_eq!(stack.post("/auth/register", "", credentials).await.0, 201);
}

#[tokio::test]
async fn a_second_stack_on_the_same_data_and_a_taken_port_are_refused_by_name() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    let message = refused(data.path(), 0);
    assert!(message.contains(&format!("process {}", stack.child.id())), "{message}");
    assert!(message.contains("LOCKSTEP_DATA_DIR"), "{message}");

    let other = TempFolder::new().unwrap();
    let port = stack.url.rsplit_once(':').unwrap().1;
    let message = refused(other.path(), port.parse().unwrap());
    assert!(message.contains(&format!("the port {port} is taken")) && message.contains("--port"), "{message}");
}

#[tokio::test]
async fn s3_takes_and_gives_what_is_signed_and_nothing_else() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    let secret = std::fs::read_to_string(data.path().join("s3/secret-key")).unwrap();
    let host = stack.s3.strip_prefix("http://").unwrap();
    let presigned =
        |method: &str| sigv4::presign(method, host, "/lockstep-inbox/a.txt", local::s3::ACCESS_KEY, &secret);
    let client = Client::new();
    let put = client.put(presigned("PUT")).body("hello").send().await.unwrap();
    assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    let got = client.get(presigned("GET")).send().await.unwrap();
    assert_eq!((got.status(), got.text().await.unwrap()), (StatusCode::OK, "hello".to_owned()));
    let unsigned = client.get(format!("{}/lockstep-inbox/a.txt", stack.s3)).send().await.unwrap();
    assert_eq!(unsigned.status(), 403);
    let tampered = presigned("GET").replace("a.txt", "b.txt");
    assert_eq!(client.get(tampered).send().await.unwrap().status(), 403);
}

/// What the check after a deployment says of the stack: its exit code, and its words.
fn smoke(stack: &Stack, key: &str) -> (Option<i32>, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/sam/smoke");
    let output = Command::new(script).env("LOCKSTEP_URL", &stack.url).env("LOCKSTEP_API_KEY", key).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_smoke_test_passes_leaves_nothing_and_names_what_is_refused() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    let credentials = json!({ "email": "smoke@example.com", "password": "the spare key lies there" });
    let (_, account) = stack.post("/auth/register", "", credentials).await;
    let token = account["access_token"].as_str().unwrap();
    let wish = json!({ "name": "smoke", "scopes": ["read", "write"] });
    let (status, made) = stack.post("/auth/api-keys", token, wish).await;
    assert_eq!(status, 201, "{made}");
    let key = made["secret"].as_str().unwrap();
    let (code, said) = smoke(&stack, key);
    assert_eq!(code, Some(0), "{said}");
    let list = Client::new().get(stack.path("/documents")).bearer_auth(token).send().await.unwrap();
    assert_eq!(list.json::<Value>().await.unwrap()["items"], json!([]));

    let wish = json!({ "name": "reader", "scopes": ["read"] });
    let (_, reader) = stack.post("/auth/api-keys", token, wish).await;
    let (code, said) = smoke(&stack, reader["secret"].as_str().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("insufficient_scope"), "{said}");
}

/// An OpenAI-compatible endpoint that embeds by words.
async fn embedding_endpoint() -> String {
    let embed = async |axum::Json(request): axum::Json<Value>| {
        let texts = request["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let vectors = HashEmbedder::default().embed_passages(texts, deadline).await.unwrap();
        let data = vectors.into_iter().enumerate();
        axum::Json(json!({
            "data": data.map(|(index, embedding)| json!({ "index": index, "embedding": embedding })).collect::<Vec<_>>()
        }))
    };
    let router = axum::Router::new().route("/embeddings", axum::routing::post(embed));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// The most memory that the process has ever held at once.
fn peak_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_of_markdown_are_ingested_within_512_megabytes_and_show_their_progress() {
    let data = TempFolder::new().unwrap();
    let mut up = command(data.path(), 0);
    up.env("EMBEDDING_URL", embedding_endpoint().await).env("EMBEDDING_MODEL", "words");
    up.env("EMBEDDING_DIMENSION", HashEmbedder::default().space().dimension.to_string());
    let stack = Stack::spawn(up);
    let credentials = json!({ "email": "ada@example.com", "password": "the spare key lies there" });
    let (_, account) = stack.post("/auth/register", "", credentials).await;
    let token = account["access_token"].as_str().unwrap();

    let mut text = String::new();
    for n in 0.. {
        let sentence = format!("The key of room {n} is number{}. ", n * 7);
        write!(text, "## Part {n}\n\n{}\n\n", sentence.repeat(12)).unwrap();
        if text.len() >= 5 * 1_024 * 1_024 {
            break;
        }
    }
    let request = Client::new().post(stack.path("/documents?source_uri=big")).bearer_auth(token);
    let request = request.header("content-type", "text/markdown").body(text);
    let sent = tokio::spawn(request.send());
    let mut progress = Vec::new();
    let document = loop {
        let list = Client::new().get(stack.path("/documents")).bearer_auth(token).send().await.unwrap();
        let list: Value = list.json().await.unwrap();
        let document = list["items"][0].clone();
        progress.extend(document["ingestion"]["progress"].as_f64());
        if document["state"] == "active" {
            break document;
        }
        assert!(progress.len() < 15_000, "{document}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(sent.await.unwrap().unwrap().status().as_u16(), 201 | 202));
    assert!(document["ingestion"]["chunks"]["total"].as_u64().unwrap() > 5_000, "{document}");
    assert!(progress.is_sorted() && progress.iter().filter(|p| **p > 0.0 && **p < 1.0).count() > 3, "{progress:?}");
    let question = json!({ "query": "What is the key of room 777?", "k": 1 });
    let (_, answer) = stack.post("/query", token, question).await;
    assert!(answer["hits"][0]["text"].as_str().unwrap().contains("number5439"), "{answer}");
    let peak = peak_megabytes(stack.child.id());
    assert!(peak < 512, "{peak} MB");
}

#[tokio::test]
async fn an_upload_takes_what_was_announced_and_comes_back_as_a_document() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    let credentials = json!({ "email": "ada@example.com", "password": "the spare key lies there" });
    let (_, account) = stack.post("/auth/register", "", credentials).await;
    let token = account["access_token"].as_str().unwrap();
    let text = "The spare key lies under the third flowerpot.";
    let wanted = |media_type: &str, size: usize| json!({ "path": "notes/a b+ü.txt", "media_type": media_type, "size_bytes": size });

    let (status, body) = stack.post("/uploads", token, wanted("image/png", 5)).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (415, Some("unsupported_media_type")));
    let (status, body) = stack.post("/uploads", token, wanted("text/plain", 1 << 40)).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (400, Some("invalid_field")));
    let mut foreign = wanted("text/plain", 5);
    foreign["knowledge_base"] = json!(uuid::Uuid::now_v7());
    assert_eq!(stack.post("/uploads", token, foreign).await.0, 404);
    for path in ["", "/a", "a/../b", "a//b"] {
        let body = json!({ "path": path, "media_type": "text/plain", "size_bytes": 5 });
        assert_eq!(stack.post("/uploads", token, body).await.0, 400, "{path}");
    }

    let (status, upload) = stack.post("/uploads", token, wanted("text/plain", text.len())).await;
    assert_eq!(status, 201, "{upload}");
    let put = async |media_type: &str, text: &str| {
        let request = Client::new().put(upload["url"].as_str().unwrap()).header("content-type", media_type);
        request.body(text.to_owned()).send().await.unwrap().status()
    };
    assert_eq!(put("text/plain", "Another length.").await, 403);
    assert_eq!(put("text/html", text).await, 403);
    assert_eq!(put(upload["headers"]["content-type"].as_str().unwrap(), text).await, 200);

    let list = reqwest::Url::parse_with_params(
        &stack.path("/documents"),
        [("source_uri", upload["source_uri"].as_str().unwrap())],
    );
    let list = list.unwrap();
    let asked = Instant::now();
    let document = loop {
        let body: Value =
            Client::new().get(list.clone()).bearer_auth(token).send().await.unwrap().json().await.unwrap();
        match &body["items"][0] {
            document if document["state"] == "active" => break document.clone(),
            _ => assert!(asked.elapsed() < Duration::from_mins(1), "{body}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(document["size_bytes"], text.len());
    assert_eq!(document["knowledge_base"], upload["knowledge_base"]);
}
