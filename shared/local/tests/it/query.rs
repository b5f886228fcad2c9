//! Questions and their answers, over both stores.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use local::testkit::{HashEmbedder, TestApp, TestUser};
use serde_json::{Value, json};
use shared::{
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    sparse,
    vectors::Point,
};
use uuid::Uuid;

const EIFFEL: &str =
    "# Eiffel Tower\n\nThe Eiffel Tower is 330 metres tall. It stands in Paris — on the Champ de Mars.\n";
const LEASES: &str =
    "# Leases\n\nA lease runs out after one minute. Whoever takes it over draws a higher fencing token.\n";
const BREAD: &str = "# Bread\n\nKnead the dough for ten minutes. Let it rest overnight in a cool place.\n";

async fn post(app: &TestApp, user: &TestUser, uri: &str, text: &str) -> Value {
    let body = json!({"text": text, "source_uri": uri, "title": uri, "media_type": "text/markdown"});
    let reply = app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await;
    assert!([200, 201].contains(&reply.status.as_u16()), "{}", String::from_utf8_lossy(&reply.bytes));
    reply.json
}

async fn query(app: &TestApp, user: &TestUser, body: Value) -> Value {
    app.call(Method::POST, "/query", Some(&user.token), Some(body)).await.expect(200).json
}

fn hits(answer: &Value) -> &[Value] {
    answer["hits"].as_array().expect("hits")
}

fn sources(answer: &Value) -> BTreeSet<&str> {
    hits(answer).iter().map(|hit| hit["document"]["source_uri"].as_str().unwrap()).collect()
}

fn id(value: &Value) -> Uuid {
    value.as_str().expect("an id").parse().expect("a UUID")
}

fn slice<'a>(text: &'a str, range: &Value) -> &'a str {
    let at = |end: &str| usize::try_from(range[end].as_u64().unwrap()).unwrap();
    text.get(at("start")..at("end")).unwrap()
}

/// A user with the three fixtures; the answers to `POST /documents` in their order.
async fn with_fixtures(app: &TestApp) -> (TestUser, [Value; 3]) {
    let user = app.register("ada").await;
    let documents = [
        post(app, &user, "eiffel", EIFFEL).await,
        post(app, &user, "leases", LEASES).await,
        post(app, &user, "bread", BREAD).await,
    ];
    (user, documents)
}

/// Points that outscore everything for `question` and are no chunks of anything, in the user's own knowledge base.
async fn plant(app: &TestApp, ids: &[ChunkId], tenant: KnowledgeBaseId, document: DocumentId, question: &str) {
    let deadline = Deadline::after(std::time::Duration::from_mins(1));
    let dense = app.app.embedder.embed_query(question.to_owned(), deadline.instant()).await.unwrap();
    let sparse = sparse::passage(question);
    for ids in ids.chunks(200) {
        let point = |id: &ChunkId| Point {
            id: *id,
            knowledge_base: tenant,
            document,
            dense: dense.clone(),
            sparse: sparse.clone(),
        };
        let points: Vec<Point> = ids.iter().map(point).collect();
        app.app.index.upsert(&points, deadline).await.unwrap();
    }
}

