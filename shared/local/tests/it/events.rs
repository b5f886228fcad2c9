//! Documents that arrive as objects: whatever the order and the number of their events, the newest of each is what stays.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use http::Method;
use ingest::events::{Answer, events};
use local::testkit::{HashEmbedder, TestApp, TestBucket, TestUser};
use serde_json::{Value, json};
use shared::deadline::Deadline;

const TIME: Duration = Duration::from_mins(1);

struct World {
    app: TestApp,
    bucket: TestBucket,
    user: TestUser,
}

impl World {
    async fn new() -> Self {
        let bucket = TestBucket::default();
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
            parts.objects = Some(Arc::new(bucket.clone()));
        })
        .await;
        let user = app.register("ada").await;
        Self { app, bucket, user }
    }

    fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.user.knowledge_base)
    }

    fn put(&self, path: &str, text: &str) -> Value {
        self.bucket.put(&self.key(path), "text/plain", text.to_owned())
    }

    async fn handle(&self, event: Value) {
        events(&self.app.app, event, Deadline::after(TIME)).await.unwrap();
    }

    /// Sends a batch as SQS does, and returns the messages that must come again.
    async fn batch(&self, messages: Vec<(String, Value)>) -> Vec<String> {
        let records: Vec<Value> = messages
            .into_iter()
            .map(|(id, body)| json!({"messageId": id, "eventSource": "aws:sqs", "body": body.to_string()}))
            .collect();
        match events(&self.app.app, json!({"Records": records}), Deadline::after(TIME)).await.unwrap() {
            Answer::Batch { failures } => failures.into_iter().map(|failure| failure.message).collect(),
            Answer::Done { .. } => panic!("a batch was not answered as one"),
        }
    }

    /// All documents by their path: those of the list, which leaves none out and shows none twice.
    async fn documents(&self) -> BTreeMap<String, Value> {
        let reply = self.app.call(Method::GET, "/documents?limit=200", Some(&self.user.token), None).await.expect(200);
        let prefix = format!("s3://inbox/{}/", self.user.knowledge_base);
        let items = reply.json["items"].as_array().unwrap().clone();
        let count = items.len();
        let documents: BTreeMap<String, Value> = items
            .into_iter()
            .map(|item| (item["source_uri"].as_str().unwrap().strip_prefix(&prefix).unwrap().to_owned(), item))
            .collect();
        assert_eq!(documents.len(), count);
        documents
    }

    /// The text of each active document, as PostgreSQL holds it.
    async fn texts(&self) -> BTreeMap<String, String> {
        let rows = self
            .app
            .pg()
            .await
            .query(
                "SELECT d.source_uri, string_agg(c.text, '|' ORDER BY p.ordinal) FROM documents d
                JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
                JOIN chunk_metadata c ON c.id = p.chunk_id GROUP BY d.source_uri",
                &[],
            )
            .await
            .unwrap();
        let prefix = format!("s3://inbox/{}/", self.user.knowledge_base);
        rows.iter().map(|row| (row.get::<_, String>(0).strip_prefix(&prefix).unwrap().to_owned(), row.get(1))).collect()
    }

    /// Lets the sweeper finish what the events left.
    async fn settle(&self) {
        ingest::sweep(&self.app.app, Deadline::after(TIME)).await.unwrap();
    }
}

#[tokio::test]
async fn an_object_becomes_a_document_is_replaced_and_is_deleted() {
    let world = World::new().await;
    let first = world.put("a b+c.txt", "The first text.");
    world.handle(first.clone()).await;
    assert_eq!(world.texts().await["a b+c.txt"], "The first text.");
    let second = world.put("a b+c.txt", "The second text.");
    world.handle(second.clone()).await;
    world.handle(first.clone()).await;
    assert_eq!(world.texts().await["a b+c.txt"], "The second text.");
    assert_eq!(world.documents().await["a b+c.txt"]["revision"], 2);
    world.handle(world.bucket.hide(&world.key("a b+c.txt"))).await;
    for late in [first, second] {
        world.handle(late).await;
    }
    assert!(world.documents().await.is_empty());
    world.app.assert_consistent().await;
}

