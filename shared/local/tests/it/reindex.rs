//! A new collection takes the old one's place, and nobody notices: not readers, not writers, not who kills the builder.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::Method;
use ingest::reindex::{self, Command, Progress};
use local::testkit::{HashEmbedder, QdrantProxy, TestApp, TestUser};
use serde_json::json;
use shared::{
    App,
    deadline::Deadline,
    domain::ChunkId,
    embed::{EmbedError, Embedder, Space},
    vectors::{IndexError, Part},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    audit::{get, send, soon},
    world::sweep,
};

/// Time for a batch or two, so that others get their turn in between.
const SLICE: Duration = Duration::from_millis(4_100);

async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

/// Works in slices until the build is complete. One that gets nowhere ends the test.
async fn build(app: &App, slice: Duration) {
    for _ in 0..500 {
        if reindex::work(app, Deadline::after(slice)).await.unwrap() {
            return;
        }
    }
    panic!("the build does not end");
}

async fn command(app: &TestApp, command: Command) -> Vec<Progress> {
    reindex::command(&app.app, command, soon()).await.unwrap()
}

fn states(collections: &[Progress]) -> Vec<(&str, &str)> {
    let version = |one: &'_ Progress| one.name.rfind('v').unwrap();
    collections.iter().map(|one| (one.name.split_at(version(one)).1, one.state.as_str())).collect()
}

/// The ids of all points of a collection, by its own name.
async fn ids(app: &TestApp, collection: &str) -> BTreeSet<ChunkId> {
    let index = app.app.index.collection(collection);
    let points = index.scroll(Part::Whole, ChunkId(uuid::Uuid::nil()), 10_000, soon()).await.unwrap();
    points.into_iter().map(|point| point.id).collect()
}

/// The documents of the hits for these words.
async fn found(app: &TestApp, user: &TestUser, words: &str) -> Vec<String> {
    let question = json!({ "query": words, "k": 100 });
    let answer = app.call(Method::POST, "/query", Some(&user.token), Some(question)).await.expect(200);
    assert!(answer.json["degraded"].as_array().is_none_or(Vec::is_empty), "{}", answer.json);
    let hits = answer.json["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["document"]["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn while_documents_come_change_and_go_a_new_collection_takes_the_old_ones_place_and_back() {
    let app = app().await;
    let user = app.register("ann").await;
    let fixed = send(&app, &user, "fixed", 12).await.to_string();
    for n in 0..8 {
        send(&app, &user, &format!("d{n}"), 30).await;
    }
    let words = (0..12).map(|n| format!("fixed{n}")).collect::<Vec<_>>().join(" ");
    let change = async |n: usize| {
        let text = (0..20).map(|part| format!("# Part {part}\n\n{}", format!("turn{n} part{part} ").repeat(70)));
        let text = text.collect::<Vec<_>>().join("\n\n");
        let body = json!({ "text": text, "media_type": "text/markdown", "source_uri": format!("d{}", n % 4) });
        let reply = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await;
        assert!([200, 201].contains(&reply.status.as_u16()), "{}", reply.json);
        reply.json["id"].as_str().unwrap().to_owned()
    };
    for (direction, live) in [(Command::Start, "-v2"), (Command::Rollback, "-v1")] {
        let done = AtomicBool::new(false);
        let build = async {
            reindex::command(&app.app, direction, Deadline::after(SLICE)).await.unwrap();
            build(&app.app, SLICE).await;
            done.store(true, Ordering::Relaxed);
        };
        let write = async {
            let mut turns = 0;
            while !done.load(Ordering::Relaxed) || turns == 0 {
                let id = change(turns).await;
                if turns % 3 == 2 {
                    app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await.expect(204);
                }
                turns += 1;
            }
        };
        let read = async {
            let mut turns = 0;
            while !done.load(Ordering::Relaxed) || turns == 0 {
                let hits = found(&app, &user, &words).await;
                assert_eq!(hits.iter().filter(|id| **id == fixed).count(), 12, "P2: all of it is always found");
                turns += 1;
            }
        };
        tokio::join!(build, write, read);
        assert!(app.app.index.behind(soon()).await.unwrap().unwrap().ends_with(live));
        app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
        sweep(&app).await;
        app.assert_consistent().await;
        let alias = app.collection();
        let both = (ids(&app, &format!("{alias}-v1")).await, ids(&app, &format!("{alias}-v2")).await);
        assert_eq!(both.0, both.1, "what is kept for a rollback is written as well");
        assert!(both.0.len() > 12);
    }
}

/// Embeds so many batches, and then none for ever.
#[derive(Debug)]
struct Stopping {
    inner: HashEmbedder,
    left: AtomicUsize,
    stopped: watch::Sender<bool>,
}

#[async_trait]
impl Embedder for Stopping {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            self.stopped.send_replace(true);
            std::future::pending::<()>().await;
        }
        self.inner.embed_passages(texts, deadline).await
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }
}