#[tokio::test]
async fn the_right_passage_comes_first_and_its_citation_is_exact() {
    let app = TestApp::start().await;
    let (user, documents) = with_fixtures(&app).await;
    for (question, uri, text, document) in [
        ("How tall is the Eiffel Tower?", "eiffel", EIFFEL, &documents[0]),
        ("When does a lease run out?", "leases", LEASES, &documents[1]),
        ("How long must the dough be kneaded?", "bread", BREAD, &documents[2]),
    ] {
        for mode in ["hybrid", "dense", "sparse"] {
            let answer = query(&app, &user, json!({"query": question, "mode": mode, "answer": true})).await;
            let hit = &hits(&answer)[0];
            assert_eq!(
                (&hit["document"]["source_uri"], &hit["document"]["id"]),
                (&json!(uri), &document["id"]),
                "{mode}"
            );
            assert_eq!(hit["document"]["revision"], 1);
            assert_eq!(hit["document"]["knowledge_base"], json!(user.knowledge_base));
            assert_eq!(hit["document"]["content_hash"].as_str().unwrap().len(), 64);
            assert_eq!(answer["degraded"], json!([]));
            for hit in hits(&answer).iter().filter(|hit| hit["document"]["source_uri"] == uri) {
                assert_eq!(slice(text, &hit["byte_range"]), hit["text"].as_str().unwrap());
                assert!((0.0..=1.0).contains(&hit["score"].as_f64().unwrap()), "{hit}");
            }
            let statement = &answer["answer"]["statements"][0];
            assert_eq!((&answer["answer"]["kind"], &answer["answer"]["found"]), (&json!("extractive"), &json!(true)));
            assert_eq!(statement["citations"][0]["document_id"], document["id"]);
            assert_eq!(slice(text, &statement["citations"][0]["byte_range"]), statement["text"].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn a_question_that_the_hits_do_not_answer_is_not_answered() {
    let app = TestApp::start().await;
    let (user, _) = with_fixtures(&app).await;
    let question = json!({"query": "Which enzyme unwinds DNA during replication?", "answer": true});
    let answer = query(&app, &user, question).await;
    assert_eq!(answer["answer"], json!({"kind": "extractive", "found": false, "statements": []}));
}

#[tokio::test]
async fn filters_narrow_the_search_and_an_empty_one_finds_nothing() {
    let app = TestApp::start().await;
    let (user, documents) = with_fixtures(&app).await;
    let ask = async |filter: Value| {
        let mut body = json!({"query": "How tall is the Eiffel Tower?", "answer": true});
        body.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
        query(&app, &user, body).await
    };
    assert_eq!(sources(&ask(json!({"documents": [documents[1]["id"]]})).await), BTreeSet::from(["leases"]));
    assert_eq!(sources(&ask(json!({"knowledge_bases": [user.knowledge_base]})).await).len(), 3);
    assert_eq!(hits(&ask(json!({"k": 1})).await).len(), 1);
    for nothing in [json!({"documents": []}), json!({"knowledge_bases": []}), json!({"documents": [Uuid::now_v7()]})] {
        let answer = ask(nothing.clone()).await;
        assert_eq!(hits(&answer).len(), 0, "{nothing}");
        assert_eq!(answer["answer"]["found"], false, "{nothing}");
    }
}

#[tokio::test]
async fn an_empty_knowledge_base_gives_no_hits() {
    let app = TestApp::start().await;
    let user = app.register("ada").await;
    let answer = query(&app, &user, json!({"query": "anything", "debug": true})).await;
    assert_eq!(hits(&answer).len(), 0);
    assert_eq!((&answer["debug"]["legs"], &answer["debug"]["rounds"]), (&json!({"dense": 0, "sparse": 0}), &json!(1)));
}

#[tokio::test]
async fn another_user_sees_nothing_and_a_foreign_knowledge_base_does_not_exist() {
    let app = TestApp::start().await;
    let (ada, documents) = with_fixtures(&app).await;
    let bob = app.register("bob").await;
    let question = "How tall is the Eiffel Tower?";
    assert_eq!(hits(&query(&app, &bob, json!({"query": question})).await).len(), 0);
    assert_eq!(hits(&query(&app, &bob, json!({"query": question, "documents": [documents[0]["id"]]})).await).len(), 0);
    for foreign in
        [json!([ada.knowledge_base]), json!([bob.knowledge_base, ada.knowledge_base]), json!([Uuid::now_v7()])]
    {
        let body = json!({"query": question, "knowledge_bases": foreign});
        let reply = app.call(Method::POST, "/query", Some(&bob.token), Some(body)).await;
        assert_eq!(reply.problem(404), "not_found");
        assert!(!String::from_utf8_lossy(&reply.bytes).contains(&ada.knowledge_base.to_string()));
    }
    // Even a point of Ada's chunk that stands under Bob's knowledge base in Qdrant stays hidden.
    let hit = query(&app, &ada, json!({"query": question, "k": 1})).await["hits"][0].clone();
    let (chunk, document) = (ChunkId(id(&hit["chunk_id"])), DocumentId(id(&documents[0]["id"])));
    plant(&app, &[chunk], bob.knowledge_base, document, question).await;
    assert_eq!(hits(&query(&app, &bob, json!({"query": question})).await).len(), 0);
    let reply = app.call(Method::POST, "/query", None, Some(json!({"query": question}))).await;
    assert_eq!(reply.problem(401), "unauthenticated");
}

#[tokio::test]
async fn stale_points_never_show_and_take_no_hits_place() {
    let app = TestApp::start().await;
    let (user, documents) = with_fixtures(&app).await;
    let question = "How tall is the Eiffel Tower?";
    let ask = || query(&app, &user, json!({"query": question, "k": 3, "debug": true}));
    let expected = ask().await;
    assert_eq!(hits(&expected).len(), 3);
    let document = DocumentId(id(&documents[0]["id"]));
    for stale in [1, 500, 1_000] {
        let ids: Vec<ChunkId> = (0..stale).map(|_| ChunkId::draw()).collect();
        plant(&app, &ids, user.knowledge_base, document, question).await;
        let answer = ask().await;
        let chunks = |answer: &Value| hits(answer).iter().map(|hit| hit["chunk_id"].clone()).collect::<Vec<_>>();
        assert_eq!(chunks(&answer), chunks(&expected), "{stale}: {}", answer["debug"]);
        assert_eq!((&answer["debug"]["complete"], &answer["debug"]["dead"]), (&json!(true), &json!(stale)));
        app.app.index.delete(&ids, Deadline::after(std::time::Duration::from_mins(1))).await.unwrap();
    }
}

#[tokio::test]
async fn a_retired_chunk_that_comes_back_to_the_index_does_not_show() {
    let app = TestApp::start().await;
    let user = app.register("ada").await;
    let question = "How tall is the Eiffel Tower?";
    let document = DocumentId(id(&post(&app, &user, "eiffel", EIFFEL).await["id"]));
    let retired = id(&query(&app, &user, json!({"query": question})).await["hits"][0]["chunk_id"]);
    post(&app, &user, "eiffel", BREAD).await;
    plant(&app, &[ChunkId(retired)], user.knowledge_base, document, question).await;
    let answer = query(&app, &user, json!({"query": question})).await;
    assert!(!hits(&answer).is_empty());
    for hit in hits(&answer) {
        assert_eq!(hit["document"]["revision"], 2);
        assert_eq!(slice(BREAD, &hit["byte_range"]), hit["text"].as_str().unwrap());
    }
}

#[tokio::test]
async fn a_deleted_document_does_not_show() {
    let app = TestApp::start().await;
    let (user, documents) = with_fixtures(&app).await;
    let path = format!("/documents/{}", documents[0]["id"].as_str().unwrap());
    app.call(Method::DELETE, &path, Some(&user.token), None).await.expect(204);
    let answer = query(&app, &user, json!({"query": "How tall is the Eiffel Tower?"})).await;
    assert_eq!(sources(&answer), BTreeSet::from(["bread", "leases"]));
}

/// A document of `paragraphs` sections whose sentences name `word`, so that each becomes one chunk or more.
fn sections(word: &str, paragraphs: usize) -> String {
    let section = |n| format!("# Section {n}\n\nThe tower of {word} number {n} is very tall. It has {n} stairs.\n\n");
    (0..paragraphs).map(section).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_document_is_replaced_a_query_sees_exactly_one_whole_revision() {
    let app = TestApp::start().await;
    let user = app.register("ada").await;
    // Two versions that share no chunk; the second has more of them. Then one that shares all of the first's.
    let versions = [sections("granite", 2), sections("marble", 4), sections("granite", 3)];
    let question = json!({"query": "How tall is the tower?", "k": 100});
    let mut wholes = Vec::new();
    for version in &versions {
        post(&app, &user, "tower", version).await;
        wholes.push(hits(&query(&app, &user, question.clone()).await).len());
    }
    let replacing = async {
        for round in 0..12 {
            post(&app, &user, "tower", &versions[round % 3]).await;
        }
    };
    let asking = async {
        loop {
            let answer = query(&app, &user, question.clone()).await;
            let revisions: BTreeSet<i64> =
                hits(&answer).iter().map(|hit| hit["document"]["revision"].as_i64().unwrap()).collect();
            assert_eq!(revisions.len(), 1, "{answer}");
            // Revisions 1 to 3, and then the same three again and again.
            let version = usize::try_from(revisions.first().unwrap() - 1).unwrap() % 3;
            assert_eq!(hits(&answer).len(), wholes[version], "{answer}");
            for hit in hits(&answer) {
                assert_eq!(slice(&versions[version], &hit["byte_range"]), hit["text"].as_str().unwrap());
            }
        }
    };
    tokio::select! {
        () = replacing => {}
        () = async { tokio::join!(asking); } => {}
    }
}

#[tokio::test]
async fn a_request_that_does_not_hold_is_refused_by_its_field() {
    let app = TestApp::start().await;
    let user = app.register("ada").await;
    for (body, code, field) in [
        (json!({"query": "x", "top_k": 3}), "unknown_field", "top_k"),
        (json!({"query": "x", "k": 0}), "invalid_field", "k"),
        (json!({"query": "x", "k": 101}), "invalid_field", "k"),
        (json!({"query": " "}), "invalid_field", "query"),
        (json!({"query": "x\u{1}"}), "invalid_field", "query"),
    ] {
        let reply = app.call(Method::POST, "/query", Some(&user.token), Some(body.clone())).await;
        assert_eq!((reply.problem(400), &reply.json["field"]), (code, &json!(field)), "{body}");
    }
}

#[tokio::test]
async fn the_index_holds_link_keys_and_nothing_else() {
    let app = TestApp::start().await;
    let (user, documents) = with_fixtures(&app).await;
    let points = app.points(DocumentId(id(&documents[0]["id"]))).await;
    assert!(!points.is_empty());
    for (_, payload) in points {
        let payload: Vec<(&str, &str)> = payload.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let tenant = user.knowledge_base.to_string();
        assert_eq!(payload, [("doc", documents[0]["id"].as_str().unwrap()), ("kb", tenant.as_str())]);
    }
}

#[tokio::test]
async fn what_others_index_does_not_change_scores() {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    for (n, text) in ["The merger with Initech is near.", "The weather is near.", "Nothing happens."].iter().enumerate()
    {
        let body = json!({ "text": text, "source_uri": format!("a/{n}") });
        app.call(Method::POST, "/documents", Some(&ann.token), Some(body)).await.expect(201);
    }
    let question = json!({ "query": "merger weather", "mode": "sparse" });
    let scores = async || {
        let reply = app.call(Method::POST, "/query", Some(&ann.token), Some(question.clone())).await.expect(200);
        let hits = reply.json["hits"].as_array().unwrap().clone();
        hits.iter().map(|hit| (hit["text"].clone(), hit["score"].clone())).collect::<Vec<_>>()
    };
    let before = scores().await;
    assert_eq!(before.len(), 2);
    // Bob's documents make "merger" a common word, for everyone who counts them.
    for n in 0..20 {
        let body = json!({ "text": format!("The secret merger, part {n}."), "source_uri": format!("b/{n}") });
        app.call(Method::POST, "/documents", Some(&bob.token), Some(body)).await.expect(201);
    }
    assert_eq!(scores().await, before);
}

#[tokio::test]
async fn a_lost_index_is_searched_by_words_and_not_an_empty_answer_and_the_next_ingestion_makes_it_again() {
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    let question = json!({ "query": "Where is the key?" });
    let ask = async || app.call(Method::POST, "/query", Some(&user.token), Some(question.clone())).await;
    assert_eq!(ask().await.expect(200).json["hits"], json!([]), "nothing was ever indexed");
    let send = async |n: usize| {
        let body = json!({ "text": format!("The key is in room {n}."), "source_uri": format!("r/{n}") });
        app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await
    };
    send(1).await.expect(201);
    app.qdrant().delete_collection(format!("{}-v1", app.collection())).await.unwrap();
    let lost = ask().await.expect(200);
    assert_eq!((&lost.json["degraded"], lost.json["hits"].as_array().unwrap().len()), (&json!(["qdrant"]), 1));
    // The same container had seen the collection; it makes it again.
    send(2).await.expect(201);
    assert_eq!(ask().await.expect(200).json["hits"].as_array().unwrap().len(), 1);
}
