//! What the statements cost: round trips by the size of a document, and plans by the size of the tables.

use std::{collections::BTreeMap, sync::Arc};

use http::Method;
use local::testkit::{Call, HashEmbedder, PostgresProxy, QdrantProxy, TcpProxy, TestApp, TestUser};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::deadline::Deadline;

use crate::contract;

/// A row for each store's collection, audit or migration: read whole, and soon.
const SMALL: [&str; 4] = ["collections", "audits", "audit_results", "refinery_schema_history"];

/// Audits and reindexes compare whole stores: to read a table from end to end may be their best plan.
const COMPARES: [&str; 4] = ["audit::", "audits::", "collections::", "orphaned_points::"];

/// Rows enough that reading all of them is never the better plan, and chunks enough for several pages of an index.
const SEED: &str = "
    INSERT INTO users (id, email, password_hash)
        SELECT gen_random_uuid(), n || '@seed.example', '' FROM generate_series(1, 5000) n;
    INSERT INTO knowledge_bases (id, name, personal_user_id) SELECT gen_random_uuid(), 'seed', id FROM users
        WHERE NOT EXISTS (SELECT FROM knowledge_bases k WHERE k.personal_user_id = users.id);
    INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role)
        SELECT id, personal_user_id, 'owner' FROM knowledge_bases WHERE personal_user_id IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO documents (id, knowledge_base_id, source_uri, active_revision, latest_revision)
        SELECT gen_random_uuid(), k.id, 'seed/' || n, 1, 1 FROM knowledge_bases k, generate_series(1, 4) n;
    INSERT INTO document_revisions (document_id, number, state, media_type, content_hash, size_bytes, chunks_total, chunks_reused,
            fence, lease_expires_at, finished_at)
        SELECT id, 1, 'active', 'text/plain', decode(md5(id::text), 'hex'), 100, 3, 0, 0, now(), now() FROM documents
        ON CONFLICT DO NOTHING;
    INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count)
        SELECT gen_random_uuid(), d.id, 1, 'word' || n, decode(md5(d.id::text || n), 'hex'), 1
        FROM documents d, generate_series(0, 2) n WHERE d.source_uri LIKE 'seed/%';
    INSERT INTO chunk_positions (document_id, revision, ordinal, chunk_id, byte_start, byte_end, heading_path)
        SELECT document_id, 1, row_number() OVER (PARTITION BY document_id), id, 0, 1, '{}' FROM chunk_metadata m
        WHERE NOT EXISTS (SELECT FROM chunk_positions p WHERE p.chunk_id = m.id);
    INSERT INTO retired_points (chunk_id, knowledge_base_id, document_id, due_at)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() + interval '1 hour' FROM generate_series(1, 20000);
    INSERT INTO orphaned_points (chunk_id, knowledge_base_id, document_id, first_audit_id, last_audit_id)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1 FROM generate_series(1, 20000);
    INSERT INTO erasures (document_id, knowledge_base_id, points, completed_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 1, now() FROM generate_series(1, 20000);
    INSERT INTO objects (id, last_sequencer) SELECT decode(md5(n::text), 'hex'), n FROM generate_series(1, 20000) n;
    INSERT INTO idempotency_keys (principal_id, operation, key, fingerprint, fence, lease_expires_at, expires_at)
        SELECT id, 'seed', n, '', 0, now(), now() + interval '1 day' FROM users, generate_series(1, 4) n;
    INSERT INTO api_keys (id, user_id, name, prefix, hash, scopes, expires_at)
        SELECT gen_random_uuid(), id, 'seed', 'lk_', decode(md5(id::text), 'hex'), '{read}', now() FROM users;
    INSERT INTO sessions (id, user_id, family_hash, token_hash, expires_at)
        SELECT gen_random_uuid(), id, decode(md5(id::text), 'hex'), '', now() + interval '1 day' FROM users;
    INSERT INTO invitations (id, knowledge_base_id, email, role, invited_by, expires_at)
        SELECT gen_random_uuid(), id, id || '@example.com', 'viewer', personal_user_id, now() + interval '1 day'
        FROM knowledge_bases WHERE personal_user_id IS NOT NULL;
    INSERT INTO email_codes (code_hash, user_id, purpose, email, expires_at)
        SELECT decode(md5(id::text), 'hex'), id, 'verify', email, now() + interval '1 day' FROM users;
    INSERT INTO audit_log (event, user_id) SELECT 'seed', id FROM users;
    INSERT INTO rate_limits (key, full_at) SELECT n, now() + interval '1 hour' FROM generate_series(1, 20000) n;
    INSERT INTO login_attempts (account, address)
        SELECT decode(md5(n::text), 'hex'), '192.0.2.1' FROM generate_series(1, 20000) n;
";

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_a_large_table_from_end_to_end() {
    let (app, postgres, qdrant) = behind_proxies().await;
    contract::call_all(&app).await;
    more(&app, &qdrant).await;
    let statements = postgres.statements();
    assert!(statements.len() > 100, "{}", statements.len());

    let pg = app.pg().await;
    pg.batch_execute(SEED).await.unwrap();
    pg.batch_execute("VACUUM ANALYZE").await.unwrap();
    let mut reads_all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut planned = 0;
    for statement in &statements {
        let Some(name) = statement.text.trim_start().strip_prefix("-- ").and_then(|text| text.lines().next()) else {
            continue;
        };
        if COMPARES.iter().any(|module| name.starts_with(module)) {
            continue;
        }
        // As it is planned each time, because no statement has a name.
        let plan = statement.plan(&pg).await.unwrap();
        planned += 1;
        let mut tables = Vec::new();
        sequential(&plan, &mut tables);
        tables.retain(|table| !SMALL.contains(&table.as_str()));
        if !tables.is_empty() {
            reads_all.insert(name.to_owned(), tables);
        }
    }
    assert!(planned > 100, "{planned}");
    assert!(reads_all.is_empty(), "{reads_all:#?}");
}

/// The app of the contract's test, with a proxy before each store.
async fn behind_proxies() -> (TestApp, PostgresProxy, TcpProxy) {
    let direct = TestApp::start().await;
    let qdrant = TcpProxy::before(&direct.app.config.qdrant.url).await;
    let postgres = PostgresProxy::before(direct.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        contract::ready_for_all(parts);
        parts.config.qdrant.url = qdrant.redirect(&parts.config.qdrant.url);
        parts.config.database.url = postgres.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    (app, postgres, qdrant)
}

/// What is not an operation of its own: filters of both plans, paging, full-text search, the sweeper.
async fn more(app: &TestApp, qdrant: &TcpProxy) {
    let user = app.register("ann").await;
    let call =
        async |method: Method, path: &str, body: Option<Value>| app.call(method, path, Some(&user.token), body).await;
    for text in ["The key lies here.", "The key lies there."] {
        let note = json!({ "text": text, "source_uri": "note", "attributes": { "lang": "en" } });
        assert!(call(Method::POST, "/documents", Some(note)).await.status.is_success());
    }
    for filter in [
        json!({ "attributes.lang": { "eq": "en" } }),
        json!({ "title": { "prefix": "x" } }),
        json!({ "size_bytes": { "lt": 100 } }),
    ] {
        let question = json!({ "query": "Where is the key?", "filter": filter, "context": 1, "group_by": "document" });
        call(Method::POST, "/query", Some(question)).await.expect(200);
    }
    call(Method::GET, "/documents?limit=1&source_uri=note", None).await.expect(200);
    let soon = Deadline::after(std::time::Duration::from_secs(20));
    ingest::sweeper(&app.app, ingest::SweeperEvent::default(), soon).await.unwrap();
    qdrant.refuse();
    let answer = call(Method::POST, "/query", Some(json!({ "query": "Where is the key?" }))).await.expect(200).json;
    assert_eq!(answer["degraded"], json!(["qdrant"]));
}

/// The tables that a plan reads from end to end.
fn sequential(plan: &Value, tables: &mut Vec<String>) {
    match plan {
        Value::Object(node) => {
            if node.get("Node Type").is_some_and(|kind| kind == "Seq Scan") {
                tables.push(node["Relation Name"].as_str().unwrap().to_owned());
            }
            node.values().for_each(|value| sequential(value, tables));
        }
        Value::Array(nodes) => nodes.iter().for_each(|value| sequential(value, tables)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_documents_round_trips_grow_with_its_batches_and_not_with_its_chunks() {
    let direct = TestApp::start().await;
    let qdrant = QdrantProxy::before(&direct.app.config.qdrant.url).await;
    let postgres = PostgresProxy::before(direct.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = qdrant.url();
        parts.config.database.url = postgres.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    let user = app.register("ann").await;
    // The collection is made with the first one.
    ingest(&app, &user, 10, "first").await;
    let mut measured = Vec::new();
    for (source, paragraphs) in [("small", 100), ("large", 1_600)] {
        let before = (postgres.requests(), qdrant.calls(Call::Upsert));
        let chunks = ingest(&app, &user, paragraphs, source).await;
        measured.push((chunks, postgres.requests() - before.0, qdrant.calls(Call::Upsert) - before.1));
    }
    println!("{measured:?}");
    let [(few, few_trips, few_writes), (many, many_trips, many_writes)] = measured[..] else { panic!() };
    assert!(few >= 100 && many >= 16 * few / 2, "{measured:?}");
    // A batch has 32 chunks.
    let batches = |chunks: usize| chunks.div_ceil(32);
    assert_eq!((few_writes, many_writes), (batches(few), batches(many)));
    let (trips, more) = (many_trips - few_trips, batches(many) - batches(few));
    assert!(trips <= 8 * more, "{trips} round trips for {more} batches: {measured:?}");
}

/// Many more chunks of the only document, of its first revision, behind those that there are; three quarters have their points.
const LONG_TEXT: &str = "
    INSERT INTO chunk_metadata (id, document_id, first_revision, text, content_hash, token_count)
        SELECT gen_random_uuid(), id, 1, 'long', '', 1 FROM documents, generate_series(1, 20000);
    INSERT INTO chunk_positions (document_id, revision, ordinal, chunk_id, byte_start, byte_end, heading_path)
        SELECT document_id, 1, 10000 + row_number() OVER (), id, 0, 1, '{}' FROM chunk_metadata WHERE text = 'long';
    UPDATE document_revisions SET embedded_through = 25000;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_long_text_reads_no_more_than_a_page() {
    let direct = TestApp::start().await;
    let postgres = PostgresProxy::before(direct.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.database.url = postgres.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    let user = app.register("ann").await;
    ingest(&app, &user, 100, "long").await;
    let pg = app.pg().await;
    pg.batch_execute(LONG_TEXT).await.unwrap();
    // As long as PostgreSQL does not know how many they are, and when it does.
    for know in ["", "VACUUM ANALYZE"] {
        pg.batch_execute(know).await.unwrap();
        for (name, page) in [("chunks::pending", 32), ("positions::page", 2_000)] {
            let statements = postgres.statements();
            let asked = statements.iter().find(|statement| statement.text.contains(&format!("-- {name}")));
            let analysis = asked.unwrap().analysis(&pg).await.unwrap();
            let rows = most_rows(&analysis);
            assert!((1..=2 * page).contains(&rows), "{name}: {rows} rows after {know:?}: {analysis:#}");
        }
    }
}

/// The most rows that any node of a plan gave, in all its loops.
fn most_rows(plan: &Value) -> u64 {
    let inner = match plan {
        Value::Object(node) => node.values().map(most_rows).max(),
        Value::Array(nodes) => nodes.iter().map(most_rows).max(),
        _ => None,
    };
    let number = |name| plan.get(name).and_then(Value::as_f64).unwrap_or_default();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rows")]
    let own = (number("Actual Rows") * number("Actual Loops")).round() as u64;
    own.max(inner.unwrap_or_default())
}

/// The number of chunks.
async fn ingest(app: &TestApp, user: &TestUser, paragraphs: usize, source: &str) -> usize {
    let text: Vec<String> =
        (0..paragraphs).map(|n| format!("## {source} {n}\n\n{}", "Words about this part. ".repeat(20))).collect();
    let body = json!({ "text": text.join("\n\n"), "media_type": "text/markdown", "source_uri": source });
    let document = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(201).json;
    usize::try_from(document["ingestion"]["chunks"]["total"].as_u64().unwrap()).unwrap()
}