#[tokio::test]
async fn a_builder_that_dies_anywhere_is_followed_by_one_that_repeats_no_batch() {
    let embedder = Arc::new(Stopping {
        inner: HashEmbedder::default(),
        left: AtomicUsize::new(usize::MAX),
        stopped: watch::Sender::new(false),
    });
    let app = TestApp::with(|parts| parts.embedder = embedder.clone()).await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 150).await;
    let before = app.embedded.passages();
    let mut lost = 0;
    // Batches of 32: 150 chunks are five, the last one of 22.
    for batches in [0, 1, 0, 2] {
        embedder.left.store(batches, Ordering::Relaxed);
        embedder.stopped.send_replace(false);
        let mut stopped = embedder.stopped.subscribe();
        tokio::select! {
            done = reindex::command(&app.app, Command::Start, soon()) => panic!("it has ended: {done:?}"),
            stopped = stopped.wait_for(|stopped| *stopped) => drop(stopped.unwrap()),
        }
        lost += 32;
        let busy = reindex::work(&app.app, soon()).await.unwrap_err();
        assert!(busy.to_string().contains("another process"), "its lease has not ended: {busy}");
        app.pg().await.execute("UPDATE collections SET lease_expires_at = now()", &[]).await.unwrap();
    }
    embedder.left.store(usize::MAX, Ordering::Relaxed);
    let collections = command(&app, Command::Start).await;
    assert_eq!(states(&collections), [("v1", "previous"), ("v2", "live")]);
    assert_eq!(app.embedded.passages() - before, 150 + lost, "only what was under way is embedded again");
    assert_eq!((collections[1].written, collections[1].repaired, collections[1].removed), (150, 0, 0));
    app.assert_consistent().await;
    assert_eq!(ids(&app, &collections[1].name).await.len(), 150);
}

#[tokio::test]
async fn an_index_that_is_lost_whole_is_built_again_from_postgresql() {
    let app = app().await;
    let user = app.register("ann").await;
    let id = send(&app, &user, "a", 40).await.to_string();
    app.qdrant().delete_collection(format!("{}-v1", app.collection())).await.unwrap();
    let question = json!({ "query": "a1 a2" });
    let lost = app.call(Method::POST, "/query", Some(&user.token), Some(question)).await;
    assert_ne!(lost.json["hits"].as_array().map(Vec::len), Some(0), "a lost index is no empty answer");
    let collections = command(&app, Command::Start).await;
    assert_eq!(states(&collections), [("v1", "previous"), ("v2", "live")]);
    assert_eq!(found(&app, &user, "a1 a2").await, vec![id; 40]);
    app.assert_consistent().await;
    // What is kept for a rollback is lost as well, and is made whole before it serves.
    let collections = command(&app, Command::Rollback).await;
    assert_eq!(states(&collections), [("v1", "live"), ("v2", "previous")]);
    assert_eq!(found(&app, &user, "a1 a2").await.len(), 40);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_collection_that_is_lost_while_it_is_built_begins_anew() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 100).await;
    // Time to make it, and for no batch.
    reindex::command(&app.app, Command::Start, Deadline::after(Duration::from_millis(3_500))).await.unwrap();
    let name = format!("{}-v2", app.collection());
    // As if half of it were done.
    app.pg()
        .await
        .execute(
            "UPDATE collections SET next_id = (SELECT id FROM chunk_metadata ORDER BY id OFFSET 50 LIMIT 1)
            WHERE state = 'building'",
            &[],
        )
        .await
        .unwrap();
    app.qdrant().delete_collection(&name).await.unwrap();
    send(&app, &user, "b", 3).await;
    let lost: bool =
        app.pg().await.query_one("SELECT made FROM collections WHERE version = 2", &[]).await.unwrap().get(0);
    assert!(!lost, "the writer has noticed");
    build(&app.app, Duration::from_mins(1)).await;
    let collections = reindex::status(&app.app).await.unwrap();
    assert_eq!((collections[1].written, collections[1].repaired), (103, 0), "the scan begins at the beginning");
    assert_eq!(ids(&app, &name).await.len(), 103);
    app.assert_consistent().await;
}

