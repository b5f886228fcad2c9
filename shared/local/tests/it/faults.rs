//! What is down comes back, and nobody has lost or doubled anything.

use std::{sync::Arc, time::Duration};

use http::{Method, Request};
use local::testkit::{HashEmbedder, Reply, TcpProxy, TestApp, TestUser, private_postgres, private_qdrant};
use serde_json::{Value, json};

use crate::gate::GatedEmbedder;

async fn send(app: &TestApp, user: &TestUser, key: &str, body: &Value) -> Reply {
    let request = Request::post("/documents")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(body.to_string().into_bytes())
        .unwrap();
    app.send(request).await
}

fn assert_unavailable(reply: &Reply, dependency: &str) {
    assert_eq!(reply.problem(503), "dependency_unavailable");
    assert_eq!((&reply.json["dependency"], &reply.json["retryable"]), (&json!(dependency), &json!(true)));
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_postgresql_the_next_request_succeeds() {
    let mut server = private_postgres();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.database.url = server.url("postgres");
    })
    .await;
    let user = app.register("ann").await;
    let list = async || app.call(Method::GET, "/documents", Some(&user.token), None).await;
    // Several connections lie in the pool, and all of them will be dead.
    futures::future::join_all((0..6).map(|_| list())).await;
    for _ in 0..3 {
        server.restart().unwrap();
        list().await.expect(200);
        server.restart().unwrap();
        let key = uuid::Uuid::now_v7().to_string();
        let sent = send(&app, &user, &key, &json!({ "text": "Still here.", "source_uri": "a" })).await;
        assert!(sent.status.is_success(), "{}", sent.json);
        assert_eq!(list().await.expect(200).json["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_down_is_a_503_that_names_it_and_passes() {
    let mut server = private_postgres();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.database.url = server.url("postgres");
    })
    .await;
    let user = app.register("ann").await;
    server.kill();
    let down = app.call(Method::GET, "/documents", Some(&user.token), None).await;
    assert_unavailable(&down, "postgresql");
    server.resume().unwrap();
    app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
}

#[tokio::test]
async fn with_qdrant_down_an_ingestion_is_a_503_and_the_same_key_completes_it() {
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
    assert_unavailable(&send(&app, &user, "k1", &body).await, "qdrant");
    assert_unavailable(&send(&app, &user, "k1", &body).await, "qdrant");
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    assert_eq!(
        (&list.json["items"][0]["state"], &list.json["items"][0]["revision"]),
        (&json!("ingesting"), &Value::Null)
    );
    proxy.forward();
    let done = send(&app, &user, "k1", &body).await.expect(201);
    assert_eq!((&done.json["state"], &done.json["ingestion"]["attempt"]), (&json!("active"), &json!(3)));
    assert_eq!(send(&app, &user, "k1", &body).await.expect(201).bytes, done.bytes);
    app.assert_consistent().await;
}

#[tokio::test]
async fn qdrant_cut_off_in_the_middle_costs_no_batch_that_was_finished() {
    let plain = TestApp::start().await;
    let proxy = TcpProxy::before(&plain.app.config.qdrant.url).await;
    let gate = GatedEmbedder::slow(Duration::from_millis(150));
    let app = Arc::new(
        TestApp::with(|parts| {
            parts.embedder = Arc::new(gate.clone());
            parts.config.qdrant.url = proxy.redirect(&parts.config.qdrant.url);
        })
        .await,
    );
    let user = app.register("ann").await;
    let sections = (0..300).map(|n| format!("# Part {n}\n\n{}", format!("word{n} ").repeat(120)));
    let text = sections.collect::<Vec<_>>().join("\n\n");
    let body = json!({ "text": text, "media_type": "text/markdown", "source_uri": "a" });
    let sending = tokio::spawn({
        let (app, user, body) = (app.clone(), user.clone(), body.clone());
        async move { send(&app, &user, "k1", &body).await }
    });
    let progress = async || {
        let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
        list.json["items"][0]["ingestion"]["chunks"]["embedded"].as_i64().unwrap_or_default()
    };
    while progress().await < 64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.refuse();
    assert_unavailable(&sending.await.unwrap(), "qdrant");
    let kept = progress().await;
    assert!(kept >= 64);
    proxy.forward();
    gate.open();
    let before = app.embedded.passages();
    let done = send(&app, &user, "k1", &body).await.expect(201);
    let total = done.json["ingestion"]["chunks"]["total"].as_i64().unwrap();
    assert_eq!(i64::try_from(app.embedded.passages() - before).unwrap(), total - kept);
    app.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_qdrant_down_is_out_of_sight_at_once_and_swept_later() {
    let mut server = private_qdrant();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = server.url();
    })
    .await;
    let user = app.register("ann").await;
    let document = send(&app, &user, "k1", &json!({ "text": "Short-lived.", "source_uri": "a" })).await.expect(201);
    server.kill();
    let path = format!("/documents/{}", document.json["id"].as_str().unwrap());
    app.call(Method::DELETE, &path, Some(&user.token), None).await.expect(204);
    app.call(Method::GET, &path, Some(&user.token), None).await.expect(404);
    server.resume().unwrap();
    assert_eq!(app.all_points().await.len(), 1, "it survived the kill, and is still to be removed");
    app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
    ingest::sweep(&app.app, shared::deadline::Deadline::after(Duration::from_secs(10))).await.unwrap();
    assert_eq!(app.all_points().await, []);
    app.assert_consistent().await;
}

