//! API keys: what they open, what they do not, and when that ends.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use local::{
    contract,
    testkit::{HashEmbedder, Reply, TestApp, TestUser},
};
use serde_json::{Value, json};
use shared::domain::UserId;

/// All routes that need a caller, with the scope that a key needs there; `None`: no key opens it.
const ROUTES: [(Method, &str, Option<&str>); 36] = [
    (Method::GET, "/auth/me", Some("read")),
    (Method::PATCH, "/auth/me", None),
    (Method::DELETE, "/auth/me", None),
    (Method::POST, "/auth/me/password", None),
    (Method::POST, "/auth/logout", None),
    (Method::POST, "/auth/logout-all", None),
    (Method::GET, "/auth/sessions", None),
    (Method::DELETE, "/auth/sessions/{id}", None),
    (Method::GET, "/auth/api-keys", Some("admin")),
    (Method::POST, "/auth/api-keys", Some("admin")),
    (Method::PATCH, "/auth/api-keys/{id}", Some("admin")),
    (Method::DELETE, "/auth/api-keys/{id}", Some("admin")),
    (Method::GET, "/auth/invitations", None),
    (Method::POST, "/auth/invitations/{id}", None),
    (Method::DELETE, "/auth/invitations/{id}", None),
    (Method::GET, "/knowledge-bases", Some("read")),
    (Method::POST, "/knowledge-bases", Some("admin")),
    (Method::PATCH, "/knowledge-bases/{id}", Some("admin")),
    (Method::DELETE, "/knowledge-bases/{id}", Some("admin")),
    (Method::GET, "/knowledge-bases/{id}/members", Some("read")),
    (Method::POST, "/knowledge-bases/{id}/members", Some("admin")),
    (Method::PATCH, "/knowledge-bases/{id}/members/{user}", Some("admin")),
    (Method::DELETE, "/knowledge-bases/{id}/members/{user}", Some("admin")),
    (Method::DELETE, "/knowledge-bases/{id}/invitations/{invitation}", Some("admin")),
    (Method::GET, "/documents", Some("read")),
    (Method::POST, "/documents", Some("write")),
    (Method::GET, "/documents/{id}", Some("read")),
    (Method::DELETE, "/documents/{id}", Some("write")),
    (Method::POST, "/documents/{id}/retry", Some("write")),
    (Method::POST, "/uploads", Some("write")),
    (Method::GET, "/consistency", Some("read")),
    (Method::POST, "/consistency/verify", Some("write")),
    (Method::GET, "/consistency/erasures/{id}", Some("read")),
    (Method::POST, "/query", Some("read")),
    (Method::POST, "/query/stream", Some("read")),
    (Method::GET, "/citations/{citation}", Some("read")),
];

/// The routes that nobody calls by name: they give or publish credentials, or describe the rest.
const OPEN: [(Method, &str); 11] = [
    (Method::POST, "/auth/register"),
    (Method::POST, "/auth/login"),
    (Method::POST, "/auth/refresh"),
    (Method::POST, "/auth/verify"),
    (Method::POST, "/auth/verify/resend"),
    (Method::POST, "/auth/password-reset"),
    (Method::POST, "/auth/password-reset/confirm"),
    (Method::GET, "/.well-known/jwks.json"),
    (Method::GET, "/.well-known/openid-configuration"),
    (Method::GET, "/openapi.json"),
    (Method::GET, "/docs"),
];

const SCOPES: [&str; 3] = ["read", "write", "admin"];

async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

fn text<'a>(reply: &'a Reply, pointer: &str) -> &'a str {
    reply.json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", reply.json))
}

async fn make(app: &TestApp, by: &str, scopes: &[&str]) -> Reply {
    let body = json!({ "name": "a script", "scopes": scopes });
    app.call(Method::POST, "/auth/api-keys", Some(by), Some(body)).await
}

async fn key(app: &TestApp, user: &TestUser, scopes: &[&str]) -> (String, String) {
    let reply = make(app, &user.token, scopes).await.expect(201);
    (text(&reply, "/id").to_owned(), text(&reply, "/secret").to_owned())
}

async fn me(app: &TestApp, key: &str) -> Reply {
    app.call(Method::GET, "/auth/me", Some(key), None).await
}

