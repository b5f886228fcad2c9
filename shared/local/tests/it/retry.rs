//! `POST /documents/{id}/retry`: somebody asks that an ingestion go on.

use std::{sync::Arc, time::Duration};

use http::Method;
use local::testkit::{HashEmbedder, Reply, TcpProxy, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{
    deletion::{LOST, join, send},
    gate::GatedEmbedder,
};

async fn retry(app: &TestApp, user: &TestUser, id: &str) -> Reply {
    app.call(Method::POST, &format!("/documents/{id}/retry"), Some(&user.token), None).await
}

/// The id of the only document that the user sees.
async fn only(app: &TestApp, user: &TestUser) -> String {
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    list.json["items"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn once_qdrant_is_back_a_retry_completes_the_document_without_waiting() {
    let plain = TestApp::start().await;
    let proxy = TcpProxy::before(&plain.app.config.qdrant.url).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = proxy.redirect(&parts.config.qdrant.url);
    })
    .await;
    let user = app.register("ann").await;
    let body = json!({ "text": "It will be there.", "source_uri": "a" });
    proxy.refuse();
    assert_eq!(send(&app, &user, "k1", &body).await.problem(503), "dependency_unavailable");
    let id = only(&app, &user).await;
    let down = retry(&app, &user, &id).await;
    assert_eq!((down.problem(503), &down.json["dependency"]), ("dependency_unavailable", &json!("qdrant")));
    proxy.forward();
    // The sweeper would not touch it yet.
    let early = "SELECT next_attempt_at > now() FROM document_revisions";
    assert!(app.pg().await.query_one(early, &[]).await.unwrap().get::<_, bool>(0));
    let done = retry(&app, &user, &id).await.expect(200);
    assert_eq!(
        (&done.json["id"], &done.json["state"], &done.json["revision"]),
        (&json!(id), &json!("active"), &json!(1))
    );
    let embedded = app.embedded.passages();
    let again = retry(&app, &user, &id).await.expect(200);
    assert_eq!(again.json, done.json);
    assert_eq!(app.embedded.passages(), embedded, "an active document is left alone");
    let replayed = send(&app, &user, "k1", &body).await.expect(201);
    assert_eq!((&replayed.json, replayed.header("idempotency-replayed")), (&done.json, "true"));
    app.assert_consistent().await;
}

#[tokio::test]
async fn what_somebody_works_on_is_left_to_them_until_their_lease_ends_and_then_taken_over() {
    let gate = GatedEmbedder::default();
    let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
    let user = app.register("ann").await;
    let first = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "k1", &json!({ "text": "Held.", "source_uri": "a" })).await }
    });
    gate.reached(&app).await;
    let id = only(&app, &user).await;
    let busy = retry(&app, &user, &id).await;
    assert_eq!(busy.problem(409), "document_busy");
    assert!(busy.header("retry-after").parse::<u64>().unwrap() >= 1);
    // As if the first process had died.
    let pg = app.pg().await;
    pg.execute("UPDATE document_revisions SET lease_expires_at = now()", &[]).await.unwrap();
    let second = tokio::spawn({
        let (app, user, id) = (app.clone(), user.clone(), id.clone());
        async move { retry(&app, &user, &id).await }
    });
    let taken = "SELECT count(*) FROM document_revisions WHERE attempt = 2";
    while pg.query_one(taken, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.open();
    assert_eq!(second.await.unwrap().expect(200).json["state"], "active");
    assert_eq!(first.await.unwrap().problem(409), LOST, "it was not dead, and is told so");
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_retry_whose_time_runs_out_is_accepted_and_the_next_goes_on_from_there() {
    let gate = GatedEmbedder::slow(Duration::from_millis(400));
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(gate.clone());
        parts.config.limits.request_timeout = Duration::from_secs(4);
    })
    .await;
    let user = app.register("ann").await;
    let sections = (0..600).map(|n| format!("# Part {n}\n\n{}", format!("word{n} ").repeat(120)));
    let text = sections.collect::<Vec<_>>().join("\n\n");
    let body = json!({ "text": text, "media_type": "text/markdown", "source_uri": "a" });
    let sent = send(&app, &user, "k1", &body).await.expect(202);
    let id = sent.json["id"].as_str().unwrap();
    let paused = retry(&app, &user, id).await.expect(202);
    assert_eq!((paused.header("location"), paused.header("retry-after")), (&*format!("/documents/{id}"), "2"));
    let progress = |reply: &Reply| reply.json["ingestion"]["progress"].as_f64().unwrap();
    assert!(progress(&paused) > progress(&sent));
    gate.open();
    let done = retry(&app, &user, id).await.expect(200);
    assert_eq!((&done.json["state"], progress(&done)), (&json!("active"), 1.0));
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_text_that_was_never_stored_must_be_sent_again() {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    send(&app, &user, "k1", &json!({ "text": "First.", "source_uri": "a" })).await.expect(201);
    // What a process leaves behind that was killed between claiming the document and storing its text.
    let pg = app.pg().await;
    pg.batch_execute(
        "INSERT INTO document_revisions
            (document_id, number, state, media_type, content_hash, size_bytes, fence, lease_expires_at)
        SELECT id, 2, 'claimed', 'text/plain', decode(repeat('00', 32), 'hex'), 1, nextval('fencing_tokens'),
            now() - interval '1 hour' FROM documents;
        UPDATE documents SET latest_revision = 2",
    )
    .await
    .unwrap();
    let id = only(&app, &user).await;
    let unknown = retry(&app, &user, &id).await;
    assert_eq!((unknown.problem(409), &unknown.json["retryable"]), ("not_resumable", &json!(false)));
    ingest::sweep(&app.app, shared::deadline::Deadline::after(Duration::from_secs(10))).await.unwrap();
    let failed = retry(&app, &user, &id).await;
    assert_eq!(failed.problem(409), "not_resumable");
    let shown = app.call(Method::GET, &format!("/documents/{id}"), Some(&user.token), None).await.expect(200);
    assert_eq!(failed.json["detail"], shown.json["ingestion"]["failure"]["detail"]);
    send(&app, &user, "k2", &json!({ "text": "Second.", "source_uri": "a" })).await.expect(200);
    assert_eq!(retry(&app, &user, &id).await.expect(200).json["revision"], 3);
    app.assert_consistent().await;
}

