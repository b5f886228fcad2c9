//! Accounts: registration, login, the caller's profile, and what must not get through.

use std::sync::Arc;

use auth::{Signer, signer};
use http::{Method, Request, StatusCode, header};
use local::testkit::{HashEmbedder, Reply, TestApp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{config::TokenConfig, domain::UserId};

const PASSWORD: &str = "a quiet harbour at dawn";

/// The hash of [`PASSWORD`] with 64 KiB and one pass, made by the reference implementation (argon2-cffi).
const OLD_HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$sWN3FyeYmfagAosM3VKnklR+dMm1L6xGttr9wnlm/pc";

async fn quick() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

async fn post(app: &TestApp, path: &str, body: Value) -> Reply {
    app.call(Method::POST, path, None, Some(body)).await
}

async fn register(app: &TestApp, email: &str) -> Reply {
    post(app, "/auth/register", json!({ "email": email, "password": PASSWORD })).await
}

async fn log_in(app: &TestApp, email: &str, password: &str) -> Reply {
    post(app, "/auth/login", json!({ "email": email, "password": password })).await
}

async fn me(app: &TestApp, token: &str) -> Reply {
    app.call(Method::GET, "/auth/me", Some(token), None).await
}

fn text<'a>(reply: &'a Reply, pointer: &str) -> &'a str {
    reply.json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", reply.json))
}

