//! Drift between the stores: found, repaired, and never made worse.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Method;
use ingest::audit;
use local::testkit::{HashEmbedder, Reply, TcpProxy, TestApp, TestUser};
use qdrant_client::qdrant::{DeletePointsBuilder, PointId, PointsIdsList, SetPayloadPointsBuilder};
use serde_json::{Value, json};
use shared::{
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    sparse,
    vectors::Point,
};

use crate::gate::GatedEmbedder;

pub(crate) async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// Sends a document of `sections` chunks and returns its id.
pub(crate) async fn send(app: &TestApp, user: &TestUser, name: &str, sections: usize) -> DocumentId {
    let text = (0..sections).map(|n| format!("# Part {n}\n\n{}", format!("{name}{n} ").repeat(140)));
    let text = text.collect::<Vec<_>>().join("\n\n");
    let body = json!({ "text": text, "media_type": "text/markdown", "source_uri": name });
    let reply = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(201);
    reply.json["id"].as_str().unwrap().parse().unwrap()
}

pub(crate) async fn get(app: &TestApp, user: &TestUser, path: &str) -> Reply {
    app.call(Method::GET, path, Some(&user.token), None).await
}

async fn ids(app: &TestApp) -> BTreeSet<ChunkId> {
    app.all_points().await.into_iter().map(|(id, _)| id).collect()
}

/// Writes points that PostgreSQL has never heard of.
async fn plant(app: &TestApp, knowledge_base: KnowledgeBaseId, documents: usize, each: usize) -> Vec<ChunkId> {
    let mut points = Vec::new();
    for _ in 0..documents {
        let document = DocumentId::draw();
        points.extend((0..each).map(|_| Point {
            id: ChunkId::draw(),
            knowledge_base,
            document,
            dense: vec![1.0; 256],
            sparse: sparse::passage("planted"),
        }));
    }
    let ids = points.iter().map(|point| point.id).collect();
    ingest::collections::ready(&app.app, soon()).await.unwrap();
    for batch in points.chunks(500) {
        app.app.index.upsert(batch, soon()).await.unwrap();
    }
    ids
}

/// Removes points behind the service's back.
async fn lose(app: &TestApp, ids: impl IntoIterator<Item = ChunkId>) {
    let ids = ids.into_iter().map(|id| PointId::from(id.to_string())).collect();
    let request = DeletePointsBuilder::new(app.collection()).points(PointsIdsList { ids }).wait(true);
    app.qdrant().delete_points(request).await.unwrap();
}

#[tokio::test]
async fn what_qdrant_lost_is_embedded_again_under_the_same_ids_and_found() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "heron", 5).await;
    send(&app, &user, "otter", 80).await;
    let before = ids(&app).await;
    lose(&app, before.iter().copied().step_by(2).chain(before.iter().copied().take(9))).await;
    let lost = before.len() - ids(&app).await.len();
    let lost_ids = i64::try_from(lost).unwrap();
    let embedded = app.embedded.passages();
    let audit = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((audit.missing, audit.repaired, audit.orphaned), (lost_ids, lost_ids, 0), "{audit:?}");
    assert!(audit.finished_at.is_some() && !audit.in_step());
    assert_eq!(ids(&app).await, before);
    assert_eq!(app.embedded.passages() - embedded, lost);
    app.assert_consistent().await;
    let body = json!({ "query": "heron0", "mode": "dense" });
    let reply = app.call(Method::POST, "/query", Some(&user.token), Some(body)).await.expect(200);
    assert!(reply.json["hits"][0]["text"].as_str().unwrap().contains("heron0"), "{}", reply.json);
    assert!(audit::run(&app.app, None, soon()).await.unwrap().in_step());
}

