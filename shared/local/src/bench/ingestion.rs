//! Ingestion, against the embedder alone over the same passages.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{Json, Router, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, header};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;
use shared::embed::{EmbedError, Embedder, HttpConfig, HttpEmbedder, Space};
use tokio::net::TcpListener;

use super::{Bar, Figure, say};
use crate::testkit::{TestApp, long_text, request};

/// Paragraphs of each text with the model in the process: some seconds of inference.
const PARAGRAPHS: usize = 400;

/// Paragraphs of each text with an endpoint: enough for several calls.
const PARAGRAPHS_REMOTE: usize = 8_000;

/// Texts that are ingested into one collection, in turns with the floor, and one before them. One more, and Qdrant would make a
/// graph of them (`indexing_threshold`, 10 MB), which takes all processors for seconds.
const TURNS: usize = 2;

/// Collections with an endpoint, where a turn is a quarter of a second.
const COLLECTIONS_REMOTE: usize = 8;

/// What an endpoint takes for each request.
const LATENCY: Duration = Duration::from_millis(50);

const DIMENSION: usize = 384;

/// Keeps the passages that go by, until they are taken.
#[derive(Debug)]
struct Recorder {
    inner: Arc<dyn Embedder>,
    passages: Mutex<Option<Vec<String>>>,
}

#[async_trait]
impl Embedder for Recorder {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(
        &self,
        texts: Vec<String>,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if let Some(passages) = &mut *self.passages.lock().unwrap_or_else(PoisonError::into_inner) {
            passages.extend(texts.iter().cloned());
        }
        self.inner.embed_passages(texts, deadline).await
    }

    async fn embed_query(&self, text: String, deadline: tokio::time::Instant) -> Result<Vec<f32>, EmbedError> {
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }

    fn passages_at_once(&self) -> usize {
        self.inner.passages_at_once()
    }

    fn passages_in_call(&self) -> usize {
        self.inner.passages_in_call()
    }
}

pub(super) async fn measure() -> Vec<Figure> {
    say("texts are being ingested with the model in the process");
    let mut figures = Vec::new();
    let local = TestApp::with(|_| {}).await.app.embedder.clone();
    figures.push(against(local, PARAGRAPHS, 1, "ingestion, model in the process").await);
    say("texts are being ingested with an endpoint of 50 ms");
    let config = HttpConfig::new(endpoint().await, "stub", DIMENSION);
    let remote = Arc::new(HttpEmbedder::new(config).expect("the endpoint is a URL"));
    figures.push(against(remote, PARAGRAPHS_REMOTE, COLLECTIONS_REMOTE, "ingestion, endpoint of 50 ms").await);
    figures
}

async fn against(embedder: Arc<dyn Embedder>, paragraphs: usize, collections: usize, what: &'static str) -> Figure {
    let (mut ours, mut floor, mut chunks) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..collections {
        let recorder = Arc::new(Recorder { inner: embedder.clone(), passages: Mutex::new(Some(Vec::new())) });
        let mut passages = Vec::new();
        let app = TestApp::with(|parts| {
            parts.embedder = recorder.clone();
            parts.config.limits.request_timeout = Duration::from_mins(15);
        })
        .await;
        let user = app.register("ann").await;
        for turn in 0..=TURNS {
            let body = json!({ "text": long_text(paragraphs), "media_type": "text/markdown", "source_uri": format!("text {turn}") });
            // What a client does to send it is no part of it.
            let request = request(Method::POST, "/documents", Some(&user.token), Some(body));
            let begun = Instant::now();
            app.send(request).await.expect(201);
            let ingested = begun.elapsed();
            // The first one makes the collection, loads the model, and tells the passages, which all have.
            if let Some(seen) = recorder.passages.lock().unwrap_or_else(PoisonError::into_inner).take() {
                passages = seen;
                continue;
            }
            let alone = passages.clone();
            let begun = Instant::now();
            let deadline = tokio::time::Instant::now() + Duration::from_mins(15);
            embedder.embed_passages(alone, deadline).await.expect("vectors");
            (ours, floor, chunks) = (ours + ingested, floor + begun.elapsed(), chunks + passages.len());
        }
    }
    let rate = |time: Duration| f64::from(u32::try_from(chunks).unwrap_or(u32::MAX)) / time.as_secs_f64();
    Figure { what, unit: "chunks/s", ours: rate(ours), floor: rate(floor), bar: Bar::AtLeast(0.9) }
}

/// What an endpoint is asked, as far as it matters.
#[derive(Deserialize)]
struct Question {
    input: Vec<IgnoredAny>,
    encoding_format: String,
}

/// An endpoint that takes its time, and answers any number of requests at once. It takes next to no work, which would be
/// another machine's.
async fn endpoint() -> String {
    let vector = format!("\"{}\"", STANDARD.encode(0.05_f32.to_le_bytes().repeat(DIMENSION)));
    let embed = async move |Json(Question { input, encoding_format }): Json<Question>| {
        assert_eq!(encoding_format, "base64", "another form is asked for");
        tokio::time::sleep(LATENCY).await;
        let item = |index| format!(r#"{{"index":{index},"embedding":{vector}}}"#);
        let data = (0..input.len()).map(item).collect::<Vec<_>>().join(",");
        ([(header::CONTENT_TYPE, "application/json")], format!(r#"{{"data":[{data}]}}"#))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/embeddings", post(embed))).await });
    format!("http://{address}")
}
