//! The embedders: `MiniLm` against Python's reference, HTTP against a real server on this machine.

use std::{
    env,
    num::NonZero,
    path::{Path, PathBuf},
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
use serde::Deserialize;
use serde_json::{Value, json};
use shared::embed::{EmbedError, Embedder, HttpConfig, HttpEmbedder, MiniLm};
use tokio::{net::TcpListener, time::Instant};

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<Tokens>,
    sentences: Vec<String>,
    int8_first_components: Vec<Vec<f32>>,
    int8_cosines: Vec<Vec<f32>>,
    fp32_cosines: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Tokens {
    text: String,
    ids: Vec<i32>,
}

/// Written by `shared/local/model/reference.py`.
fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/embed/reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model_folder() -> PathBuf {
    if let Some(folder) = env::var_os("EMBEDDING_MODEL_DIR") {
        return folder.into();
    }
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LOCKSTEP_CACHE_DIR")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("lockstep")))
        .or_else(|| Some(variable("HOME")?.join(".cache/lockstep")))
        .expect("no HOME")
        .join("models/all-minilm-l6-v2-int8")
}

fn minilm() -> MiniLm {
    let folder = model_folder();
    assert!(
        folder.join("model.onnx").is_file(),
        "there is no model in {}: run shared/local/model/build, or set EMBEDDING_MODEL_DIR",
        folder.display()
    );
    MiniLm::new(folder)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(5)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn token_counts_equal_the_reference_on_awkward_strings() {
    let embedder = minilm();
    for Tokens { text, ids } in reference().tokens {
        // The reference's ids carry [CLS] and [SEP].
        assert_eq!(embedder.count_tokens(&text).unwrap(), ids.len() - 2, "{text:?}");
    }
}

#[tokio::test]
async fn minilm_vectors_equal_the_reference() {
    let reference = reference();
    let embedder = minilm();
    let vectors = embedder.embed_passages(reference.sentences.clone(), soon()).await.unwrap();
    assert_eq!(vectors.len(), reference.sentences.len());
    for (row, vector) in vectors.iter().enumerate() {
        assert_eq!(vector.len(), embedder.space().dimension);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
        // Most vectors agree to five digits. Where a sum's order (it depends on the CPU) tips one
        // activation over a rounding edge, the cosine is 0.995.
        for (found, expected) in vector.iter().zip(&reference.int8_first_components[row]) {
            assert!((found - expected).abs() < 0.03, "{row}: {found} instead of {expected}");
        }
        for (column, other) in vectors.iter().enumerate() {
            let found = cosine(vector, other);
            let int8 = reference.int8_cosines[row][column];
            let fp32 = reference.fp32_cosines[row][column];
            assert!((found - int8).abs() < 0.03, "{row}, {column}: {found}, int8 {int8}");
            assert!((found - fp32).abs() < 0.06, "{row}, {column}: {found}, fp32 {fp32}");
        }
    }
}

#[tokio::test]
async fn a_text_has_one_vector_whatever_is_embedded_beside_it() {
    let embedder = minilm().with_threads(NonZero::new(2).unwrap());
    let mut passages = reference().sentences;
    passages.extend((1..20).map(|n| "a much longer passage about rain ".repeat(n * n % 37 + 1)));
    let together = embedder.embed_passages(passages.clone(), soon()).await.unwrap();
    for (passage, vector) in passages.into_iter().zip(together) {
        let alone = embedder.embed_query(passage, soon()).await.unwrap();
        assert_eq!(alone, vector);
    }
}

#[tokio::test]
async fn what_lies_beyond_the_last_token_does_not_reach_the_vector() {
    let embedder = minilm();
    // The model was trained on 256 with [CLS] and [SEP].
    assert_eq!(embedder.tokens_max(), 254);
    let full = "rain ".repeat(embedder.tokens_max());
    assert_eq!(embedder.count_tokens(&full).unwrap(), embedder.tokens_max());
    let shorter = "rain ".repeat(embedder.tokens_max() - 1) + "snow";
    let longer = format!("{full} and then something else entirely");
    let vectors = embedder.embed_passages(vec![full, longer, shorter], soon()).await.unwrap();
    assert_eq!(vectors[0], vectors[1]);
    assert_ne!(vectors[0], vectors[2]);
}

#[tokio::test]
async fn a_vector_does_not_hold_on_to_the_memory_that_made_it() {
    let embedder = minilm();
    let vector = embedder.embed_query("rain ".repeat(embedder.tokens_max()), soon()).await.unwrap();
    assert_eq!(vector.capacity(), embedder.space().dimension);
}

#[tokio::test]
async fn a_deadline_that_has_passed_stops_minilm() {
    let outcome = minilm().embed_query("rain".to_owned(), Instant::now()).await;
    assert!(matches!(outcome, Err(EmbedError::Timeout)), "{outcome:?}");
}

#[tokio::test]
async fn a_missing_or_damaged_model_is_named() {
    let folder = env::temp_dir().join(format!("lockstep-embed-{}", std::process::id()));
    let embedder = MiniLm::new(&folder);
    let error = embedder.embed_query("rain".to_owned(), soon()).await.unwrap_err();
    let vocabulary = folder.join("vocab.txt");
    assert!(matches!(&error, EmbedError::Model { path, .. } if *path == vocabulary), "{error:?}");
    assert!(!error.retryable());

    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(&vocabulary, "[UNK]\n[CLS]\n[SEP]\n").unwrap();
    std::fs::write(folder.join("model.onnx"), "not a graph").unwrap();
    let error = embedder.embed_query("rain".to_owned(), soon()).await.unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    let model = folder.join("model.onnx");
    assert!(matches!(&error, EmbedError::Model { path, .. } if *path == model), "{error:?}");
}

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