/// The audit log as (event, user).
async fn events(app: &TestApp) -> Vec<(String, Option<UserId>)> {
    let rows = app.pg().await.query("SELECT event, user_id FROM audit_log ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Option<uuid::Uuid>>(1).map(UserId))).collect()
}

async fn count(app: &TestApp, table: &str) -> i64 {
    app.pg().await.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_person_registers_logs_in_and_sees_the_account() {
    let app = quick().await;
    let body = json!({ "email": " Ann@Example.COM ", "password": PASSWORD, "display_name": "Ann Ö." });
    let registered = post(&app, "/auth/register", body).await.expect(201);
    assert_eq!(text(&registered, "/user/email"), "ann@example.com");
    assert_eq!(text(&registered, "/user/display_name"), "Ann Ö.");
    assert!(text(&registered, "/user/created_at").ends_with('Z'), "RFC 3339, UTC");
    assert_eq!(registered.json["token_type"], "Bearer");
    assert_eq!(registered.json["expires_in"], 900);
    assert_eq!(registered.header("cache-control"), "no-store");

    let logged_in = log_in(&app, "ANN@example.com", PASSWORD).await.expect(200);
    assert_eq!(logged_in.json["user"], registered.json["user"]);
    assert_eq!(logged_in.json["knowledge_base"], registered.json["knowledge_base"]);
    assert_eq!(logged_in.header("cache-control"), "no-store");

    for reply in [&registered, &logged_in] {
        let me = me(&app, text(reply, "/access_token")).await.expect(200);
        let user = &registered.json["user"];
        let expected = json!({
            "id": user["id"], "email": "ann@example.com", "email_verified": false, "display_name": "Ann Ö.", "created_at": user["created_at"],
            "knowledge_bases": [{ "id": registered.json["knowledge_base"], "role": "owner", "personal": true }],
        });
        assert_eq!(me.json, expected);
        let claims = app.app.verifier.verify(text(reply, "/access_token")).unwrap();
        assert_eq!(claims.sub.to_string(), text(&registered, "/user/id"));
    }
}

#[tokio::test]
async fn a_registration_makes_a_personal_knowledge_base_that_its_user_owns() {
    let app = quick().await;
    let ann = register(&app, "ann@example.com").await.expect(201);
    let bob = register(&app, "bob@example.com").await.expect(201);
    assert_ne!(ann.json["knowledge_base"], bob.json["knowledge_base"]);
    let row = app
        .pg()
        .await
        .query_one(
            "SELECT kb.id, kb.name, m.role, kb.personal_user_id = m.user_id FROM knowledge_bases kb
             JOIN knowledge_base_members m ON m.knowledge_base_id = kb.id WHERE m.user_id::text = $1::text",
            &[&text(&ann, "/user/id")],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, uuid::Uuid>(0).to_string(), text(&ann, "/knowledge_base"));
    assert_eq!((row.get(1), row.get(2), row.get(3)), ("Personal", "owner", true));
}

#[tokio::test]
async fn an_address_has_one_account_however_it_is_spelt() {
    let app = quick().await;
    register(&app, "zoë@bücher.example").await.expect(201);
    for spelling in
        ["ZOË@BÜCHER.EXAMPLE", " zoe\u{308}@bücher.example", "zoë@xn--bcher-kva.example", "ｚoë@bücher.example"]
    {
        assert_eq!(register(&app, spelling).await.problem(409), "email_taken", "{spelling}");
        log_in(&app, spelling, PASSWORD).await.expect(200);
    }
    assert_eq!((count(&app, "users").await, count(&app, "knowledge_bases").await), (1, 1), "no half of a registration");
}

#[tokio::test]
async fn registrations_at_the_same_time_make_one_account() {
    let app = quick().await;
    let (one, two, three) = tokio::join!(
        register(&app, "ann@example.com"),
        register(&app, "Ann@example.com"),
        register(&app, "ANN@example.com")
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16(), three.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409]);
    assert_eq!((count(&app, "users").await, count(&app, "knowledge_base_members").await), (1, 1));
}

#[tokio::test]
async fn an_unknown_account_and_a_wrong_password_get_the_same_answer() {
    let app = quick().await;
    register(&app, "ann@example.com").await.expect(201);
    let strip = |reply: &Reply| {
        assert_eq!(reply.problem(401), "invalid_credentials");
        let mut body = reply.json.clone();
        body.as_object_mut().unwrap().remove("request_id");
        let mut headers: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        (body, headers)
    };
    let wrong = log_in(&app, "ann@example.com", "another harbour").await;
    let unknown = log_in(&app, "bob@example.com", "another harbour").await;
    let short = log_in(&app, "bob@example.com", "x").await;
    assert_eq!(strip(&wrong), strip(&unknown));
    assert_eq!(strip(&wrong), strip(&short), "the rules for new passwords do not show at a login");
}

#[tokio::test]
async fn a_password_fits_however_its_characters_were_composed() {
    let app = quick().await;
    let body = json!({ "email": "ann@example.com", "password": "pässwörter und mehr" });
    post(&app, "/auth/register", body).await.expect(201);
    log_in(&app, "ann@example.com", "pa\u{308}sswo\u{308}rter und mehr").await.expect(200);
    assert_eq!(log_in(&app, "ann@example.com", "Pässwörter und mehr").await.problem(401), "invalid_credentials");
}

#[tokio::test]
async fn every_account_event_is_recorded_without_what_was_typed() {
    let app = quick().await;
    let user: UserId = text(&register(&app, "ann@example.com").await.expect(201), "/user/id").parse().unwrap();
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    log_in(&app, "ann@example.com", "another harbour").await.expect(401);
    log_in(&app, "bob@example.com", "another harbour").await.expect(401);
    let expected = [
        ("account.registered", Some(user)),
        ("login.succeeded", Some(user)),
        ("login.failed", Some(user)),
        ("login.failed", None),
    ];
    assert_eq!(events(&app).await, expected.map(|(event, user)| (event.to_owned(), user)));
    let rows = app.pg().await.query("SELECT to_jsonb(audit_log)::text FROM audit_log", &[]).await.unwrap();
    for row in rows {
        let line: String = row.get(0);
        for typed in ["example.com", "harbour", "argon2"] {
            assert!(!line.contains(typed), "{line}");
        }
        assert!(!line.contains("\"request_id\": null"), "{line}");
    }
}

#[tokio::test]
async fn a_password_is_stored_as_argon2id_and_nowhere_else() {
    let app = quick().await;
    let registered = register(&app, "ann@example.com").await.expect(201);
    let pg = app.pg().await;
    let hash: String = pg.query_one("SELECT password_hash FROM users", &[]).await.unwrap().get(0);
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let tables =
        pg.query("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'", &[]).await.unwrap();
    assert!(tables.len() > 5);
    for table in tables {
        let table: String = table.get(0);
        let rows = pg.query(&format!("SELECT to_jsonb(t)::text FROM {table} t"), &[]).await.unwrap();
        for row in rows {
            let row: String = row.get(0);
            assert!(!row.contains(PASSWORD), "{table}");
            assert!(!row.contains(text(&registered, "/access_token")), "{table}");
        }
    }
    assert!(!String::from_utf8_lossy(&registered.bytes).contains("argon2"), "the hash never leaves");
}

#[tokio::test]
async fn a_hash_with_old_parameters_is_made_again_at_the_next_login() {
    let app = quick().await;
    register(&app, "ann@example.com").await.expect(201);
    let pg = app.pg().await;
    pg.execute("UPDATE users SET password_hash = $1", &[&OLD_HASH]).await.unwrap();
    let stored = async || -> String { pg.query_one("SELECT password_hash FROM users", &[]).await.unwrap().get(0) };
    log_in(&app, "ann@example.com", "another harbour").await.expect(401);
    assert_eq!(stored().await, OLD_HASH, "not by a wrong password");
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    let newer = stored().await;
    assert!(newer.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{newer}");
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    assert_eq!(stored().await, newer, "once is enough");
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_by_name() {
    let app = quick().await;
    // Mass assignment: none of what the server decides can be sent.
    for field in ["id", "role", "created_at", "password_hash", "knowledge_base", "is_admin", "Email", "passwort"] {
        for path in ["/auth/register", "/auth/login"] {
            let mut body = json!({ "email": "ann@example.com", "password": PASSWORD });
            body[field] = json!("owner");
            let reply = post(&app, path, body).await;
            assert_eq!(reply.problem(400), "unknown_field", "{path} {field}");
            assert_eq!(text(&reply, "/field"), field);
        }
    }
    assert_eq!((count(&app, "users").await, count(&app, "audit_log").await), (0, 0));
}

#[tokio::test]
async fn a_field_with_a_wrong_type_or_value_is_refused_by_name_and_its_value_is_not_repeated() {
    let app = quick().await;
    let good = json!({ "email": "ann@example.com", "password": PASSWORD, "display_name": "Ann" });
    let long = "x".repeat(1_000_000);
    let bad = [
        ("email", json!(42)),
        ("email", json!(null)),
        ("email", json!(["ann@example.com"])),
        ("email", json!({ "$ne": "" })),
        ("email", json!("")),
        ("email", json!("no address")),
        ("email", json!("a@b@example.com")),
        ("email", json!("ann\0@example.com")),
        ("email", json!("ann\u{200b}@example.com")),
        ("email", json!("аnn@example.com")),
        ("email", json!(format!("{long}@example.com"))),
        ("password", json!(3_141_592_653_u64)),
        ("password", json!(null)),
        ("password", json!(["a quiet harbour"])),
        ("password", json!("short")),
        ("password", json!("Password123")),
        ("password", json!("ann@example.com")),
        ("password", json!("a quiet\0harbour")),
        ("password", json!("x".repeat(129))),
        ("password", json!(long)),
        ("display_name", json!("")),
        ("display_name", json!(7)),
        ("display_name", json!("Ann\0")),
        ("display_name", json!("x".repeat(257))),
    ];
    for (field, value) in bad {
        let mut body = good.clone();
        body[field] = value.clone();
        let reply = post(&app, "/auth/register", body).await;
        assert_eq!(reply.problem(400), "invalid_field", "{field} {value:.40}");
        assert_eq!(text(&reply, "/field"), field);
        assert!(reply.bytes.len() < 1_000, "{}", reply.json);
        assert!(!text(&reply, "/detail").contains("3141592653"), "{}", reply.json);
    }
    for field in ["email", "password"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        let reply = post(&app, "/auth/register", body).await;
        assert_eq!((reply.problem(400), text(&reply, "/field")), ("invalid_field", field));
    }
    assert_eq!((count(&app, "users").await, count(&app, "audit_log").await), (0, 0));
}

#[tokio::test]
async fn a_password_of_a_megabyte_is_refused_before_it_is_hashed() {
    let app = quick().await;
    register(&app, "ann@example.com").await.expect(201);
    let reply = log_in(&app, "ann@example.com", &"x".repeat(1_000_000)).await;
    assert_eq!((reply.problem(400), text(&reply, "/field")), ("invalid_field", "password"));
    // A login that was hashed would be recorded.
    assert_eq!(events(&app).await.len(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let app = quick().await;
    let send = async |media_type: &str, body: &[u8]| {
        let request = Request::post("/auth/login").header(header::CONTENT_TYPE, media_type);
        app.send(request.body(body.to_vec()).unwrap()).await
    };
    assert_eq!(send("text/plain", b"{}").await.problem(415), "unsupported_media_type");
    for body in [
        &b""[..],
        b"{",
        b"{\"email\":\"a@example.com\",\"password\":\"x\"}{}",
        b"\xff\xfe",
        b"{\"email\": \"a\xff@example.com\"}",
    ] {
        assert_eq!(send("application/json", body).await.problem(400), "invalid_request");
    }
    // An array's members would be taken for fields by their position.
    for body in [&b"null"[..], b"7", b"\"email\"", b"[\"ann@example.com\", \"a quiet harbour\"]"] {
        assert_eq!(send("application/json", body).await.problem(400), "invalid_request");
    }
    let twice = format!(r#"{{"email":"ann@example.com","email":"bob@example.com","password":"{PASSWORD}"}}"#);
    assert_eq!(send("application/json", twice.as_bytes()).await.problem(400), "invalid_field");
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_as_a_problem() {
    let app = quick().await;
    let registered = register(&app, "ann@example.com").await.expect(201);
    let user: UserId = text(&registered, "/user/id").parse().unwrap();
    let other = signer::generate().unwrap();
    let config = TokenConfig {
        jwks: other.jwks.clone(),
        signing_key: Some(other.private_pem.clone()),
        ..app.app.config.tokens.clone()
    };
    let foreign = Signer::new(&config).unwrap().access_token(user).unwrap();
    let ours = text(&registered, "/access_token");
    for token in [foreign.token.expose_secret(), "", "x", ours.get(2..).unwrap(), &format!("{ours}{ours}")] {
        let reply = me(&app, token).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{token}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("signature"), "no reason for an attacker");
    }
    let anonymous = app.call(Method::GET, "/auth/me", None, None).await;
    assert_eq!(anonymous.problem(401), "unauthenticated");
    let request = Request::get("/auth/me").header(header::AUTHORIZATION, format!("Basic {ours}"));
    assert_eq!(app.send(request.body(Vec::new()).unwrap()).await.problem(401), "unauthenticated");
    me(&app, ours).await.expect(200);
}

#[tokio::test]
async fn a_token_whose_account_is_gone_is_refused() {
    let app = quick().await;
    let reply = me(&app, &app.token(UserId::draw())).await;
    assert_eq!(reply.problem(401), "unauthenticated");
}

#[tokio::test]
async fn the_documents_for_gateways_check_the_tokens() {
    let app = quick().await;
    let configuration = app.call(Method::GET, "/.well-known/openid-configuration", None, None).await.expect(200);
    assert_eq!(text(&configuration, "/issuer"), app.app.config.tokens.issuer);
    assert_eq!(
        text(&configuration, "/jwks_uri"),
        format!("{}/.well-known/jwks.json", app.app.config.tokens.issuer.trim_end_matches('/'))
    );
    let keys = app.call(Method::GET, "/.well-known/jwks.json", None, None).await.expect(200);
    assert_eq!(keys.header("cache-control"), "public, max-age=300");
    let key = &keys.json["keys"][0];
    assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&json!("RSA"), &json!("RS256"), &json!("sig")));
    for private in ["d", "p", "q", "dp", "dq", "qi"] {
        assert!(key.get(private).is_none(), "{private}");
    }
    let jwks = keys.json.to_string();
    let verifier = shared::tokens::Verifier::new(&TokenConfig { jwks, ..app.app.config.tokens.clone() }).unwrap();
    let registered = register(&app, "ann@example.com").await.expect(201);
    verifier.verify(text(&registered, "/access_token")).unwrap();
}

#[tokio::test]
async fn a_route_takes_only_its_method() {
    let app = quick().await;
    for (method, path) in [
        (Method::GET, "/auth/register"),
        (Method::DELETE, "/auth/login"),
        (Method::POST, "/auth/me"),
        (Method::PUT, "/.well-known/jwks.json"),
    ] {
        assert_eq!(app.call(method, path, None, None).await.problem(405), "method_not_allowed", "{path}");
    }
    assert_eq!(app.call(Method::GET, "/auth", None, None).await.status, StatusCode::NOT_FOUND);
}
