//! Knowledge bases and accounts: made, listed, and gone with everything in them.

use std::sync::Arc;

use http::{Method, Request};
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};
use qdrant_client::qdrant::{Condition, CountPointsBuilder, Filter};
use serde_json::{Value, json};
use shared::{
    deadline::Deadline,
    domain::{KnowledgeBaseId, UserId},
};

use crate::gate::GatedEmbedder;

pub(crate) const PASSWORD: &str = "a quiet harbour at dawn";

/// What a request hears whose work somebody else has taken over or taken away.
pub(crate) const LOST: &str = "lease_lost";

async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

fn text<'a>(reply: &'a Reply, pointer: &str) -> &'a str {
    reply.json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", reply.json))
}

/// An account with a password.
pub(crate) async fn account(app: &TestApp, email: &str) -> TestUser {
    let body = json!({ "email": email, "password": PASSWORD });
    let reply = app.call(Method::POST, "/auth/register", None, Some(body)).await.expect(201);
    TestUser {
        id: text(&reply, "/user/id").parse().unwrap(),
        token: text(&reply, "/access_token").to_owned(),
        knowledge_base: text(&reply, "/knowledge_base").parse().unwrap(),
        email: email.to_owned(),
    }
}

pub(crate) async fn delete_account(app: &TestApp, user: &TestUser, password: &str) -> Reply {
    app.call(Method::DELETE, "/auth/me", Some(&user.token), Some(json!({ "password": password }))).await
}

pub(crate) async fn create(app: &TestApp, user: &TestUser, name: &str) -> KnowledgeBaseId {
    let reply = app.call(Method::POST, "/knowledge-bases", Some(&user.token), Some(json!({ "name": name }))).await;
    text(&reply.expect(201), "/id").parse().unwrap()
}

pub(crate) async fn delete(app: &TestApp, user: &TestUser, id: KnowledgeBaseId) -> Reply {
    app.call(Method::DELETE, &format!("/knowledge-bases/{id}"), Some(&user.token), None).await
}

pub(crate) async fn join(app: &TestApp, user: &TestUser, id: KnowledgeBaseId, role: &str) {
    let statement = "INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $2, $3)";
    app.pg().await.execute(statement, &[&id.0, &user.id.0, &role]).await.unwrap();
}

pub(crate) fn document(id: KnowledgeBaseId, source: &str) -> Value {
    let text = format!("# {source}\n\nThe lighthouse stands.\n\n# Far\n\n{}", "Gulls cry. ".repeat(80));
    json!({ "text": text, "media_type": "text/markdown", "source_uri": source, "knowledge_base": id })
}

pub(crate) async fn send(app: &TestApp, user: &TestUser, key: &str, body: &Value) -> Reply {
    let request = Request::post("/documents")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(body.to_string().into_bytes())
        .unwrap();
    app.send(request).await
}

async fn hits(app: &TestApp, user: &TestUser) -> usize {
    let body = json!({ "query": "lighthouse", "k": 50 });
    let reply = app.call(Method::POST, "/query", Some(&user.token), Some(body)).await.expect(200);
    reply.json["hits"].as_array().unwrap().len()
}

/// Sweeps when nothing can be in flight any more.
pub(crate) async fn sweep(app: &TestApp) {
    app.pg().await.execute("UPDATE retired_points SET due_at = now()", &[]).await.unwrap();
    ingest::sweep(&app.app, Deadline::after(std::time::Duration::from_secs(20))).await.unwrap();
}

/// The points of a knowledge base, by Qdrant's exact count.
async fn points(app: &TestApp, id: KnowledgeBaseId) -> u64 {
    let filter = Filter::must([Condition::matches("kb", id.to_string())]);
    let count = CountPointsBuilder::new(app.collection()).filter(filter).exact(true);
    app.qdrant().count(count).await.unwrap().result.unwrap().count
}

/// The tables of which a row names one of these, in any column, stored answers included.
async fn traces(app: &TestApp, names: &[String]) -> Vec<String> {
    let pg = app.pg().await;
    let tables = "SELECT table_name FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name";
    let mut found = Vec::new();
    for row in pg.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let statement = format!(
            "SELECT EXISTS (SELECT FROM {table} AS t, unnest($1::text[]) AS wanted (text)
                WHERE strpos(t::text, wanted.text) > 0
                    OR strpos(t::text, encode(convert_to(wanted.text, 'UTF8'), 'hex')) > 0)"
        );
        if pg.query_one(&statement, &[&names]).await.unwrap().get(0) {
            found.push(table);
        }
    }
    found
}

/// What is meant to outlive the thing: the records that it was there.
const RECORDS: [&str; 2] = ["audit_log", "erasures"];

