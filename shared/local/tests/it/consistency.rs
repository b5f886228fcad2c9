//! Counts and proofs, for those who may see them.

use std::sync::Arc;

use http::Method;
use ingest::audit;
use local::testkit::{HashEmbedder, TestApp, TestUser, private_qdrant};
use serde_json::{Value, json};
use shared::vectors::Part;

use crate::audit::{app, get, send, soon};

async fn verify(app: &TestApp, user: &TestUser) -> Value {
    app.call(Method::POST, "/consistency/verify", Some(&user.token), Some(json!({}))).await.expect(200).json
}

#[tokio::test]
async fn counts_are_exact_and_only_members_see_them() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    assert_eq!(get(&app, &ann, "/consistency").await.expect(200).json["qdrant"], json!({ "points": 0 }));
    let document = send(&app, &ann, "a", 7).await;
    send(&app, &bob, "b", 3).await;
    let status = get(&app, &ann, "/consistency").await.expect(200).json;
    assert_eq!(status["postgresql"], json!({ "documents": 1, "expected": 7, "staged": 0 }));
    assert_eq!(status["qdrant"], json!({ "points": 7 }));
    assert_eq!(
        (&status["last_audit"], &status["missing"], &status["retired"]),
        (&Value::Null, &Value::Null, &json!(0))
    );
    let count = async |part| app.app.index.count_part(part, soon()).await.unwrap();
    assert_eq!((count(Part::Whole).await, count(Part::Document(document)).await), (10, 7));

    let proof = verify(&app, &ann).await;
    assert_eq!((&proof["in_step"], &proof["postgresql"]), (&json!(true), &proof["qdrant"]), "{proof}");
    assert_eq!(proof["qdrant"]["points"], 7);
    let of_bob = verify(&app, &bob).await;
    assert_ne!(of_bob["qdrant"]["digest"], proof["qdrant"]["digest"]);
    audit::run(&app.app, None, soon()).await.unwrap();
    let status = get(&app, &ann, "/consistency").await.expect(200).json;
    assert_eq!((&status["last_audit"]["expected"], &status["missing"]), (&json!(7), &json!(0)), "{status}");

    let path = format!("/consistency?knowledge_base={}", ann.knowledge_base);
    get(&app, &ann, &path).await.expect(200);
    assert_eq!(get(&app, &bob, &path).await.problem(404), "not_found");
    let body = json!({ "knowledge_base": ann.knowledge_base.to_string() });
    let foreign = app.call(Method::POST, "/consistency/verify", Some(&bob.token), Some(body.clone())).await;
    assert_eq!(foreign.problem(404), "not_found");
    assert_eq!(
        app.call(Method::POST, "/consistency/verify", None, Some(body.clone())).await.problem(401),
        "unauthenticated"
    );
    app.pg()
        .await
        .execute(
            "INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $2, 'viewer')",
            &[&ann.knowledge_base.0, &bob.id.0],
        )
        .await
        .unwrap();
    get(&app, &bob, &path).await.expect(200);
    let viewer = app.call(Method::POST, "/consistency/verify", Some(&bob.token), Some(body)).await;
    assert_eq!(viewer.problem(403), "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_erasure_says_zero_only_when_qdrant_says_so() {
    let mut server = private_qdrant();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = server.url();
    })
    .await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let document = send(&app, &ann, "a", 4).await;
    let path = format!("/consistency/erasures/{document}");
    assert_eq!(get(&app, &ann, &path).await.problem(404), "not_found");
    server.kill();
    app.call(Method::DELETE, &format!("/documents/{document}"), Some(&ann.token), None).await.expect(204);
    let proof = get(&app, &ann, &path).await.expect(200).json;
    assert_eq!((&proof["erased"], &proof["completed_at"], &proof["points"]), (&json!(false), &Value::Null, &json!(4)));
    assert_eq!((&proof["qdrant"]["points"], &proof["degraded"]), (&Value::Null, &json!(["qdrant"])));
    assert_eq!(proof["postgresql"], json!({ "rows": 0, "retired": 4 }));
    assert_eq!(get(&app, &ann, "/consistency").await.expect(200).json["degraded"], json!(["qdrant"]));
    assert_eq!(get(&app, &bob, &path).await.problem(404), "not_found");

    server.resume().unwrap();
    app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
    let proof = get(&app, &ann, &path).await.expect(200).json;
    assert_eq!((&proof["erased"], &proof["qdrant"]["points"]), (&json!(false), &json!(4)));
    ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon()).await.unwrap();
    let proof = get(&app, &ann, &path).await.expect(200).json;
    assert_eq!((&proof["erased"], &proof["qdrant"]["points"]), (&json!(true), &json!(0)), "{proof}");
    assert_eq!(proof["deleted_by"], json!(ann.id.to_string()));
    assert!(proof["completed_at"].is_string());
}

#[tokio::test]
async fn expired_idempotency_keys_are_swept_and_others_kept() {
    let app = app().await;
    let user = app.register("ann").await;
    let pg = app.pg().await;
    pg.execute(
        "INSERT INTO idempotency_keys (principal_id, operation, key, fingerprint, fence, lease_expires_at, expires_at)
        SELECT $1, 'POST /documents', n::text, '', 1, now(), now() + CASE WHEN n <= 3 THEN '1 h' ELSE '-1 h' END::interval
        FROM generate_series(1, 2500) AS n",
        &[&user.id.0],
    )
    .await
    .unwrap();
    ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon()).await.unwrap();
    let left: i64 = pg.query_one("SELECT count(*) FROM idempotency_keys", &[]).await.unwrap().get(0);
    assert_eq!(left, 3);
}
