//! What Qdrant and the network before it can do to a write. An error does not mean that it was not applied, and a write can
//! arrive when nobody waits for it any more.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::Method;
use local::testkit::{Call, Fault, HashEmbedder, QdrantProxy, Reply, TestApp, TestUser};
use serde_json::Value;

use crate::world::{
    Change, assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, send, sweep, until_settled,
};

/// As often as one request writes: `qdrant-client` sends each of 3 attempts twice, and those that ask for patience once.
const ALL_ATTEMPTS: usize = 6;

/// What one write can meet and the next one not.
const FAULTS: [Fault; 6] = [
    Fault::NotApplied,
    Fault::AppliedThenError,
    Fault::AppliedThenCut,
    Fault::AppliedTwice,
    Fault::Late,
    Fault::Throttled { retry_after_s: 1 },
];

struct World {
    app: TestApp,
    user: TestUser,
    proxy: QdrantProxy,
}

impl World {
    async fn start() -> Self {
        Self::with_timeout(Duration::from_secs(28)).await
    }

    async fn with_timeout(request_timeout: Duration) -> Self {
        // Any test's URL tells where the server is.
        let plain = TestApp::start().await;
        let proxy = QdrantProxy::before(&plain.app.config.qdrant.url).await;
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            parts.config.limits.request_timeout = request_timeout;
            parts.config.qdrant.url = proxy.url();
        })
        .await;
        let user = app.register("ann").await;
        Self { app, user, proxy }
    }

    /// The document as it is before the change.
    async fn prepare(&self, change: Change) {
        if let Some(before) = change.before() {
            self.send("before", &before).await.expect(201);
        }
    }

    async fn send(&self, key: &str, body: &Value) -> Reply {
        send(&self.app, &self.user, key, body).await
    }

    async fn delete(&self) -> Reply {
        let path = path(&self.app, &self.user).await.unwrap();
        self.app.call(Method::DELETE, &path, Some(&self.user.token), None).await
    }

    async fn assert_readers(&self) {
        assert_readers_see_the_active_revision(&self.app, &self.user).await;
    }

    /// What was delayed arrives now, and then everything is as it must be.
    async fn assert_converged(&self, documents: i64) {
        self.proxy.heal();
        self.proxy.deliver().await;
        self.assert_readers().await;
        assert_nothing_is_left_but(&self.app, documents).await;
        self.assert_readers().await;
    }

    async fn assert_answer_is_kept(&self, key: &str, body: &Value, done: &Reply) {
        let again = self.send(key, body).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (done.status, "true"));
        assert_eq!(again.bytes, done.bytes);
    }
}

