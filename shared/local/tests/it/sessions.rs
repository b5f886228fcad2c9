//! Sessions: refresh tokens that are good once, side-by-side refreshes, stolen tokens, and ends.

use std::{collections::HashSet, fmt::Write, sync::Arc, time::Duration};

use http::Method;
use local::testkit::{HashEmbedder, Reply, TestApp};
use serde_json::{Value, json};

const PASSWORD: &str = "a quiet harbour at dawn";

async fn quick() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

async fn sign_in(app: &TestApp, path: &str) -> Reply {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    app.call(Method::POST, path, None, Some(body)).await
}

async fn refresh(app: &TestApp, token: &str) -> Reply {
    app.call(Method::POST, "/auth/refresh", None, Some(json!({ "refresh_token": token }))).await
}

async fn log_out(app: &TestApp, token: &str) -> Reply {
    app.call(Method::POST, "/auth/logout", None, Some(json!({ "refresh_token": token }))).await
}

fn text<'a>(reply: &'a Reply, field: &str) -> &'a str {
    reply.json[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", reply.json))
}

fn token(reply: &Reply) -> &str {
    text(reply, "refresh_token")
}

async fn sessions(app: &TestApp, access: &str) -> Vec<Value> {
    let reply = app.call(Method::GET, "/auth/sessions", Some(access), None).await.expect(200);
    reply.json["items"].as_array().unwrap().clone()
}

/// As if all that happened to sessions had happened so many seconds earlier.
async fn age(app: &TestApp, seconds: f64) {
    app.pg()
        .await
        .execute(
            "UPDATE sessions SET created_at = created_at - make_interval(secs => $1),
                last_used_at = last_used_at - make_interval(secs => $1),
                rotated_at = rotated_at - make_interval(secs => $1),
                expires_at = expires_at - make_interval(secs => $1)",
            &[&seconds],
        )
        .await
        .unwrap();
}