/// The same stores, seen by functions whose first and second model have changed places.
fn exchanged(app: &App) -> App {
    let next = app.next.clone().unwrap();
    App { embedder: next.embedder, index: next.index, next: Some(app.model()), ..app.clone() }
}

#[tokio::test]
async fn another_model_takes_over_by_a_deployment_and_gives_way_by_another() {
    let mut app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.next = Some(Arc::new(HashEmbedder::of("other", 64)));
    })
    .await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 40).await;
    let (old, new) = (app.app.clone(), exchanged(&app.app));
    let without = App { next: None, ..old.clone() };
    reindex::command(&old, Command::StartNext, Deadline::after(SLICE)).await.unwrap();
    send(&app, &user, "b", 4).await;
    build(&old, Duration::from_mins(1)).await;
    reindex::run_due(&old, soon()).await.unwrap();
    send(&app, &user, "c", 4).await;
    let names = [old.index.behind(soon()).await.unwrap().unwrap(), new.index.behind(soon()).await.unwrap().unwrap()];
    assert!(names[1].contains("other_64"), "{names:?}");
    let both = async |app: &TestApp| [ids(app, &names[0]).await, ids(app, &names[1]).await];
    let [before, after] = both(&app).await;
    assert_eq!((before.len(), &before), (48, &after));

    // A function that does not have the other model does not leave it out in silence.
    app.router = local::gateway::router(&without).unwrap();
    let body = json!({ "text": "Some words.", "source_uri": "d" });
    let refused = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await;
    assert_eq!((refused.problem(503), &refused.json["dependency"]), ("dependency_unavailable", &json!("embedder")));

    // The deployment.
    app.router = local::gateway::router(&new).unwrap();
    app.app = new.clone();
    assert_eq!(found(&app, &user, "b0 b1").await.len(), 48);
    let id = send(&app, &user, "e", 5).await;
    app.assert_consistent().await;
    let early = reindex::command(&old, Command::Finish, soon()).await.unwrap_err();
    assert!(early.to_string().contains("not possible"), "{early}");

    // And back, and forth.
    app.router = local::gateway::router(&old).unwrap();
    app.app = old.clone();
    assert!(found(&app, &user, "e1 e2").await.contains(&id.to_string()));
    app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await.expect(204);
    app.assert_consistent().await;
    app.app = new.clone();
    app.assert_consistent().await;
    reindex::command(&new, Command::Finish, soon()).await.unwrap();
    assert_eq!(old.index.behind(soon()).await.unwrap(), None);
    let gone = app.app.index.collection(&names[0]).count(&[ChunkId::draw()], soon()).await;
    assert!(matches!(gone, Err(IndexError::Missing)), "{gone:?}");
    app.router = local::gateway::router(&App { next: None, ..new }).unwrap();
    send(&app, &user, "f", 2).await;
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_write_that_one_of_two_collections_misses_is_no_success_and_its_retry_is_in_both() {
    let plain = app().await;
    let proxy = QdrantProxy::before(&plain.app.config.qdrant.url).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = proxy.url();
    })
    .await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 3).await;
    command(&app, Command::Start).await;
    let names = [format!("{}-v1", app.collection()), format!("{}-v2", app.collection())];
    for away in &names {
        proxy.take_away(away);
        let body = json!({ "text": format!("The key is in {away}."), "source_uri": away });
        let sent = async || app.call(Method::POST, "/documents", Some(&user.token), Some(body.clone())).await;
        let failed = sent().await;
        assert_eq!((failed.problem(503), &failed.json["dependency"]), ("dependency_unavailable", &json!("qdrant")));
        proxy.heal();
        let id = sent().await.expect(201).json["id"].as_str().unwrap().to_owned();
        assert_eq!(ids(&app, &names[0]).await, ids(&app, &names[1]).await);

        // Nor is a removal done before both have done it.
        proxy.take_away(away);
        app.call(Method::DELETE, &format!("/documents/{id}"), Some(&user.token), None).await.expect(204);
        let left = app.pg().await.query_one("SELECT count(*) FROM retired_points", &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 1, "the id stays on the list");
        let proof = get(&app, &user, &format!("/consistency/erasures/{id}")).await.expect(200).json;
        assert_eq!(proof["erased"], false, "{proof}");
        assert_ne!(proof["qdrant"]["points"], 0, "{proof}");
        proxy.heal();
        app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
        sweep(&app).await;
        assert_eq!(ids(&app, &names[0]).await, ids(&app, &names[1]).await);
        app.assert_consistent().await;
    }
}

