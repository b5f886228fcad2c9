//! Rubbish in: a clear problem, and nothing half-stored.

use std::sync::Arc;

use http::Request;
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};

async fn app() -> (TestApp, TestUser) {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    (app, user)
}

async fn raw(app: &TestApp, user: &TestUser, media_type: &str, key: Option<&str>, body: Vec<u8>) -> Reply {
    let mut request = Request::post("/documents?source_uri=it")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", media_type);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    app.send(request.body(body).unwrap()).await
}

async fn assert_nothing_stored(app: &TestApp) {
    let pg = app.pg().await;
    for table in ["documents", "document_revisions", "chunk_metadata", "chunk_positions", "retired_points"] {
        let rows: i64 = pg.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0);
        assert_eq!(rows, 0, "{table}");
    }
    assert_eq!(app.all_points().await, []);
}

/// A sample of the tests of package `ingest`.
fn sample(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/ingest/tests/fixtures");
    std::fs::read(format!("{folder}/{name}")).expect("the sample")
}

/// What a client may send by mistake or malice, and what it hears.
fn rubbish() -> Vec<(&'static str, &'static str, Vec<u8>, u16, &'static str)> {
    let deep = format!("<html><body>{}deep{}</body></html>", "<div>".repeat(100_000), "</div>".repeat(100_000));
    vec![
        ("nothing", "text/plain", Vec::new(), 422, "empty_document"),
        ("blanks", "text/markdown", b" \n\t \n".to_vec(), 422, "empty_document"),
        (
            "HTML without text",
            "text/html",
            b"<html><body><script>x()</script></body></html>".to_vec(),
            422,
            "empty_document",
        ),
        ("a PNG", "text/plain", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), 415, "unsupported_media_type"),
        ("half a character", "text/plain; charset=utf-8", b"caf\xc3".to_vec(), 400, "invalid_utf8"),
        ("NUL", "text/plain", b"a\0b".to_vec(), 400, "control_character"),
        ("escape", "text/markdown", b"a \x1b[31mred".to_vec(), 400, "control_character"),
        (
            "NUL in JSON",
            "application/json",
            br#"{"text":"a\u0000b","source_uri":"it"}"#.to_vec(),
            400,
            "control_character",
        ),
        ("an unknown field", "application/json", br#"{"text":"a","colour":"red"}"#.to_vec(), 400, "unknown_field"),
        ("a wrong type", "application/json", br#"{"text":["a"]}"#.to_vec(), 400, "invalid_field"),
        ("half of JSON", "application/json", br#"{"text":"a"#.to_vec(), 400, "invalid_request"),
        ("deep HTML", "text/html", deep.into_bytes(), 422, "document_too_complex"),
        ("no PDF", "application/pdf", b"text".to_vec(), 422, "malformed_document"),
        ("half of a PDF", "text/plain", b"%PDF-1.7".to_vec(), 422, "malformed_document"),
        ("an encrypted PDF", "application/pdf", sample("pdf/encryption_openpassword.pdf"), 422, "password_protected"),
    ]
}

#[tokio::test]
async fn rubbish_is_refused_with_a_problem_and_nothing_is_stored() {
    let (app, user) = app().await;
    for (name, media_type, body, status, code) in rubbish() {
        // JSON carries its own source_uri.
        let reply = if media_type == "application/json" {
            let request = Request::post("/documents")
                .header("authorization", format!("Bearer {}", user.token))
                .header("content-type", media_type);
            app.send(request.body(body).unwrap()).await
        } else {
            raw(&app, &user, media_type, None, body).await
        };
        assert_eq!(reply.problem(status), code, "{name}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{name}");
        for member in ["type", "title", "detail", "request_id"] {
            assert!(reply.json[member].as_str().is_some_and(|text| !text.is_empty()), "{name}: {member}");
        }
        assert_eq!((reply.json["status"].as_u64(), &reply.json["retryable"]), (Some(status.into()), &false.into()));
        assert_eq!(reply.json["request_id"], reply.header("x-request-id"));
        assert_nothing_stored(&app).await;
    }
}

#[tokio::test]
async fn a_refusal_is_kept_under_its_key() {
    let (app, user) = app().await;
    for (n, body) in [b"a\0b".to_vec(), Vec::new()].into_iter().enumerate() {
        let key = format!("k{n}");
        let first = raw(&app, &user, "text/plain", Some(&key), body.clone()).await;
        let again = raw(&app, &user, "text/plain", Some(&key), body).await;
        assert_eq!((first.status, &first.bytes), (again.status, &again.bytes));
        assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
        let other = raw(&app, &user, "text/plain", Some(&key), b"readable".to_vec()).await;
        assert_eq!(other.problem(422), "idempotency_key_reused");
    }
    assert_nothing_stored(&app).await;
}

#[tokio::test]
async fn an_unreadable_new_text_leaves_the_old_revision_as_it_is() {
    let (app, user) = app().await;
    let first = raw(&app, &user, "text/plain", None, b"Readable.".to_vec()).await.expect(201);
    assert_eq!(raw(&app, &user, "text/plain", None, b"not\0readable".to_vec()).await.problem(400), "control_character");
    let path = format!("/documents/{}", first.json["id"].as_str().unwrap());
    let shown = app.call(http::Method::GET, &path, Some(&user.token), None).await.expect(200);
    assert_eq!((&shown.json["state"], &shown.json["revision"]), (&"active".into(), &1.into()));
    raw(&app, &user, "text/plain", None, b"Readable again.".to_vec()).await.expect(200);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_body_of_20_mb_is_refused_with_the_limit() {
    let (app, user) = app().await;
    let reply = raw(&app, &user, "text/plain", None, vec![b'a'; 20 * 1024 * 1024]).await;
    assert_eq!(reply.problem(413), "too_large");
    assert_eq!(reply.json["limit_bytes"].as_u64().unwrap(), app.app.config.limits.body_bytes_max as u64);
    assert_nothing_stored(&app).await;
}

#[tokio::test]
async fn a_route_or_method_that_does_not_exist_is_a_problem_too() {
    let (app, user) = app().await;
    let call = async |method, path| app.call(method, path, Some(&user.token), None).await;
    assert_eq!(call(http::Method::GET, "/documents/not-an-id").await.problem(404), "not_found");
    assert_eq!(call(http::Method::GET, "/documents/1/2/3").await.problem(404), "not_found");
    assert_eq!(call(http::Method::PUT, "/documents").await.problem(405), "method_not_allowed");
    assert_eq!(call(http::Method::GET, "/nowhere").await.problem(404), "not_found");
}
