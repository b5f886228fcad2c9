//! Deletions against everything that may happen at the same time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use serde_json::json;
use shared::domain::KnowledgeBaseId;

use crate::deletion::{LOST, PASSWORD, account, create, delete, delete_account, document, join, send, sweep};

/// How long each of them goes on.
const HAMMER: Duration = Duration::from_secs(4);

/// Writers of one knowledge base.
const WRITERS: usize = 4;

async fn app() -> Arc<TestApp> {
    Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await)
}

/// What writers may hear while what they write to is being deleted.
fn is_clean(status: u16, code: &str) -> bool {
    match status {
        200 | 201 => true,
        404 => code == "not_found",
        409 => ["document_busy", LOST, "superseded", "idempotency_key_in_flight"].contains(&code),
        _ => false,
    }
}

/// Writes one of a few documents again and again to whatever is in `target`, some with keys that come again.
async fn write(
    app: &TestApp,
    user: &TestUser,
    target: &Mutex<KnowledgeBaseId>,
    stop: &AtomicBool,
    writer: usize,
) -> BTreeMap<u16, usize> {
    let mut heard = BTreeMap::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = *target.lock().unwrap();
        let mut body = document(id, &format!("d/{}", round % 3));
        body["title"] = json!(format!("{writer}/{round}"));
        let key = format!("{id}/{writer}/{}", round % 5);
        let reply = if round % 2 == 0 {
            send(app, user, &key, &body).await
        } else {
            app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await
        };
        let code = reply.json["code"].as_str().unwrap_or_default();
        let reused = reply.status == 422 && code == "idempotency_key_reused";
        assert!(reused || is_clean(reply.status.as_u16(), code), "{} {}", reply.status, reply.json);
        *heard.entry(reply.status.as_u16()).or_default() += 1;
    }
    heard
}

async fn assert_nothing_dangles(app: &TestApp) {
    let pg = app.pg().await;
    for statement in [
        "SELECT count(*) FROM documents d WHERE NOT EXISTS
            (SELECT FROM document_revisions r WHERE r.document_id = d.id)",
        "SELECT count(*) FROM knowledge_bases kb WHERE NOT EXISTS
            (SELECT FROM knowledge_base_members m WHERE m.knowledge_base_id = kb.id AND m.role = 'owner')",
        "SELECT count(*) FROM retired_points",
    ] {
        assert_eq!(pg.query_one(statement, &[]).await.unwrap().get::<_, i64>(0), 0, "{statement}");
    }
    app.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_against_deletions_of_their_knowledge_base_end_consistent_and_cleanly() {
    let app = app().await;
    let ann = app.register("ann").await;
    let target = Arc::new(Mutex::new(create(&app, &ann, "0").await));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (app, ann, target, stop) = (app.clone(), ann.clone(), target.clone(), stop.clone());
            tokio::spawn(async move { write(&app, &ann, &target, &stop, writer).await })
        })
        .collect();
    let begun = Instant::now();
    let mut deleted = 0;
    while begun.elapsed() < HAMMER {
        let former = *target.lock().unwrap();
        tokio::time::sleep(Duration::from_millis(30 + deleted * 7 % 60)).await;
        delete(&app, &ann, former).await.expect(204);
        *target.lock().unwrap() = create(&app, &ann, "next").await;
        deleted += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut heard = BTreeMap::<u16, usize>::new();
    for writer in writers {
        for (status, times) in writer.await.unwrap() {
            *heard.entry(status).or_default() += times;
        }
    }
    println!("{deleted} deletions, answers to writers: {heard:?}");
    assert!(deleted > 5 && heard[&201] > 5 && heard[&404] > 0, "{deleted} {heard:?}");
    sweep(&app).await;
    assert_nothing_dangles(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_against_deletions_of_their_account_leave_nothing_of_it() {
    let app = app().await;
    let bob = account(&app, "bob@example.com").await;
    let begun = Instant::now();
    for n in 0.. {
        if begun.elapsed() > HAMMER {
            break;
        }
        let ann = account(&app, "ann@example.com").await;
        // As well as to her own, she writes to what stays.
        join(&app, &ann, bob.knowledge_base, "editor").await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = [ann.knowledge_base, ann.knowledge_base, bob.knowledge_base]
            .into_iter()
            .enumerate()
            .map(|(writer, id)| {
                let (app, ann, stop) = (app.clone(), ann.clone(), stop.clone());
                tokio::spawn(async move { write(&app, &ann, &Mutex::new(id), &stop, writer).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20 + n * 13 % 80)).await;
        delete_account(&app, &ann, PASSWORD).await.expect(204);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let keys = "SELECT count(*) FROM idempotency_keys WHERE principal_id = $1";
        assert_eq!(app.pg().await.query_one(keys, &[&ann.id.0]).await.unwrap().get::<_, i64>(0), 0);
    }
    sweep(&app).await;
    assert_nothing_dangles(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_two_owners_go_at_once_nothing_is_left_without_an_owner() {
    let app = app().await;
    for n in 0..8 {
        let ann = account(&app, &format!("ann{n}@example.com")).await;
        let bob = account(&app, &format!("bob{n}@example.com")).await;
        let id = create(&app, &ann, "Ours").await;
        join(&app, &bob, id, "owner").await;
        send(&app, &ann, "k", &document(id, "a")).await.expect(201);
        let (one, two) = tokio::join!(delete_account(&app, &ann, PASSWORD), delete_account(&app, &bob, PASSWORD));
        one.expect(204);
        two.expect(204);
    }
    let left = "SELECT count(*) FROM knowledge_bases";
    assert_eq!(app.pg().await.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    sweep(&app).await;
    assert_eq!(app.all_points().await, []);
    assert_nothing_dangles(&app).await;
}