#[tokio::test]
async fn finishing_drops_what_was_kept_and_nothing_with_a_similar_name() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 3).await;
    let neighbour = format!("{}-v10", app.collection());
    app.app.index.collection(&neighbour).ensure(soon()).await.unwrap();
    assert_eq!(states(&command(&app, Command::Start).await), [("v1", "previous"), ("v2", "live")]);
    // Another build keeps its predecessor, and lets the one before go.
    assert_eq!(states(&command(&app, Command::Start).await), [("v2", "previous"), ("v3", "live")]);
    assert_eq!(states(&command(&app, Command::Finish).await), [("v3", "live")]);
    let listed = app.qdrant().list_collections().await.unwrap().collections;
    let own: BTreeSet<String> =
        listed.into_iter().map(|one| one.name).filter(|name| name.starts_with(&app.collection())).collect();
    assert_eq!(own, BTreeSet::from([neighbour, format!("{}-v3", app.collection())]));
    assert!(reindex::command(&app.app, Command::Rollback, soon()).await.is_err(), "nothing is kept");
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_build_that_is_cancelled_leaves_no_collection_and_a_cut_switch_is_settled_by_the_next_sweep() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "a", 3).await;
    command(&app, Command::Start).await;
    let alias = app.collection();
    // The process died after PostgreSQL's commit: the alias stands for the former one.
    app.app.index.point_to(&format!("{alias}-v1"), soon()).await.unwrap();
    let id = send(&app, &user, "b", 2).await.to_string();
    assert!(found(&app, &user, "b0 b1").await.contains(&id), "the former one is written and searched");
    ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon()).await.unwrap();
    assert_eq!(app.app.index.behind(soon()).await.unwrap(), Some(format!("{alias}-v2")));
    assert!(found(&app, &user, "b0 b1").await.contains(&id));

    // A build that has no time is there, and is given up.
    let start: ingest::SweeperEvent = serde_json::from_value(json!({ "reindex": "start" })).unwrap();
    ingest::sweeper(&app.app, start, Deadline::after(Duration::from_millis(3_500))).await.unwrap();
    let status = command(&app, Command::Status).await;
    assert_eq!(states(&status).last(), Some(&("v3", "building")));
    let cancelled = command(&app, Command::Cancel).await;
    assert_eq!(states(&cancelled), [("v1", "previous"), ("v2", "live")]);
    app.assert_consistent().await;
}