fn success(change: Change) -> u16 {
    if change == Change::New { 201 } else { 200 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_that_goes_wrong_once_is_made_good_within_the_request() {
    let cases = FAULTS.into_iter().flat_map(|fault| [Change::New, Change::Changed].map(|change| (fault, change)));
    join_all(cases.map(async |(fault, change)| {
        let world = World::start().await;
        world.prepare(change).await;
        world.proxy.fault(Call::Upsert, fault, 1);
        let body = change.after();
        let done = world.send("key", &body).await.expect(success(change));
        assert!(world.proxy.faults_are_over());
        world.assert_readers().await;
        // Here a late upsert arrives after the activation, and after the batches behind it.
        world.assert_converged(1).await;
        world.assert_answer_is_kept("key", &body, &done).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_upsert_goes_wrong_the_old_revision_answers_and_the_same_key_completes_the_new_one() {
    let lasting = FAULTS.into_iter().filter(|fault| *fault != Fault::AppliedTwice);
    let cases = lasting.flat_map(|fault| [Change::New, Change::Changed].map(|change| (fault, change)));
    join_all(cases.map(async |(fault, change)| {
        let world = World::start().await;
        world.prepare(change).await;
        let calls = world.proxy.calls(Call::Upsert);
        world.proxy.fault(Call::Upsert, fault, 2 * ALL_ATTEMPTS);
        let body = change.after();
        let refused = world.send("key", &body).await;
        assert_eq!(refused.problem(503), "dependency_unavailable", "{fault:?}");
        assert_eq!(refused.json["dependency"], "qdrant");
        assert_eq!(world.proxy.calls(Call::Upsert) - calls, ALL_ATTEMPTS, "{fault:?}");
        world.assert_readers().await;
        world.proxy.heal();
        let done = until_settled(async || world.send("key", &body).await).await.expect(success(change));
        world.assert_readers().await;
        world.assert_converged(1).await;
        world.assert_answer_is_kept("key", &body, &done).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_goes_wrong_is_left_to_the_sweeper_and_nobody_waits_for_it() {
    let cases = FAULTS.into_iter().flat_map(|fault| [1, ALL_ATTEMPTS].map(|times| (fault, times)));
    join_all(cases.map(async |(fault, times)| {
        let world = World::start().await;
        world.prepare(Change::Shrunk).await;
        world.proxy.fault(Call::Delete, fault, times);
        let body = Change::Shrunk.after();
        let done = world.send("key", &body).await.expect(200);
        world.assert_readers().await;
        world.assert_converged(1).await;
        world.assert_answer_is_kept("key", &body, &done).await;

        world.proxy.fault(Call::Delete, fault, times);
        world.delete().await.expect(204);
        world.assert_readers().await;
        world.proxy.heal();
        // The same document again, with points of its own: the removal that is still under way must not meet them.
        world.send("anew", &body).await.expect(201);
        world.assert_converged(1).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_complete_when_the_sweeper_comes_to_it_whatever_becomes_of_removals() {
    join_all(FAULTS.map(async |fault| {
        let world = World::start().await;
        world.prepare(Change::Changed).await;
        world.proxy.fault(Call::Delete, fault, ALL_ATTEMPTS);
        world.delete().await.expect(204);
        world.assert_readers().await;
        world.assert_converged(0).await;
    }))
    .await;
}

#[tokio::test]
async fn an_upsert_that_arrives_after_its_document_was_deleted_leaves_what_no_reader_sees() {
    let world = World::start().await;
    let body = Change::New.after();
    world.proxy.fault(Call::Upsert, Fault::Late, 1);
    world.send("key", &body).await.expect(201);
    world.delete().await.expect(204);
    assert_nothing_is_left_but(&world.app, 0).await;
    assert_eq!(world.proxy.deliver().await, 1);
    let orphans = world.app.all_points().await.len();
    assert!(orphans > 0);
    world.assert_readers().await;
    // The document comes again, beside the orphans, with points of its own.
    let again = world.send("anew", &body).await.expect(201);
    let chunks = again.json["ingestion"]["chunks"]["total"].as_u64().unwrap();
    world.assert_readers().await;
    sweep(&world.app).await;
    // The drift audit will remove them, and then this is `assert_converged(1)`.
    assert_eq!(world.app.all_points().await.len() as u64, chunks + orphans as u64);
}

#[tokio::test]
async fn upserts_of_two_revisions_that_arrive_in_the_wrong_order_leave_what_no_reader_sees() {
    let world = World::start().await;
    world.proxy.fault(Call::Upsert, Fault::Late, 1);
    let before = world.send("before", &Change::Changed.before().unwrap()).await.expect(201);
    let done = world.send("key", &Change::Changed.after()).await.expect(200);
    assert_eq!(world.proxy.deliver().await, 1);
    world.assert_readers().await;
    sweep(&world.app).await;
    // What the change replaced was in the late batch. The drift audit will remove it, and then this is
    // `assert_converged(1)`.
    let count = |reply: &Reply, which: &str| reply.json["ingestion"]["chunks"][which].as_u64().unwrap();
    let replaced = count(&before, "total") - count(&done, "reused");
    assert!(replaced > 0);
    assert_eq!(world.app.all_points().await.len() as u64, count(&done, "total") + replaced);
}

#[tokio::test]
async fn an_upsert_that_arrives_after_an_ingestion_in_flight_was_deleted_is_removed_by_the_sweeper() {
    let world = World::start().await;
    world.proxy.fault(Call::Upsert, Fault::Late, 2 * ALL_ATTEMPTS);
    assert_eq!(world.send("key", &Change::New.after()).await.problem(503), "dependency_unavailable");
    world.delete().await.expect(204);
    assert_eq!(world.proxy.deliver().await, ALL_ATTEMPTS);
    assert!(!world.app.all_points().await.is_empty());
    // They stay on the list for as long as somebody may be writing them.
    world.assert_converged(0).await;
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_the_request_may_is_not_waited_for_and_the_same_key_goes_on() {
    for change in [Change::New, Change::Changed] {
        let world = World::with_timeout(Duration::from_secs(5)).await;
        world.prepare(change).await;
        world.proxy.fault(Call::Upsert, Fault::Slow(Duration::from_secs(20)), 1);
        let body = change.after();
        let reply = world.send("key", &body).await.expect(202);
        assert_eq!(reply.json["state"], "ingesting");
        world.assert_readers().await;
        let done = until_settled(async || world.send("key", &body).await).await.expect(success(change));
        world.assert_converged(1).await;
        world.assert_answer_is_kept("key", &body, &done).await;
    }
}

#[tokio::test]
async fn a_removal_that_takes_longer_than_the_request_may_is_left_to_the_sweeper() {
    let world = World::with_timeout(Duration::from_secs(5)).await;
    world.prepare(Change::Shrunk).await;
    world.proxy.fault(Call::Delete, Fault::Slow(Duration::from_secs(20)), 1);
    world.send("key", &Change::Shrunk.after()).await.expect(200);
    world.assert_readers().await;
    world.proxy.fault(Call::Delete, Fault::Slow(Duration::from_secs(20)), 1);
    world.delete().await.expect(204);
    world.assert_converged(0).await;
}