async fn assert_no_traces(app: &TestApp, names: &[String]) {
    let mut found = traces(app, names).await;
    found.retain(|table| !RECORDS.contains(&table.as_str()));
    assert_eq!(found, Vec::<String>::new());
}

async fn events(app: &TestApp, user: UserId) -> Vec<String> {
    let statement = "SELECT event FROM audit_log WHERE user_id = $1 ORDER BY id";
    app.pg().await.query(statement, &[&user.0]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn knowledge_bases_are_made_and_listed_with_the_callers_role() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let made = app.call(Method::POST, "/knowledge-bases", Some(&ann.token), Some(json!({ "name": " Harbour " }))).await;
    let made = made.expect(201);
    assert_eq!(made.header("location"), format!("/knowledge-bases/{}", text(&made, "/id")));
    assert_eq!((&made.json["name"], &made.json["role"]), (&json!("Harbour"), &json!("owner")));
    assert_eq!(made.json["personal"], false);
    let id: KnowledgeBaseId = text(&made, "/id").parse().unwrap();
    join(&app, &bob, id, "viewer").await;

    let list = async |user: &TestUser, query: &str| {
        app.call(Method::GET, &format!("/knowledge-bases{query}"), Some(&user.token), None).await
    };
    let all = list(&ann, "").await.expect(200);
    assert_eq!((all.json["items"].as_array().unwrap().len(), &all.json["next_cursor"]), (2, &Value::Null));
    assert_eq!(all.json["items"][1], made.json);
    assert_eq!((&all.json["items"][0]["name"], &all.json["items"][0]["personal"]), (&json!("Personal"), &json!(true)));
    let first = list(&ann, "?limit=1").await.expect(200);
    let second = list(&ann, &format!("?limit=1&cursor={}", text(&first, "/next_cursor"))).await.expect(200);
    assert_eq!((&second.json["items"][0], &second.json["next_cursor"]), (&made.json, &Value::Null));
    assert_eq!(list(&bob, "").await.expect(200).json["items"][1]["role"], "viewer");

    for (query, code) in [("?limit=0", "invalid_field"), ("?cursor=x", "invalid_field"), ("?x=1", "unknown_field")] {
        assert_eq!(list(&ann, query).await.problem(400), code, "{query}");
    }
    for (body, code) in [
        (json!({}), "invalid_field"),
        (json!({ "name": " " }), "invalid_field"),
        (json!({ "name": "a\nb" }), "invalid_field"),
        (json!({ "name": "a", "id": id }), "unknown_field"),
        (json!({ "name": "a", "personal_user_id": bob.id }), "unknown_field"),
    ] {
        let reply = app.call(Method::POST, "/knowledge-bases", Some(&ann.token), Some(body.clone())).await;
        assert_eq!(reply.problem(400), code, "{body}");
    }
    assert_eq!(app.call(Method::GET, "/knowledge-bases", None, None).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn a_deleted_knowledge_base_is_out_of_sight_at_once_and_swept_from_both_stores() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let id = create(&app, &ann, "Harbour").await;
    join(&app, &bob, id, "editor").await;
    send(&app, &ann, "kept", &document(ann.knowledge_base, "kept")).await.expect(201);
    let mut names = vec![id.to_string()];
    for n in 0..3 {
        let sent = send(&app, &bob, &format!("k{n}"), &document(id, &format!("d/{n}"))).await.expect(201);
        names.push(text(&sent, "/id").to_owned());
    }
    // The same document under another key: also its answer shows the document.
    send(&app, &ann, "k", &document(id, "d/0")).await.expect(200);
    let (before, kept) = (app.all_points().await.len(), points(&app, ann.knowledge_base).await);
    assert!(hits(&app, &bob).await >= 3);

    delete(&app, &ann, id).await.expect(204);
    let listed = app.call(Method::GET, "/knowledge-bases", Some(&bob.token), None).await.expect(200);
    assert_eq!(listed.json["items"].as_array().unwrap().len(), 1);
    assert_eq!((hits(&app, &bob).await, hits(&app, &ann).await), (0, usize::try_from(kept).unwrap().min(1)));
    for user in [&ann, &bob] {
        let asked = json!({ "query": "lighthouse", "knowledge_bases": [id] });
        assert_eq!(app.call(Method::POST, "/query", Some(&user.token), Some(asked)).await.problem(404), "not_found");
        for path in [format!("/documents?knowledge_base={id}"), format!("/documents/{}", names[1])] {
            assert_eq!(app.call(Method::GET, &path, Some(&user.token), None).await.problem(404), "not_found");
        }
        assert_eq!(delete(&app, user, id).await.problem(404), "not_found");
        assert_eq!(send(&app, user, "new", &document(id, "new")).await.problem(404), "not_found");
    }
    // The key does not tell of what is gone, and does not bring it back.
    assert_eq!(send(&app, &bob, "k0", &document(id, "d/0")).await.problem(404), "not_found");
    assert_eq!(app.all_points().await.len(), before, "out of sight, and still to be removed");

    sweep(&app).await;
    assert_eq!((points(&app, id).await, points(&app, ann.knowledge_base).await), (0, kept));
    // The keys name the documents, so that these do not come back.
    let mut found = traces(&app, &names).await;
    found.retain(|table| !RECORDS.contains(&table.as_str()));
    assert_eq!(found, ["idempotency_keys"]);
    assert_no_traces(&app, &["d/0".to_owned(), id.to_string()]).await;
    assert_eq!(events(&app, ann.id).await, ["knowledge_base.created", "knowledge_base.deleted"]);
    app.assert_consistent().await;
}

#[tokio::test]
async fn only_an_owner_deletes_a_knowledge_base_and_nobody_a_personal_one() {
    let app = app().await;
    let (ann, bob, cid) = (app.register("ann").await, app.register("bob").await, app.register("cid").await);
    let id = create(&app, &ann, "Harbour").await;
    send(&app, &ann, "k1", &document(id, "a")).await.expect(201);
    join(&app, &bob, id, "viewer").await;
    assert_eq!(delete(&app, &bob, id).await.problem(403), "forbidden");
    app.pg()
        .await
        .execute("UPDATE knowledge_base_members SET role = 'editor' WHERE role = 'viewer'", &[])
        .await
        .unwrap();
    assert_eq!(delete(&app, &bob, id).await.problem(403), "forbidden");
    let (foreign, missing) = (delete(&app, &cid, id).await, delete(&app, &cid, KnowledgeBaseId::draw()).await);
    assert_eq!((foreign.problem(404), &foreign.json["detail"]), ("not_found", &missing.json["detail"]));
    assert_eq!(delete(&app, &ann, ann.knowledge_base).await.problem(409), "personal_knowledge_base");
    join(&app, &bob, ann.knowledge_base, "owner").await;
    assert_eq!(delete(&app, &bob, ann.knowledge_base).await.problem(409), "personal_knowledge_base");
    assert_eq!(app.call(Method::DELETE, "/knowledge-bases/x", Some(&ann.token), None).await.problem(404), "not_found");
    assert!(hits(&app, &bob).await > 0, "nothing is deleted");
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_deleted_account_is_gone_from_every_table_and_from_qdrant() {
    let app = app().await;
    let (ann, bob) = (account(&app, "ann@example.com").await, account(&app, "bob@example.com").await);
    let (solo, shared, bobs) =
        (create(&app, &ann, "Solo").await, create(&app, &ann, "Shared").await, create(&app, &bob, "Bob's").await);
    join(&app, &bob, solo, "editor").await;
    join(&app, &bob, shared, "owner").await;
    join(&app, &ann, bobs, "editor").await;
    let mut names = vec![ann.id.to_string(), ann.email.clone(), ann.knowledge_base.to_string(), solo.to_string()];
    for (n, id) in [ann.knowledge_base, solo, shared, bobs].into_iter().enumerate() {
        let sent = send(&app, &ann, &format!("k{n}"), &document(id, "a")).await.expect(201);
        names.extend((n < 2).then(|| text(&sent, "/id").to_owned()));
    }
    let bobs_in_solo = send(&app, &bob, "k", &document(solo, "b")).await.expect(201);
    send(&app, &ann, "bad", &json!({ "nonsense": 1 })).await.expect(400);

    assert_eq!(delete_account(&app, &ann, "another harbour").await.problem(401), "invalid_credentials");
    let long = delete_account(&app, &ann, &"x".repeat(1_000)).await;
    assert_eq!(long.problem(400), "invalid_field");
    let none = app.call(Method::DELETE, "/auth/me", Some(&ann.token), Some(json!({}))).await;
    assert_eq!(none.problem(400), "invalid_field");
    let list = app.call(Method::GET, "/documents", Some(&ann.token), None).await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 5, "nothing is deleted");
    assert_eq!(app.pg().await.query("SELECT FROM retired_points", &[]).await.unwrap().len(), 0);

    delete_account(&app, &ann, PASSWORD).await.expect(204);
    assert!(points(&app, solo).await > 0, "still to be removed");
    let mut found = traces(&app, &names).await;
    found.retain(|table| !RECORDS.contains(&table.as_str()));
    assert_eq!(found, ["retired_points"], "nothing of it is left, but the list of what to remove");
    sweep(&app).await;
    assert_no_traces(&app, &names).await;
    assert_eq!((points(&app, ann.knowledge_base).await, points(&app, solo).await), (0, 0));
    assert!(points(&app, shared).await > 0 && points(&app, bobs).await > 0, "they have another owner");
    let list = app.call(Method::GET, "/documents", Some(&bob.token), None).await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 2);
    let path = format!("/documents/{}", text(&bobs_in_solo, "/id"));
    assert_eq!(app.call(Method::GET, &path, Some(&bob.token), None).await.problem(404), "not_found");
    let recorded = events(&app, ann.id).await;
    assert_eq!(recorded.last().unwrap(), "account.deleted");
    assert_eq!(recorded.iter().filter(|event| *event == "reauthentication.failed").count(), 1);

    let login = json!({ "email": ann.email, "password": PASSWORD });
    let reply = app.call(Method::POST, "/auth/login", None, Some(login)).await;
    assert_eq!(reply.problem(401), "invalid_credentials");
    let again = account(&app, "ann@example.com").await;
    assert_ne!((again.id, again.knowledge_base), (ann.id, ann.knowledge_base));
    assert_eq!(hits(&app, &again).await, 0);
    app.assert_consistent().await;
}

#[tokio::test]
async fn the_token_of_a_deleted_account_reads_nothing_and_writes_nothing() {
    let app = app().await;
    let ann = account(&app, "ann@example.com").await;
    let id = create(&app, &ann, "Harbour").await;
    let sent = send(&app, &ann, "k1", &document(id, "a")).await.expect(201);
    let path = format!("/documents/{}", text(&sent, "/id"));
    delete_account(&app, &ann, PASSWORD).await.expect(204);
    sweep(&app).await;

    let call = async |method: Method, path: &str, body| app.call(method, path, Some(&ann.token), body).await;
    assert_eq!(call(Method::GET, "/documents", None).await.expect(200).json["items"], json!([]));
    assert_eq!(hits(&app, &ann).await, 0);
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/retry")),
        (Method::DELETE, format!("/knowledge-bases/{id}")),
    ] {
        assert_eq!(call(method, &path, None).await.problem(404), "not_found", "{path}");
    }
    for body in [document(id, "a"), document(ann.knowledge_base, "a"), json!({ "text": "Mine." })] {
        assert_eq!(call(Method::POST, "/documents", Some(body.clone())).await.problem(404), "not_found");
        assert_eq!(send(&app, &ann, "k1", &body).await.problem(404), "not_found");
        assert_eq!(send(&app, &ann, "k2", &body).await.problem(404), "not_found");
    }
    assert_eq!(send(&app, &ann, "k3", &json!({ "nonsense": 1 })).await.problem(400), "unknown_field");
    assert_eq!(call(Method::GET, "/auth/me", None).await.problem(401), "unauthenticated");
    assert_eq!(call(Method::GET, "/knowledge-bases", None).await.problem(401), "unauthenticated");
    let body = json!({ "name": "Mine" });
    assert_eq!(call(Method::POST, "/knowledge-bases", Some(body)).await.problem(401), "unauthenticated");
    assert_eq!(delete_account(&app, &ann, PASSWORD).await.problem(401), "unauthenticated");
    assert_no_traces(&app, &[ann.id.to_string()]).await;
    app.assert_consistent().await;
}