async fn events(app: &TestApp, event: &str) -> i64 {
    let pg = app.pg().await;
    pg.query_one("SELECT count(*) FROM audit_log WHERE event = $1", &[&event]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_refresh_gives_an_access_token_and_replaces_the_refresh_token() {
    let app = quick().await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let second = refresh(&app, token(&first)).await.expect(200);
    assert_eq!(second.header("cache-control"), "no-store");
    assert_ne!(token(&second), token(&first));
    assert_eq!((&second.json["token_type"], &second.json["expires_in"]), (&json!("Bearer"), &json!(900)));
    app.call(Method::GET, "/auth/me", Some(text(&second, "access_token")), None).await.expect(200);
    age(&app, 11.0).await;
    let third = refresh(&app, token(&second)).await.expect(200);
    assert_ne!(token(&third), token(&second));
    let claims = |reply: &Reply| app.app.verifier.verify(text(reply, "access_token")).unwrap();
    assert_eq!(claims(&first).sid, claims(&third).sid, "it is one session");
    assert!(claims(&first).sid.is_some());
}

#[tokio::test]
async fn a_hundred_refreshes_at_once_revoke_nobody_and_end_in_one_token() {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        // All wait for one row, and on a busy machine longer than a request should for a connection.
        parts.config.database.wait_timeout = Duration::from_mins(1);
    })
    .await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let replies = futures::future::join_all((0..100).map(|_| refresh(&app, token(&first)))).await;
    let tokens: HashSet<String> = replies.into_iter().map(|reply| token(&reply.expect(200)).to_owned()).collect();
    assert_eq!(tokens.len(), 1, "one successor, whoever asked");
    let second = tokens.into_iter().next().unwrap();
    // The next storm follows at once, with both tokens mixed: late ones still have the first.
    let mixed = (0..100).map(|at| refresh(&app, if at % 2 == 0 { token(&first) } else { &second }));
    for reply in futures::future::join_all(mixed).await {
        assert_eq!(token(&reply.expect(200)), second);
    }
    age(&app, 11.0).await;
    let third = refresh(&app, &second).await.expect(200);
    assert_eq!(events(&app, "session.token_reused").await, 0);
    assert_eq!(sessions(&app, text(&third, "access_token")).await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_within_the_grace() {
    let app = quick().await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let lost = token(&refresh(&app, token(&first)).await.expect(200)).to_owned();
    age(&app, 8.0).await;
    assert_eq!(token(&refresh(&app, token(&first)).await.expect(200)), lost);
}

#[tokio::test]
async fn a_stolen_token_used_after_the_grace_ends_the_family_however_old_it_is() {
    for generations in [1, 3] {
        let app = quick().await;
        let first = sign_in(&app, "/auth/register").await.expect(201);
        let other = sign_in(&app, "/auth/login").await.expect(200);
        let mut newest = token(&first).to_owned();
        for _ in 0..generations {
            newest = token(&refresh(&app, &newest).await.expect(200)).to_owned();
            age(&app, 11.0).await;
        }
        assert_eq!(refresh(&app, token(&first)).await.problem(401), "unauthenticated");
        assert_eq!(refresh(&app, &newest).await.problem(401), "unauthenticated", "the family has ended");
        assert_eq!(events(&app, "session.token_reused").await, 1);
        refresh(&app, token(&other)).await.expect(200);
    }
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_at_the_latest_after_thirty_days() {
    const DAY_S: f64 = 86_400.0;
    let app = quick().await;
    let mut newest = token(&sign_in(&app, "/auth/register").await.expect(201)).to_owned();
    let idle = token(&sign_in(&app, "/auth/login").await.expect(200)).to_owned();
    for _ in 0..2 {
        age(&app, 13.0 * DAY_S).await;
        newest = token(&refresh(&app, &newest).await.expect(200)).to_owned();
    }
    assert_eq!(refresh(&app, &idle).await.problem(401), "unauthenticated", "26 days without use");
    age(&app, 5.0 * DAY_S).await;
    assert_eq!(refresh(&app, &newest).await.problem(401), "unauthenticated", "31 days in all");
    let again = sign_in(&app, "/auth/login").await.expect(200);
    assert_eq!(sessions(&app, text(&again, "access_token")).await.len(), 1, "ended ones are gone");
}

#[tokio::test]
async fn what_is_no_refresh_token_refreshes_nothing_and_is_not_repeated() {
    let app = quick().await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let mut forged = token(&first).to_owned();
    let flipped = if forged.get(forged.len() - 2..forged.len() - 1) == Some("A") { "E" } else { "A" };
    forged.replace_range(forged.len() - 2..forged.len() - 1, flipped);
    for bad in ["", "x", text(&first, "access_token"), &"lr_".repeat(100_000)] {
        let reply = refresh(&app, bad).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{bad:.20}");
        assert!(bad.is_empty() || bad.len() == 1 || !String::from_utf8_lossy(&reply.bytes).contains(bad));
    }
    let body = json!({ "refresh_token": 314_159_265 });
    let reply = app.call(Method::POST, "/auth/refresh", None, Some(body)).await;
    assert_eq!(reply.problem(400), "invalid_field");
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("314159265"));
    refresh(&app, token(&first)).await.expect(200);
    // Somebody who has the family's half had a token once: that is no guess.
    assert_eq!(refresh(&app, &forged).await.problem(401), "unauthenticated");
    assert_eq!(events(&app, "session.token_reused").await, 1);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one_and_all_together() {
    let app = quick().await;
    let one = sign_in(&app, "/auth/register").await.expect(201);
    let two = sign_in(&app, "/auth/login").await.expect(200);
    let three = sign_in(&app, "/auth/login").await.expect(200);
    let found = sessions(&app, text(&two, "access_token")).await;
    assert_eq!(found.iter().map(|of| &of["current"]).collect::<Vec<_>>(), [false, true, false]);
    let bob = app.register("bob").await;
    let third = format!("/auth/sessions/{}", text_of(&found[0], "id"));
    for (who, path) in [(&bob.token, third.as_str()), (&bob.token, "/auth/sessions/x")] {
        assert_eq!(app.call(Method::DELETE, path, Some(who), None).await.problem(404), "not_found");
    }
    app.call(Method::DELETE, &third, Some(text(&one, "access_token")), None).await.expect(204);
    assert_eq!(refresh(&app, token(&three)).await.problem(401), "unauthenticated");

    log_out(&app, token(&one)).await.expect(204);
    assert_eq!(refresh(&app, token(&one)).await.problem(401), "unauthenticated");
    log_out(&app, token(&one)).await.expect(204);
    log_out(&app, "nonsense").await.expect(204);

    app.call(Method::POST, "/auth/logout", Some(text(&two, "access_token")), None).await.expect(204);
    assert_eq!(refresh(&app, token(&two)).await.problem(401), "unauthenticated");
    assert_eq!(app.call(Method::POST, "/auth/logout", None, None).await.problem(401), "unauthenticated");

    let (four, five) = (sign_in(&app, "/auth/login").await, sign_in(&app, "/auth/login").await);
    app.call(Method::POST, "/auth/logout-all", Some(text(&four, "access_token")), None).await.expect(204);
    for ended in [&four, &five] {
        assert_eq!(refresh(&app, token(ended)).await.problem(401), "unauthenticated");
    }
    assert_eq!((events(&app, "session.ended").await, events(&app, "sessions.ended").await), (3, 1));
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[tokio::test]
async fn no_refresh_token_stands_in_the_database() {
    let app = quick().await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let second = refresh(&app, token(&first)).await.expect(200);
    let pg = app.pg().await;
    let row: String = pg.query_one("SELECT to_jsonb(s)::text FROM sessions s", &[]).await.unwrap().get(0);
    for token in [token(&first), token(&second)] {
        let bytes = base64_bytes(token.strip_prefix("lr_").unwrap());
        for half in bytes.chunks(32) {
            let hex = half.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            assert!(!row.contains(&hex) && !row.contains(token), "{row}");
        }
    }
}

/// Base64url without padding (RFC 4648, section 5).
fn base64_bytes(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for char in text.bytes() {
        let value = ALPHABET.iter().position(|other| *other == char).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

#[tokio::test]
async fn an_account_that_is_deleted_takes_its_sessions_along() {
    let app = quick().await;
    let first = sign_in(&app, "/auth/register").await.expect(201);
    let body = json!({ "password": PASSWORD });
    app.call(Method::DELETE, "/auth/me", Some(text(&first, "access_token")), Some(body)).await.expect(204);
    assert_eq!(refresh(&app, token(&first)).await.problem(401), "unauthenticated");
}
