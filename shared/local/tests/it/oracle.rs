//! Filters against brute force: random documents, rights and filters, through the real stores, bulk-loaded. Whatever plan is
//! taken, the hits are those that pass, and their scores are those that a look at every single chunk gives.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use serde_json::{Value, json};
use shared::{
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    sparse::{self, SparseVector},
    vectors::Point,
};
use uuid::Uuid;

/// More than a filter is resolved to, so that both plans are taken.
const DOCUMENTS: usize = 1_300;

/// Questions with a filter each.
const CASES: usize = 60;

/// Scores are sums of 32-bit floats, in another order than ours.
const TOLERANCE: f64 = 1e-4;

const WORDS: [&str; 24] = [
    "anchor", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "jungle", "kettle",
    "ladder", "meadow", "needle", "orchid", "pepper", "quarry", "ribbon", "saddle", "temple", "urchin", "valley",
    "window", "yellow",
];

struct Chunk {
    id: ChunkId,
    document: usize,
    dense: Vec<f32>,
    sparse: SparseVector,
    text: String,
}

struct Document {
    id: DocumentId,
    knowledge_base: KnowledgeBaseId,
    attributes: Value,
}

/// `splitmix64`: the same world each time a seed is tried again.
struct Random(u64);

/// The oracle's half of a filter: whether it lets a document through.
type Passes = Box<dyn Fn(&Value) -> bool>;

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn words(&mut self, count: usize) -> String {
        (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }

    fn attributes(&mut self) -> Value {
        let mut attributes = serde_json::Map::new();
        if self.below(4) > 0 {
            attributes.insert("n".to_owned(), json!(self.below(DOCUMENTS)));
        }
        if self.below(3) > 0 {
            let tag = |random: &mut Self| ["red", "green", "blue"][random.below(3)];
            let tags = if self.below(2) == 0 { json!(tag(self)) } else { json!([tag(self), tag(self)]) };
            attributes.insert("tag".to_owned(), tags);
        }
        if self.below(2) == 0 {
            attributes
                .insert("on".to_owned(), if self.below(8) == 0 { Value::Null } else { json!(self.below(2) == 0) });
        }
        Value::Object(attributes)
    }

    /// A filter, and what it means.
    fn filter(&mut self, depth: usize) -> (Value, Passes) {
        let elements = |attributes: &Value, key: &str| -> Vec<Value> {
            match attributes.get(key) {
                Some(Value::Array(items)) => items.clone(),
                Some(value) => vec![value.clone()],
                None => Vec::new(),
            }
        };
        match if depth == 0 { self.below(4) } else { self.below(7) } {
            0 => {
                let (low, span) = (self.below(DOCUMENTS), 1 << self.below(11));
                let test = move |a: &Value| {
                    a.get("n")
                        .and_then(Value::as_u64)
                        .is_some_and(|n| (low..low + span).contains(&usize::try_from(n).unwrap()))
                };
                (json!({"attributes.n": {"gte": low, "lt": low + span}}), Box::new(test))
            }
            1 => {
                let tag = ["red", "green", "blue", "black"][self.below(4)];
                let test = move |a: &Value| elements(a, "tag").contains(&json!(tag));
                if self.below(2) == 0 {
                    (json!({"attributes.tag": {"eq": tag}}), Box::new(test))
                } else {
                    (json!({"attributes.tag": {"ne": tag}}), Box::new(move |a| !test(a)))
                }
            }
            2 => {
                let there = self.below(2) == 0;
                let test = move |a: &Value| a.get("on").is_some_and(|on| !on.is_null()) == there;
                (json!({"attributes.on": {"exists": there}}), Box::new(test))
            }
            3 => {
                let prefix = ["r", "gr", "b", "bla", ""][self.below(5)];
                let test = move |a: &Value| {
                    elements(a, "tag").iter().any(|tag| tag.as_str().is_some_and(|tag| tag.starts_with(prefix)))
                };
                (json!({"attributes.tag": {"prefix": prefix}}), Box::new(test))
            }
            4 => {
                let (filter, test) = self.filter(depth - 1);
                (json!({ "not": filter }), Box::new(move |a| !test(a)))
            }
            kind => {
                let ((one, first), (two, second)) = (self.filter(depth - 1), self.filter(depth - 1));
                if kind == 5 {
                    (json!({ "and": [one, two] }), Box::new(move |a| first(a) && second(a)))
                } else {
                    (json!({ "or": [one, two] }), Box::new(move |a| first(a) || second(a)))
                }
            }
        }
    }
}

