//! Answers while a dependency is away: always some, always marked, with the same rights and filters.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser, private_qdrant};
use serde_json::{Value, json};
use shared::{
    embed::{HttpConfig, HttpEmbedder},
    sparse::Passages,
};

/// Twenty questions a second.
const PACE: Duration = Duration::from_millis(50);

/// What a user waits at most for full service after Qdrant's return.
const BACK_WITHIN: Duration = Duration::from_secs(10);

async fn post(app: &TestApp, user: &TestUser, uri: &str, text: &str, lang: &str) {
    let body = json!({ "text": text, "source_uri": uri, "attributes": { "lang": lang } });
    app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(201);
}

async fn ask(app: &TestApp, user: &TestUser, body: &Value) -> Value {
    app.call(Method::POST, "/query", Some(&user.token), Some(body.clone())).await.expect(200).json
}

fn sources(answer: &Value) -> BTreeSet<&str> {
    let hits = answer["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["document"]["source_uri"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_killed_under_load_fails_no_question_and_full_service_is_soon_back() {
    let mut qdrant = private_qdrant();
    let url = qdrant.url();
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = url;
    })
    .await;
    let app = Arc::new(app);
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    post(&app, &ann, "en", "The spare key lies under the flowerpot.", "en").await;
    post(&app, &ann, "de", "The key to the shed is lost.", "de").await;
    post(&app, &bob, "bob", "Bob's key is in the safe.", "en").await;
    let question = json!({ "query": "Where are the keys?" });
    assert_eq!(ask(&app, &ann, &question).await["degraded"], json!([]));

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn({
        let (app, ann, question) = (Arc::clone(&app), ann.clone(), question.clone());
        async move {
            let (mut asked, mut pace) = (Vec::new(), tokio::time::interval(PACE));
            while !*stopped.borrow_and_update() {
                pace.tick().await;
                let (app, ann, question) = (Arc::clone(&app), ann.clone(), question.clone());
                asked.push(tokio::spawn(async move {
                    let began = Instant::now();
                    let answer = ask(&app, &ann, &question).await;
                    (began, Instant::now(), answer)
                }));
            }
            asked
        }
    });
    let until = async |degraded: Value| {
        let patience = Instant::now() + Duration::from_mins(1);
        loop {
            let answer = ask(&app, &ann, &question).await;
            if answer["degraded"] == degraded {
                return answer;
            }
            assert!(Instant::now() < patience, "{answer}");
            tokio::time::sleep(PACE).await;
        }
    };
    qdrant.kill();
    let killed = Instant::now();
    let answer = until(json!(["qdrant"])).await;
    assert_eq!(sources(&answer), BTreeSet::from(["en", "de"]));
    // Rights and filters are the same.
    let filter = json!({ "query": "Where are the keys?", "filter": { "attributes.lang": { "eq": "en" } } });
    assert_eq!(sources(&ask(&app, &ann, &filter).await), BTreeSet::from(["en"]));
    assert_eq!(sources(&ask(&app, &bob, &question).await), BTreeSet::from(["bob"]));
    let foreign = json!({ "query": "keys", "knowledge_bases": [ann.knowledge_base] });
    let reply = app.call(Method::POST, "/query", Some(&bob.token), Some(foreign)).await;
    assert_eq!(reply.problem(404), "not_found");
    let returning = Instant::now();
    qdrant.resume().unwrap();
    let returned = Instant::now();
    until(json!([])).await;
    let back = returned.elapsed();
    stop.send_replace(true);
    for asked in load.await.unwrap() {
        let (began, ended, answer) = asked.await.expect("no question fails");
        assert_eq!(sources(&answer), BTreeSet::from(["en", "de"]));
        if began > killed && ended < returning {
            assert_eq!(answer["degraded"], json!(["qdrant"]));
        }
    }
    assert!(back < BACK_WITHIN, "full service was back after {back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_embedder_words_alone_answer_and_say_so() {
    let app = TestApp::with(|parts| {
        // Nobody listens there.
        let mut config = HttpConfig::new("http://127.0.0.1:1", "hash", 256);
        config.attempts_max = 1;
        parts.embedder = Arc::new(HttpEmbedder::new(config).unwrap());
    })
    .await;
    let user = app.register("ann").await;
    // What is indexed comes from an embedder that works.
    let mut working = app.app.clone();
    working.embedder = Arc::new(HashEmbedder::default());
    let body = json!({ "text": "The spare key lies under the flowerpot.", "source_uri": "note" });
    let request = http::Request::post("/documents")
        .header("authorization", format!("Bearer {}", user.token))
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_string()));
    let response = tower::ServiceExt::oneshot(ingest::router(working), request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 201);
    for mode in ["hybrid", "dense", "sparse"] {
        let answer = ask(&app, &user, &json!({ "query": "Where is the key?", "mode": mode })).await;
        let degraded = if mode == "sparse" { json!([]) } else { json!(["embedder"]) };
        assert_eq!((sources(&answer), &answer["degraded"]), (BTreeSet::from(["note"]), &degraded), "{mode}");
    }
    let answer = ask(&app, &user, &json!({ "query": "Where is the key?", "answer": true })).await;
    assert_eq!((&answer["degraded"], answer.get("answer")), (&json!(["embedder"]), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_reads_the_stems_of_a_passage_and_their_places() {
    let pg = TestApp::start().await.pg().await;
    let read = async |text: &str| -> String {
        let lexemes = Passages::default().terms("", text).lexemes;
        pg.query_one("SELECT ($1::tsvector)::text", &[&lexemes]).await.unwrap().get(0)
    };
    let odd = read("It's a 'tall' lamp: \\ lamps, ünïque & 東京!").await;
    assert_eq!(odd, "'lamp':3,4 's':1 'tall':2 'ünïque':5 '東京':6");
    assert_eq!(read("What is the?").await, "");
    // As many places of one lexeme as there may be, and another one's behind them.
    let places: Vec<String> = (1..=255).map(|place| place.to_string()).collect();
    assert_eq!(read(&("lamp ".repeat(300) + "tower")).await, format!("'lamp':{} 'tower':301", places.join(",")));
}
