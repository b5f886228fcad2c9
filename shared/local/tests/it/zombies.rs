//! Who has lost the lease and does not know it: what it still writes changes nothing, and it is told so.
//!
//! A real process is stopped at a named point, as a frozen container is; its lease ends, another process completes the work;
//! then the first one goes on.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use ingest::failpoint::{self, POINTS};
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};
use tokio::task::JoinHandle;

use crate::{
    function::Function,
    world::{Change, assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, send},
};

/// Cases at the same time.
const AT_ONCE: usize = 6;

/// A function that stands at a point, with a request in it.
struct Frozen {
    app: TestApp,
    user: TestUser,
    zombie: Function,
    answer: JoinHandle<Reply>,
}

impl Frozen {
    /// Begins a change of the document, and takes the lease away from whoever works on it.
    async fn at(point: &str, change: Change) -> Self {
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            // It shall have time left to do harm.
            parts.config.limits.request_timeout = Duration::from_mins(2);
        })
        .await;
        let user = app.register("ann").await;
        if let Some(before) = change.before() {
            send(&app, &user, "before", &before).await.expect(201);
        }
        let mut zombie = Function::start(&app, Some(point)).await;
        let client = zombie.client(&user);
        let answer = tokio::spawn(async move { client.send("key", &change.after()).await.expect("it lives") });
        zombie.reached(point).await;
        let expire = "UPDATE document_revisions SET lease_expires_at = now() WHERE state IN ('claimed', 'staged');
            UPDATE idempotency_keys SET lease_expires_at = now()";
        app.pg().await.batch_execute(expire).await.unwrap();
        Self { app, user, zombie, answer }
    }

    /// Lets it go on; what it says in the end.
    async fn thaw(&mut self) -> Reply {
        self.zombie.go_on().await;
        (&mut self.answer).await.unwrap()
    }
}

/// The points at which somebody holds a lease.
fn points() -> impl Iterator<Item = &'static str> {
    let held = POINTS.into_iter().skip_while(|point| *point != failpoint::CLAIM_COMMITTED);
    held.take_while(|point| *point != failpoint::ACTIVATE_COMMITTED)
}

fn cases() -> impl Iterator<Item = (&'static str, Change)> {
    points().flat_map(|point| [Change::New, Change::Shrunk].map(|change| (point, change)))
}

async fn at_any_point<F: Future<Output = ()>>(case: impl Fn((&'static str, Change)) -> F) {
    stream::iter(cases()).map(case).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_at_any_point_and_overtaken_by_the_same_key_it_changes_nothing() {
    at_any_point(async |(point, change)| {
        let mut frozen = Frozen::at(point, change).await;
        let done = send(&frozen.app, &frozen.user, "key", &change.after()).await;
        assert!(done.status.is_success(), "{point} {}", done.json);
        assert_eq!(frozen.thaw().await.problem(409), "lease_lost", "{point} {change:?}");
        let Frozen { app, user, .. } = &frozen;
        assert_readers_see_the_active_revision(app, user).await;
        assert_nothing_is_left_but(app, 1).await;
        assert_eq!(send(app, user, "key", &change.after()).await.bytes, done.bytes, "{point} {change:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_at_any_point_it_does_not_meddle_with_the_one_that_overtook_it_and_still_works() {
    at_any_point(async |(point, change)| {
        let mut frozen = Frozen::at(point, change).await;
        let mut second = Function::start(&frozen.app, Some(failpoint::CLAIM_COMMITTED)).await;
        let client = second.client(&frozen.user);
        let answer = tokio::spawn(async move { client.send("key", &change.after()).await.expect("it lives") });
        second.reached(failpoint::CLAIM_COMMITTED).await;
        assert_eq!(frozen.thaw().await.problem(409), "lease_lost", "{point} {change:?}");
        assert_readers_see_the_active_revision(&frozen.app, &frozen.user).await;
        second.go_on().await;
        let done = answer.await.unwrap();
        assert!(done.status.is_success(), "{point} {}", done.json);
        let Frozen { app, user, .. } = &frozen;
        assert_readers_see_the_active_revision(app, user).await;
        assert_nothing_is_left_but(app, 1).await;
        assert_eq!(send(app, user, "key", &change.after()).await.bytes, done.bytes, "{point} {change:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_at_any_point_and_overtaken_by_another_text_it_changes_nothing() {
    at_any_point(async |(point, change)| {
        let mut frozen = Frozen::at(point, change).await;
        let other = Change::Changed.after();
        let done = send(&frozen.app, &frozen.user, "other", &other).await;
        assert!(done.status.is_success(), "{point} {}", done.json);
        assert_eq!(frozen.thaw().await.problem(409), "lease_lost", "{point} {change:?}");
        let Frozen { app, user, .. } = &frozen;
        assert_readers_see_the_active_revision(app, user).await;
        // What it may have written meanwhile is on the list of retired points, and goes.
        assert_nothing_is_left_but(app, 1).await;
        assert_readers_see_the_active_revision(app, user).await;
        assert_eq!(send(app, user, "other", &other).await.bytes, done.bytes, "{point} {change:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_at_any_point_it_does_not_bring_back_what_was_deleted() {
    at_any_point(async |(point, change)| {
        let mut frozen = Frozen::at(point, change).await;
        let path = path(&frozen.app, &frozen.user).await.unwrap();
        frozen.app.call(http::Method::DELETE, &path, Some(&frozen.user.token), None).await.expect(204);
        assert_eq!(frozen.thaw().await.problem(409), "lease_lost", "{point} {change:?}");
        let Frozen { app, user, .. } = &frozen;
        assert_readers_see_the_active_revision(app, user).await;
        assert_nothing_is_left_but(app, 0).await;
    })
    .await;
}
