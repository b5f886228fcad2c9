//! What an attacker measures and what an operator reads: work, memory, and logs of the function `auth`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::ConnectInfo;
use http::{Request, header};
use local::testkit::{HashEmbedder, Parts, PostgresProxy, TestApp};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::config::{Quota, Registration};

use crate::process::Process;

const PASSWORD: &str = "a quiet harbour at dawn";

fn limitless(parts: &mut Parts, registration: Registration) {
    parts.embedder = Arc::new(HashEmbedder::default());
    let accounts = &mut parts.config.accounts;
    accounts.registration = registration;
    let endless = Quota { requests: 1_000_000, window: Duration::from_secs(1) };
    (accounts.address_quota, accounts.account_quota, accounts.mail_quota) = (endless, endless, endless);
}

async fn unlimited(registration: Registration) -> TestApp {
    TestApp::with(|parts| limitless(parts, registration)).await
}

async fn post(app: &TestApp, from: u32, path: &str, body: &Value) -> u16 {
    // Each try comes from elsewhere, so that none must wait.
    let [_, a, b, c] = from.to_be_bytes();
    let request = Request::post(path)
        .extension(ConnectInfo(SocketAddr::from(([10, a, b, c], 1))))
        .header(header::CONTENT_TYPE, "application/json");
    app.send(request.body(body.to_string().into_bytes()).unwrap()).await.status.as_u16()
}

/// What an answer takes, apart from the machine's speed: round trips to PostgreSQL, and passwords hashed.
#[derive(Debug, PartialEq)]
struct Work {
    round_trips: usize,
    hashes: usize,
}

/// Counts the work of what this thread asks of `app`, whose database is behind `postgres`. How long it takes is for
/// `make bench`: here other tests run beside it.
struct Counter {
    postgres: PostgresProxy,
    metrics: PrometheusRecorder,
}

impl Counter {
    async fn work(&self, status: u16, answer: impl Future<Output = u16>) -> Work {
        let before = self.so_far();
        assert_eq!(answer.await, status);
        let after = self.so_far();
        Work { round_trips: after.round_trips - before.round_trips, hashes: after.hashes - before.hashes }
    }

    fn so_far(&self) -> Work {
        let shown = self.metrics.handle().render();
        let hashes = shown.lines().find_map(|line| line.strip_prefix("stage_duration_ms_count{stage=\"hash\"} "));
        Work { round_trips: self.postgres.requests(), hashes: hashes.map_or(0, |count| count.parse().unwrap()) }
    }
}

