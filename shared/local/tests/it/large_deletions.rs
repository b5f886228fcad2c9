//! What is too large to be deleted in one transaction is out of sight at once all the same, and then goes batch by batch.

use std::{sync::Arc, time::Duration};

use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use serde_json::{Value, json};
use shared::{db::DbError, deadline::Deadline, domain::DocumentId};

use crate::{
    deletion::send,
    world::{assert_nothing_is_left_but, assert_readers_see_the_active_revision, sweep},
};

/// More chunks than retire in the deletion's own transaction.
const CHUNKS: i64 = 60_000;

async fn start() -> (TestApp, TestUser) {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    (app, user)
}

fn body() -> Value {
    json!({ "text": "The lighthouse stands.", "source_uri": "a" })
}

/// A document that answers, with very many chunks besides. Their points are left out: nothing of this depends on them.
async fn large(app: &TestApp, user: &TestUser) -> DocumentId {
    let sent = send(app, user, "key", &body()).await.expect(201);
    let grow = "WITH grown AS (
            INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count)
            SELECT gen_random_uuid(), d.id, 1, 'text', sha256(n::text::bytea), 1
            FROM documents d, generate_series(1, $1::bigint) n RETURNING id, document_id
        )
        INSERT INTO chunk_positions (document_id, revision, ordinal, chunk_id, byte_start, byte_end, heading_path)
        SELECT document_id, 1, row_number() OVER (), id, 1, 2, '{}' FROM grown";
    app.pg().await.execute(grow, &[&CHUNKS]).await.unwrap();
    sent.json["id"].as_str().unwrap().parse().unwrap()
}

async fn get(app: &TestApp, user: &TestUser, path: &str) -> Value {
    app.call(Method::GET, path, Some(&user.token), None).await.expect(200).json
}

#[tokio::test]
async fn a_large_document_is_out_of_sight_at_once_and_its_proof_waits_for_its_last_chunk() {
    let (app, user) = start().await;
    let id = large(&app, &user).await;
    // As far as the deletion's transaction goes: its process dies behind it.
    let deleted = app.app.db.transaction("delete document", async move |tx| shared::documents::delete(tx, &[id]).await);
    deleted.await.map_err(|error: DbError| error).unwrap();

    assert_readers_see_the_active_revision(&app, &user).await;
    let missing = app.call(Method::GET, &format!("/documents/{id}"), Some(&user.token), None).await;
    assert_eq!(missing.problem(404), "not_found");
    let proof = format!("/consistency/erasures/{id}");
    let unfinished = get(&app, &user, &proof).await;
    assert_eq!((&unfinished["erased"], &unfinished["points"]), (&json!(false), &json!(CHUNKS + 1)));
    assert_eq!(unfinished["postgresql"], json!({ "rows": 2 * (CHUNKS + 1), "retired": 0 }));
    let status = get(&app, &user, "/consistency").await;
    assert_eq!((&status["postgresql"]["documents"], &status["retired"]), (&json!(0), &json!(CHUNKS + 1)));
    assert!(status["oldest_unfinished_at"].is_string(), "{status}");
    assert_eq!(send(&app, &user, "key", &body()).await.problem(409), "superseded");

    // Its point is no orphan; and gone from Qdrant alone is not gone.
    let soon = || Deadline::after(Duration::from_secs(20));
    let audit = ingest::audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((audit.in_flight, audit.orphaned), (1, 0));
    let points: Vec<_> = app.all_points().await.into_iter().map(|(id, _)| id).collect();
    app.app.index.delete(&points, soon()).await.unwrap();
    let halfway = get(&app, &user, &proof).await;
    assert_eq!((&halfway["qdrant"]["points"], &halfway["erased"]), (&json!(0), &json!(false)));
    assert_eq!(halfway["completed_at"], Value::Null);

    sweep(&app).await;
    let done = get(&app, &user, &proof).await;
    assert_eq!((&done["erased"], &done["postgresql"]["rows"]), (&json!(true), &json!(0)));
    assert!(done["completed_at"].is_string(), "{done}");
    assert_nothing_is_left_but(&app, 0).await;
}

#[tokio::test]
async fn who_deletes_a_large_document_and_waits_has_its_proof() {
    let (app, user) = start().await;
    let id = large(&app, &user).await;
    app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await.expect(204);
    let proof = get(&app, &user, &format!("/consistency/erasures/{id}")).await;
    assert_eq!((&proof["erased"], &proof["postgresql"]["rows"]), (&json!(true), &json!(0)));
    assert!(proof["completed_at"].is_string(), "{proof}");
    assert_nothing_is_left_but(&app, 0).await;
}
