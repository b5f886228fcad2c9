//! What slows down guessing: quotas for clients, back-off for accounts, and that neither locks an owner out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::ConnectInfo;
use http::{Request, header};
use local::testkit::{HashEmbedder, Reply, TestApp};
use serde_json::{Value, json};
use shared::config::{Quota, Registration};

const PASSWORD: &str = "a quiet harbour at dawn";
const WRONG: &str = "another harbour";

/// Addresses for documentation (RFC 5737, RFC 3849).
const HOME: &str = "192.0.2.1:1";
const AWAY: &str = "198.51.100.1:1";

async fn with(address: u32, account: u32) -> TestApp {
    TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.accounts.address_quota = Quota { requests: address, window: Duration::from_hours(1) };
        parts.config.accounts.account_quota = Quota { requests: account, window: Duration::from_hours(1) };
    })
    .await
}

async fn post(app: &TestApp, from: &str, path: &str, body: Value) -> Reply {
    let address: SocketAddr = from.parse().unwrap();
    let request = Request::post(path)
        .extension(ConnectInfo(address))
        .header(header::CONTENT_TYPE, "application/json")
        // Anyone can say so.
        .header("x-forwarded-for", format!("203.0.113.{}", body.to_string().len() % 250));
    app.send(request.body(body.to_string().into_bytes()).unwrap()).await
}

async fn register(app: &TestApp, from: &str, email: &str) -> Reply {
    post(app, from, "/auth/register", json!({ "email": email, "password": PASSWORD })).await
}

async fn log_in(app: &TestApp, from: &str, email: &str, password: &str) -> Reply {
    post(app, from, "/auth/login", json!({ "email": email, "password": password })).await
}

/// As if all attempts had been made so many seconds earlier.
async fn age(app: &TestApp, seconds: f64) {
    let statement = "UPDATE login_attempts SET open_at = open_at - make_interval(secs => $1),
        last_at = last_at - make_interval(secs => $1)";
    app.pg().await.execute(statement, &[&seconds]).await.unwrap();
}

