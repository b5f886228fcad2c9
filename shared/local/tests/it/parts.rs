//! P3 for a long text in a bucket, which is read part by part: whatever is killed between or inside of parts, whoever goes on
//! does so where the last commit was, and the former text answers until the new one is complete.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream};
use ingest::failpoint;
use local::testkit::{HashEmbedder, Inbox, TestApp, TestUser, large, long_text};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    function::Function,
    world::{assert_nothing_is_left_but, assert_readers_see_the_active_revision, path, sweep},
};

/// Time of an event's work, and with it of a lease: enough for the whole document on a busy machine. Nobody waits for it to end.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// Cases at the same time.
const AT_ONCE: usize = 3;

/// Megabytes of a text of a few parts, and of one of many. What is read as a whole ([`ingest::objects::PARTS_FROM_BYTES`]) takes more.
const SHORT: usize = 6;
const LONG: usize = 24;

/// Far more than a case takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Paragraphs of a text that is read in five parts.
const PARAGRAPHS: usize = 14_000;

/// A bucket with one long text, of which a short one is active.
struct World {
    app: TestApp,
    user: TestUser,
    inbox: Inbox,
}

impl World {
    async fn start() -> Self {
        let inbox = Inbox::start().await;
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            parts.config.limits.request_timeout = REQUEST_TIMEOUT;
            parts.config.objects = inbox.config.clone();
        })
        .await;
        let user = app.register("ann").await;
        Self { app, user, inbox }
    }

    async fn put(&self, text: String) {
        self.inbox.put(self.user.knowledge_base, text).await;
    }

    fn event(&self, n: u32) -> Value {
        Inbox::event(self.user.knowledge_base, n)
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

        let text = long_text(PARAGRAPHS);
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
        // As if its time had passed.
        app.pg().await.batch_execute("UPDATE document_revisions SET lease_expires_at = now()").await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_text_four_times_as_long_takes_no_more_memory() {
    let short = large::measure(SHORT, |_| {}).await;
    let long = large::measure(LONG, |_| {}).await;
    // The difference of the texts, once, would be twice that.
    let allowed = (LONG - SHORT) as u64 * 1_000 / 2;
    assert!(long.peak_kib < short.peak_kib + allowed, "{short}; {long}");
}
