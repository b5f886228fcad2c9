//! Documents in: keys, revisions, what is embedded again and what is not, who may see what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{Method, Request};
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};
use serde_json::{Value, json};

/// An app whose embedder knows words only: meaning plays no part here.
pub async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

/// Sends a document, with a key.
pub async fn send(app: &TestApp, user: &TestUser, key: &str, body: &Value) -> Reply {
    let request = Request::post("/documents")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(body.to_string().into_bytes())
        .unwrap();
    app.send(request).await
}

pub fn markdown(text: &str) -> Value {
    json!({ "text": text, "media_type": "text/markdown", "source_uri": "notes.md" })
}

/// Paragraphs of different words, under a heading each ten.
pub fn paragraphs(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            let heading = if n % 10 == 0 { format!("## Part {n}\n\n") } else { String::new() };
            let words: Vec<String> = (0..150).map(|w| format!("word{}", (n * 7919 + w * 104_729) % 5_003)).collect();
            format!("{heading}Paragraph {n} says: {}.", words.join(" "))
        })
        .collect()
}

#[tokio::test]
async fn a_document_sent_twice_with_one_key_is_one_document_and_one_answer() {
    let app = app().await;
    let user = app.register("ann").await;
    let body = markdown("# Leases\n\nA lease ends.\n\n# Fences\n\nA fence holds.");
    let first = send(&app, &user, "k1", &body).await.expect(201);
    let points = app.all_points().await;
    let second = send(&app, &user, "k1", &body).await.expect(201);
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), ("", "true"));
    assert!(!points.is_empty());
    assert_eq!(app.all_points().await, points);
    let list = app.call(Method::GET, "/documents", Some(&user.token), None).await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 1);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_key_with_another_request_is_refused_and_with_another_user_it_is_another_key() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    send(&app, &ann, "k1", &markdown("One.")).await.expect(201);
    assert_eq!(send(&app, &ann, "k1", &markdown("Two.")).await.problem(422), "idempotency_key_reused");
    let other = send(&app, &bob, "k1", &markdown("Two.")).await.expect(201);
    assert_eq!(other.header("idempotency-replayed"), "");
}

#[tokio::test]
async fn of_two_requests_with_one_key_at_once_one_creates_and_the_other_waits_or_replays() {
    let app = app().await;
    let user = app.register("ann").await;
    for round in 0..10 {
        let body = json!({ "text": format!("Round {round}."), "source_uri": format!("r/{round}") });
        let key = format!("k{round}");
        let (a, b) = tokio::join!(send(&app, &user, &key, &body), send(&app, &user, &key, &body));
        let created =
            [&a, &b].iter().filter(|r| r.status == 201 && r.header("idempotency-replayed").is_empty()).count();
        assert_eq!(created, 1, "{} {}", a.status, b.status);
        for reply in [&a, &b] {
            match reply.status.as_u16() {
                201 => {}
                409 => {
                    assert_eq!(reply.json["code"], "idempotency_key_in_flight");
                    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
                }
                other => panic!("{other}"),
            }
        }
    }
    app.assert_consistent().await;
}

#[tokio::test]
async fn without_a_key_the_same_content_is_not_doubled() {
    let app = app().await;
    let user = app.register("ann").await;
    for body in [markdown("Named."), json!({ "text": "Nameless." })] {
        let first = app.call(Method::POST, "/documents", Some(&user.token), Some(body.clone())).await.expect(201);
        let again = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(200);
        assert_eq!((&first.json["id"], 1), (&again.json["id"], again.json["revision"].as_i64().unwrap()));
    }
    assert_eq!(app.all_points().await.len(), 2);
    assert_eq!(app.embedded.passages(), 2);
}

#[tokio::test]
async fn editing_one_paragraph_embeds_only_what_changed_and_the_rest_keeps_id_and_vector() {
    let app = app().await;
    let user = app.register("ann").await;
    let mut text = paragraphs(200);
    let first = send(&app, &user, "k1", &markdown(&text.join("\n\n"))).await.expect(201);
    let total = first.json["ingestion"]["chunks"]["total"].as_u64().unwrap();
    assert!(total >= 200, "{total} chunks");
    assert_eq!(app.embedded.passages() as u64, total);
    let before: BTreeSet<_> = app.all_points().await.into_iter().map(|(id, _)| id).collect();

    text[101].push_str(" One more sentence, which nobody has written before.");
    let second = send(&app, &user, "k2", &markdown(&text.join("\n\n"))).await.expect(200);
    let chunks = &second.json["ingestion"]["chunks"];
    let embedded = chunks["embedded"].as_u64().unwrap();
    assert!((1..=4).contains(&embedded), "{chunks}");
    assert_eq!(app.embedded.passages() as u64, total + embedded);
    assert_eq!(chunks["reused"].as_u64().unwrap() + embedded, chunks["total"].as_u64().unwrap());
    let after: BTreeSet<_> = app.all_points().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(after.difference(&before).count() as u64, embedded);
    assert_eq!(second.json["revision"], 2);
    app.assert_consistent().await;
}

