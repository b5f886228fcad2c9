//! P3: whatever is killed at whatever moment, an ingestion ends in one document, exactly its points, and one answer.
//!
//! A real process is stopped at a named point and killed there (`kill -9`); another one gets the same request; the sweeper
//! runs; then both stores are read directly.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use ingest::failpoint::{self, POINTS};
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{
    deletion::{PASSWORD, account, delete_account},
    function::Function,
    world::{
        Change, assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, send, sweep, until_settled,
    },
};

/// Time of a request, and with it of a lease: enough to reach every point on a busy machine, and soon over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// Cases at the same time. Most of a case is waiting for a lease to end.
const AT_ONCE: usize = 8;

/// What else happens while the process stands at its point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Meanwhile {
    /// Nothing.
    Nothing,
    /// Somebody deletes the document.
    Deleted,
    /// Its owner deletes the account.
    AccountDeleted,
}

/// Who goes on first after the crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Finisher {
    SameKey,
    Sweeper,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    point: &'static str,
    change: Change,
    meanwhile: Meanwhile,
    finisher: Finisher,
}

async fn start() -> (TestApp, TestUser) {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.limits.request_timeout = REQUEST_TIMEOUT;
    })
    .await;
    let user = account(&app, "ann@example.com").await;
    (app, user)
}

impl Case {
    async fn run(self) {
        let (app, user) = start().await;
        if let Some(before) = self.change.before() {
            send(&app, &user, "before", &before).await.expect(201);
        }
        let body = self.change.after();
        let mut victim = Function::start(&app, Some(self.point)).await;
        let client = victim.client(&user);
        let sending = tokio::spawn({
            let body = body.clone();
            async move { client.send("key", &body).await }
        });
        victim.reached(self.point).await;
        assert_readers_see_the_active_revision(&app, &user).await;
        if self.meanwhile == Meanwhile::Deleted {
            let path = path(&app, &user).await.unwrap();
            app.call(http::Method::DELETE, &path, Some(&user.token), None).await.expect(204);
            assert_readers_see_the_active_revision(&app, &user).await;
        }
        if self.meanwhile == Meanwhile::AccountDeleted {
            delete_account(&app, &user, PASSWORD).await.expect(204);
        }
        victim.kill().await;
        sending.await.unwrap().expect_err("nobody is there to answer");

        if self.meanwhile == Meanwhile::AccountDeleted {
            return Self::assert_account_is_gone(&app, &user, &body).await;
        }
        if self.finisher == Finisher::Sweeper {
            while sweep(&app).await.completed == 0 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        let fresh = Function::start(&app, None).await;
        let client = fresh.client(&user);
        let done = until_settled(async || client.send("key", &body).await.unwrap()).await;
        self.assert_answer(&done);
        assert_nothing_is_left_but(&app, self.documents()).await;
        assert_readers_see_the_active_revision(&app, &user).await;

        let again = client.send("key", &body).await.unwrap();
        self.assert_answer(&again);
        if again.status.is_success() {
            assert_eq!(again.header("idempotency-replayed"), "true");
            assert_eq!((&done.bytes, done.header("location")), (&again.bytes, again.header("location")));
        }
        assert_nothing_is_left_but(&app, self.documents()).await;
    }

    /// Nothing is left of it in either store, and its token, which outlives it by minutes, brings nothing back.
    async fn assert_account_is_gone(app: &TestApp, user: &TestUser, body: &Value) {
        let fresh = Function::start(app, None).await;
        for _ in 0..2 {
            let late = fresh.client(user).send("key", body).await.unwrap();
            assert_eq!(late.problem(404), "not_found");
            assert_nothing_is_left_but(app, 0).await;
        }
        let pg = app.pg().await;
        for table in ["users", "knowledge_bases", "document_revisions", "chunk_positions", "idempotency_keys"] {
            let rows = pg.query(&format!("SELECT FROM {table}"), &[]).await.unwrap();
            assert_eq!(rows.len(), 0, "{table}");
        }
    }

    /// Deleted before the key was claimed, the document is simply sent anew; later, the delete has the last word.
    fn documents(self) -> i64 {
        i64::from(self.meanwhile == Meanwhile::Nothing || self.point == failpoint::CLAIM_BEFORE)
    }

    fn assert_answer(self, reply: &Reply) {
        let position = |wanted| POINTS.iter().position(|point| *point == wanted);
        let answered = position(self.point) >= position(failpoint::ACTIVATE_COMMITTED);
        let deleted = self.meanwhile == Meanwhile::Deleted;
        if deleted && self.point != failpoint::CLAIM_BEFORE {
            // Also when it had been answered: the answer showed the document, and went with it.
            assert_eq!(reply.problem(409), "superseded");
            return;
        }
        let created = self.change == Change::New || deleted;
        assert_eq!(reply.status, if created { 201 } else { 200 }, "{}", reply.json);
        assert_eq!(reply.json["state"], "active");
        let finished_by_key = self.finisher == Finisher::SameKey && !answered;
        assert!(finished_by_key || reply.header("idempotency-replayed") == "true");
    }
}

/// Runs all cases, some at the same time, and names those that fail.
async fn run(cases: impl IntoIterator<Item = Case>) {
    let running =
        stream::iter(cases).map(async |case| AssertUnwindSafe(case.run()).catch_unwind().await.map_err(|_| case));
    let results: Vec<Result<(), Case>> = running.buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<Case> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "failed, see above: {failed:#?}");
}

