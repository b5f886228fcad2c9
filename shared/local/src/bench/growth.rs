//! Whether a document costs more when there are many others.

use std::{sync::Arc, time::Instant};

use http::Method;
use serde_json::json;

use super::{Bar, Figure, median, ms, say};
use crate::testkit::{HashEmbedder, TestApp, TestUser, drift};

/// Documents that are there at first, and that are measured.
const FIRST: usize = 100;

pub(super) async fn measure(documents: u32) -> Vec<Figure> {
    say(&format!("documents are being ingested, beside {FIRST} and beside {documents}"));
    let (few, many) = (Place::new().await, Place::new().await);
    // Another owner's, in the same tables and the same collection.
    let other = many.app.register("bob").await;
    drift::fill(&many.app, other.knowledge_base, documents, 1, say).await;
    // The graph of so many at once takes both processors for a while; documents that come one by one do not.
    say("Qdrant is building its graph");
    drift::indexed(&many.app).await;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for n in FIRST..2 * FIRST {
        floor.push(few.ingest(n).await);
        ours.push(many.ingest(n).await);
    }
    vec![Figure {
        what: "a document beside very many, against one beside few",
        unit: "ms",
        ours: median(&mut ours),
        floor: median(&mut floor),
        bar: Bar::AtMost(1.1),
    }]
}

/// Tables and a collection of their own, on the same servers.
struct Place {
    app: TestApp,
    user: TestUser,
}

impl Place {
    async fn new() -> Self {
        let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::of("hash", drift::DIMENSION))).await;
        let user = app.register("ann").await;
        let place = Self { app, user };
        for n in 0..FIRST {
            place.ingest(n).await;
        }
        place
    }

    /// How long the document takes, in ms.
    async fn ingest(&self, n: usize) -> f64 {
        let text = json!({ "text": format!("The note number {n} says little."), "source_uri": format!("note/{n}") });
        let begun = Instant::now();
        self.app.call(Method::POST, "/documents", Some(&self.user.token), Some(text)).await.expect(201);
        ms(begun.elapsed())
    }
}
