//! Forged tokens and look-alikes, through the routes. The signer's own tests try more of them without the routes.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::domain::UserId;

async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

/// One route of each function.
const ROUTES: [(Method, &str); 3] = [(Method::GET, "/auth/me"), (Method::GET, "/documents"), (Method::POST, "/query")];

/// Our own key, in an attacker's hands: everything but what is forged is right.
struct Forge {
    key: KeyPair,
    header: Value,
    claims: Value,
}

impl Forge {
    fn new(app: &TestApp, user: &TestUser) -> Self {
        let pem = app.app.config.tokens.signing_key.as_ref().unwrap().expose_secret();
        let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
        let part = |at: usize| -> Value {
            let part = user.token.split('.').nth(at).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        Self { key: KeyPair::from_pkcs8(&der).unwrap(), header: part(0), claims: part(1) }
    }

    fn message(header: &Value, claims: &Value) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = Self::message(header, claims);
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn with_header(&self, field: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[field] = value;
        self.sign(&header, &self.claims)
    }

    fn with_claim(&self, field: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[field] = value;
        self.sign(&self.header, &claims)
    }
}

async fn refused(app: &TestApp, what: &str, token: &str) {
    for (method, path) in ROUTES {
        let reply = app.call(method, path, Some(token), None).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{what} at {path}");
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("kid"), "no reason for an attacker");
    }
}

#[tokio::test]
async fn no_forged_token_passes_any_function() {
    let app = app().await;
    let ann = app.register("ann").await;
    let forge = Forge::new(&app, &ann);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let honest = forge.sign(&forge.header, &forge.claims);
    app.call(Method::GET, "/auth/me", Some(&honest), None).await.expect(200);

    let mut none = forge.header.clone();
    none["alg"] = json!("none");
    refused(&app, "alg none", &format!("{}.", Forge::message(&none, &forge.claims))).await;
    let mut symmetric = forge.header.clone();
    symmetric["alg"] = json!("HS256");
    let message = Forge::message(&symmetric, &forge.claims);
    for secret in [forge.key.public_key().as_ref(), app.app.config.tokens.jwks.as_bytes()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        refused(&app, "HS256 with the public key", &format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))).await;
    }
    for kid in ["", "../../../dev/null", "/dev/null", "' OR '1'='1", "x'; DROP TABLE users; --", "a\0b"] {
        refused(&app, kid, &forge.with_header("kid", json!(kid))).await;
    }
    for (claim, value) in [
        ("exp", json!(now_s - 60)),
        ("nbf", json!(now_s + 60)),
        ("iss", json!("https://attacker.example")),
        ("aud", json!("another")),
        ("sub", json!("root")),
    ] {
        refused(&app, claim, &forge.with_claim(claim, value)).await;
    }
    refused(&app, "typ", &forge.with_header("typ", json!("JWT"))).await;
    refused(&app, "cut", honest.get(..honest.len() - 1).unwrap()).await;
    refused(&app, "oversized", &forge.with_claim("pad", json!("x".repeat(100_000)))).await;

    // Another key, which the header brings along or points to.
    let theirs = auth::signer::generate().unwrap();
    let pem = theirs.private_pem.expose_secret();
    let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let attacker = Forge { key: KeyPair::from_pkcs8(&der).unwrap(), ..Forge::new(&app, &ann) };
    let set: Value = serde_json::from_str(&theirs.jwks).unwrap();
    for (field, value) in [
        ("jwk", set["keys"][0].clone()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("kid", set["keys"][0]["kid"].clone()),
    ] {
        refused(&app, field, &attacker.with_header(field, value)).await;
    }
}

#[tokio::test]
async fn a_token_of_a_deleted_account_reaches_nothing() {
    let app = app().await;
    let gone = app.token(UserId::draw());
    let call = async |method: Method, path: &str, body: Option<Value>| app.call(method, path, Some(&gone), body).await;
    call(Method::GET, "/auth/me", None).await.expect(401);
    call(Method::POST, "/auth/api-keys", Some(json!({ "name": "a", "scopes": ["read"] }))).await.expect(401);
    call(Method::POST, "/knowledge-bases", Some(json!({ "name": "a" }))).await.expect(401);
    call(Method::POST, "/documents", Some(json!({ "text": "a" }))).await.expect(404);
    let list = call(Method::GET, "/documents", None).await.expect(200);
    assert_eq!(list.json["items"], json!([]));
    let answer = call(Method::POST, "/query", Some(json!({ "query": "a" }))).await.expect(200);
    assert_eq!(answer.json["hits"], json!([]));
}

#[tokio::test]
async fn addresses_that_look_alike_are_refused_or_the_same_and_nul_bytes_go_nowhere() {
    let app = app().await;
    let ann = app.register("ann").await;
    let made =
        app.call(Method::POST, "/knowledge-bases", Some(&ann.token), Some(json!({ "name": "a" }))).await.expect(201);
    let path = format!("/knowledge-bases/{}/members", made.json["id"].as_str().unwrap());
    let invite = async |email: &str| {
        app.call(Method::POST, &path, Some(&ann.token), Some(json!({ "email": email, "role": "viewer" }))).await
    };
    for alike in ["bob@example.com", "BOB@EXAMPLE.COM", "ｂob@example.com", " bob@example.com "] {
        invite(alike).await.expect(202);
    }
    let list = app.call(Method::GET, &path, Some(&ann.token), None).await.expect(200);
    assert_eq!(list.json["invitations"].as_array().unwrap().len(), 1, "one address, however it is spelt");
    // Cyrillic letters, an invisible one, and a byte that ends strings elsewhere.
    for false_friend in ["bоb@example.com", "bob@exаmple.com", "bob\u{200b}@example.com", "bob\0@example.com"] {
        assert_eq!(invite(false_friend).await.problem(400), "invalid_field", "{false_friend:?}");
    }
    for (method, path, body) in [
        (Method::POST, "/knowledge-bases", json!({ "name": "a\0" })),
        (Method::POST, "/auth/api-keys", json!({ "name": "a\0", "scopes": ["read"] })),
    ] {
        assert_eq!(app.call(method, path, Some(&ann.token), Some(body)).await.problem(400), "invalid_field");
    }
    assert_eq!(app.call(Method::GET, "/documents/%00", Some(&ann.token), None).await.problem(404), "not_found");
}
