//! The test kit itself.

use http::Method;
use local::testkit::{HashEmbedder, TcpProxy, TestApp};
use secrecy::ExposeSecret;
use serde_json::json;
use std::sync::Arc;

async fn quick() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

#[tokio::test]
async fn a_test_has_a_database_of_its_own_and_both_stores_answer() {
    let (one, two) = (quick().await, quick().await);
    let reply = one.call(Method::GET, "/ready", None, None).await.expect(200);
    assert_eq!(reply.json, json!({ "status": "ok", "postgresql": "ok", "qdrant": "ok" }));
    let user = one.register("ada").await;
    assert_eq!(one.app.verifier.verify(&user.token).unwrap().sub, user.id);
    let count = async |app: &TestApp| app.pg().await.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
    assert_eq!((count(&one).await, count(&two).await), (1_i64, 0_i64));
    one.assert_consistent().await;
}

#[tokio::test]
async fn what_no_function_serves_is_a_problem() {
    let app = quick().await;
    assert_eq!(app.call(Method::GET, "/nothing", None, None).await.problem(404), "not_found");
    assert_eq!(app.call(Method::POST, "/health", None, None).await.problem(405), "method_not_allowed");
    assert_eq!(app.call(Method::GET, "/health", None, None).await.expect(200).json, json!({ "status": "ok" }));
}

#[tokio::test]
async fn a_proxy_takes_a_store_away_and_gives_it_back() {
    let probe = quick().await;
    let proxy = TcpProxy::before(probe.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        let redirected = proxy.redirect(parts.config.database.url.expose_secret());
        parts.config.database.url = redirected.into();
    })
    .await;
    app.call(Method::GET, "/ready", None, None).await.expect(200);
    proxy.refuse();
    let reply = app.call(Method::GET, "/ready", None, None).await.expect(503);
    assert_eq!(reply.json, json!({ "status": "unavailable", "postgresql": "unavailable", "qdrant": "ok" }));
    proxy.forward();
    app.call(Method::GET, "/ready", None, None).await.expect(200);
}