#[tokio::test]
async fn equal_chunks_keep_one_point_each_through_revisions() {
    let app = app().await;
    let user = app.register("ann").await;
    let notice = "All rights reserved by the authors of this handbook and their heirs. ".repeat(12);
    let text = |n: usize| (0..n).map(|i| format!("# Part {}\n\n{notice}", i % 2)).collect::<Vec<_>>().join("\n\n");
    for (n, key) in [(6, "k1"), (8, "k2"), (3, "k3"), (0, "k4")] {
        let body = markdown(&format!("{}\n\n# End\n\nThe end.", text(n)));
        let reply = send(&app, &user, key, &body).await;
        assert!(reply.status.is_success());
        let total = reply.json["ingestion"]["chunks"]["total"].as_u64().unwrap();
        assert_eq!(app.all_points().await.len() as u64, total);
        app.assert_consistent().await;
    }
}

#[tokio::test]
async fn every_chunk_is_the_submitted_text_at_its_byte_range() {
    let app = app().await;
    let user = app.register("ann").await;
    let text = include_str!("../../../../functions/ingest/tests/fixtures/markdown/ch04-01-what-is-ownership.md");
    send(&app, &user, "k1", &markdown(text)).await.expect(201);
    let pg = app.pg().await;
    let rows = pg
        .query(
            "SELECT c.text, p.byte_start, p.byte_end FROM chunk_positions p JOIN chunk_metadata c ON c.id = p.chunk_id",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.len() > 10);
    for row in rows {
        let (start, end): (i64, i64) = (row.get(1), row.get(2));
        let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        assert_eq!(text.get(start..end), Some(row.get::<_, &str>(0)));
    }
}

#[tokio::test]
async fn qdrant_holds_the_link_keys_alone_and_postgresql_no_vector() {
    let app = app().await;
    let user = app.register("ann").await;
    let body = json!({ "text": "A secret text.", "title": "A title", "source_uri": "a/path.txt",
        "attributes": { "colour": "red" } });
    let document = send(&app, &user, "k1", &body).await.expect(201);
    let expected = BTreeMap::from([
        ("doc".to_owned(), document.json["id"].as_str().unwrap().to_owned()),
        ("kb".to_owned(), user.knowledge_base.to_string()),
    ]);
    let points = app.all_points().await;
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].1, expected);
    let pg = app.pg().await;
    let columns = pg
        .query(
            "SELECT table_name || '.' || column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND (udt_name IN ('vector', 'halfvec', 'float4', 'float8', '_float4', '_float8')
                OR column_name ~ 'vector|embedding$')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(columns.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), Vec::<String>::new());
    let bytes: i64 = pg
        .query_one("SELECT max(octet_length(c.content_hash)) FROM chunk_metadata c", &[])
        .await
        .unwrap()
        .get::<_, i32>(0)
        .into();
    assert_eq!(bytes, 32, "a hash, and no room for a vector");
}

#[tokio::test]
async fn title_and_attributes_change_without_embedding_anything() {
    let app = app().await;
    let user = app.register("ann").await;
    send(&app, &user, "k1", &json!({ "text": "Same text.", "source_uri": "a" })).await.expect(201);
    let embedded = app.embedded.passages();
    let body = json!({ "text": "Same text.", "source_uri": "a", "title": "New", "attributes": { "n": 2 } });
    let reply = send(&app, &user, "k2", &body).await.expect(200);
    assert_eq!((&reply.json["title"], &reply.json["attributes"]), (&json!("New"), &json!({ "n": 2 })));
    assert_eq!((reply.json["revision"].as_i64(), app.embedded.passages()), (Some(1), embedded));
    // What is not given stays as it is, with the same text and with another.
    for (key, text) in [("k3", "Same text."), ("k4", "Other text.")] {
        let reply = send(&app, &user, key, &json!({ "text": text, "source_uri": "a" })).await.expect(200);
        assert_eq!((&reply.json["title"], &reply.json["attributes"]), (&json!("New"), &json!({ "n": 2 })), "{text}");
    }
}