fn retry_after(reply: &Reply) -> u64 {
    reply.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn a_client_has_a_quota_that_its_answers_tell() {
    let app = with(3, 1_000).await;
    for left in [2, 1, 0] {
        let reply = log_in(&app, HOME, "ann@example.com", WRONG).await;
        assert_eq!(reply.problem(401), "invalid_credentials");
        assert_eq!(reply.header("ratelimit-policy"), r#""address";q=3;w=3600"#);
        let state = reply.header("ratelimit");
        assert!(state.starts_with(&format!(r#""address";r={left};t="#)), "{state}");
    }
    let refused = log_in(&app, HOME, "bob@example.com", WRONG).await;
    assert_eq!(refused.problem(429), "rate_limited");
    assert!((1_100..=1_200).contains(&retry_after(&refused)), "{}", retry_after(&refused));
    assert!(refused.header("ratelimit").starts_with(r#""address";r=0;t="#));
    assert_eq!(register(&app, HOME, "bob@example.com").await.problem(429), "rate_limited", "one quota for all of them");
    assert_eq!(log_in(&app, AWAY, "ann@example.com", WRONG).await.problem(401), "invalid_credentials");
    app.pg().await.execute("UPDATE rate_limits SET full_at = full_at - interval '20 min'", &[]).await.unwrap();
    assert_eq!(
        log_in(&app, HOME, "ann@example.com", WRONG).await.problem(401),
        "invalid_credentials",
        "it fills again"
    );
    assert_eq!(log_in(&app, HOME, "ann@example.com", WRONG).await.problem(429), "rate_limited");
}

#[tokio::test]
async fn requests_at_once_get_no_more_than_the_quota() {
    let app = with(5, 1_000).await;
    let tries = (0..20).map(|at| {
        let email = format!("user{at}@example.com");
        let app = &app;
        async move { log_in(app, HOME, &email, WRONG).await.status.as_u16() }
    });
    let statuses = futures::future::join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 15, "{statuses:?}");
}

#[tokio::test]
async fn an_ipv6_client_can_not_take_another_address_of_its_own() {
    let app = with(2, 1_000).await;
    for host in ["[2001:db8::1]:1", "[2001:db8::ffff:2]:1"] {
        assert_eq!(log_in(&app, host, "ann@example.com", WRONG).await.problem(401), "invalid_credentials");
    }
    assert_eq!(log_in(&app, "[2001:db8::3]:1", "ann@example.com", WRONG).await.problem(429), "rate_limited");
    assert_eq!(log_in(&app, "[2001:db8:0:1::3]:1", "ann@example.com", WRONG).await.problem(401), "invalid_credentials");
}

#[tokio::test]
async fn failures_from_one_place_slow_down_that_place_alone() {
    let app = with(1_000, 1_000).await;
    register(&app, HOME, "ann@example.com").await.expect(201);
    for email in ["ann@example.com", "nobody@example.com"] {
        for _ in 0..10 {
            assert_eq!(log_in(&app, AWAY, email, WRONG).await.problem(401), "invalid_credentials");
        }
        // From the eleventh on each opens the next one later: 1 s, 2 s, 4 s ... 15 min.
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(log_in(&app, AWAY, email, WRONG).await.problem(401), "invalid_credentials");
            let refused = log_in(&app, AWAY, email, PASSWORD).await;
            assert_eq!(refused.problem(429), "rate_limited", "the right password is not looked at either");
            waits.push(retry_after(&refused));
            age(&app, 901.0).await;
        }
        assert_eq!(waits.first(), Some(&1), "{waits:?}");
        assert!(waits.is_sorted() && waits.last().is_some_and(|last| (880..=900).contains(last)), "{waits:?}");
    }
    log_in(&app, HOME, "ann@example.com", PASSWORD).await.expect(200);
    // A success begins anew.
    age(&app, 901.0).await;
    log_in(&app, AWAY, "ann@example.com", PASSWORD).await.expect(200);
    for _ in 0..10 {
        assert_eq!(log_in(&app, AWAY, "ann@example.com", WRONG).await.problem(401), "invalid_credentials");
    }
}

#[tokio::test]
async fn guesses_from_everywhere_do_not_lock_the_owner_out() {
    let app = with(1_000, 5).await;
    register(&app, HOME, "ann@example.com").await.expect(201);
    let mut refused = 0;
    for host in 1..=30 {
        let reply = log_in(&app, &format!("203.0.113.{host}:1"), "ann@example.com", WRONG).await;
        refused += u32::from(reply.status.as_u16() == 429);
    }
    assert_eq!(refused, 25, "they share the account's quota");
    // Where the owner was before, nobody else counts.
    log_in(&app, HOME, "ann@example.com", PASSWORD).await.expect(200);
    // At a new place the quota is used up, but the mailbox opens the door.
    assert_eq!(log_in(&app, AWAY, "ann@example.com", PASSWORD).await.problem(429), "rate_limited");
    post(&app, AWAY, "/auth/password-reset", json!({ "email": "ann@example.com" })).await.expect(202);
    let body = json!({ "code": app.mailed_code(), "password": "three flowerpots in a row" });
    post(&app, AWAY, "/auth/password-reset/confirm", body).await.expect(204);
    log_in(&app, AWAY, "ann@example.com", "three flowerpots in a row").await.expect(200);
}

#[tokio::test]
async fn a_mailbox_is_not_flooded_and_the_refusal_tells_nothing() {
    let app = with(1_000, 1_000).await;
    register(&app, HOME, "ann@example.com").await.expect(201);
    let before = app.mails().len();
    let mut statuses = Vec::new();
    for email in ["ann@example.com", "bob@example.com"] {
        for _ in 0..7 {
            let reply = post(&app, HOME, "/auth/password-reset", json!({ "email": email })).await;
            statuses.push(reply.status.as_u16());
        }
    }
    assert_eq!(statuses[..7], statuses[7..]);
    assert_eq!(statuses[..7], [202, 202, 202, 202, 202, 429, 429]);
    assert_eq!(app.mails().len() - before, 10);
}

#[tokio::test]
async fn a_stolen_token_is_no_way_to_guess_the_password() {
    let app = with(1_000, 1_000).await;
    let ann = register(&app, HOME, "ann@example.com").await.expect(201);
    let token = ann.json["access_token"].as_str().unwrap().to_owned();
    let guess = async || {
        let body = json!({ "current_password": WRONG, "password": "three flowerpots in a row" });
        app.call(http::Method::POST, "/auth/me/password", Some(&token), Some(body)).await.status.as_u16()
    };
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(guess().await);
    }
    assert_eq!(statuses[..11], [401; 11]);
    assert_eq!(statuses[11], 429);
}

#[tokio::test]
async fn what_says_nothing_any_more_is_swept() {
    let app = with(1_000, 1_000).await;
    let pg = app.pg().await;
    pg.batch_execute(
        "INSERT INTO rate_limits SELECT 'old ' || n, now() - interval '1 s' FROM generate_series(1, 10) n;
         INSERT INTO login_attempts (account, address, last_at)
         SELECT sha256(n::text::bytea), 'x', now() - interval '91 days' FROM generate_series(1, 10) n",
    )
    .await
    .unwrap();
    for _ in 0..6 {
        log_in(&app, HOME, "ann@example.com", WRONG).await;
    }
    let count = async |table: &str| -> i64 {
        pg.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    };
    assert_eq!((count("rate_limits").await, count("login_attempts").await), (2, 1));
}

#[tokio::test]
async fn verified_registration_is_limited_as_well() {
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.accounts.registration = Registration::Verified;
        parts.config.accounts.mail_quota = Quota { requests: 2, window: Duration::from_hours(1) };
    })
    .await;
    let statuses = [
        register(&app, HOME, "ann@example.com").await.status.as_u16(),
        register(&app, HOME, "ann@example.com").await.status.as_u16(),
        register(&app, HOME, "ann@example.com").await.status.as_u16(),
        register(&app, HOME, "bob@example.com").await.status.as_u16(),
    ];
    assert_eq!(statuses, [202, 202, 429, 202]);
}
