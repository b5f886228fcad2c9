//! What others see of an ingestion in flight, and what becomes of one that is cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::Method;
use local::testkit::{HashEmbedder, TestApp};
use serde_json::{Value, json};
use shared::embed::{EmbedError, Embedder, Space};

use crate::{
    gate::GatedEmbedder,
    ingestion::{app, markdown, paragraphs, send},
};

#[tokio::test]
async fn a_second_text_for_a_document_that_is_being_ingested_has_to_wait() {
    let gate = GatedEmbedder::default();
    let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
    let user = app.register("ann").await;
    let first = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "k1", &markdown("First.")).await }
    });
    gate.reached(&app).await;
    let second = send(&app, &user, "k2", &markdown("Second.")).await;
    assert_eq!(second.problem(409), "document_busy");
    assert!(second.header("retry-after").parse::<u64>().unwrap() >= 1);
    gate.open();
    first.await.unwrap().expect(201);
    send(&app, &user, "k2", &markdown("Second.")).await.expect(200);
    app.assert_consistent().await;
}

#[tokio::test]
async fn an_ingestion_in_flight_does_not_bring_a_deleted_document_back() {
    let gate = GatedEmbedder::default();
    let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
    let user = app.register("ann").await;
    let sending = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "k1", &markdown("Doomed.")).await }
    });
    gate.reached(&app).await;
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    assert_eq!(list.json["items"][0]["state"], "ingesting");
    let path = format!("/documents/{}", list.json["items"][0]["id"].as_str().unwrap());
    app.call(Method::DELETE, &path, Some(&user.token), None).await.expect(204);
    gate.open();
    assert_eq!(sending.await.unwrap().problem(409), "lease_lost");
    app.call(Method::GET, &path, Some(&user.token), None).await.expect(404);
    app.assert_consistent().await;
    // The late point is on the list until nobody can be writing it any more, and goes then.
    let pg = app.pg().await;
    assert_eq!(pg.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap(), 1);
    ingest::sweep(&app.app, shared::deadline::Deadline::after(Duration::from_secs(10))).await.unwrap();
    assert_eq!(app.all_points().await, []);
}

#[tokio::test]
async fn a_new_document_is_embedded_once_and_while_it_is_being_stored() {
    let app = Arc::new(app().await);
    let user = app.register("ann").await;
    let pg = app.pg().await;
    pg.batch_execute("BEGIN; LOCK TABLE chunk_metadata IN EXCLUSIVE MODE").await.unwrap();
    let sending = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "k1", &markdown(&paragraphs(100).join("\n\n"))).await }
    });
    let ahead = async {
        while app.embedded.passages() < 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ahead).await.expect("nothing waits for the text to be stored");
    assert_eq!(app.all_points().await, [], "but its points do");
    pg.batch_execute("COMMIT").await.unwrap();
    let document = sending.await.unwrap().expect(201).json;
    assert_eq!(document["ingestion"]["chunks"]["total"], app.embedded.passages());
    app.assert_consistent().await;
}

#[tokio::test]
async fn what_does_not_fit_one_invocation_goes_on_in_the_next() {
    let gate = GatedEmbedder::slow(Duration::from_millis(400));
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(gate.clone());
        parts.config.limits.request_timeout = Duration::from_secs(4);
    })
    .await;
    let user = app.register("ann").await;
    let body = markdown(&paragraphs(400).join("\n\n"));
    let reply = send(&app, &user, "k1", &body).await.expect(202);
    assert_eq!((&reply.json["state"], &reply.json["revision"]), (&json!("ingesting"), &Value::Null));
    let progress = reply.json["ingestion"]["progress"].as_f64().unwrap();
    assert!(progress > 0.0 && progress < 1.0, "{progress}");
    // The same request goes on where the first stopped; the sweeper would as well.
    let again = send(&app, &user, "k1", &body).await.expect(202);
    assert!(again.json["ingestion"]["progress"].as_f64().unwrap() > progress);
    gate.open();
    let swept = ingest::sweep(&app.app, shared::deadline::Deadline::after(Duration::from_mins(1))).await.unwrap();
    assert_eq!(swept.completed, 1);
    let done = send(&app, &user, "k1", &body).await.expect(201);
    assert_eq!((done.header("idempotency-replayed"), &done.json["state"]), ("true", &json!("active")));
    let total = done.json["ingestion"]["chunks"]["total"].as_u64().unwrap();
    assert_eq!(done.json["ingestion"]["chunks"]["embedded"].as_u64().unwrap(), total);
    // Finished batches are not repeated: at most those in flight at each cut are, two of who works ahead and one of another.
    assert!(app.embedded.passages() as u64 <= total + 3 * 32, "{} of {total}", app.embedded.passages());
    app.assert_consistent().await;
}

/// Counts no tokens of a text with [`STUMBLING_BLOCK`], until it is mended.
#[derive(Clone, Debug, Default)]
struct Stumbling {
    inner: Arc<HashEmbedder>,
    mended: Arc<AtomicBool>,
}

const STUMBLING_BLOCK: &str = "unspeakable";

#[async_trait]
impl Embedder for Stumbling {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(
        &self,
        texts: Vec<String>,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.inner.embed_passages(texts, deadline).await
    }

    async fn embed_query(&self, text: String, deadline: tokio::time::Instant) -> Result<Vec<f32>, EmbedError> {
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        if text.contains(STUMBLING_BLOCK) && !self.mended.load(Ordering::Relaxed) {
            return Err(EmbedError::BadAnswer("it stumbles".to_owned()));
        }
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }
}

#[tokio::test]
async fn a_text_that_can_not_be_cut_to_its_end_is_not_there_in_part() {
    let embedder = Stumbling::default();
    let app = TestApp::with(|parts| parts.embedder = Arc::new(embedder.clone())).await;
    let user = app.register("ann").await;
    let text = format!("{}\n\nThe end is {STUMBLING_BLOCK}.", paragraphs(1_200).join("\n\n"));
    assert_eq!(send(&app, &user, "k1", &markdown(&text)).await.problem(500), "internal");
    let pg = app.pg().await;
    let stored = "SELECT (SELECT count(*) FROM chunk_metadata) + (SELECT count(*) FROM chunk_positions)";
    assert_eq!(pg.query_one(stored, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(app.all_points().await, []);
    embedder.mended.store(true, Ordering::Relaxed);
    let document = send(&app, &user, "k1", &markdown(&text)).await.expect(201).json;
    let last = "SELECT EXISTS (SELECT FROM chunk_metadata WHERE text LIKE '%The end is%')";
    assert!(pg.query_one(last, &[]).await.unwrap().get::<_, bool>(0), "{document}");
    app.assert_consistent().await;
}
