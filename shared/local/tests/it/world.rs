//! What the proofs of consistency share: documents with many chunks, whoever sends until there is an answer, and the look
//! at both stores afterwards.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use http::{Method, Request};
use local::testkit::{Reply, TestApp, TestUser};
use serde_json::{Value, json};
use shared::{deadline::Deadline, domain::ChunkId};

/// The document that everything happens to.
pub const SOURCE: &str = "notes.md";

/// The paragraph that is other than before.
const WRITTEN_ANEW: &str = "## Part 5\n\nThis paragraph was written anew.";

/// How long a client tries, at most: a lease, and patience for a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happens to a document, before and while something goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is new.
    New,
    /// One of many paragraphs is other than before.
    Changed,
    /// Most of it is gone, and one of the remaining paragraphs is other than before.
    Shrunk,
}

impl Change {
    /// How it was before.
    pub fn before(self) -> Option<Value> {
        (self != Self::New).then(|| document(&paragraphs(40)))
    }

    /// How it shall be.
    pub fn after(self) -> Value {
        let mut paragraphs = paragraphs(40);
        match self {
            Self::New => {}
            Self::Changed => WRITTEN_ANEW.clone_into(&mut paragraphs[20]),
            Self::Shrunk => {
                paragraphs.truncate(12);
                WRITTEN_ANEW.clone_into(&mut paragraphs[5]);
            }
        }
        document(&paragraphs)
    }
}

fn document(paragraphs: &[String]) -> Value {
    json!({ "text": paragraphs.join("\n\n"), "media_type": "text/markdown", "source_uri": SOURCE })
}

/// Paragraphs that are a chunk each, more than one batch of them, and that share one word.
fn paragraphs(count: usize) -> Vec<String> {
    let words = |n: usize| (0..150).map(move |w| format!("word{}", (n * 7919 + w * 104_729) % 5_003));
    (0..count)
        .map(|n| format!("## Part {n}\n\nParagraph {n} says: {}.", words(n).collect::<Vec<_>>().join(" ")))
        .collect()
}

/// Sends a document under a key, within this process.
pub async fn send(app: &TestApp, user: &TestUser, key: &str, body: &Value) -> Reply {
    let request = Request::post("/documents")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(body.to_string().into_bytes())
        .unwrap();
    app.send(request).await
}

/// Does the same again until the answer is the last word: not while somebody else's lease holds, while the work goes on, or
/// while a store is away.
pub async fn until_settled(attempt: impl AsyncFn() -> Reply) -> Reply {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = attempt().await;
        let held = ["idempotency_key_in_flight", "document_busy"].iter().any(|code| reply.json["code"] == *code);
        if !held && ![202, 503, 504].contains(&reply.status.as_u16()) {
            return reply;
        }
        assert!(Instant::now() < end, "no answer in time; the last is {} {}", reply.status, reply.json);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The document's path, if there is one.
pub async fn path(app: &TestApp, user: &TestUser) -> Option<String> {
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    let items = list.json["items"].as_array().unwrap();
    assert!(items.len() <= 1, "{items:?}");
    items.first().map(|item| format!("/documents/{}", item["id"].as_str().unwrap()))
}

/// P1 and P2: whoever asks now sees the whole active revision and nothing else, or nothing when there is none.
pub async fn assert_readers_see_the_active_revision(app: &TestApp, user: &TestUser) {
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    let active = list.json["items"][0]["revision"].as_i64();
    let question = json!({ "query": "What does the paragraph say?", "k": 100 });
    let answer = app.call(Method::POST, "/query", Some(&user.token), Some(question)).await.expect(200);
    let hits = answer.json["hits"].as_array().unwrap();
    for hit in hits {
        assert_eq!(hit["document"]["revision"].as_i64(), active, "{hit}");
    }
    let expected: i64 = app
        .pg()
        .await
        .query_one(
            "SELECT count(*) FROM documents d
            JOIN chunk_positions p ON p.document_id = d.id AND p.revision = d.active_revision",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(i64::try_from(hits.len()).unwrap(), expected, "the revision {active:?} is not seen whole");
}

/// Runs the sweeper once.
pub async fn sweep(app: &TestApp) -> ingest::Swept {
    ingest::sweep(&app.app, Deadline::after(Duration::from_secs(20))).await.unwrap()
}

/// Sweeps, then looks at both stores directly: so many documents, each with one active revision, exactly its points, no
/// orphan, nothing unfinished, nothing retired and left.
pub async fn assert_nothing_is_left_but(app: &TestApp, documents: i64) {
    sweep(app).await;
    app.assert_consistent().await;
    let pg = app.pg().await;
    let count = async |statement: &str| pg.query_one(statement, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT count(*) FROM retired_points WHERE due_at <= now()").await, 0, "retired and overdue");
    // All writers are dead or done: what is kept back for their sake is due.
    pg.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
    sweep(app).await;
    assert_eq!(count("SELECT count(*) FROM retired_points").await, 0, "retired and left");
    assert_eq!(count("SELECT count(*) FROM documents").await, documents);
    assert_eq!(count("SELECT count(*) FROM document_revisions WHERE state = 'active'").await, documents);
    assert_eq!(
        count("SELECT count(*) FROM document_revisions WHERE state IN ('claimed', 'staged')").await,
        0,
        "unfinished"
    );
    let stands = "SELECT count(*) FROM chunk_metadata c WHERE NOT EXISTS (SELECT FROM chunk_positions p
        JOIN documents d ON d.id = p.document_id AND d.active_revision = p.revision WHERE p.chunk_id = c.id)";
    assert_eq!(count(stands).await, 0, "chunks that stand nowhere");
    let rows = pg.query("SELECT id FROM chunk_metadata", &[]).await.unwrap();
    let chunks: BTreeSet<ChunkId> = rows.iter().map(|row| ChunkId(row.get(0))).collect();
    let points = app.all_points().await;
    assert_eq!(points.len(), chunks.len());
    assert_eq!(points.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), chunks);
}