#[tokio::test]
async fn a_version_that_is_the_newest_again_is_the_document_again() {
    let world = World::new().await;
    world.handle(world.put("a.txt", "The first text.")).await;
    world.handle(world.bucket.hide(&world.key("a.txt"))).await;
    // The delete marker goes.
    world.handle(world.bucket.remove_newest(&world.key("a.txt"))).await;
    assert_eq!(world.texts().await["a.txt"], "The first text.");
    world.handle(world.put("a.txt", "The second text.")).await;
    // The second version goes, and the first is the newest.
    world.handle(world.bucket.remove_newest(&world.key("a.txt"))).await;
    assert_eq!(world.texts().await["a.txt"], "The first text.");
    world.handle(world.bucket.remove_newest(&world.key("a.txt"))).await;
    assert!(world.documents().await.is_empty());
    world.app.assert_consistent().await;
}

#[tokio::test]
async fn a_duplicate_does_not_read_the_object_again() {
    let world = World::new().await;
    let event = world.put("a.txt", "A text.");
    world.handle(event.clone()).await;
    let reads = world.bucket.reads();
    world.handle(event).await;
    assert_eq!(world.bucket.reads(), reads);
}

#[tokio::test]
async fn a_poisoned_object_fails_alone_and_does_not_come_again() {
    let world = World::new().await;
    let mut batch: Vec<(String, Value)> =
        (0..9).map(|n| (format!("m{n}"), world.put(&format!("{n}.txt"), &format!("Text number {n}.")))).collect();
    let poison = world.bucket.put(&world.key("poison.pdf"), "application/pdf", &b"%PDF-1.7\nand nothing else"[..]);
    batch.insert(4, ("poison".to_owned(), poison));
    assert_eq!(world.batch(batch).await, Vec::<String>::new());
    let documents = world.documents().await;
    for n in 0..9 {
        assert_eq!(documents[&format!("{n}.txt")]["state"], "active");
    }
    let poisoned = &documents["poison.pdf"];
    assert_eq!(poisoned["state"], "failed");
    assert_eq!(poisoned["ingestion"]["failure"]["code"], "malformed_document");
    world.app.assert_consistent().await;
}

#[tokio::test]
async fn what_can_not_become_a_document_says_why() {
    let world = World::new().await;
    let put =
        |path: &str, media_type: &str, bytes: &'static [u8]| world.bucket.put(&world.key(path), media_type, bytes);
    let batch = vec![
        ("1".to_owned(), put("empty.txt", "text/plain", b"")),
        ("2".to_owned(), put("blank.txt", "text/plain", b" \n ")),
        ("3".to_owned(), put("picture.png", "image/png", b"\x89PNG")),
        ("4".to_owned(), put("good.md", "application/octet-stream", b"# Good\n\nA text.")),
    ];
    assert_eq!(world.batch(batch).await, Vec::<String>::new());
    let documents = world.documents().await;
    let code = |path: &str| documents[path]["ingestion"]["failure"]["code"].as_str().unwrap_or("none").to_owned();
    assert_eq!(code("empty.txt"), "empty_document");
    assert_eq!(code("blank.txt"), "empty_document");
    assert_eq!(code("picture.png"), "unsupported_media_type");
    assert_eq!(code("good.md"), "none");
    // A failed update leaves the document as it was.
    world.handle(put("good.md", "image/png", b"\x89PNG")).await;
    let good = &world.documents().await["good.md"];
    assert_eq!((good["state"].as_str(), good["revision"].as_i64()), (Some("active"), Some(1)));
    assert_eq!(good["ingestion"]["failure"]["code"], "unsupported_media_type");
}