#[tokio::test]
async fn only_who_may_change_a_document_may_retry_it() {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let (ann, bob, cid) = (app.register("ann").await, app.register("bob").await, app.register("cid").await);
    let sent = send(&app, &ann, "k1", &json!({ "text": "Ann's.", "source_uri": "a" })).await.expect(201);
    let id = sent.json["id"].as_str().unwrap();
    join(&app, &bob, ann.knowledge_base, "viewer").await;
    assert_eq!(retry(&app, &bob, id).await.problem(403), "forbidden");
    let (foreign, missing) = (retry(&app, &cid, id).await, retry(&app, &cid, &uuid::Uuid::now_v7().to_string()).await);
    assert_eq!((foreign.problem(404), &foreign.json["detail"]), ("not_found", &missing.json["detail"]));
    assert_eq!(retry(&app, &ann, "x").await.problem(404), "not_found");
    let anonymous = app.call(Method::POST, &format!("/documents/{id}/retry"), None, None).await;
    assert_eq!((anonymous.problem(401), &anonymous.json["retryable"]), ("unauthenticated", &Value::Bool(false)));
    let wrong = app.call(Method::GET, &format!("/documents/{id}/retry"), Some(&ann.token), None).await;
    assert_eq!(wrong.problem(405), "method_not_allowed");
}

#[tokio::test]
async fn who_was_overtaken_or_deleted_and_sends_again_hears_at_once_what_became_of_it() {
    for deleted in [true, false] {
        let gate = GatedEmbedder::default();
        let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
        let user = app.register("ann").await;
        let body = json!({ "text": "Held.", "source_uri": "a" });
        let first = tokio::spawn({
            let (app, user, body) = (app.clone(), user.clone(), body.clone());
            async move { send(&app, &user, "k1", &body).await }
        });
        gate.reached(&app).await;
        let id = only(&app, &user).await;
        if deleted {
            app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await.expect(204);
        } else {
            // Only the revision's: its key is held for as long as it was.
            let pg = app.pg().await;
            pg.execute("UPDATE document_revisions SET lease_expires_at = now()", &[]).await.unwrap();
            let other = tokio::spawn({
                let (app, user) = (app.clone(), user.clone());
                async move { send(&app, &user, "k2", &json!({ "text": "Other.", "source_uri": "a" })).await }
            });
            let newer = "SELECT count(*) FROM document_revisions WHERE number = 2 AND state = 'staged'";
            while pg.query_one(newer, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            gate.open();
            assert_eq!(other.await.unwrap().expect(201).json["revision"], 2);
        }
        gate.open();
        assert_eq!(first.await.unwrap().problem(409), LOST);
        let again = send(&app, &user, "k1", &body).await;
        assert_eq!((again.problem(409), &again.json["retryable"]), ("superseded", &json!(false)), "{deleted}");
        app.assert_consistent().await;
    }
}

#[tokio::test]
async fn who_was_deleted_when_the_time_is_over_hears_the_same_as_at_any_other_moment() {
    let gate = GatedEmbedder::default();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(gate.clone());
        parts.config.limits.request_timeout = Duration::from_secs(8);
    });
    let app = Arc::new(app.await);
    let user = app.register("ann").await;
    let sending = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "k1", &json!({ "text": "Held.", "source_uri": "a" })).await }
    });
    gate.reached(&app).await;
    let path = format!("/documents/{}", only(&app, &user).await);
    app.call(Method::DELETE, &path, Some(&user.token), None).await.expect(204);
    // The gate stays closed: nothing but the view for a 202 is still asked for.
    assert_eq!(sending.await.unwrap().problem(409), LOST);
}
