//! Traces as a collector sees them, and logs as an operator reads them, of functions in processes of their own.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::Method;
use local::testkit::TestApp;
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use crate::process::Process;

const TRACE: &str = "58406520a006649127e371903a2de979";
const PARENT: &str = "4c721bf33e3caf8f";
const XRAY: &str = "Root=1-58406520-a006649127e371903a2de979;Parent=4c721bf33e3caf8f;Sampled=1";

const TEXT: &str = "The MARKED spare key lies under the third flowerpot.";
const QUESTION: &str = "Where is the spare MARKED key?";

/// A collector, and what it is sent.
async fn collector() -> (String, mpsc::UnboundedReceiver<Vec<Span>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let take = async |State(sender): State<mpsc::UnboundedSender<Vec<Span>>>, body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        sender.send(scopes.flat_map(|scope| scope.spans).collect()).unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, receiver)
}

/// An id as it stands in a header.
fn id(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |id, byte| id << 8 | u128::from(*byte))
}

/// The ids of the trace and of the span above.
fn above(span: &Span) -> (u128, u128) {
    (id(&span.trace_id), id(&span.parent_span_id))
}

fn from_headers() -> (u128, u128) {
    let number = |text| u128::from_str_radix(text, 16).unwrap();
    (number(TRACE), number(PARENT))
}

/// The spans of one request: each is exported before the answer leaves.
fn next(spans: &mut mpsc::UnboundedReceiver<Vec<Span>>) -> BTreeMap<String, Span> {
    let spans = spans.try_recv().expect("they were sent before the answer");
    spans.into_iter().map(|span| (span.name.clone(), span)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_joins_the_trace_it_came_with_and_tells_nothing_secret() {
    let app = TestApp::start().await;
    let user = app.register("ann").await;
    let (url, mut spans) = collector().await;
    let traced: &[(&str, &str)] = &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("RUST_LOG", "warn")];
    let note = json!({ "text": TEXT, "source_uri": "note" });

    let ingest = Process::start(&app, "ingest", traced).await;
    let reply = ingest.send(Method::POST, "/documents", Some(&user.token), &[("x-amzn-trace-id", XRAY)], &note).await;
    assert_eq!(reply.0, 201, "{}", reply.1);
    let sent = next(&mut spans);
    let request = &sent["POST /documents"];
    assert_eq!(above(request), from_headers());
    for stage in ["claim", "extract", "stage", "embed", "verify", "activate", "clean"] {
        let span = sent.get(stage).unwrap_or_else(|| panic!("no {stage} in {:?}", sent.keys()));
        assert_eq!((&span.trace_id, &span.parent_span_id), (&request.trace_id, &request.span_id), "{stage}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let shown = format!("{sent:?}");
    assert!(
        shown.contains("http.response.status_code") && shown.contains("user.hash") && shown.contains("document.id")
    );

    let query = Process::start(&app, "query", traced).await;
    let question = json!({ "query": QUESTION, "answer": true });
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let reply = query.send(Method::POST, "/query", Some(&user.token), &[("traceparent", &parent)], &question).await;
    assert_eq!(reply.0, 200, "{}", reply.1);
    let sent = next(&mut spans);
    let request = &sent["POST /query"];
    assert_eq!(above(request), from_headers());
    for stage in ["authorise", "embed", "qdrant", "postgresql", "answer"] {
        assert_eq!(sent[stage].parent_span_id, request.span_id, "{stage}");
    }

    let shown = format!("{shown}{sent:?}");
    for secret in ["MARKED", &user.token, &user.email, &user.id.to_string()] {
        assert!(!shown.contains(secret), "{secret}");
    }

    // Who is not sampled is not sent, and who comes alone begins a trace.
    let unsampled = XRAY.replace("Sampled=1", "Sampled=0");
    query.send(Method::POST, "/query", Some(&user.token), &[("x-amzn-trace-id", &unsampled)], &question).await;
    assert!(spans.try_recv().is_err());
    query.send(Method::POST, "/query", Some(&user.token), &[], &question).await;
    assert_eq!(next(&mut spans)["POST /query"].parent_span_id, Vec::<u8>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_fails_no_request_and_is_left_alone_for_a_while() {
    let app = TestApp::start().await;
    let user = app.register("ann").await;
    // Takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let traced: &[(&str, &str)] = &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("RUST_LOG", "error")];
    let query = Process::start(&app, "query", traced).await;
    for _ in 0..20 {
        let (status, body) = query.send(Method::GET, "/citations/x", Some(&user.token), &[], &Value::Null).await;
        assert_eq!(status, 404, "{body}");
    }
    let mut connections = 0;
    while tokio::time::timeout(Duration::from_millis(100), listener.accept()).await.is_ok() {
        connections += 1;
    }
    assert!((1..20).contains(&connections), "{connections} of 20");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_says_who_and_what_and_how_long_and_nothing_secret() {
    let app = TestApp::start().await;
    let user = app.register("ann").await;
    let json_log: &[(&str, &str)] = &[("AWS_LAMBDA_FUNCTION_NAME", "x"), ("RUST_LOG", "trace")];
    let mut ingest = Process::start(&app, "ingest", json_log).await;
    let log = ingest.log();
    let note = json!({ "text": TEXT, "source_uri": "note", "attributes": { "of": "MARKED" } });
    let key = [("idempotency-key", "MARKED-key")];
    let (status, body) = ingest.send(Method::POST, "/documents", Some(&user.token), &key, &note).await;
    assert_eq!(status, 201, "{body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    drop(ingest);
    let ingested = log.await.unwrap();

    let mut query = Process::start(&app, "query", json_log).await;
    let log = query.log();
    let question = json!({ "query": QUESTION, "answer": true, "filter": { "attributes.of": { "eq": "MARKED" } },
        "conversation": [{ "role": "user", "content": "MARKED before" }] });
    let (status, body) = query.send(Method::POST, "/query", Some(&user.token), &[], &question).await;
    assert_eq!(status, 200, "{body}");
    drop(query);
    let queried = log.await.unwrap();

    for log in [&ingested, &queried] {
        assert!(log.len() > 1_000, "it logs all that there is: {log}");
        for secret in ["MARKED", &user.token, &user.email, &user.id.to_string()] {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} in {line:?}");
        }
    }
    let lines: Vec<Value> = ingested.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let hash = shared::telemetry::user_hash(user.id);
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let request = of("request")[0];
    assert!(request["request.id"].is_string() && request["duration_ms"].is_u64(), "{request}");
    assert_eq!(request["span"]["user.hash"], hash);
    let steps = of("step");
    for (line, step) in steps.iter().zip(["extract", "stage", "embed", "verify", "activate", "clean"]) {
        assert_eq!(line["step"], step);
        assert_eq!(line["document.id"], document["id"]);
        assert!(line["duration_ms"].is_u64(), "{line}");
        let around = &line["spans"][0];
        assert_eq!((&around["user.hash"], &around["request.id"]), (&json!(hash), &request["request.id"]), "{line}");
    }
    assert_eq!(steps.len(), 6);
}
