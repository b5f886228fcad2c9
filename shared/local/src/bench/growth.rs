//! Whether a document costs more when there are many others.

use std::{sync::Arc, time::Instant};

use http::Method;
use serde_json::json;

use super::{Bar, Figure, median, ms, say};
use crate::testkit::{HashEmbedder, TestApp, TestUser, drift};

/// Documents that are there at first, and that are measured each time.
const FIRST: usize = 100;

pub(super) async fn measure(documents: u32) -> Vec<Figure> {
    say(&format!("documents are being ingested, beside {FIRST} and beside {documents}"));
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::of("hash", drift::DIMENSION))).await;
    let user = app.register("ann").await;
    ingest(&app, &user, "before").await;
    let floor = median(&mut ingest(&app, &user, "few").await);
    // Another owner's, in the same tables and the same collection.
    let other = app.register("bob").await;
    drift::fill(&app, other.knowledge_base, documents, 1, say).await;
    // The graph of so many at once takes both processors for a while; documents that come one by one do not.
    say("Qdrant is building its graph");
    drift::indexed(&app).await;
    let ours = median(&mut ingest(&app, &user, "many").await);
    vec![Figure {
        what: "a document beside very many, against one beside few",
        unit: "ms",
        ours,
        floor,
        bar: Bar::AtMost(1.1),
    }]
}

async fn ingest(app: &TestApp, user: &TestUser, name: &str) -> Vec<f64> {
    let mut times = Vec::new();
    for n in 0..FIRST {
        let text =
            json!({ "text": format!("The {name} note number {n} says little."), "source_uri": format!("{name}/{n}") });
        let begun = Instant::now();
        app.call(Method::POST, "/documents", Some(&user.token), Some(text)).await.expect(201);
        times.push(ms(begun.elapsed()));
    }
    times
}