#[tokio::test]
async fn a_store_that_is_down_sends_exactly_the_failed_messages_back() {
    let world = World::new().await;
    let stale = world.put("old.txt", "An old text.");
    world.handle(stale.clone()).await;
    let fresh = world.put("new.txt", "A new text.");
    world.bucket.set_down(true);
    let nowhere = world.bucket.put("nobody/x.txt", "text/plain", "x");
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "inbox"});
    let batch = || {
        let named = |id: &str, event: &Value| (id.to_owned(), event.clone());
        vec![
            named("stale", &stale),
            named("fresh", &fresh),
            named("nowhere", &nowhere),
            named("test", &test),
            named("garbage", &json!({"hello": "world"})),
        ]
    };
    let mut failed = world.batch(batch()).await;
    failed.sort();
    assert_eq!(failed, ["fresh", "garbage"]);
    world.bucket.set_down(false);
    assert_eq!(world.batch(batch()).await, ["garbage"]);
    assert_eq!(world.texts().await.len(), 2);
}

#[tokio::test]
async fn an_object_for_a_knowledge_base_that_is_gone_is_nobodys() {
    let world = World::new().await;
    let gone = shared::domain::KnowledgeBaseId::draw();
    let event = world.bucket.put(&format!("{gone}/a.txt"), "text/plain", "A text.");
    assert_eq!(world.batch(vec![("1".to_owned(), event)]).await, Vec::<String>::new());
    assert!(world.documents().await.is_empty());
}

/// Fifty keys with twenty versions each, some of them deletions; every event twice, in a random order, many at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_order_the_newest_version_of_each_object_is_what_stays() {
    const KEYS: usize = 50;
    const VERSIONS: usize = 20;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::new().await;
    let mut expected = BTreeMap::new();
    let mut schedule = Vec::new();
    for version in 0..VERSIONS {
        for key in 0..KEYS {
            let path = format!("{key}.txt");
            // The last of every fifth key is a deletion.
            let deleted = if version + 1 == VERSIONS { key % 5 == 0 } else { rng.u32(..6) == 0 };
            let event = if deleted {
                expected.remove(&path);
                world.bucket.hide(&world.key(&path))
            } else {
                // Some texts come back, so that an unchanged one is among them.
                let text = format!("Key {key} has text number {}.", version % 7);
                let event = world.put(&path, &text);
                expected.insert(path, text);
                event
            };
            schedule.extend([(key, event.clone()), (key, event)]);
        }
    }
    // Of three keys one in order, one in reverse order, one anyhow; all among each other.
    let in_order = schedule.clone();
    rng.shuffle(&mut schedule);
    for key in (0..KEYS).filter(|key| key % 3 < 2) {
        let mut events: Vec<_> = in_order.iter().filter(|(of, _)| *of == key).cloned().collect();
        if key % 3 == 1 {
            events.reverse();
        }
        let places = schedule.iter_mut().filter(|(of, _)| *of == key);
        places.zip(events).for_each(|(place, event)| *place = event);
    }
    stream::iter(schedule.chunks(10))
        .for_each_concurrent(4, async |events| {
            let mut batch: Vec<(String, Value)> =
                events.iter().enumerate().map(|(n, (_, event))| (n.to_string(), event.clone())).collect();
            while !batch.is_empty() {
                let failed = world.batch(batch.clone()).await;
                batch.retain(|(id, _)| failed.contains(id));
            }
        })
        .await;
    world.settle().await;
    assert_eq!(world.texts().await, expected);
    assert_eq!(world.documents().await.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    world.app.assert_consistent().await;
}

/// A text of so many paragraphs, no two alike.
fn long_text(paragraphs: usize) -> String {
    let mut text = String::new();
    for n in 0..paragraphs {
        writeln!(
            text,
            "Paragraph {n} of the long text tells of the {n}th lamp, which is {} feet tall and lit.\n",
            n * 7
        )
        .unwrap();
    }
    text
}

/// What a long text needs of paragraphs to be read part by part: six parts.
const LONG: usize = 65_000;

impl World {
    async fn retry(&self, path: &str) -> Value {
        let id = self.documents().await[path]["id"].as_str().unwrap().to_owned();
        self.app
            .call(Method::POST, &format!("/documents/{id}/retry"), Some(&self.user.token), None)
            .await
            .expect(200)
            .json
    }

