//! A long text in a bucket, measured: one process that ingests it in pieces of an invocation each.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{HashEmbedder, Inbox, Place, TestApp, function::Function, long_text, private_postgres, private_qdrant};

/// Bytes of one paragraph, more or less.
const PARAGRAPH_BYTES: usize = 350;

/// One invocation's time.
const PIECE: Duration = Duration::from_mins(1);

/// Pieces after which it is not going to end.
const PIECES_MAX: usize = 200;

/// An ingestion, as it was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of the text.
    pub bytes: usize,
    /// In PostgreSQL, and as many points in Qdrant.
    pub chunks: i64,
    /// Time of each invocation.
    pub pieces: Vec<Duration>,
    /// The most that was resident at any time (`VmHWM`), in KiB: without the embedding model, which is not used here.
    pub peak_kib: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.pieces.iter().max().copied().unwrap_or_default();
        write!(
            f,
            "{} MB, {} chunks in both stores: {} pieces, {:.1} s, the longest {:.1} s; {} MiB resident at most",
            self.bytes / 1_000_000,
            self.chunks,
            self.pieces.len(),
            self.pieces.iter().sum::<Duration>().as_secs_f64(),
            longest.as_secs_f64(),
            self.peak_kib / 1_024
        )
    }
}

/// Ingests a text of so many megabytes on private stores. `say` hears how far it is.
pub async fn measure(megabytes: usize, say: impl Fn(&str)) -> Measured {
    let (postgres, qdrant) =
        tokio::task::spawn_blocking(|| (private_postgres(), private_qdrant())).await.expect("stores");
    let inbox = Inbox::start().await;
    let app = TestApp::at(Place::private(&postgres, &qdrant), |parts| {
        parts.embedder = std::sync::Arc::new(HashEmbedder::default());
        parts.config.limits.request_timeout = PIECE;
        parts.config.objects = inbox.config.clone();
    });
    let user = app.register("ann").await;
    let text = long_text(megabytes * 1_000_000 / PARAGRAPH_BYTES);
    let bytes = text.len();
    inbox.put(user.knowledge_base, text).await;
    say(&format!("{bytes} bytes are in the bucket"));
    let function = Function::launch(&app.app.config, &[]).await;
    let caller = function.client(&user);
    let (mut path, mut body) = ("/events", Inbox::event(user.knowledge_base, 1));
    let mut pieces = Vec::new();
    let pg = app.pg().await;
    loop {
        let begun = Instant::now();
        let reply = caller.post(path, None, &body).await.expect("the function lives");
        pieces.push(begun.elapsed());
        assert_eq!(reply.status, 200, "{}", reply.json);
        // What was not finished is the sweeper's.
        (path, body) = ("/sweep", json!({}));
        let row = "SELECT state, read_bytes, read_chunks, chunks_embedded FROM document_revisions";
        let row = pg.query_one(row, &[]).await.expect("PostgreSQL answers");
        let (state, read): (String, i64) = (row.get(0), row.get(1));
        let (stored, embedded): (i32, i32) = (row.get(2), row.get(3));
        say(&format!("{state}: {read} bytes read, {stored} chunks stored, {embedded} embedded"));
        if state == "active" {
            break;
        }
        assert!(state != "failed" && pieces.len() < PIECES_MAX, "it does not end");
    }
    let peak_kib = function.memory_kib("VmHWM");
    let count = "SELECT count(*) FROM chunk_metadata";
    let chunks: i64 = pg.query_one(count, &[]).await.expect("PostgreSQL answers").get(0);
    app.assert_consistent().await;
    Measured { bytes, chunks, pieces, peak_kib }
}