#[tokio::test]
async fn a_point_with_wrong_link_keys_is_put_right_whatever_it_says() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    send(&app, &ann, "a", 4).await;
    send(&app, &bob, "b", 4).await;
    for (nth, (key, value)) in [(0, ("kb", bob.knowledge_base.to_string())), (1, ("doc", "nonsense".to_owned()))] {
        let (id, _) = app.all_points().await[nth].clone();
        let payload = qdrant_client::Payload::from([(key, value.into())]);
        let ids = PointsIdsList { ids: vec![PointId::from(id.to_string())] };
        let request = SetPayloadPointsBuilder::new(app.collection(), payload).points_selector(ids).wait(true);
        app.qdrant().set_payload(request).await.unwrap();
    }
    // Bob's audit meets Ann's point, for it says that it is his; it goes home and is not removed.
    let of_bob = audit::run(&app.app, Some(bob.knowledge_base), soon()).await.unwrap();
    assert_eq!((of_bob.mislinked, of_bob.orphaned, of_bob.repaired, of_bob.in_step()), (1, 0, 1, false));
    let rest = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((rest.mislinked, rest.missing, rest.orphaned, rest.repaired), (1, 0, 0, 1));
    assert_eq!(app.all_points().await.len(), 8);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_point_that_postgresql_does_not_know_is_removed() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "kept", 6).await;
    let kept = ids(&app).await;
    plant(&app, user.knowledge_base, 3, 2).await;
    let audit = audit::run(&app.app, Some(user.knowledge_base), soon()).await.unwrap();
    assert_eq!((audit.expected, audit.found), (6, 12));
    assert_eq!((audit.orphaned, audit.removed, audit.withheld), (6, 6, 0));
    assert_eq!(ids(&app).await, kept);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_write_that_arrives_after_its_documents_deletion_is_removed_and_the_proof_tells_the_truth_meanwhile() {
    let app = app().await;
    let user = app.register("ann").await;
    let document = send(&app, &user, "doomed", 1).await;
    let (late, _) = app.all_points().await.remove(0);
    app.call(Method::DELETE, &format!("/documents/{document}"), Some(&user.token), None).await.expect(204);
    let path = format!("/consistency/erasures/{document}");
    let proof = get(&app, &user, &path).await.expect(200).json;
    assert_eq!((&proof["erased"], &proof["qdrant"]["points"]), (&json!(true), &json!(0)));
    // So late that it is no longer on the list of retired points.
    let sweep = async || {
        app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
        ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon()).await.unwrap();
    };
    sweep().await;
    let point = Point {
        id: late,
        knowledge_base: user.knowledge_base,
        document,
        dense: vec![1.0; 256],
        sparse: sparse::passage("late"),
    };
    app.app.index.upsert(&[point], soon()).await.unwrap();
    let proof = get(&app, &user, &path).await.expect(200).json;
    assert_eq!((&proof["erased"], &proof["qdrant"]["points"]), (&json!(false), &json!(1)));
    assert_eq!((&proof["completed_at"], &proof["postgresql"]["retired"]), (&Value::Null, &json!(0)));
    let audit = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((audit.orphaned, audit.removed), (1, 1));
    assert_eq!(get(&app, &user, &path).await.expect(200).json["erased"], true);
    assert_eq!(app.all_points().await, []);
}

#[tokio::test]
async fn work_in_flight_is_left_alone() {
    let gate = GatedEmbedder::slow(Duration::from_millis(300));
    let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
    let user = app.register("ann").await;
    let sending = tokio::spawn({
        let (app, user) = (app.clone(), user.clone());
        async move { send(&app, &user, "slow", 200).await }
    });
    while app.all_points().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let embedded = app.embedded.passages();
    let audit = audit::run(&app.app, None, soon()).await.unwrap();
    assert!(audit.in_flight > 0 && audit.in_flight < 200, "{audit:?}");
    assert_eq!((audit.expected, audit.missing, audit.orphaned, audit.in_step()), (0, 0, 0, true));
    assert!(app.embedded.passages() < embedded + 200, "the audit embedded nothing of it");
    gate.open();
    sending.await.unwrap();
    // A retired point on the list is in flight as well, until it is due.
    let pg = app.pg().await;
    let orphan = plant(&app, user.knowledge_base, 1, 1).await[0];
    pg.execute(
        "INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        VALUES ($1, $2, $1, now() + interval '1 minute')",
        &[&orphan.0, &user.knowledge_base.0],
    )
    .await
    .unwrap();
    let audit = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((audit.expected, audit.in_flight, audit.orphaned, audit.in_step()), (200, 1, 0, true));
    app.assert_consistent().await;
}