    /// Ends the test unless the active chunks are exactly their stretches of the text, in order, and leave out nothing
    /// but white space.
    async fn assert_covers(&self, text: &str) {
        let rows = self
            .app
            .pg()
            .await
            .query(
                "SELECT p.ordinal, p.byte_start, p.byte_end, c.text FROM documents d
                JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision
                JOIN chunk_metadata c ON c.id = p.chunk_id ORDER BY p.ordinal",
                &[],
            )
            .await
            .unwrap();
        let mut at = 0;
        for (place, row) in rows.iter().enumerate() {
            assert_eq!(usize::try_from(row.get::<_, i32>(0)).unwrap(), place);
            let [start, end] = [1, 2].map(|column| usize::try_from(row.get::<_, i64>(column)).unwrap());
            assert_eq!(text.get(at..start).unwrap().trim(), "");
            assert_eq!(text.get(start..end).unwrap(), row.get::<_, &str>(3));
            at = end;
        }
        assert_eq!(text.get(at..).unwrap().trim(), "");
    }

    async fn stored_chunks(&self) -> i64 {
        self.app.pg().await.query_one("SELECT count(*) FROM chunk_metadata", &[]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn a_long_text_is_gone_on_with_where_its_reading_broke_off() {
    let world = World::new().await;
    let text = long_text(LONG);
    let event = world.put("long.txt", &text);
    // One for its hash, and three parts.
    world.bucket.break_after(4);
    assert_eq!(world.batch(vec![("1".to_owned(), event)]).await, Vec::<String>::new());
    assert_eq!(world.documents().await["long.txt"]["state"], "ingesting");
    assert!(world.stored_chunks().await > 0);
    assert!(world.app.all_points().await.is_empty(), "of what is not read to its end, nothing is embedded");
    world.bucket.set_down(false);
    let reads = world.bucket.reads();
    let document = world.retry("long.txt").await;
    assert_eq!(document["state"], "active");
    assert_eq!(world.bucket.reads() - reads, 3, "what was read is not read again");
    world.assert_covers(&text).await;

    // A line at its beginning: what follows keeps its vectors.
    let edited = format!("A new beginning.\n\n{text}");
    world.handle(world.put("long.txt", &edited)).await;
    let document = &world.documents().await["long.txt"];
    assert_eq!(document["revision"], 2);
    let [total, embedded] = ["total", "embedded"].map(|count| document["ingestion"]["chunks"][count].as_i64().unwrap());
    assert!(embedded * 20 < total, "{embedded} of {total} were embedded again");
    world.assert_covers(&edited).await;
    assert_eq!(world.stored_chunks().await, total);
    world.app.assert_consistent().await;
}

#[tokio::test]
async fn a_newer_text_discards_what_was_read_of_an_older_one() {
    let world = World::new().await;
    let first = world.put("long.txt", &long_text(LONG));
    world.bucket.break_after(3);
    world.handle(first).await;
    world.bucket.set_down(false);
    let half_read = world.stored_chunks().await;
    world.handle(world.put("long.txt", "A short text.")).await;
    assert_eq!(world.texts().await["long.txt"], "A short text.");
    assert_eq!(world.stored_chunks().await, 1);
    let retired = world.app.pg().await.query_one("SELECT count(*) FROM retired_points", &[]).await.unwrap();
    assert_eq!(retired.get::<_, i64>(0), half_read, "an id that was committed is never used again");
    world.app.assert_consistent().await;
}

#[tokio::test]
async fn a_long_text_that_is_none_at_its_end_fails_and_the_former_one_answers() {
    let world = World::new().await;
    world.handle(world.put("long.txt", "A short text.")).await;
    let mut bytes = long_text(LONG).into_bytes();
    let end = bytes.len();
    bytes.extend(b"\xff");
    world.handle(world.bucket.put(&world.key("long.txt"), "text/plain", bytes)).await;
    let document = &world.documents().await["long.txt"];
    assert_eq!((document["state"].as_str(), document["revision"].as_i64()), (Some("active"), Some(1)));
    let failure = &document["ingestion"]["failure"];
    assert_eq!(failure["code"], "invalid_utf8");
    assert!(failure["detail"].as_str().unwrap().contains(&end.to_string()), "{failure}");
    assert_eq!(world.stored_chunks().await, 1);
    world.app.assert_consistent().await;
}
