//! P3 for a long text in a bucket, which is read part by part: whatever is killed between or inside of parts, whoever goes on
//! does so where the last commit was, and the former text answers until the new one is complete.

use std::{
    collections::BTreeSet,
    fmt::Write,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream};
use ingest::failpoint;
use local::{
    folder::TempFolder,
    queue::Queue,
    s3,
    testkit::{HashEmbedder, TestApp, TestUser},
};
use reqwest::Client;
use serde_json::{Value, json};
use shared::{config::ObjectsConfig, objects::ObjectId};
use uuid::Uuid;

use crate::{
    function::Function,
    world::{assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, sweep},
};

/// Time of an event's work, and with it of a lease: enough for all six parts on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// Cases at the same time. Most of a case is waiting for a lease to end.
const AT_ONCE: usize = 6;

/// Far more than a case takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Paragraphs of a text that is read in five parts.
const PARAGRAPHS: usize = 14_000;

/// A bucket with one long text, of which a short one is active.
struct World {
    app: TestApp,
    user: TestUser,
    client: Client,
    // It has the bucket's files.
    _folder: TempFolder,
}

fn long_text() -> String {
    let mut text = String::new();
    for n in 0..PARAGRAPHS {
        writeln!(text, "Paragraph {n} tells of lamp {n}. {}\n", "It is tall, lit, and made of brass. ".repeat(9))
            .unwrap();
    }
    text
}