#[tokio::test]
async fn an_ingestion_in_flight_brings_neither_a_knowledge_base_nor_an_account_back() {
    for account_too in [false, true] {
        let gate = GatedEmbedder::default();
        let app = Arc::new(TestApp::with(|parts| parts.embedder = Arc::new(gate.clone())).await);
        let ann = account(&app, "ann@example.com").await;
        let id = create(&app, &ann, "Harbour").await;
        let sending = tokio::spawn({
            let (app, ann) = (app.clone(), ann.clone());
            async move { send(&app, &ann, "k1", &document(id, "a")).await }
        });
        gate.reached(&app).await;
        if account_too {
            delete_account(&app, &ann, PASSWORD).await.expect(204);
        } else {
            delete(&app, &ann, id).await.expect(204);
        }
        gate.open();
        assert_eq!(sending.await.unwrap().problem(409), LOST);
        assert_eq!(send(&app, &ann, "k2", &document(id, "a")).await.problem(404), "not_found");
        app.assert_consistent().await;
        let waiting = app.pg().await.query("SELECT FROM retired_points WHERE due_at > now()", &[]).await.unwrap().len();
        assert!(waiting > 0 && app.all_points().await.len() <= waiting, "late points stay listed until nobody writes");
        sweep(&app).await;
        assert_eq!(app.all_points().await, []);
    }
}
