//! What is proved by mail: addresses, new passwords, and that nobody learns who has an account.

use std::sync::Arc;

use http::Method;
use local::testkit::{HashEmbedder, Reply, TestApp};
use serde_json::{Value, json};
use shared::config::Registration;

const PASSWORD: &str = "a quiet harbour at dawn";
const OTHER: &str = "three flowerpots in a row";

async fn start(registration: Registration) -> TestApp {
    TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.accounts.registration = registration;
    })
    .await
}

async fn post(app: &TestApp, path: &str, body: Value) -> Reply {
    app.call(Method::POST, path, None, Some(body)).await
}

async fn register(app: &TestApp, email: &str, password: &str) -> Reply {
    post(app, "/auth/register", json!({ "email": email, "password": password })).await
}

async fn log_in(app: &TestApp, email: &str, password: &str) -> Reply {
    post(app, "/auth/login", json!({ "email": email, "password": password })).await
}

async fn verify(app: &TestApp, code: &str) -> Reply {
    post(app, "/auth/verify", json!({ "code": code })).await
}

fn access(reply: &Reply) -> &str {
    reply.json["access_token"].as_str().unwrap()
}

fn refresh_token(reply: &Reply) -> Value {
    json!({ "refresh_token": reply.json["refresh_token"] })
}

/// What a client can tell answers apart by.
fn told(reply: &Reply) -> (u16, Vec<String>, String) {
    let mut names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
    names.sort();
    (reply.status.as_u16(), names, String::from_utf8_lossy(&reply.bytes).into_owned())
}

#[tokio::test]
async fn a_registration_holds_when_its_address_is_confirmed() {
    let app = start(Registration::Verified).await;
    let registered = register(&app, "ann@example.com", PASSWORD).await.expect(202);
    assert!(registered.json.get("access_token").is_none());
    let code = app.mailed_code();
    assert_eq!(log_in(&app, "ann@example.com", PASSWORD).await.problem(403), "email_unverified");
    assert_eq!(
        log_in(&app, "ann@example.com", OTHER).await.problem(401),
        "invalid_credentials",
        "only who knows it is told"
    );
    verify(&app, &format!(" {} ", code.to_uppercase())).await.expect(204);
    assert_eq!(verify(&app, &code).await.problem(400), "invalid_field", "a code is good once");
    let signed_in = log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    assert_eq!(signed_in.json["user"]["email_verified"], true);
}

#[tokio::test]
async fn a_registration_answers_alike_whether_or_not_there_is_an_account() {
    let app = start(Registration::Verified).await;
    let free = register(&app, "ann@example.com", PASSWORD).await;
    let code = app.mailed_code();
    let pending = register(&app, "ann@example.com", OTHER).await;
    verify(&app, &code).await.expect(204);
    let taken = register(&app, "ann@example.com", OTHER).await;
    assert_eq!((told(&free), told(&free)), (told(&pending), told(&taken)));
    assert_eq!(free.status.as_u16(), 202);
    assert!(app.mails().last().unwrap().contains("has one"), "only the mailbox learns it");
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    assert_eq!(log_in(&app, "ann@example.com", OTHER).await.problem(401), "invalid_credentials");
}

#[tokio::test]
async fn who_registers_a_strangers_address_first_has_no_part_in_what_the_stranger_confirms() {
    let app = start(Registration::Verified).await;
    register(&app, "ann@example.com", OTHER).await.expect(202);
    register(&app, "ann@example.com", PASSWORD).await.expect(202);
    verify(&app, &app.mailed_code()).await.expect(204);
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    assert_eq!(log_in(&app, "ann@example.com", OTHER).await.problem(401), "invalid_credentials");
}

#[tokio::test]
async fn a_code_can_be_sent_again_and_everybody_is_answered_alike() {
    let app = start(Registration::Verified).await;
    register(&app, "ann@example.com", PASSWORD).await.expect(202);
    let again = async |email: &str| post(&app, "/auth/verify/resend", json!({ "email": email })).await.expect(202);
    let pending = again("ann@example.com").await;
    let code = app.mailed_code();
    let unknown = again("bob@example.com").await;
    assert!(app.mails().last().unwrap().contains("there is none"));
    verify(&app, &code).await.expect(204);
    let verified = again("ann@example.com").await;
    assert_eq!((told(&pending), told(&pending)), (told(&unknown), told(&verified)));
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_password_is_reset_by_mail_and_all_sessions_end() {
    let app = start(Registration::Open).await;
    let session = register(&app, "ann@example.com", PASSWORD).await.expect(201);
    verify(&app, &app.mailed_code()).await.expect(204);
    let reset = async |email: &str| post(&app, "/auth/password-reset", json!({ "email": email })).await.expect(202);
    let known = reset("ann@example.com").await;
    let code = app.mailed_code();
    let unknown = reset("bob@example.com").await;
    assert_eq!(told(&known), told(&unknown));
    let confirm = async |code: &str, password: &str| {
        post(&app, "/auth/password-reset/confirm", json!({ "code": code, "password": password })).await
    };
    let weak = confirm(&code, "password").await;
    assert_eq!((weak.problem(400), weak.json["field"].as_str()), ("invalid_field", Some("password")));
    assert_eq!(confirm("00000000000000000000000000000000", OTHER).await.json["field"], "code");
    let (one, two) = tokio::join!(confirm(&code, OTHER), confirm(&code, OTHER));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400], "a code is good once");
    assert_eq!(post(&app, "/auth/refresh", refresh_token(&session)).await.problem(401), "unauthenticated");
    assert_eq!(log_in(&app, "ann@example.com", PASSWORD).await.problem(401), "invalid_credentials");
    log_in(&app, "ann@example.com", OTHER).await.expect(200);
}