impl World {
    async fn start() -> Self {
        let folder = TempFolder::new().unwrap();
        let bucket = s3::open(folder.path(), Queue::default()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, bucket.router).into_future());
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            parts.config.limits.request_timeout = REQUEST_TIMEOUT;
            parts.config.objects = ObjectsConfig {
                endpoint: Some(endpoint),
                credentials: Some((s3::ACCESS_KEY.to_owned(), bucket.secret_key.into())),
                ..ObjectsConfig::default()
            };
        })
        .await;
        let user = app.register("ann").await;
        Self { app, user, client: Client::new(), _folder: folder }
    }

    fn object(&self) -> ObjectId {
        let key = format!("{}/long.txt", self.user.knowledge_base);
        ObjectId { bucket: s3::INBOX.to_owned(), key, version: None }
    }

    async fn put(&self, text: String) {
        let objects = &self.app.app.objects;
        let size = text.len() as u64;
        let put = objects.presign_put(&self.object(), "text/plain", size, Duration::from_mins(1)).await.unwrap();
        let mut request = self.client.put(put.url).body(text);
        for (name, value) in put.headers {
            request = request.header(name, value);
        }
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// What the queue hands over of the object's change number `n`.
    fn event(&self, n: u32) -> Value {
        let object = self.object();
        let body = json!({ "Records": [{
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": { "name": object.bucket },
                "object": { "key": object.key, "sequencer": format!("{n:016X}") },
            },
        }]});
        json!({ "Records": [{ "messageId": "1", "eventSource": "aws:sqs", "body": body.to_string() }] })
    }

    async fn chunks(&self) -> BTreeSet<Uuid> {
        let rows = self.app.pg().await.query("SELECT id FROM chunk_metadata", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn read_bytes(&self) -> i64 {
        let read = "SELECT max(read_bytes) FROM document_revisions";
        self.app.pg().await.query_one(read, &[]).await.unwrap().get(0)
    }

    async fn assert_text_is(&self, text: &str) {
        let rows = "SELECT c.text FROM documents d
            JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
            JOIN chunk_metadata c ON c.id = p.chunk_id ORDER BY p.ordinal";
        let rows = self.app.pg().await.query(rows, &[]).await.unwrap();
        let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
        let stored: Vec<String> = rows.iter().flat_map(|row| words(row.get(0))).collect();
        assert!(stored == words(text), "the chunks in their order are the text, and nothing twice");
    }
}

/// Where the process ends.
#[derive(Clone, Copy, Debug)]
struct Case {
    point: &'static str,
    /// It dies the so-manieth time that it comes there; `None`: it stands there, and is killed.
    pass: Option<&'static str>,
    /// The event comes again; else the sweeper goes on alone.
    event_comes_again: bool,
}

impl Case {
    async fn run(self) {
        let world = World::start().await;
        let (app, user) = (&world.app, &world.user);
        world.put("A short text that answers meanwhile.".to_owned()).await;
        let first = Function::start(app, None).await;
        first.client(user).post("/events", None, &world.event(1)).await.unwrap().expect(200);
        let former = world.chunks().await;
        assert_eq!(former.len(), 1);

        let text = long_text();
        world.put(text.clone()).await;
        let mut config = shared::config::Config::clone(&app.app.config);
        config.database.url = shared::db::migrations::as_app_role(app.database_url());
        let arguments: Vec<&str> = [self.point].into_iter().chain(self.pass).collect();
        let mut victim = Function::launch(&config, &arguments).await;
        let (client, event) = (victim.client(user), world.event(2));
        let sending = tokio::spawn(async move { client.post("/events", None, &event).await });
        if self.pass.is_none() {
            victim.reached(self.point).await;
            if self.point != failpoint::ACTIVATE_COMMITTED {
                assert_readers_see_the_active_revision(app, user).await;
            }
            victim.kill().await;
        }
        sending.await.unwrap().expect_err("nobody is there to answer");
        let (stored, read) = (world.chunks().await, world.read_bytes().await);
        if let Some(pass) = self.pass {
            let parts = if self.point == failpoint::PART_COMMITTED { pass.parse().unwrap() } else { 0 };
            assert!(read >= parts * 512 * 1024, "{read} bytes are read after {parts} parts");
        }

        let claimed = self.point != failpoint::CLAIM_BEFORE;
        if self.event_comes_again || !claimed {
            let fresh = Function::start(app, None).await;
            let answer = fresh.client(user).post("/events", None, &world.event(2)).await.unwrap().expect(200);
            assert_eq!(answer.json, json!({ "batchItemFailures": [] }), "what is claimed is the saga's");
        }
        let end = Instant::now() + PATIENCE;
        while path_state(app, user).await != ("active".to_owned(), 2) {
            assert!(Instant::now() < end, "nobody completes it");
            sweep(app).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_nothing_is_left_but(app, 1).await;
        world.assert_text_is(&text).await;
        let all = world.chunks().await;
        let kept: BTreeSet<Uuid> = stored.difference(&former).copied().collect();
        assert!(kept.is_subset(&all), "what was stored is not stored anew");
        assert!(world.read_bytes().await >= read);
    }
}

async fn path_state(app: &TestApp, user: &TestUser) -> (String, i64) {
    let path = path(app, user).await.expect("there is a document");
    let document = app.call(http::Method::GET, &path, Some(&user.token), None).await.expect(200).json;
    (document["state"].as_str().unwrap().to_owned(), document["revision"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_a_long_text_is_gone_on_with_where_the_last_commit_was() {
    let stop = |point, event_comes_again| Case { point, pass: None, event_comes_again };
    let die = |point, pass| Case { point, pass: Some(pass), event_comes_again: true };
    let cases = [
        stop(failpoint::CLAIM_BEFORE, true),
        stop(failpoint::CLAIM_COMMITTED, false),
        stop(failpoint::PART_BEFORE, true),
        stop(failpoint::PART_COMMITTED, false),
        die(failpoint::PART_BEFORE, "3"),
        die(failpoint::PART_COMMITTED, "3"),
        stop(failpoint::STAGE_BEFORE, false),
        stop(failpoint::STAGE_COMMITTED, true),
        stop(failpoint::EMBED_UPSERTED, false),
        die(failpoint::EMBED_COMMITTED, "3"),
        stop(failpoint::ACTIVATE_BEFORE, true),
        stop(failpoint::ACTIVATE_COMMITTED, true),
    ];
    let running =
        stream::iter(cases).map(async |case| AssertUnwindSafe(case.run()).catch_unwind().await.map_err(|_| case));
    let results: Vec<Result<(), Case>> = running.buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<Case> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "failed, see above: {failed:#?}");
}
