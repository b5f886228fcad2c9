//! The drift audit's memory and time, measured: many points, and one process that audits them.

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::Method;
use qdrant_client::qdrant::{CollectionStatus, DeletePointsBuilder, PointId, PointsIdsList};
use serde_json::{Value, json};
use shared::{
    config::EmbeddingConfig,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    sparse::{self, SparseVector},
    vectors::Point,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{HashEmbedder, Place, TestApp, TestUser, function::Function, private_postgres, private_qdrant};

/// Of the synthetic vectors. The model's have 384; with as many, a million take three quarters of an hour to become a graph.
pub const DIMENSION: usize = 64;

/// Chunks of one document.
pub const CHUNKS: u32 = 1_000;

/// Points of one write.
const BATCH: usize = 2_000;

/// Points that are taken away, and points that are planted, for the audit with drift.
const DRIFT: usize = 1_000;

/// Time of one run of the sweeper: Lambda's longest.
const INVOCATION: Duration = Duration::from_mins(15);

/// An audit, as it was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Ids that PostgreSQL expects.
    pub expected: i64,
    /// Of them, not in Qdrant.
    pub missing: i64,
    /// In Qdrant, and unknown to PostgreSQL.
    pub orphaned: i64,
    /// Time of the audit, in all its invocations.
    pub duration: Duration,
    /// The process's resident memory before the audit, in KiB.
    pub before_kib: u64,
    /// The most that was resident at any time (`VmHWM`), in KiB.
    pub peak_kib: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} points, {} missing, {} orphans: {:.1} s, {:.1} MiB resident at most ({:.1} MiB when idle before)",
            self.expected,
            self.missing,
            self.orphaned,
            self.duration.as_secs_f64(),
            mib(self.peak_kib),
            mib(self.before_kib)
        )
    }
}

fn mib(kib: u64) -> f64 {
    std::time::Duration::from_millis(kib).as_secs_f64() * 1000.0 / 1024.0
}

/// Questions that were asked of full stores.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The kind of question.
    pub what: &'static str,
    /// How the two stores were asked.
    pub plan: String,
    /// Half of the answers took at most so many milliseconds.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, p50 {:.1} ms, p99 {:.1} ms", self.what, self.plan, self.p50_ms, self.p99_ms)
    }
}

/// Questions of each kind.
const QUESTIONS: usize = 300;

async fn ask(app: &TestApp, user: &TestUser) -> Vec<Asked> {
    let kinds = [
        ("any document", json!({})),
        ("any document, dense alone", json!({ "mode": "dense" })),
        ("any document, sparse alone", json!({ "mode": "sparse" })),
        ("one document, by its name", json!({ "filter": { "source_uri": { "eq": "d/7" } } })),
        ("all but one document", json!({ "filter": { "source_uri": { "ne": "d/7" } } })),
        ("no document", json!({ "filter": { "source_uri": { "eq": "none" } } })),
    ];
    let mut asked = Vec::new();
    for (what, more) in kinds {
        let (mut times, mut plan) = (Vec::new(), String::new());
        for n in 0..QUESTIONS {
            // A frequent word, one that is less so, and a rare one.
            let mut body = json!({ "query": format!("w{} w{} w{}?", 2 + n % 7, 50 + n, 9_000 + n), "debug": true });
            if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
                body.extend(more.clone());
            }
            let begun = Instant::now();
            let answer = app.call(Method::POST, "/query", Some(&user.token), Some(body)).await.expect(200).json;
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
            answer.pointer("/debug/plan").and_then(Value::as_str).unwrap_or_default().clone_into(&mut plan);
        }
        times.sort_by(f64::total_cmp);
        let of = |at: usize| times.get(at).copied().unwrap_or_default();
        asked.push(Asked { what, plan, p50_ms: of(QUESTIONS / 2), p99_ms: of(QUESTIONS * 99 / 100) });
    }
    asked
}