#[tokio::test]
async fn an_ingestion_that_only_its_client_could_go_on_with_ends_as_failed_and_can_be_sent_again() {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    let body = json!({ "text": "First.", "source_uri": "a" });
    send(&app, &user, "k1", &body).await.expect(201);
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
    ingest::sweep(&app.app, shared::deadline::Deadline::after(Duration::from_secs(10))).await.unwrap();
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    let document = &list.json["items"][0];
    assert_eq!((&document["state"], &document["revision"]), (&json!("active"), &json!(1)));
    let ingestion = &document["ingestion"];
    assert_eq!((&ingestion["state"], &ingestion["failure"]["code"]), (&json!("failed"), &json!("interrupted")));
    let again = send(&app, &user, "k2", &json!({ "text": "Second.", "source_uri": "a" })).await.expect(200);
    assert_eq!((&again.json["revision"], &again.json["ingestion"]["failure"]), (&json!(3), &Value::Null));
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_late_retry_of_an_older_key_does_not_replace_newer_text() {
    let plain = TestApp::start().await;
    let proxy = TcpProxy::before(&plain.app.config.qdrant.url).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = proxy.redirect(&parts.config.qdrant.url);
    })
    .await;
    let user = app.register("ann").await;
    let (old, new) = (json!({ "text": "Old.", "source_uri": "a" }), json!({ "text": "New.", "source_uri": "a" }));
    proxy.refuse();
    assert_unavailable(&send(&app, &user, "k1", &old).await, "qdrant");
    proxy.forward();
    let newer = send(&app, &user, "k2", &new).await.expect(201);
    let late = send(&app, &user, "k1", &old).await;
    assert_eq!((late.problem(409), &late.json["retryable"]), ("superseded", &json!(false)));
    let again = send(&app, &user, "k1", &old).await;
    assert_eq!((again.problem(409), again.header("idempotency-replayed")), ("superseded", "true"));
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    assert_eq!(list.json["items"][0]["content_hash"], newer.json["content_hash"]);
    // With a key of its own, the old text is a new request.
    assert_eq!(send(&app, &user, "k3", &old).await.expect(200).json["revision"], 3);
    app.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_one_document_at_once_do_not_wait_for_each_other_in_a_circle() {
    let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await);
    let user = app.register("ann").await;
    let clients = (0..6).map(|client| {
        let (app, user) = (app.clone(), user.clone());
        tokio::spawn(async move {
            for round in 0..12 {
                let text = format!("# Text of client {client}\n\nRound {round}, {}.", "and so on ".repeat(80));
                let body = json!({ "text": text, "source_uri": "a", "media_type": "text/markdown" });
                let reply = send(&app, &user, &format!("{client}/{}", round / 2), &body).await;
                assert!(reply.status.as_u16() < 500, "{}", reply.json);
                if let (4, Some(id)) = (round % 5, reply.json["id"].as_str()) {
                    let reply = app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await;
                    assert!(reply.status.as_u16() < 500, "{}", reply.json);
                }
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    app.assert_consistent().await;
    let pg = app.pg().await;
    // Sessions report their counts when they end or have been idle.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let row = pg.query_one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_request_that_is_cut_in_mid_statement_leaves_no_busy_connection_behind() {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.database.pool_max = 1;
    })
    .await;
    let user = app.register("ann").await;
    let slow = app.app.db.transaction("sleep", async move |tx| {
        tx.batch_execute("SELECT pg_sleep(15)").await.map_err(shared::db::DbError::from)
    });
    tokio::time::timeout(Duration::from_millis(300), slow).await.expect_err("it is cut");
    let asked = std::time::Instant::now();
    app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_a_503_within_its_waiting_time() {
    let app = Arc::new(
        TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            parts.config.database.pool_max = 1;
            parts.config.database.wait_timeout = Duration::from_millis(200);
        })
        .await,
    );
    let user = app.register("ann").await;
    let db = app.app.db.clone();
    let holder = tokio::spawn(async move {
        db.transaction("hold", async move |tx| {
            tx.batch_execute("SELECT pg_sleep(3)").await.map_err(shared::db::DbError::from)
        })
        .await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = std::time::Instant::now();
    assert_unavailable(&app.call(Method::GET, "/documents", Some(&user.token), None).await, "postgresql");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    holder.await.unwrap().unwrap();
    app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_work_to_be_completed_and_finds_the_answer_when_it_comes_back() {
    let gate = GatedEmbedder::default();
    let app = TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await;
    let user = app.register("ann").await;
    let body = json!({ "text": "It will be there.", "source_uri": "a" });
    // The request is dropped where it stands, as a server does when the connection closes.
    tokio::time::timeout(Duration::from_millis(500), send(&app, &user, "k1", &body)).await.expect_err("it is cut");
    assert_eq!(send(&app, &user, "k1", &body).await.problem(409), "idempotency_key_in_flight");
    gate.open();
    let mut reply = send(&app, &user, "k1", &body).await;
    while reply.status == 409 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        reply = send(&app, &user, "k1", &body).await;
    }
    assert_eq!((reply.expect(201).header("idempotency-replayed"), app.embedded.passages()), ("true", 1));
    app.assert_consistent().await;
}
