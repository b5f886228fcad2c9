//! Instructions of what every document and every question costs, counted by callgrind: the same whatever else the machine does.
//! `make bench-instructions` runs it and compares the counts with those of `instructions.json`.
#![allow(missing_docs, reason = "gungraun's macros document nothing")]
#![allow(clippy::unwrap_used, reason = "as in tests: what fails ends the run")]

use std::{hint::black_box, sync::Arc};

use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::Method;
use ingest::{
    chunk::{self, Chunk, Limits},
    extract::{self, Extracted, Format},
};
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser, long_text};
use serde_json::json;
use shared::{
    domain::ChunkId,
    tokens::{Claims, Verifier},
    vectors::Scored,
};
use tokio::runtime::Runtime;

/// Candidates of a leg, as a question asks for them.
const CANDIDATES: u128 = 100;

fn markdown() -> Vec<u8> {
    long_text(200).replace("Paragraph", "## Paragraph").into_bytes()
}

fn extracted() -> Extracted {
    extract::extract(&markdown(), Format::Markdown).unwrap()
}

#[library_benchmark]
#[bench::markdown(setup = markdown)]
fn extraction(text: Vec<u8>) -> Extracted {
    extract::extract(black_box(&text), Format::Markdown).unwrap()
}

#[library_benchmark]
#[bench::markdown(setup = extracted)]
fn chunking(extracted: Extracted) -> Vec<Chunk> {
    let count = |text: &str| Ok::<_, ()>(text.len().div_ceil(4));
    chunk::chunk(black_box(&extracted), Limits::default(), &count).unwrap()
}

/// Two legs that share half of their candidates.
fn legs() -> [Vec<Scored>; 2] {
    let leg = |first: u128| {
        (first..first + CANDIDATES)
            .zip(1_u16..)
            .map(|(id, rank)| Scored { id: ChunkId(uuid::Uuid::from_u128(id)), score: 1.0 / f32::from(rank) })
    };
    [leg(1).collect(), leg(CANDIDATES / 2).collect()]
}

#[library_benchmark]
#[bench::two_legs(setup = legs)]
fn fusion([dense, sparse]: [Vec<Scored>; 2]) -> Vec<Scored> {
    query::fusion::fuse(black_box(&dense), black_box(&sparse))
}

/// An app, and what its tests need around it.
struct World {
    runtime: Runtime,
    app: TestApp,
    user: TestUser,
}

fn world() -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app, user) = runtime.block_on(async {
        let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
        let user = app.register("ann").await;
        let body = json!({ "text": long_text(100), "media_type": "text/markdown", "source_uri": "lamps" });
        app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(201);
        (app, user)
    });
    let world = World { runtime, app, user };
    // Connections, plans, caches.
    for _ in 0..3 {
        world.ask();
    }
    world
}

impl World {
    fn ask(&self) -> Reply {
        let question = json!({ "query": "Which lamp is made of brass?", "k": 10 });
        self.runtime.block_on(self.app.call(Method::POST, "/query", Some(&self.user.token), Some(question))).expect(200)
    }
}

// From the request to the answer: token, both legs, fusion, hydration; Qdrant's and PostgreSQL's own work is not in it.
#[library_benchmark]
#[bench::ten_hits(setup = world)]
fn question(world: World) -> (Reply, World) {
    (world.ask(), world)
}

fn token() -> (Verifier, String) {
    let world = world();
    (Verifier::new(&world.app.app.config.tokens).unwrap(), world.user.token)
}

#[library_benchmark]
#[bench::rs256(setup = token)]
fn verification((verifier, token): (Verifier, String)) -> Claims {
    verifier.verify(black_box(&token)).unwrap()
}

library_benchmark_group!(name = hot, benchmarks = [extraction, chunking, fusion, verification, question]);
// Where the stores' programs are stands in the environment.
// PostgreSQL and Qdrant are children, and are not counted: under callgrind they would take minutes.
main!(
    config = LibraryBenchmarkConfig::default().env_clear(false).tool(Callgrind::with_args(["--trace-children=no"])),
    library_benchmark_groups = hot
);
