//! What can not be mended by trying again ends as failed; what may pass by itself is tried for as long as it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use serde_json::{Value, json};
use shared::embed::{EmbedError, Embedder, Space};
use tokio::time::Instant;

use crate::{
    deletion::send,
    world::{assert_nothing_is_left_but, assert_readers_see_the_active_revision, sweep},
};

/// A passage with this word is the one that meets trouble.
const TROUBLE: &str = "trouble";

/// How often a revision may be refused before it has failed, and some more.
const SWEEPS: usize = 30;

/// Fails for passages that speak of trouble, until it is mended.
#[derive(Debug)]
struct TroubledEmbedder {
    inner: HashEmbedder,
    refuses: bool,
    mended: Arc<AtomicBool>,
}

#[async_trait]
impl Embedder for TroubledEmbedder {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        let troubled = texts.iter().any(|text| text.contains(TROUBLE)) && !self.mended.load(Ordering::Relaxed);
        match (troubled, self.refuses) {
            (true, true) => Err(EmbedError::Rejected { status: 400, detail: "secret".to_owned() }),
            (true, false) => Err(EmbedError::Unavailable { source: "down".into() }),
            (false, _) => self.inner.embed_passages(texts, deadline).await,
        }
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }
}

async fn start(refuses: bool) -> (TestApp, TestUser, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let embedder = TroubledEmbedder { inner: HashEmbedder::default(), refuses, mended: mended.clone() };
    let app = TestApp::with(|parts| parts.embedder = Arc::new(embedder)).await;
    let user = app.register("ann").await;
    (app, user, mended)
}

/// A text of several batches, the last of which meets trouble.
fn troubled() -> Value {
    let sections = (0..40).map(|n| format!("# Part {n}\n\n{}", format!("word{n} ").repeat(120)));
    let text = sections.chain([format!("# End\n\n{TROUBLE}")]).collect::<Vec<_>>().join("\n\n");
    json!({ "text": text, "media_type": "text/markdown", "source_uri": "a" })
}

/// Sweeps, as if the pause were over.
async fn sweep_now(app: &TestApp) -> ingest::Swept {
    app.pg().await.execute("UPDATE document_revisions SET next_attempt_at = now()", &[]).await.unwrap();
    sweep(app).await
}

async fn attempts(app: &TestApp) -> i32 {
    let newest = "SELECT attempt FROM document_revisions ORDER BY number DESC LIMIT 1";
    app.pg().await.query_one(newest, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_text_that_is_refused_each_time_fails_and_the_active_revision_goes_on_answering() {
    let (app, user, mended) = start(true).await;
    let first = json!({ "text": "It stands.", "source_uri": "a" });
    let sent = send(&app, &user, "k1", &first).await.expect(201);
    let path = format!("/documents/{}", sent.json["id"].as_str().unwrap());
    let refused = send(&app, &user, "k2", &troubled()).await;
    assert_eq!((refused.problem(500), &refused.json["retryable"]), ("internal", &json!(false)));
    assert!(app.all_points().await.len() > 30, "a batch was written before");
    let mut left = 0;
    for _ in 0..SWEEPS {
        left += sweep_now(&app).await.left;
    }
    assert_eq!((left, attempts(&app).await), (9, 10), "it is not tried for ever");

    let shown = app.call(Method::GET, &path, Some(&user.token), None).await.expect(200);
    assert_eq!((&shown.json["state"], &shown.json["revision"]), (&json!("active"), &json!(1)));
    let ingestion = &shown.json["ingestion"];
    assert_eq!((&ingestion["revision"], &ingestion["state"]), (&json!(2), &json!("failed")));
    assert_eq!(ingestion["failure"]["code"], "embedder_refused");
    assert!(!ingestion["failure"]["detail"].as_str().unwrap().contains("secret"));
    assert_readers_see_the_active_revision(&app, &user).await;
    assert_nothing_is_left_but(&app, 1).await;
    let retried = app.call(Method::POST, &format!("{path}/retry"), Some(&user.token), None).await;
    assert_eq!((retried.problem(409), &retried.json["detail"]), ("not_resumable", &ingestion["failure"]["detail"]));

    mended.store(true, Ordering::Relaxed);
    let done = send(&app, &user, "k2", &troubled()).await.expect(200);
    assert_eq!((&done.json["revision"], &done.json["ingestion"]["failure"]), (&json!(3), &Value::Null));
    assert_nothing_is_left_but(&app, 1).await;
    assert_readers_see_the_active_revision(&app, &user).await;
}

#[tokio::test]
async fn what_may_pass_by_itself_is_tried_for_as_long_as_it_takes() {
    let (app, user, mended) = start(false).await;
    assert_eq!(send(&app, &user, "k1", &troubled()).await.problem(503), "dependency_unavailable");
    for _ in 0..SWEEPS {
        assert_eq!(sweep_now(&app).await.left, 1);
    }
    let pause = "SELECT state, extract(epoch FROM next_attempt_at - now())::float8 FROM document_revisions";
    let row = app.pg().await.query_one(pause, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "staged");
    assert!(row.get::<_, f64>(1) <= Duration::from_mins(5).as_secs_f64(), "{row:?}");
    mended.store(true, Ordering::Relaxed);
    assert_eq!(sweep_now(&app).await.completed, 1);
    let done = send(&app, &user, "k1", &troubled()).await.expect(201);
    assert_eq!(done.header("idempotency-replayed"), "true");
    assert_nothing_is_left_but(&app, 1).await;
}