/// An app in which `ann@example.com` has an account, and what counts its work.
async fn counted(registration: Registration) -> (TestApp, Counter) {
    let direct = unlimited(registration).await;
    let postgres = PostgresProxy::before(direct.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        limitless(parts, registration);
        parts.config.database.url = postgres.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    (app, Counter { postgres, metrics: PrometheusBuilder::new().build_recorder() })
}

#[tokio::test]
async fn a_login_takes_the_same_work_whether_or_not_there_is_an_account() {
    let (app, counter) = counted(Registration::Open).await;
    let _counted = metrics::set_default_local_recorder(&counter.metrics);
    let body = |email: &str| json!({ "email": email, "password": PASSWORD });
    assert_eq!(post(&app, 0, "/auth/register", &body("ann@example.com")).await, 201);
    let wrong = |email: &str| json!({ "email": email, "password": "another harbour" });
    for at in 1..=5 {
        let known = counter.work(401, post(&app, 2 * at, "/auth/login", &wrong("ann@example.com"))).await;
        let unknown = counter.work(401, post(&app, 2 * at + 1, "/auth/login", &wrong("bob@example.com"))).await;
        assert_eq!(known.hashes, 1);
        assert_eq!(known, unknown);
    }
}

#[tokio::test]
async fn a_registration_hashes_its_password_whether_or_not_there_is_an_account() {
    let (app, counter) = counted(Registration::Verified).await;
    let _counted = metrics::set_default_local_recorder(&counter.metrics);
    let body = |email: &str| json!({ "email": email, "password": PASSWORD });
    assert_eq!(post(&app, 0, "/auth/register", &body("ann@example.com")).await, 202);
    let code = json!({ "code": app.mailed_code() });
    assert_eq!(post(&app, 0, "/auth/verify", &code).await, 204);
    for at in 1..=5 {
        let known = counter.work(202, post(&app, 2 * at, "/auth/register", &body("ann@example.com"))).await;
        let new = body(&format!("new{at}@example.com"));
        let unknown = counter.work(202, post(&app, 2 * at + 1, "/auth/register", &new)).await;
        // A new account takes three round trips more, a tenth of the hash.
        assert_eq!((known.hashes, unknown.hashes), (1, 1));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn fifty_logins_at_once_fit_into_512_mib_however_often() {
    let app = unlimited(Registration::Open).await;
    let process = Process::start(&app, "auth", &[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")]).await;
    for round in 0..4 {
        let logins = (0..50).map(|at| {
            let body = json!({ "email": format!("user{at}-{round}@example.com"), "password": PASSWORD });
            let process = &process;
            async move { process.send(Method::POST, "/auth/login", None, &[], &body).await.0 }
        });
        for status in futures::future::join_all(logins).await {
            assert_eq!(status, 401, "all of them are looked at");
        }
    }
    let peak_mib = process.peak_mib();
    println!("peak: {peak_mib} MiB");
    assert!(peak_mib < 200, "{peak_mib} MiB of 512");
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one life of an account, route by route")]
async fn nothing_secret_stands_in_logs_or_problems() {
    const FIRST: &str = "MARKED-first-harbour-password";
    const SECOND: &str = "MARKED-second-harbour-password";
    const WRONG: &str = "MARKED-wrong-harbour-password";
    let app = unlimited(Registration::Open).await;
    let mut function = Process::start(&app, "auth", &[("RUST_LOG", "trace")]).await;
    let log = function.log();
    let mut secrets: Vec<String> = [FIRST, SECOND, WRONG].map(ToOwned::to_owned).to_vec();
    let mut problems: Vec<(String, String)> = Vec::new();
    let mut send = async |method: Method, path: &str, token: Option<&str>, body: Value, status: u16| {
        let (answered, text) = function.send(method, path, token, &[], &body).await;
        assert_eq!(answered, status, "{path}: {text}");
        if answered >= 400 {
            problems.push((path.to_owned(), text.clone()));
        }
        serde_json::from_str::<Value>(&text).unwrap_or_default()
    };
    let post = Method::POST;
    let email = "ann@example.com";

    // Right, once for each route; then wrong in every way that comes to mind, with something secret in each.
    let new = json!({ "email": email, "password": FIRST });
    let signed_in = send(post.clone(), "/auth/register", None, new.clone(), 201).await;
    let code = app.mailed_code();
    let token = |answer: &Value, field: &str| answer[field].as_str().unwrap().to_owned();
    let access = token(&signed_in, "access_token");
    let mut refresh = token(&signed_in, "refresh_token");
    secrets.extend([code.clone(), access.clone(), refresh.clone()]);
    send(post.clone(), "/auth/register", None, new.clone(), 409).await;
    send(post.clone(), "/auth/register", None, json!({ "email": "b@example.com", "password": [FIRST] }), 400).await;
    send(post.clone(), "/auth/register", None, json!({ "email": "b@example.com", "password": { FIRST: 1 } }), 400)
        .await;
    let oversized = FIRST.repeat(40_000);
    send(post.clone(), "/auth/register", None, json!({ "email": "b@example.com", "password": oversized }), 400).await;
    send(post.clone(), "/auth/login", None, json!({ "email": email, "password": WRONG }), 401).await;
    send(post.clone(), "/auth/login", None, json!({ "email": email, "password": format!("{WRONG}\0") }), 401).await;
    let again = send(post.clone(), "/auth/login", None, new, 200).await;
    secrets.extend([token(&again, "access_token"), token(&again, "refresh_token")]);
    send(post.clone(), "/auth/verify", None, json!({ "code": [code] }), 400).await;
    send(post.clone(), "/auth/verify", None, json!({ "code": format!("{code}MARKED") }), 400).await;
    send(post.clone(), "/auth/verify", None, json!({ "code": code }), 204).await;
    send(post.clone(), "/auth/verify", None, json!({ "code": code }), 400).await;
    send(post.clone(), "/auth/verify/resend", None, json!({ "email": email }), 202).await;
    let answer = send(post.clone(), "/auth/refresh", None, json!({ "refresh_token": refresh }), 200).await;
    send(post.clone(), "/auth/refresh", None, json!({ "refresh_token": [refresh] }), 400).await;
    send(post.clone(), "/auth/refresh", None, json!({ "refresh_token": format!("{refresh}x") }), 401).await;
    refresh = token(&answer, "refresh_token");
    secrets.extend([token(&answer, "access_token"), refresh.clone()]);
    send(Method::GET, "/auth/me", Some(&access), json!({}), 200).await;
    send(Method::GET, "/auth/me", Some(&format!("{access}x")), json!({}), 401).await;
    send(Method::GET, "/auth/sessions", Some(&access), json!({}), 200).await;
    send(Method::DELETE, &format!("/auth/sessions/{}", uuid::Uuid::nil()), Some(&access), json!({}), 404).await;
    let moved = json!({ "email": "eve@example.com", "password": WRONG });
    send(Method::PATCH, "/auth/me", Some(&access), moved, 401).await;
    let moved = json!({ "email": "eve@example.com", "password": FIRST, "display_name": "Ann" });
    send(Method::PATCH, "/auth/me", Some(&access), moved, 200).await;
    let change = json!({ "current_password": FIRST, "password": SECOND });
    send(
        post.clone(),
        "/auth/me/password",
        Some(&access),
        json!({ "current_password": WRONG, "password": SECOND }),
        401,
    )
    .await;
    send(post.clone(), "/auth/me/password", Some(&access), json!({ "current_password": FIRST, "password": 1 }), 400)
        .await;
    send(post.clone(), "/auth/me/password", Some(&access), change, 204).await;
    send(post.clone(), "/auth/password-reset", None, json!({ "email": email }), 202).await;
    let code = app.mailed_code();
    secrets.push(code.clone());
    send(post.clone(), "/auth/password-reset/confirm", None, json!({ "code": code, "password": "password" }), 400)
        .await;
    send(post.clone(), "/auth/password-reset/confirm", None, json!({ "code": code, "password": FIRST }), 204).await;
    send(post.clone(), "/auth/password-reset/confirm", None, json!({ "code": code, "password": FIRST }), 400).await;
    let key = json!({ "name": "k", "scopes": ["read"] });
    let key = send(post.clone(), "/auth/api-keys", Some(&access), key, 201).await;
    let key = key
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_str)
        .find(|text| text.starts_with("lk_") && text.len() > 40);
    let key = key.unwrap().to_owned();
    send(Method::GET, "/auth/me", Some(&key), json!({}), 200).await;
    send(Method::GET, "/auth/me", Some(&format!("{key}0")), json!({}), 401).await;
    secrets.push(key);
    send(post.clone(), "/auth/logout", None, json!({ "refresh_token": refresh }), 204).await;
    send(post.clone(), "/auth/logout-all", Some(&access), json!({}), 204).await;
    send(Method::DELETE, "/auth/me", Some(&access), json!({ "password": WRONG }), 401).await;
    send(Method::DELETE, "/auth/me", Some(&access), json!({ "password": FIRST }), 204).await;

    drop(function);
    let log = log.await.unwrap();
    let signing_key = app.app.config.tokens.signing_key.as_ref().unwrap().expose_secret().to_owned();
    secrets.extend(signing_key.lines().filter(|line| line.len() > 40).map(ToOwned::to_owned));
    secrets.extend(["MARKED", "argon2id"].map(ToOwned::to_owned));
    assert!(log.contains("/auth/password-reset/confirm"), "the log was captured: {log:.500}");
    for secret in &secrets {
        assert!(!log.contains(secret), "the log holds {secret:.60}");
        for (path, problem) in &problems {
            assert!(!problem.contains(secret), "{path} answers {problem}");
        }
    }
}