#[tokio::test]
async fn codes_end_and_are_replaced_and_hold_for_their_purpose_alone() {
    let app = start(Registration::Open).await;
    register(&app, "ann@example.com", PASSWORD).await.expect(201);
    let for_address = app.mailed_code();
    let body = json!({ "email": "ann@example.com" });
    post(&app, "/auth/password-reset", body.clone()).await.expect(202);
    let first = app.mailed_code();
    post(&app, "/auth/password-reset", body).await.expect(202);
    let second = app.mailed_code();
    let confirm =
        async |code: &str| post(&app, "/auth/password-reset/confirm", json!({ "code": code, "password": OTHER })).await;
    assert_eq!(confirm(&for_address).await.problem(400), "invalid_field");
    assert_eq!(verify(&app, &second).await.problem(400), "invalid_field");
    assert_eq!(confirm(&first).await.problem(400), "invalid_field", "replaced");
    let pg = app.pg().await;
    pg.execute("UPDATE email_codes SET expires_at = now()", &[]).await.unwrap();
    assert_eq!(confirm(&second).await.problem(400), "invalid_field", "too old");
    assert_eq!(verify(&app, &for_address).await.problem(400), "invalid_field", "too old");
    let row: String =
        pg.query_one("SELECT string_agg(to_jsonb(c)::text, '') FROM email_codes c", &[]).await.unwrap().get(0);
    assert!(!row.contains(&second), "hashed at rest");
}

#[tokio::test]
async fn an_account_moves_to_another_address_when_its_code_comes_back_and_the_old_one_is_told() {
    let app = start(Registration::Open).await;
    let ann = register(&app, "ann@example.com", PASSWORD).await.expect(201);
    register(&app, "bob@example.com", PASSWORD).await.expect(201);
    let patch = async |body: Value| app.call(Method::PATCH, "/auth/me", Some(access(&ann)), Some(body)).await;
    let without = patch(json!({ "email": "eve@example.com" })).await;
    assert_eq!((without.problem(400), without.json["field"].as_str()), ("invalid_field", Some("password")));
    let wrong = patch(json!({ "email": "eve@example.com", "password": OTHER })).await;
    assert_eq!(wrong.problem(401), "invalid_credentials");
    let asked = patch(json!({ "email": "Eve@example.com", "password": PASSWORD })).await.expect(200);
    assert_eq!(
        (&asked.json["email"], &asked.json["pending_email"]),
        (&json!("ann@example.com"), &json!("eve@example.com"))
    );
    let mails = app.mails();
    let [.., new, old] = &mails[..] else { panic!("{mails:?}") };
    assert!(new.starts_with("To: eve@example.com") && old.starts_with("To: ann@example.com"), "{mails:?}");
    let code = new.lines().find_map(|line| line.strip_prefix("Code: ")).unwrap();

    let taken = patch(json!({ "email": "bob@example.com", "password": PASSWORD })).await.expect(200);
    assert_eq!(taken.json["pending_email"], "bob@example.com", "the caller does not learn who has an account");

    verify(&app, code).await.expect(204);
    assert!(app.mails().last().unwrap().starts_with("To: ann@example.com"));
    log_in(&app, "eve@example.com", PASSWORD).await.expect(200);
    assert_eq!(log_in(&app, "ann@example.com", PASSWORD).await.problem(401), "invalid_credentials");
}

#[tokio::test]
async fn a_name_is_set_and_removed_and_nothing_else_can_be_assigned() {
    let app = start(Registration::Open).await;
    let ann = register(&app, "ann@example.com", PASSWORD).await.expect(201);
    let patch = async |body: Value| app.call(Method::PATCH, "/auth/me", Some(access(&ann)), Some(body)).await;
    assert_eq!(patch(json!({ "display_name": "Ann Ö." })).await.expect(200).json["display_name"], "Ann Ö.");
    assert_eq!(patch(json!({})).await.expect(200).json["display_name"], "Ann Ö.");
    assert_eq!(patch(json!({ "display_name": null })).await.expect(200).json["display_name"], Value::Null);
    for field in ["id", "email_verified", "created_at", "password_hash", "knowledge_bases", "role", "pending_email"] {
        assert_eq!(patch(json!({ field: true })).await.problem(400), "unknown_field", "{field}");
    }
}

