//! Every call has an end, and no failure makes us send many times what we were asked.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::Method;
use local::testkit::{Call, Fault, HashEmbedder, QdrantProxy, Reply, TcpProxy, TestApp, TestUser};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::world::send;

/// Far below what a store is given where the request has time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

fn assert_blamed(reply: &Reply, store: &str) {
    assert_eq!(reply.problem(503), "dependency_unavailable", "{}", reply.json);
    assert_eq!(reply.json["dependency"], store);
    assert_ne!(reply.header("retry-after"), "");
}

async fn ask(app: &TestApp, user: &TestUser) -> Reply {
    let question = json!({ "query": "Where is the spare key?" });
    app.call(Method::POST, "/query", Some(&user.token), Some(question)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_does_not_answer_is_named_before_the_requests_time_is_over() {
    let plain = TestApp::start().await;
    let proxy = TcpProxy::before(plain.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.limits.request_timeout = REQUEST_TIMEOUT;
        parts.config.database.url = proxy.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    let user = app.register("ann").await;
    let note = json!({ "text": "The spare key lies under the third flowerpot.", "source_uri": "note" });
    send(&app, &user, "first", &note).await.expect(201);
    proxy.pause();
    assert_blamed(&send(&app, &user, "second", &note).await, "postgresql");
    assert_blamed(&ask(&app, &user).await, "postgresql");
    assert_blamed(&app.call(Method::GET, "/documents", Some(&user.token), None).await, "postgresql");
    assert_blamed(&app.call(Method::GET, "/auth/me", Some(&user.token), None).await, "postgresql");
    proxy.forward();
    ask(&app, &user).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_told_at_once_and_not_waited_for() {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.database.pool_max = 1;
        parts.config.database.wait_timeout = Duration::from_millis(50);
    })
    .await;
    let user = app.register("ann").await;
    let (release, taken) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let holder = tokio::spawn({
        let (db, release, taken) = (app.app.db.clone(), release.clone(), taken.clone());
        async move {
            let work = async move |_: &tokio_postgres::Transaction<'_>| {
                taken.notify_one();
                release.notified().await;
                Ok::<_, shared::db::DbError>(())
            };
            db.transaction("hold the only connection", work).await
        }
    });
    taken.notified().await;
    assert_blamed(&ask(&app, &user).await, "postgresql");
    assert_blamed(&app.call(Method::GET, "/documents", Some(&user.token), None).await, "postgresql");
    release.notify_one();
    holder.await.unwrap().unwrap();
    ask(&app, &user).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_fails_every_write_gets_little_more_than_it_was_asked_for() {
    const DOCUMENTS: usize = 60;
    let plain = TestApp::start().await;
    let proxy = QdrantProxy::before(&plain.app.config.qdrant.url).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = proxy.url();
    })
    .await;
    let user = app.register("ann").await;
    proxy.fault(Call::Upsert, Fault::NotApplied, 1_000);
    let one = async |n: usize| {
        let note = json!({ "text": format!("Note {n} says little."), "source_uri": format!("note-{n}") });
        assert_blamed(&send(&app, &user, &format!("key-{n}"), &note).await, "qdrant");
    };
    for first in (0..DOCUMENTS).step_by(10) {
        join_all((first..first + 10).map(one)).await;
    }
    // One call each, which the client sends twice, and a fifth more beside what a quiet container may always do.
    let bound = DOCUMENTS * 2 + DOCUMENTS / 5 + 2 * 20;
    let sent = proxy.calls(Call::Upsert);
    assert!(sent <= bound, "{sent} writes for {DOCUMENTS} documents, and not {bound}");
}