/// What the functions serve, as `GET /path`: their routers and the contract are made of one list.
fn served() -> BTreeSet<String> {
    let contract: Value = serde_json::from_str(&contract::document().unwrap()).unwrap();
    let paths = contract["paths"].as_object().unwrap();
    let operations = |(path, item): (&String, &Value)| -> Vec<String> {
        item.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())).collect()
    };
    paths.iter().flat_map(operations).collect()
}

#[tokio::test]
async fn every_route_refuses_a_key_without_its_scope() {
    let app = app().await;
    let ann = app.register("ann").await;
    let listed = ROUTES.iter().map(|(method, path, _)| (method, path));
    let listed = listed.chain(OPEN.iter().map(|(method, path)| (method, path)));
    let listed: BTreeSet<String> = listed.map(|(method, path)| format!("{method} {path}")).collect();
    assert_eq!(served(), listed, "a new route takes its place in a list");

    for (method, path, needed) in &ROUTES {
        let some = UserId::draw().to_string();
        let parts = ["{id}", "{user}", "{invitation}", "{citation}"];
        let path = parts.iter().fold((*path).to_owned(), |path, part| path.replace(part, &some));
        for scope in SCOPES {
            let (_, secret) = key(&app, &ann, &[scope]).await;
            let reply = app.call(method.clone(), &path, Some(&secret), None).await;
            if *needed == Some(scope) {
                assert!(![401, 403].contains(&reply.status.as_u16()), "{method} {path} {scope}: {}", reply.json);
            } else {
                assert_eq!(reply.problem(403), "insufficient_scope", "{method} {path} {scope}");
            }
            app.pg().await.batch_execute("DELETE FROM api_keys").await.unwrap();
        }
        assert_eq!(app.call(method.clone(), &path, None, None).await.status, 401, "{method} {path} without a caller");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_only_its_hash_is_kept() {
    let app = app().await;
    let ann = app.register("ann").await;
    let made = make(&app, &ann.token, &["write", "read", "read"]).await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = text(&made, "/secret");
    assert!(secret.starts_with(&format!("{}_", text(&made, "/prefix"))));
    assert_eq!(made.json["scopes"], json!(["read", "write"]));

    let list = app.call(Method::GET, "/auth/api-keys", Some(&ann.token), None).await.expect(200);
    let mut expected = made.json.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(list.json["items"], json!([expected]));
    let pg = app.pg().await;
    for table in ["api_keys", "audit_log"] {
        let row: String = pg
            .query_one(&format!("SELECT string_agg(to_jsonb(t)::text, ' ') FROM {table} t"), &[])
            .await
            .unwrap()
            .get(0);
        assert!(!row.contains(secret.get(12..).unwrap()), "{table}");
    }
}

#[tokio::test]
async fn a_key_ends_when_it_is_revoked_expires_or_loses_its_account() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let pg = app.pg().await;

    let (id, secret) = key(&app, &ann, &["read"]).await;
    me(&app, &secret).await.expect(200);
    let path = format!("/auth/api-keys/{id}");
    assert_eq!(app.call(Method::DELETE, &path, Some(&bob.token), None).await.problem(404), "not_found");
    app.call(Method::DELETE, &path, Some(&ann.token), None).await.expect(204);
    assert_eq!(me(&app, &secret).await.problem(401), "unauthenticated");
    app.call(Method::DELETE, &path, Some(&ann.token), None).await.expect(404);

    let (_, secret) = key(&app, &ann, &["read"]).await;
    pg.batch_execute("UPDATE api_keys SET expires_at = now()").await.unwrap();
    assert_eq!(me(&app, &secret).await.problem(401), "unauthenticated");

    let (_, secret) = key(&app, &bob, &["read"]).await;
    me(&app, &secret).await.expect(200);
    pg.execute("DELETE FROM knowledge_base_members WHERE user_id = $1", &[&bob.id.0]).await.unwrap();
    pg.execute("DELETE FROM knowledge_bases WHERE personal_user_id = $1", &[&bob.id.0]).await.unwrap();
    pg.execute("DELETE FROM users WHERE id = $1", &[&bob.id.0]).await.unwrap();
    assert_eq!(me(&app, &secret).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn a_scope_that_is_revoked_is_refused_from_the_next_request_and_never_comes_back() {
    let app = app().await;
    let ann = app.register("ann").await;
    let (id, parent) = key(&app, &ann, &["read", "admin"]).await;
    let child = make(&app, &parent, &["read"]).await.expect(201);
    let child = text(&child, "/secret");
    for secret in [&*parent, child] {
        me(&app, secret).await.expect(200);
    }
    let narrow = async |scopes: Value| {
        let path = format!("/auth/api-keys/{id}");
        app.call(Method::PATCH, &path, Some(&ann.token), Some(json!({ "scopes": scopes }))).await.expect(200)
    };
    assert_eq!(narrow(json!(["admin"])).await.json["scopes"], json!(["admin"]));
    for secret in [&*parent, child] {
        assert_eq!(me(&app, secret).await.problem(403), "insufficient_scope", "what it made is narrowed as well");
    }
    assert_eq!(narrow(json!(["read", "write", "admin"])).await.json["scopes"], json!(["admin"]));
}

#[tokio::test]
async fn a_key_makes_no_key_that_reaches_further_and_takes_what_it_made_along() {
    let app = app().await;
    let ann = app.register("ann").await;
    let (id, parent) = key(&app, &ann, &["read", "admin"]).await;
    assert_eq!(make(&app, &parent, &["read", "write"]).await.problem(403), "insufficient_scope");
    let soon = "2099-01-01T00:00:00Z";
    let body = json!({ "name": "long", "scopes": ["read"], "expires_at": soon });
    let reply = app.call(Method::POST, "/auth/api-keys", Some(&parent), Some(body)).await;
    assert_eq!((reply.problem(400), text(&reply, "/field")), ("invalid_field", "expires_at"));
    app.pg().await.batch_execute("UPDATE api_keys SET expires_at = now() + interval '1 hour'").await.unwrap();
    let child = make(&app, &parent, &["read"]).await.expect(201);
    let list = app.call(Method::GET, "/auth/api-keys", Some(&ann.token), None).await.expect(200);
    assert_eq!(list.json["items"][0]["expires_at"], list.json["items"][1]["expires_at"], "no longer than its parent");

    app.call(Method::DELETE, &format!("/auth/api-keys/{id}"), Some(&ann.token), None).await.expect(204);
    assert_eq!(me(&app, text(&child, "/secret")).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn the_last_use_is_kept_to_a_minute() {
    let app = app().await;
    let ann = app.register("ann").await;
    let (_, secret) = key(&app, &ann, &["read"]).await;
    let pg = app.pg().await;
    let used = async || -> Option<String> {
        pg.query_one("SELECT last_used_at::text FROM api_keys", &[]).await.unwrap().get(0)
    };
    assert_eq!(used().await, None);
    me(&app, &secret).await.expect(200);
    let first = used().await;
    assert!(first.is_some());
    me(&app, &secret).await.expect(200);
    assert_eq!(used().await, first);
    pg.batch_execute("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'").await.unwrap();
    let before = used().await;
    me(&app, &secret).await.expect(200);
    assert_ne!(used().await, before);
}

#[tokio::test]
async fn a_mistyped_key_is_refused_without_asking_the_database() {
    let app = app().await;
    let ann = app.register("ann").await;
    let (_, secret) = key(&app, &ann, &["read"]).await;
    app.pg().await.batch_execute("ALTER TABLE api_keys RENAME TO gone").await.unwrap();
    let mistyped =
        format!("{}{}", secret.get(..secret.len() - 1).unwrap(), if secret.ends_with('0') { '1' } else { '0' });
    assert_eq!(me(&app, &mistyped).await.problem(401), "unauthenticated");
    // Where one that is whole would ask.
    assert_eq!(me(&app, &secret).await.problem(500), "internal");
}

#[tokio::test]
async fn what_the_server_decides_about_a_key_can_not_be_sent() {
    let app = app().await;
    let ann = app.register("ann").await;
    for field in ["id", "user_id", "role", "hash", "prefix", "secret", "parent_id"] {
        let mut body = json!({ "name": "a", "scopes": ["read"] });
        body[field] = json!("x");
        let reply = app.call(Method::POST, "/auth/api-keys", Some(&ann.token), Some(body)).await;
        assert_eq!(reply.problem(400), "unknown_field", "{field}");
    }
    for scopes in [json!([]), json!(["root"]), json!("read"), json!(null)] {
        let body = json!({ "name": "a", "scopes": scopes });
        app.call(Method::POST, "/auth/api-keys", Some(&ann.token), Some(body)).await.expect(400);
    }
}