/// The points that an ingestion comes to. A new document retires nothing.
fn points(change: Change) -> impl Iterator<Item = &'static str> {
    let of_deletion = [failpoint::DELETE_BEFORE, failpoint::DELETE_COMMITTED];
    let of_cleaning = [failpoint::CLEAN_BEFORE_DELETE, failpoint::CLEAN_DELETED];
    POINTS
        .into_iter()
        .filter(move |point| !of_deletion.contains(point) && (change != Change::New || !of_cleaning.contains(point)))
}

fn cases(change: Change, meanwhile: Meanwhile) -> impl Iterator<Item = Case> {
    points(change).map(move |point| Case { point, change, meanwhile, finisher: Finisher::SameKey })
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_new_document_is_completed_once_by_the_same_key() {
    run(cases(Change::New, Meanwhile::Nothing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_changed_document_is_completed_once_by_the_same_key() {
    run(cases(Change::Changed, Meanwhile::Nothing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_shrunk_document_is_completed_once_by_the_same_key() {
    run(cases(Change::Shrunk, Meanwhile::Nothing)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_document_that_was_deleted_meanwhile_stays_deleted() {
    // Before the claim there is nothing of a new document to delete.
    let new = cases(Change::New, Meanwhile::Deleted).filter(|case| case.point != failpoint::CLAIM_BEFORE);
    run(new.chain(cases(Change::Changed, Meanwhile::Deleted))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_document_whose_account_was_deleted_meanwhile_leaves_nothing() {
    run([Change::New, Change::Changed].into_iter().flat_map(|change| cases(change, Meanwhile::AccountDeleted))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_shrunk_document_that_was_deleted_meanwhile_stays_deleted() {
    run(cases(Change::Shrunk, Meanwhile::Deleted)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_its_text_is_stored_a_document_is_completed_by_the_sweeper_and_the_key_has_the_answer() {
    let stored = POINTS.into_iter().skip_while(|point| *point != failpoint::STAGE_COMMITTED);
    let stored = stored.take_while(|point| *point != failpoint::ACTIVATE_COMMITTED);
    run(stored.map(|point| Case {
        point,
        change: Change::Changed,
        meanwhile: Meanwhile::Nothing,
        finisher: Finisher::Sweeper,
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_killed_again_while_it_is_made_good_a_document_is_completed_once() {
    let points = points(Change::New).take_while(|point| *point != failpoint::ACTIVATE_COMMITTED);
    let running = stream::iter(points).map(async |point| {
        let (app, user) = start().await;
        let body = Change::New.after();
        // Whoever takes over what is staged comes in behind that.
        let staged = [failpoint::STAGE_BEFORE, failpoint::STAGE_COMMITTED].contains(&point);
        for point in [point, if staged { failpoint::EMBED_BEFORE_UPSERT } else { point }] {
            let mut victim = Function::start(&app, Some(point)).await;
            let (client, body) = (victim.client(&user), body.clone());
            let sending = tokio::spawn(async move {
                // Until the lease of the one before has ended, and then until there is nobody to answer.
                while let Ok(reply) = client.send("key", &body).await {
                    assert_eq!(reply.problem(409), "idempotency_key_in_flight", "{point}");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            });
            victim.reached(point).await;
            assert_readers_see_the_active_revision(&app, &user).await;
            victim.kill().await;
            sending.await.unwrap();
        }
        let fresh = Function::start(&app, None).await;
        let client = fresh.client(&user);
        let done = until_settled(async || client.send("key", &body).await.unwrap()).await.expect(201);
        assert_nothing_is_left_but(&app, 1).await;
        assert_readers_see_the_active_revision(&app, &user).await;
        assert_eq!(client.send("key", &body).await.unwrap().bytes, done.bytes, "{point}");
    });
    running.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// An ingestion was cut once its text was stored; then another text is sent, and that request is killed too.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_its_own_text_is_stored_a_newer_request_leaves_the_older_one_to_be_completed() {
    let points = [failpoint::CLAIM_COMMITTED, failpoint::STAGE_BEFORE, failpoint::STAGE_COMMITTED];
    futures::future::join_all(points.map(async |point| {
        let (app, user) = start().await;
        let (older, newer) = (Change::New.after(), Change::Changed.after());
        for (key, body, point) in [("older", &older, failpoint::EMBED_COMMITTED), ("newer", &newer, point)] {
            let mut victim = Function::start(&app, Some(point)).await;
            let (client, body) = (victim.client(&user), body.clone());
            let sending = tokio::spawn(async move { client.send(key, &body).await });
            victim.reached(point).await;
            victim.kill().await;
            sending.await.unwrap().expect_err("nobody is there to answer");
            let expire = "UPDATE document_revisions SET lease_expires_at = now();
                UPDATE idempotency_keys SET lease_expires_at = now()";
            app.pg().await.batch_execute(expire).await.unwrap();
        }
        assert_eq!(sweep(&app).await.completed, 1, "{point}");
        assert_readers_see_the_active_revision(&app, &user).await;
        let replaced = point == failpoint::STAGE_COMMITTED;
        let of_older = send(&app, &user, "older", &older).await;
        if replaced {
            assert_eq!(of_older.problem(409), "superseded", "{point}");
        } else {
            let of_older = of_older.expect(201);
            assert_eq!((of_older.header("idempotency-replayed"), &of_older.json["revision"]), ("true", &json!(1)));
            assert_eq!(
                (&of_older.json["state"], &of_older.json["ingestion"]["revision"]),
                (&json!("active"), &json!(1))
            );
        }
        let of_newer = send(&app, &user, "newer", &newer).await.expect(if replaced { 201 } else { 200 });
        assert_eq!(of_newer.json["revision"], 2, "{point}");
        assert_nothing_is_left_but(&app, 1).await;
        assert_readers_see_the_active_revision(&app, &user).await;
        assert_eq!(send(&app, &user, "older", &older).await.status, if replaced { 409 } else { 201 }, "{point}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_a_deletion_is_complete_when_it_is_asked_for_again() {
    let points = POINTS.into_iter().skip_while(|point| *point != failpoint::CLEAN_BEFORE_DELETE);
    futures::future::join_all(points.map(async |point| {
        let (app, user) = start().await;
        send(&app, &user, "key", &Change::New.after()).await.expect(201);
        let path = path(&app, &user).await.unwrap();
        let mut victim = Function::start(&app, Some(point)).await;
        let client = victim.client(&user);
        let deleting = tokio::spawn({
            let path = path.clone();
            async move { client.delete(&path).await }
        });
        victim.reached(point).await;
        assert_readers_see_the_active_revision(&app, &user).await;
        victim.kill().await;
        deleting.await.unwrap().expect_err("nobody is there to answer");
        let fresh = Function::start(&app, None).await;
        let again = fresh.client(&user).delete(&path).await.unwrap();
        assert_eq!(again.status, if point == failpoint::DELETE_BEFORE { 204 } else { 404 }, "{point}");
        assert_nothing_is_left_but(&app, 0).await;
    }))
    .await;
}