#[tokio::test]
async fn a_password_change_needs_the_current_one_and_ends_the_other_sessions() {
    let app = start(Registration::Open).await;
    let here = register(&app, "ann@example.com", PASSWORD).await.expect(201);
    let there = log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    let change = async |current: &str, new: &str, end: bool| {
        let body = json!({ "current_password": current, "password": new, "end_other_sessions": end });
        app.call(Method::POST, "/auth/me/password", Some(access(&here)), Some(body)).await
    };
    assert_eq!(change(OTHER, OTHER, true).await.problem(401), "invalid_credentials");
    let weak = change(PASSWORD, "password", true).await;
    assert_eq!((weak.problem(400), weak.json["field"].as_str()), ("invalid_field", Some("password")));
    change(PASSWORD, OTHER, false).await.expect(204);
    assert!(app.mails().last().unwrap().contains("was changed"));
    let there = post(&app, "/auth/refresh", refresh_token(&there)).await.expect(200);
    change(OTHER, PASSWORD, true).await.expect(204);
    assert_eq!(post(&app, "/auth/refresh", refresh_token(&there)).await.problem(401), "unauthenticated");
    post(&app, "/auth/refresh", refresh_token(&here)).await.expect(200);
    log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn where_no_mail_leaves_what_needs_it_says_so_and_a_registration_still_works() {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.accounts.mail = None;
    })
    .await;
    register(&app, "ann@example.com", PASSWORD).await.expect(201);
    for email in ["ann@example.com", "bob@example.com"] {
        let reply = post(&app, "/auth/password-reset", json!({ "email": email })).await;
        assert_eq!((reply.problem(503), reply.json["dependency"].as_str()), ("dependency_unavailable", Some("mail")));
    }
}

#[tokio::test]
async fn who_made_an_account_with_a_strangers_address_is_out_when_the_stranger_resets_its_password() {
    let app = start(Registration::Open).await;
    let thief = register(&app, "ann@example.com", OTHER).await.expect(201);
    let key = json!({ "name": "back door", "scopes": ["read"] });
    app.call(Method::POST, "/auth/api-keys", Some(access(&thief)), Some(key)).await.expect(201);
    post(&app, "/auth/password-reset", json!({ "email": "ann@example.com" })).await.expect(202);
    let body = json!({ "code": app.mailed_code(), "password": PASSWORD });
    post(&app, "/auth/password-reset/confirm", body).await.expect(204);
    assert_eq!(post(&app, "/auth/refresh", refresh_token(&thief)).await.problem(401), "unauthenticated");
    let keys: i64 = app.pg().await.query_one("SELECT count(*) FROM api_keys", &[]).await.unwrap().get(0);
    assert_eq!(keys, 0);
    let ann = log_in(&app, "ann@example.com", PASSWORD).await.expect(200);
    assert_eq!(ann.json["user"]["email_verified"], true);
    // Keys that were made by an owner who is known stay: a forgotten password is no reason to stop programs.
    let key = json!({ "name": "front door", "scopes": ["read"] });
    app.call(Method::POST, "/auth/api-keys", Some(access(&ann)), Some(key)).await.expect(201);
    post(&app, "/auth/password-reset", json!({ "email": "ann@example.com" })).await.expect(202);
    let body = json!({ "code": app.mailed_code(), "password": OTHER });
    post(&app, "/auth/password-reset/confirm", body).await.expect(204);
    let keys: i64 = app.pg().await.query_one("SELECT count(*) FROM api_keys", &[]).await.unwrap().get(0);
    assert_eq!(keys, 1);
}

#[tokio::test]
async fn an_invitation_is_shown_only_to_who_has_confirmed_the_address() {
    let app = start(Registration::Open).await;
    let owner = app.register("owner").await;
    let made = json!({ "name": "Shared" });
    let made = app.call(Method::POST, "/knowledge-bases", Some(&owner.token), Some(made)).await.expect(201);
    let path = format!("/knowledge-bases/{}/members", made.json["id"].as_str().unwrap());
    let body = json!({ "email": "ann@example.com", "role": "viewer" });
    app.call(Method::POST, &path, Some(&owner.token), Some(body)).await.expect(202);
    let ann = register(&app, "ann@example.com", PASSWORD).await.expect(201);
    let shown = async || {
        let reply = app.call(Method::GET, "/auth/invitations", Some(access(&ann)), None).await.expect(200);
        reply.json["items"].as_array().unwrap().len()
    };
    assert_eq!(shown().await, 0, "anybody could have registered it");
    let id: uuid::Uuid = app.pg().await.query_one("SELECT id FROM invitations", &[]).await.unwrap().get(0);
    for method in [Method::POST, Method::DELETE] {
        let reply = app.call(method, &format!("/auth/invitations/{id}"), Some(access(&ann)), None).await;
        assert_eq!(reply.problem(404), "not_found");
    }
    verify(&app, &app.mailed_code()).await.expect(204);
    assert_eq!(shown().await, 1);
}