/// Fills private stores with so many points, asks questions, audits them in a process of its own, plants drift, and audits
/// them again in another one. `say` hears how far it is, and what the questions took.
pub async fn measure(points: u32, say: impl Fn(&str)) -> Vec<Measured> {
    let (postgres, qdrant) =
        tokio::task::spawn_blocking(|| (private_postgres(), private_qdrant())).await.expect("stores");
    let app = TestApp::at(Place::private(&postgres, &qdrant), |parts| {
        parts.embedder = std::sync::Arc::new(HashEmbedder::of("hash", DIMENSION));
        parts.config.database.transaction_timeout = INVOCATION;
        parts.config.limits.request_timeout = INVOCATION;
        // The graph takes longer than a token lives.
        parts.config.tokens.access_ttl = Duration::from_hours(24);
        // The function's process takes the dimension from here, and asks no endpoint.
        parts.config.embedding = EmbeddingConfig::Http {
            base_url: "http://127.0.0.1:9".to_owned(),
            model: "hash".to_owned(),
            dimension: DIMENSION,
            api_key: None,
        };
    });
    let user = app.register("ann").await;
    let ids = fill(&app, user.knowledge_base, points, CHUNKS, &say).await;
    say("Qdrant is building its graph");
    indexed(&app).await;
    say("questions");
    for asked in ask(&app, &user).await {
        say(&asked.to_string());
    }
    say("the audit without drift");
    let mut measured = vec![audit(&app, &user).await];
    plant(&app, user.knowledge_base, &ids).await;
    say("the audit with drift");
    measured.push(audit(&app, &user).await);
    measured
}

/// Fills both stores with so many chunks, so many of each document, and returns their ids. Their words are as frequent as
/// those of a language (Zipf's law: the most frequent stand in half of them), but for one that is in all. Its vectors must have [`DIMENSION`]
/// components.
pub async fn fill(
    app: &TestApp,
    knowledge_base: KnowledgeBaseId,
    points: u32,
    chunks: u32,
    say: impl Fn(&str),
) -> Vec<ChunkId> {
    say("PostgreSQL is being filled");
    fill_postgres(app, knowledge_base, points, chunks).await;
    say("Qdrant is being filled");
    fill_qdrant(app, knowledge_base, say).await
}

async fn fill_postgres(app: &TestApp, knowledge_base: KnowledgeBaseId, points: u32, chunks: u32) {
    let documents = points.div_ceil(chunks);
    let statements = format!(
        "SET session_replication_role = replica;
        SET statement_timeout = 0;
        INSERT INTO documents (id, knowledge_base_id, source_uri, active_revision, latest_revision)
        SELECT gen_random_uuid(), '{knowledge_base}', 'd/' || n, 1, 1 FROM generate_series(1, {documents}) n;
        INSERT INTO document_revisions (document_id, number, state, media_type, content_hash, size_bytes, chunks_total,
            chunks_reused, chunks_embedded, fence, lease_expires_at, finished_at)
        SELECT id, 1, 'active', 'text/plain', sha256(source_uri::bytea), 1, {chunks}, 0, {chunks}, 1, now(), now()
        FROM documents WHERE knowledge_base_id = '{knowledge_base}';
        CREATE TEMPORARY TABLE new AS
        SELECT gen_random_uuid() AS id, d.id AS document_id, n
        FROM (SELECT id, row_number() OVER () AS nth FROM documents WHERE knowledge_base_id = '{knowledge_base}') d, generate_series(0, {chunks} - 1) n
        WHERE (d.nth - 1) * {chunks} + n < {points};
        INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count, words)
        SELECT id, document_id, 1, text, sha256(id::text::bytea), 22, to_tsvector('simple', text)
        FROM (
            SELECT id, document_id, 'Passage ' || n || ': ' || (
                SELECT string_agg('w' || floor(exp(random() * ln(50000)))::int, ' ') FROM generate_series(1, 20) WHERE id IS NOT NULL
            ) AS text
            FROM new
        ) texts;
        INSERT INTO chunk_positions (document_id, revision, ordinal, chunk_id, byte_start, byte_end, heading_path)
        SELECT document_id, 1, n, id, n * 40, n * 40 + 30, '{{}}' FROM new;
        ANALYZE;"
    );
    app.pg().await.batch_execute(&statements).await.expect("PostgreSQL takes the rows");
}