/// Puts documents into both stores, without an ingestion for each.
async fn load(app: &TestApp, documents: &[Document], chunks: &[Chunk]) {
    let pg = app.pg().await;
    let ids: Vec<Uuid> = documents.iter().map(|document| document.id.0).collect();
    let homes: Vec<Uuid> = documents.iter().map(|document| document.knowledge_base.0).collect();
    let attributes: Vec<Value> = documents.iter().map(|document| document.attributes.clone()).collect();
    pg.execute(
        "INSERT INTO documents (id, knowledge_base_id, source_uri, attributes, active_revision, latest_revision)
        SELECT id, home, id::text, attributes, 1, 1 FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) AS n (id, home, attributes)",
        &[&ids, &homes, &attributes],
    )
    .await
    .unwrap();
    pg.execute(
        "INSERT INTO document_revisions (document_id, number, state, media_type, content_hash, size_bytes, chunks_total, fence,
            lease_expires_at, finished_at)
        SELECT id, 1, 'active', 'text/plain', sha256(''), 1, 1, 1, now(), now() - interval '1 hour' FROM unnest($1::uuid[]) AS id",
        &[&ids],
    )
    .await
    .unwrap();
    let chunk_ids: Vec<Uuid> = chunks.iter().map(|chunk| chunk.id.0).collect();
    let of: Vec<Uuid> = chunks.iter().map(|chunk| documents[chunk.document].id.0).collect();
    let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
    pg.execute(
        "INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count)
        SELECT id, document, 1, text, sha256(''), 1 FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n (id, document, text)",
        &[&chunk_ids, &of, &texts],
    )
    .await
    .unwrap();
    pg.execute(
        "INSERT INTO chunk_positions (document_id, revision, ordinal, chunk_id, byte_start, byte_end, heading_path)
        SELECT document, 1, row_number() OVER (PARTITION BY document), id, 0, 1, '{}'
        FROM unnest($1::uuid[], $2::uuid[]) AS n (id, document)",
        &[&chunk_ids, &of],
    )
    .await
    .unwrap();
    let deadline = Deadline::after(Duration::from_mins(2));
    app.app.index.ensure(deadline).await.unwrap();
    for batch in chunks.chunks(500) {
        let point = |chunk: &Chunk| Point {
            id: chunk.id,
            knowledge_base: documents[chunk.document].knowledge_base,
            document: documents[chunk.document].id,
            dense: chunk.dense.clone(),
            sparse: chunk.sparse.clone(),
        };
        let points: Vec<Point> = batch.iter().map(point).collect();
        app.app.index.upsert(&points, deadline).await.unwrap();
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// BM25 as Qdrant has it: the weights times the inverse document frequency among what the caller may read.
fn bm25(question: &SparseVector, chunk: &SparseVector, frequencies: &HashMap<u32, usize>, all: usize) -> f64 {
    let weight = |term: &u32| {
        let at = chunk.indices.binary_search(term).ok()?;
        let (n, all) =
            (f64::from(u32::try_from(*frequencies.get(term)?).unwrap()), f64::from(u32::try_from(all).unwrap()));
        Some(f64::from(chunk.values[at]) * (((all - n + 0.5) / (n + 0.5)) + 1.0).ln())
    };
    question.indices.iter().filter_map(weight).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_hits_are_those_of_brute_force_whatever_the_plan() {
    let seed = 20_261_125;
    let mut random = Random(seed);
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let users: Vec<TestUser> = vec![app.register("ann").await, app.register("bob").await];
    let homes: Vec<KnowledgeBaseId> = users.iter().map(|user| user.knowledge_base).collect();
    // Bob may read what is Ann's; she may not read what is his.
    let pg = app.pg().await;
    let member = "INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $2, 'viewer')";
    pg.execute(member, &[&homes[0].0, &users[1].id.0]).await.unwrap();
    let readable = [vec![homes[0]], homes.clone()];

    let documents: Vec<Document> = (0..DOCUMENTS)
        .map(|_| Document {
            id: DocumentId::draw(),
            knowledge_base: homes[usize::from(random.below(5) == 0)],
            attributes: random.attributes(),
        })
        .collect();
    let mut chunks = Vec::new();
    for document in 0..DOCUMENTS {
        for _ in 0..=random.below(2) {
            let length = 4 + random.below(12);
            let text = random.words(length);
            let deadline = Deadline::after(Duration::from_mins(1));
            let dense = app.app.embedder.embed_query(text.clone(), deadline.instant()).await.unwrap();
            chunks.push(Chunk { id: ChunkId::draw(), document, dense, sparse: sparse::passage(&text), text });
        }
    }
    load(&app, &documents, &chunks).await;
    let by_id: HashMap<String, &Chunk> = chunks.iter().map(|chunk| (chunk.id.to_string(), chunk)).collect();

    let mut plans = BTreeMap::<String, usize>::new();
    for case in 0..CASES {
        let (user, k) = (random.below(2), 1 + random.below(100));
        let question = random.words(3);
        let (filter, passes) = random.filter(3);
        let visible = |chunk: &&Chunk| readable[user].contains(&documents[chunk.document].knowledge_base);
        let corpus: Vec<&Chunk> = chunks.iter().filter(visible).collect();
        let mut frequencies = HashMap::<u32, usize>::new();
        for term in corpus.iter().flat_map(|chunk| &chunk.sparse.indices) {
            *frequencies.entry(*term).or_default() += 1;
        }
        let deadline = Deadline::after(Duration::from_mins(1));
        let dense = app.app.embedder.embed_query(question.clone(), deadline.instant()).await.unwrap();
        let terms = sparse::query(&question);
        let passing: Vec<&&Chunk> =
            corpus.iter().filter(|chunk| passes(&documents[chunk.document].attributes)).collect();
        for mode in ["dense", "sparse", "hybrid"] {
            let told = format!("seed {seed}, case {case}, {mode}, k {k}, filter {filter}");
            let body = json!({"query": question, "k": k, "mode": mode, "filter": filter, "debug": true});
            let reply = app.call(Method::POST, "/query", Some(&users[user].token), Some(body)).await.expect(200).json;
            *plans.entry(reply["debug"]["plan"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            assert_eq!(reply["degraded"], json!([]), "{told}");
            let hits = reply["hits"].as_array().unwrap();
            let cosine = |chunk: &Chunk| dot(&dense, &chunk.dense);
            let words = |chunk: &Chunk| bm25(&terms, &chunk.sparse, &frequencies, corpus.len());
            let score = |chunk: &Chunk| if mode == "sparse" { words(chunk) } else { cosine(chunk) };
            let mut expected: Vec<f64> = passing.iter().map(|chunk| score(chunk)).collect();
            if mode == "sparse" {
                expected.retain(|score| *score > 0.0);
            }
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(k);
            assert_eq!(hits.len(), expected.len(), "{told}: {}", reply["debug"]);
            for (hit, expected) in hits.iter().zip(expected) {
                let chunk = by_id[hit["chunk_id"].as_str().unwrap()];
                assert!(passes(&documents[chunk.document].attributes), "{told}: {hit}");
                assert!(readable[user].contains(&documents[chunk.document].knowledge_base), "{told}: {hit}");
                // Equal scores may stand in any order; no better chunk may be missing.
                if mode != "hybrid" {
                    assert!((score(chunk) - expected).abs() < TOLERANCE, "{told}: {} for {expected}", score(chunk));
                }
            }
            let distinct: std::collections::BTreeSet<&str> =
                hits.iter().map(|hit| hit["chunk_id"].as_str().unwrap()).collect();
            assert_eq!(distinct.len(), hits.len(), "{told}");
        }
    }
    assert!(plans.contains_key("documents_first") && plans.contains_key("index_first"), "{plans:?}");
}