#[tokio::test]
async fn documents_are_listed_in_pages_and_shown_with_state_and_progress() {
    let app = app().await;
    let user = app.register("ann").await;
    for n in 0..7 {
        let body = json!({ "text": format!("Text {n}."), "source_uri": format!("d/{n}") });
        send(&app, &user, &format!("k{n}"), &body).await.expect(201);
    }
    let (mut seen, mut path) = (Vec::new(), "/documents?limit=3".to_owned());
    loop {
        let page = app.call(Method::GET, &path, Some(&user.token), None).await.expect(200);
        seen.extend(
            page.json["items"].as_array().unwrap().iter().map(|d| d["source_uri"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page.json["next_cursor"].as_str() else { break };
        path = format!("/documents?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, (0..7).rev().map(|n| format!("d/{n}")).collect::<Vec<_>>());
    let one = app.call(Method::GET, "/documents?source_uri=d%2F3", Some(&user.token), None).await.expect(200);
    let id = one.json["items"][0]["id"].as_str().unwrap();
    let shown = app.call(Method::GET, &format!("/documents/{id}"), Some(&user.token), None).await.expect(200);
    assert_eq!((&shown.json["state"], &shown.json["ingestion"]["progress"]), (&json!("active"), &json!(1.0)));
    for (bad, code) in [
        ("limit=0", "invalid_field"),
        ("limit=x", "invalid_field"),
        ("cursor=x", "invalid_field"),
        ("colour=red", "unknown_field"),
    ] {
        let reply = app.call(Method::GET, &format!("/documents?{bad}"), Some(&user.token), None).await;
        assert_eq!(reply.problem(400), code, "{bad}");
    }
}

#[tokio::test]
async fn a_deleted_document_is_gone_from_both_stores() {
    let app = app().await;
    let user = app.register("ann").await;
    let kept = send(&app, &user, "k1", &json!({ "text": "Kept.", "source_uri": "kept" })).await.expect(201);
    let document = send(&app, &user, "k2", &markdown(&paragraphs(20).join("\n\n"))).await.expect(201);
    let path = format!("/documents/{}", document.json["id"].as_str().unwrap());
    app.call(Method::DELETE, &path, Some(&user.token), None).await.expect(204);
    assert_eq!(app.call(Method::GET, &path, Some(&user.token), None).await.problem(404), "not_found");
    assert_eq!(app.call(Method::DELETE, &path, Some(&user.token), None).await.problem(404), "not_found");
    let points = app.all_points().await;
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].1["doc"], kept.json["id"].as_str().unwrap());
    let pg = app.pg().await;
    for table in ["documents", "document_revisions", "chunk_metadata", "chunk_positions"] {
        let rows: i64 = pg.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        assert_eq!(rows, 1, "{table}");
    }
    app.assert_consistent().await;
}

#[tokio::test]
async fn somebody_elses_document_does_not_exist_in_any_route() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let document = send(&app, &ann, "k1", &markdown("Ann's own.")).await.expect(201);
    let path = format!("/documents/{}", document.json["id"].as_str().unwrap());
    for method in [Method::GET, Method::DELETE] {
        let missing =
            app.call(method.clone(), &format!("/documents/{}", uuid::Uuid::now_v7()), Some(&bob.token), None).await;
        let foreign = app.call(method, &path, Some(&bob.token), None).await;
        assert_eq!(foreign.problem(404), "not_found");
        // Not even the wording tells that it is there.
        assert_eq!(foreign.json["detail"], missing.json["detail"]);
    }
    let kb = ann.knowledge_base.to_string();
    let listed = app.call(Method::GET, &format!("/documents?knowledge_base={kb}"), Some(&bob.token), None).await;
    assert_eq!(listed.problem(404), "not_found");
    let body = json!({ "text": "Bob was here.", "knowledge_base": kb, "source_uri": "notes.md" });
    assert_eq!(send(&app, &bob, "k2", &body).await.problem(404), "not_found");
    let own = app.call(Method::GET, "/documents", Some(&bob.token), None).await.expect(200);
    assert_eq!(own.json["items"], json!([]));
    let unknown = app.call(Method::GET, &path, None, None).await;
    assert_eq!((unknown.problem(401), unknown.header("www-authenticate")), ("unauthenticated", "Bearer"));
}

#[tokio::test]
async fn a_viewer_reads_and_may_not_write() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let document = send(&app, &ann, "k1", &markdown("Shared.")).await.expect(201);
    app.pg()
        .await
        .execute(
            "INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $2, 'viewer')",
            &[&ann.knowledge_base.0, &bob.id.0],
        )
        .await
        .unwrap();
    let path = format!("/documents/{}", document.json["id"].as_str().unwrap());
    app.call(Method::GET, &path, Some(&bob.token), None).await.expect(200);
    assert_eq!(app.call(Method::DELETE, &path, Some(&bob.token), None).await.problem(403), "forbidden");
    let body = json!({ "text": "x", "knowledge_base": ann.knowledge_base.to_string() });
    assert_eq!(send(&app, &bob, "k2", &body).await.problem(403), "forbidden");
}

#[tokio::test]
async fn slides_are_told_by_their_bytes_and_kept_with_their_numbers_and_titles() {
    let app = app().await;
    let user = app.register("ann").await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/ingest/tests/fixtures");
    let slides = std::fs::read(format!("{folder}/pptx/powerpoint_sample.pptx")).unwrap();
    let request = Request::post("/documents?source_uri=deck")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/octet-stream");
    let reply = app.send(request.body(slides).unwrap()).await.expect(201);
    assert!(reply.json["media_type"].as_str().unwrap().ends_with("presentationml.presentation"));
    let rows = app
        .pg()
        .await
        .query(
            "SELECT p.page, p.heading_path FROM chunk_positions p JOIN chunk_metadata c ON c.id = p.chunk_id
            WHERE c.text LIKE '%this text inside%' OR c.text LIKE '%Final notes%' ORDER BY p.ordinal",
            &[],
        )
        .await
        .unwrap();
    let found: Vec<(Option<i32>, Vec<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found.iter().map(|(page, _)| *page).collect::<Vec<_>>(), [Some(2), Some(3)]);
    assert_eq!(found[0].1, ["Second slide title"]);
}