async fn fill_qdrant(app: &TestApp, knowledge_base: KnowledgeBaseId, say: impl Fn(&str)) -> Vec<ChunkId> {
    let deadline = || Deadline::after(INVOCATION);
    ingest::collections::ready(&app.app, deadline()).await.expect("the collection can be made");
    let pg = app.pg().await;
    let rows = "SELECT c.id, c.document_id, c.text FROM chunk_metadata c JOIN documents d ON d.id = c.document_id
        WHERE d.knowledge_base_id = $1";
    let rows = pg.query(rows, &[&knowledge_base.0]).await.expect("PostgreSQL answers");
    for (nth, batch) in rows.chunks(BATCH).enumerate() {
        let point = |row: &Row| Point {
            sparse: sparse::passage(row.get(2)),
            ..point(ChunkId(row.get(0)), knowledge_base, DocumentId(row.get(1)))
        };
        let points: Vec<Point> = batch.iter().map(point).collect();
        app.app.index.upsert(&points, deadline()).await.expect("Qdrant takes the points");
        if nth % 50 == 49 {
            say(&format!("{} points", (nth + 1) * BATCH));
        }
    }
    rows.iter().map(|row| ChunkId(row.get(0))).collect()
}

fn point(id: ChunkId, knowledge_base: KnowledgeBaseId, document: DocumentId) -> Point {
    // Its own, in no direction that others prefer: nothing is harder to search.
    let mut random = fastrand::Rng::with_seed(id.0.as_u64_pair().0);
    let dense = (0..DIMENSION).map(|_| random.f32() - 0.5).collect();
    let sparse = SparseVector { indices: vec![1], values: vec![1.0] };
    Point { id, knowledge_base, document, dense, sparse }
}

/// Until all points are in the graph: before that, each question looks at many of them one by one. Qdrant rests for a
/// moment between two pieces of that work.
pub async fn indexed(app: &TestApp) {
    let mut resting = 0;
    while resting < 5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = app.qdrant().collection_info(app.collection()).await.expect("Qdrant answers");
        let rests = answer.result.is_some_and(|info| info.status() == CollectionStatus::Green);
        resting = if rests { resting + 1 } else { 0 };
    }
}

/// Takes every so-manieth point away, and plants as many that PostgreSQL does not know.
async fn plant(app: &TestApp, knowledge_base: KnowledgeBaseId, ids: &[ChunkId]) {
    let drift = DRIFT.min(ids.len() / 20);
    let lost = ids.iter().step_by(ids.len() / drift).take(drift).map(|id| PointId::from(id.to_string())).collect();
    let request = DeletePointsBuilder::new(app.collection()).points(PointsIdsList { ids: lost }).wait(true);
    app.qdrant().delete_points(request).await.expect("Qdrant removes points");
    let document = DocumentId::draw();
    // All over the range, as the others are.
    let planted = (0..drift).map(|_| point(ChunkId(Uuid::new_v4()), knowledge_base, document));
    let planted: Vec<Point> = planted.collect();
    app.app.index.upsert(&planted, Deadline::after(INVOCATION)).await.expect("Qdrant takes points");
}

/// The sweeper in a process of its own, again and again until its audit has ended.
async fn audit(app: &TestApp, user: &TestUser) -> Measured {
    let pg = app.pg().await;
    // The last one was a while ago.
    pg.execute("UPDATE audits SET finished_at = finished_at - interval '1 day'", &[])
        .await
        .expect("PostgreSQL answers");
    let function = Function::launch(&app.app.config, &[]).await;
    let (caller, before_kib) = (function.client(user), function.memory_kib("VmRSS"));
    let begun = Instant::now();
    loop {
        let reply = caller.post("/sweep", None, &json!({})).await.expect("the function lives");
        let status = reply.status;
        assert_eq!(status, 200, "{}", reply.json);
        let open = "SELECT count(*) FROM audits WHERE finished_at IS NULL";
        if pg.query_one(open, &[]).await.expect("PostgreSQL answers").get::<_, i64>(0) == 0 {
            break;
        }
    }
    let duration = begun.elapsed();
    let peak_kib = function.memory_kib("VmHWM");
    let row = pg.query_one("SELECT expected, missing, orphaned FROM audits ORDER BY id DESC LIMIT 1", &[]).await;
    let row = row.expect("there was an audit");
    Measured { expected: row.get(0), missing: row.get(1), orphaned: row.get(2), duration, before_kib, peak_kib }
}
