//! The HTTP embedder against a real server on this machine.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use shared::embed::{EmbedError, Embedder, HttpConfig, HttpEmbedder};
use tokio::{net::TcpListener, time::Instant};

use super::soon;

const KEY: &str = "sk-very-secret";

/// An endpoint that answers by `answer(request number from 1, headers, body)`.
async fn endpoint<F>(answer: F) -> (HttpConfig, Arc<AtomicUsize>)
where
    F: Fn(usize, &HeaderMap, &Value) -> Response + Clone + Send + Sync + 'static,
{
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let handler = move |headers: HeaderMap, Json(body): Json<Value>| async move {
        answer(counter.fetch_add(1, Ordering::SeqCst) + 1, &headers, &body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/embeddings", post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config =
        HttpConfig { api_key: Some(KEY.into()), ..HttpConfig::new(format!("http://{address}/v1/"), "tiny", 2) };
    (config, requests)
}

/// The vector (3n, 4n) for an input of n bytes, in reverse order.
fn vectors(body: &Value) -> Response {
    let inputs = body["input"].as_array().unwrap().iter().enumerate().rev();
    let data: Vec<Value> = inputs
        .map(|(index, text)| {
            let n = text.as_str().unwrap().len();
            let embedding = if n % 2 == 0 { [3 * n, 4 * n] } else { [4 * n, 3 * n] };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    Json(json!({ "object": "list", "data": data, "model": "tiny" })).into_response()
}

fn throttled(retry_after: &str) -> Response {
    let headers = [(RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap())];
    (StatusCode::TOO_MANY_REQUESTS, headers).into_response()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

async fn embed(config: HttpConfig, inputs: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
    HttpEmbedder::new(config).unwrap().embed_passages(texts(inputs), soon()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_are_cut_and_their_vectors_come_back_in_order() {
    let (config, requests) = endpoint(|_, headers, body| {
        assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(body["model"], "tiny");
        assert_eq!(body["encoding_format"], "base64");
        assert_eq!(body["dimensions"], 2);
        assert!(body["input"].as_array().unwrap().len() <= 2);
        // The first is answered last.
        if body["input"][0] == "a" {
            std::thread::sleep(Duration::from_millis(300));
        }
        vectors(body)
    })
    .await;
    let config = HttpConfig { inputs_max: NonZero::new(2).unwrap(), send_dimension: true, ..config };
    let found = embed(config, &["a", "bb", "cccc", "ddddd", "e"]).await.unwrap();
    let (odd, even) = (vec![0.8, 0.6], vec![0.6, 0.8]);
    assert_eq!(found, [odd.clone(), even.clone(), even, odd.clone(), odd]);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

/// (3, 4), in base64.
const THREE_FOUR: &str = "AABAQAAAgEA=";

fn one(embedding: impl Into<Value>) -> Response {
    Json(json!({ "data": [{ "index": 0, "embedding": embedding.into() }] })).into_response()
}

#[tokio::test]
async fn vectors_in_base64_are_read() {
    let (config, _) = endpoint(|_, _, _| one(THREE_FOUR)).await;
    assert_eq!(embed(config, &["a"]).await.unwrap(), [vec![0.6, 0.8]]);
}

#[tokio::test]
async fn an_endpoint_that_refuses_base64_is_asked_for_numbers_from_then_on() {
    let (config, requests) = endpoint(|_, _, body| match body["encoding_format"].as_str() {
        Some("float") => vectors(body),
        _ => (StatusCode::BAD_REQUEST, "'base64' is not one of ['float'] - 'encoding_format'").into_response(),
    })
    .await;
    let embedder = HttpEmbedder::new(HttpConfig { attempts_max: 1, ..config }).unwrap();
    for _ in 0..3 {
        assert_eq!(embedder.embed_query("bb".to_owned(), soon()).await.unwrap(), [0.6, 0.8]);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 4);

    let refusal = "encoding_format: neither base64 nor float";
    let (config, requests) = endpoint(move |_, _, _| (StatusCode::BAD_REQUEST, refusal).into_response()).await;
    let error = embed(config, &["a"]).await.unwrap_err();
    assert!(matches!(error, EmbedError::Rejected { status: 400, .. }), "{error:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nothing_to_embed_asks_nothing() {
    let (config, requests) = endpoint(|_, _, body| vectors(body)).await;
    assert!(embed(config, &[]).await.unwrap().is_empty());
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_throttled_request_waits_as_long_as_it_was_told() {
    let (config, requests) = endpoint(|number, _, body| match number {
        1 => throttled("1"),
        _ => vectors(body),
    })
    .await;
    let start = Instant::now();
    embed(config, &["a"]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_reported_at_once() {
    let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
    let (config, requests) = endpoint(move |_, _, _| throttled(&later)).await;
    let outcome = tokio::time::timeout(Duration::from_secs(10), embed(config, &["a"])).await;
    let error = outcome.expect("it waits").unwrap_err();
    let EmbedError::Throttled { retry_after: Some(wait) } = error else { panic!("{error:?}") };
    assert!((3_590..=3_600).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_error_is_tried_again_and_a_lasting_one_is_reported() {
    let failure = || (StatusCode::INTERNAL_SERVER_ERROR, "out of luck").into_response();
    let (config, requests) = endpoint(move |number, _, body| match number {
        1 => failure(),
        _ => vectors(body),
    })
    .await;
    embed(config, &["a"]).await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    let (config, requests) = endpoint(move |_, _, _| failure()).await;
    let error = embed(HttpConfig { attempts_max: 3, ..config }, &["a"]).await.unwrap_err();
    let EmbedError::Unavailable { source } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("out of luck"), "{source}");
    assert!(error.retryable());
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = HttpConfig::new(format!("http://{address}"), "tiny", 2);
    let error = embed(HttpConfig { attempts_max: 2, ..config }, &["a"]).await.unwrap_err();
    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn the_deadline_bounds_a_request_that_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = HttpConfig::new(format!("http://{address}"), "tiny", 2);
    let embedder = HttpEmbedder::new(config).unwrap();
    let start = Instant::now();
    let deadline = start + Duration::from_millis(300);
    let error = embedder.embed_query("a".to_owned(), deadline).await.unwrap_err();
    assert!(matches!(error, EmbedError::Timeout), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_attempt_that_hangs_is_given_up_and_tried_again() {
    let (config, requests) = endpoint(|number, _, body| {
        if number == 1 {
            std::thread::sleep(Duration::from_millis(1_500));
        }
        vectors(body)
    })
    .await;
    let config = HttpConfig { request_timeout: Duration::from_millis(500), ..config };
    embed(HttpConfig { attempts_max: 10, ..config }, &["a"]).await.unwrap();
    assert!(requests.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn an_unusable_answer_is_refused_and_not_asked_for_again() {
    let item = |index: usize, embedding: Value| json!({ "index": index, "embedding": embedding });
    let cases = [
        (json!([item(0, json!([1, 2])), item(1, json!([1, 2, 3]))]), "3 components instead of 2"),
        (json!([item(0, json!([1, 2]))]), "1 vectors for 2 inputs"),
        (json!([item(0, json!([1, 2])), item(0, json!([1, 2]))]), "no vector for input 1"),
        (json!([item(0, json!([0, 0])), item(1, json!([1, 2]))]), "vector 0 has no direction"),
        (json!([item(0, json!("AABAQAAAgEA=")), item(1, json!("AABA"))]), "four bytes for each number"),
        (json!([item(0, json!("AABAQAAAgEA=")), item(1, json!("no base64"))]), "Invalid symbol"),
        (json!([item(0, json!("AABAQA==")), item(1, json!("AABAQA=="))]), "1 components instead of 2"),
        (json!("nonsense"), "invalid type"),
    ];
    for (data, expected) in cases {
        let (config, requests) = endpoint(move |_, _, _| Json(json!({ "data": data })).into_response()).await;
        let error = embed(config, &["a", "b"]).await.unwrap_err();
        let EmbedError::BadAnswer(reason) = &error else { panic!("{error:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert!(!error.retryable());
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn the_key_is_in_no_error_and_in_no_debug_output() {
    let (config, requests) = endpoint(|_, headers, _| {
        let body = format!("no such key: {}", headers["authorization"].to_str().unwrap());
        (StatusCode::UNAUTHORIZED, body).into_response()
    })
    .await;
    let embedder = HttpEmbedder::new(config).unwrap();
    let error = embedder.embed_query("a".to_owned(), soon()).await.unwrap_err();
    assert!(matches!(error, EmbedError::Rejected { status: 401, .. }), "{error:?}");
    assert!(error.to_string().ends_with("no such key: Bearer [key]"), "{error}");
    assert!(!format!("{error:?} {embedder:?}").contains(KEY));
    assert_eq!(requests.load(Ordering::SeqCst), 1);

    for base_url in ["https://me:pass@example.org", "https://me@example.org", "no url"] {
        let error = HttpEmbedder::new(HttpConfig::new(base_url, "tiny", 2)).unwrap_err();
        assert!(matches!(error, EmbedError::Config { .. }), "{error:?}");
    }
}

#[test]
fn token_estimates_err_on_the_high_side() {
    let embedder = HttpEmbedder::new(HttpConfig::new("http://localhost", "tiny", 2)).unwrap();
    assert_eq!(embedder.count_tokens("").unwrap(), 0);
    assert_eq!(embedder.count_tokens("abcde").unwrap(), 2);
    assert_eq!(embedder.count_tokens("日本語").unwrap(), 3);
}
