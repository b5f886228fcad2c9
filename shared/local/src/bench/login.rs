//! Whether the time of a login tells that there is an account.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::ConnectInfo;
use http::{Request, header};
use serde_json::json;
use shared::config::Quota;

use super::{Bar, Figure, median, ms, say};
use crate::testkit::{HashEmbedder, TestApp};

/// Tries of each kind.
const TRIES: u32 = 200;

pub(super) async fn measure() -> Figure {
    say("logins are being tried");
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        let accounts = &mut parts.config.accounts;
        let endless = Quota { requests: 1_000_000, window: Duration::from_secs(1) };
        (accounts.address_quota, accounts.account_quota) = (endless, endless);
    })
    .await;
    post(&app, 0, "/auth/register", "ann@example.com").await;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 1..=TRIES {
        for first in [n % 2 == 0, n % 2 == 1] {
            let begun = Instant::now();
            let email = if first { "ann@example.com" } else { "bob@example.com" };
            post(&app, 2 * n + u32::from(first), "/auth/login", email).await;
            if first { &mut known } else { &mut unknown }.push(ms(begun.elapsed()));
        }
    }
    Figure {
        what: "login to an account, against one to none",
        unit: "ms",
        ours: median(&mut known),
        floor: median(&mut unknown),
        bar: Bar::AtMost(1.05),
    }
}

/// Each try comes from elsewhere, so that none must wait.
async fn post(app: &TestApp, from: u32, path: &str, email: &str) {
    let [_, a, b, c] = from.to_be_bytes();
    // As long as the right one, and wrong at a login.
    let password = if path.ends_with("register") { "a quiet harbour at dawn" } else { "a quiet harbour at dusk" };
    let body = json!({ "email": email, "password": password }).to_string().into_bytes();
    let request = Request::post(path)
        .extension(ConnectInfo(SocketAddr::from(([10, a, b, c], 1))))
        .header(header::CONTENT_TYPE, "application/json");
    app.send(request.body(body).expect("a request")).await;
}
