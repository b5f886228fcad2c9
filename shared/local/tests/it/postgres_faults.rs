//! The ambiguous COMMIT: the connection breaks before it reached PostgreSQL, or after it was done, and the client can not
//! tell which. The same request again ends in the same place.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::Method;
use local::testkit::{Cut, HashEmbedder, PostgresProxy, TestApp, TestUser};
use secrecy::ExposeSecret;

use crate::world::{
    Change, assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, send, until_settled,
};

/// Time of a request, and with it of a lease: soon over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

struct World {
    app: TestApp,
    user: TestUser,
    proxy: PostgresProxy,
}

async fn start() -> World {
    // Any test's URL tells where the server is.
    let plain = TestApp::start().await;
    let proxy = PostgresProxy::before(plain.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.limits.request_timeout = REQUEST_TIMEOUT;
        parts.config.database.url = proxy.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    let user = app.register("ann").await;
    World { app, user, proxy }
}

/// Cuts one COMMIT of an ingestion, sends the same again, and looks.
async fn ingest_with_a_cut(statement: &'static str, cut: Cut, change: Change) {
    let World { app, user, proxy } = start().await;
    if let Some(before) = change.before() {
        send(&app, &user, "before", &before).await.expect(201);
    }
    let body = change.after();
    proxy.cut(statement, cut);
    let first = send(&app, &user, "key", &body).await;
    assert!(proxy.was_cut(), "{statement} is not reached");
    let success = if change == Change::New { 201 } else { 200 };
    let done_again = BY_THEMSELVES.contains(&statement);
    if done_again {
        assert_eq!(first.status, success, "{statement} {cut:?} {}", first.json);
    } else {
        assert_eq!(first.problem(503), "dependency_unavailable", "{statement} {cut:?}");
        assert_eq!(first.json["dependency"], "postgresql");
    }
    assert_readers_see_the_active_revision(&app, &user).await;
    let done = until_settled(async || send(&app, &user, "key", &body).await).await;
    let done = done.expect(success);
    let answered = done_again || (statement == "documents::activate" && cut == Cut::AfterCommit);
    assert_eq!(done.header("idempotency-replayed"), if answered { "true" } else { "" }, "{statement} {cut:?}");
    assert_nothing_is_left_but(&app, 1).await;
    assert_readers_see_the_active_revision(&app, &user).await;
    let again = send(&app, &user, "key", &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (done.status, "true"));
    assert_eq!(again.bytes, done.bytes);
}

/// Every transaction of an ingestion, by a statement that stands in it alone.
const TRANSACTIONS: [&str; 5] = [
    "revisions::insert",
    "revisions::staged_chunks",
    "revisions::progress",
    "documents::activate",
    "retired_points::delete",
];

/// Those of them that are one statement, and may be done twice: they are sent again at once, and nobody notices.
const BY_THEMSELVES: [&str; 2] = ["revisions::progress", "retired_points::delete"];

#[tokio::test(flavor = "multi_thread")]
async fn whichever_commit_of_a_new_document_is_cut_the_same_key_ends_in_one_document() {
    let cleaning = |statement: &&str| *statement != "retired_points::delete";
    let cases = TRANSACTIONS.into_iter().filter(cleaning).flat_map(|statement| Cut::ALL.map(|cut| (statement, cut)));
    join_all(cases.map(|(statement, cut)| ingest_with_a_cut(statement, cut, Change::New))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_commit_of_a_change_is_cut_the_same_key_ends_in_one_document() {
    let cases = TRANSACTIONS.into_iter().flat_map(|statement| Cut::ALL.map(|cut| (statement, cut)));
    join_all(cases.map(|(statement, cut)| ingest_with_a_cut(statement, cut, Change::Shrunk))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_commit_is_cut_is_complete_when_it_is_asked_for_again() {
    for cut in Cut::ALL {
        let World { app, user, proxy } = start().await;
        send(&app, &user, "key", &Change::New.after()).await.expect(201);
        let path = path(&app, &user).await.unwrap();
        proxy.cut("documents::delete", cut);
        let first = app.call(Method::DELETE, &path, Some(&user.token), None).await;
        assert_eq!(first.problem(503), "dependency_unavailable");
        assert!(proxy.was_cut());
        assert_readers_see_the_active_revision(&app, &user).await;
        let again = app.call(Method::DELETE, &path, Some(&user.token), None).await;
        assert_eq!(again.status, if cut == Cut::BeforeCommit { 204 } else { 404 }, "{cut:?}");
        assert_nothing_is_left_but(&app, 0).await;
        assert_readers_see_the_active_revision(&app, &user).await;
    }
}