#[tokio::test]
async fn removals_above_the_guard_wait_for_an_operator() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "kept", 20).await;
    let kept = ids(&app).await;
    plant(&app, user.knowledge_base, 11, 1).await;
    let first = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((first.orphaned, first.removed, first.withheld), (11, 0, 11), "{first:?}");
    let second = audit::run(&app.app, Some(user.knowledge_base), soon()).await.unwrap();
    assert_eq!((second.orphaned, second.removed, second.withheld), (11, 0, 11), "{second:?}");
    let status = get(&app, &user, "/consistency").await.expect(200).json;
    assert_eq!(
        (&status["orphaned"], &status["withheld"], &status["qdrant"]["points"]),
        (&json!(11), &json!(11), &json!(31))
    );
    assert_eq!(ids(&app).await.len(), 31);
    ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon()).await.unwrap();
    assert_eq!(ids(&app).await.len(), 31, "nobody has approved it");

    // The operator was told of the first one.
    let event = serde_json::from_value(json!({ "approve": first.id })).unwrap();
    let done = ingest::sweeper(&app.app, event, soon()).await.unwrap();
    assert_eq!(done.approved, 11);
    assert_eq!(ids(&app).await, kept);
    let event = serde_json::from_value(json!({ "approve": first.id + 1000 })).unwrap();
    assert!(ingest::sweeper(&app.app, event, soon()).await.is_err());
    app.assert_consistent().await;
    let status = get(&app, &user, "/consistency").await.expect(200).json;
    assert_eq!((&status["orphaned"], &status["withheld"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn what_postgresql_knows_again_survives_its_approval() {
    let app = app().await;
    let user = app.register("ann").await;
    for n in 0..12 {
        send(&app, &user, &format!("d{n}"), 1).await;
    }
    let all = ids(&app).await;
    let pg = app.pg().await;
    // A database that lost its documents, as after restoring an old backup.
    pg.batch_execute(
        "CREATE TABLE lost_d AS TABLE documents; CREATE TABLE lost_r AS TABLE document_revisions;
        CREATE TABLE lost_c AS SELECT id, document_id, first_revision, text, content_hash, token_count FROM chunk_metadata;
        CREATE TABLE lost_p AS TABLE chunk_positions;
        DELETE FROM documents; DELETE FROM chunk_metadata",
    )
    .await
    .unwrap();
    let audit = audit::run(&app.app, None, soon()).await.unwrap();
    assert_eq!((audit.orphaned, audit.withheld), (12, 12));
    pg.batch_execute(
        "INSERT INTO documents TABLE lost_d; INSERT INTO document_revisions TABLE lost_r;
        INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count) TABLE lost_c; INSERT INTO chunk_positions TABLE lost_p",
    )
    .await
    .unwrap();
    audit::approve(&app.app, audit.id, soon()).await.unwrap();
    assert_eq!(ids(&app).await, all);
    app.assert_consistent().await;
}

#[tokio::test]
async fn an_audit_of_many_pages_that_is_cut_goes_on_where_it_was() {
    let plain = app().await;
    let proxy = TcpProxy::before(&plain.app.config.qdrant.url).await;
    let gate = GatedEmbedder::slow(Duration::from_millis(2_500));
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(gate.clone());
        parts.config.qdrant.url = proxy.redirect(&parts.config.qdrant.url);
    })
    .await;
    let user = app.register("ann").await;
    let many = plant(&app, user.knowledge_base, 1, 4_100).await;
    gate.open();
    send(&app, &user, "a", 150).await;
    let points = ids(&app).await;
    lose(&app, points.iter().copied().filter(|id| !many.contains(id)).collect::<Vec<_>>()).await;
    gate.close();
    // Time for the pages of orphans and for some of the repairs.
    let cut = audit::run(&app.app, None, Deadline::after(Duration::from_secs(12))).await.unwrap();
    assert_eq!((cut.finished_at, cut.orphaned, cut.removed), (None, 4_100, 0), "{cut:?}");
    assert!((1..150).contains(&cut.repaired), "{cut:?}");
    proxy.refuse();
    audit::run(&app.app, None, Deadline::after(Duration::from_secs(10))).await.unwrap_err();
    proxy.forward();
    app.pg().await.execute("UPDATE audits SET lease_expires_at = now()", &[]).await.unwrap();
    gate.open();
    let embedded = app.embedded.passages();
    let done = audit::run_due(&app.app, soon()).await.unwrap().unwrap();
    assert_eq!((done.id, done.orphaned, done.removed), (cut.id, 4_100, 4_100), "one document is below the guard");
    // A batch that was written and not recorded is found in its place.
    assert_eq!((done.expected, done.missing), (150, done.repaired), "{done:?}");
    assert!(done.repaired > cut.repaired, "{done:?}");
    assert!(app.embedded.passages() - embedded <= 150 - usize::try_from(cut.repaired).unwrap());
    app.assert_consistent().await;
    assert_eq!(audit::run_due(&app.app, soon()).await.unwrap(), None, "the next one is not due");
}

#[tokio::test]
async fn two_audits_of_the_same_do_not_run_at_once() {
    let app = app().await;
    let user = app.register("ann").await;
    app.pg()
        .await
        .execute(
            "INSERT INTO audits (knowledge_base_id, fence, lease_expires_at, next_id, expected_digest, found_digest)
            VALUES ($1, 1, now() + interval '9 s', '00000000-0000-0000-0000-000000000000', $2, $2)",
            &[&user.knowledge_base.0, &[0_u8; 32].as_slice()],
        )
        .await
        .unwrap();
    let busy = app.call(Method::POST, "/consistency/verify", Some(&user.token), None).await;
    assert_eq!(busy.problem(409), "audit_running");
    assert!((1..=9).contains(&busy.header("retry-after").parse::<u64>().unwrap()));
    audit::run(&app.app, None, soon()).await.unwrap();
}
