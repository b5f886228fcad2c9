//! Filters, pages and the shape of hits, over both stores.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use local::testkit::{Call, HashEmbedder, PostgresProxy, QdrantProxy, TestApp, TestUser};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

async fn quick() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

async fn post(app: &TestApp, user: &TestUser, body: Value) {
    app.call(Method::POST, "/documents", Some(&user.token), Some(body)).await.expect(201);
}

async fn ask(app: &TestApp, user: &TestUser, body: &Value) -> Value {
    app.call(Method::POST, "/query", Some(&user.token), Some(body.clone())).await.expect(200).json
}

#[allow(clippy::needless_pass_by_value, reason = "written where it is used")]
fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn hits(answer: &Value) -> &[Value] {
    answer["hits"].as_array().unwrap()
}

fn sources(answer: &Value) -> Vec<&str> {
    hits(answer).iter().map(|hit| hit["document"]["source_uri"].as_str().unwrap()).collect()
}

fn chunks(answer: &Value) -> Vec<&str> {
    hits(answer).iter().map(|hit| hit["chunk_id"].as_str().unwrap()).collect()
}

/// Eight notes on towers, each with attributes of its own.
async fn with_notes(app: &TestApp) -> TestUser {
    let user = app.register("ann").await;
    for (n, attributes) in [
        json!({}),
        json!({"lang": "en", "year": 1999, "tags": ["old", "stone"]}),
        json!({"lang": "de", "year": 2001.5, "tags": "stone"}),
        json!({"lang": null, "year": "2001", "draft": true}),
        json!({"place": {"city": "Paris", "floor": [1, 20]}, "tags": []}),
        json!({"place": [{"city": "Paris"}], "year": 2020}),
        json!({"lang": "en-GB", "a.b": "dotted", "draft": false}),
        json!({"lang": ["en", "fr"], "year": [3, "x"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = json!({"text": format!("Tower number {n} is tall."), "source_uri": format!("note/{n}"),
            "attributes": attributes});
        if n > 0 {
            body["title"] = json!(format!("Tower {n}"));
        }
        post(app, &user, body).await;
    }
    user
}

#[tokio::test]
async fn a_filter_lets_through_exactly_what_its_tests_say() {
    let app = quick().await;
    let user = with_notes(&app).await;
    for (filter, passing) in [
        (json!({"attributes.lang": {"eq": "en"}}), vec![1, 7]),
        (json!({"attributes.lang": {"ne": "en"}}), vec![0, 2, 3, 4, 5, 6]),
        (json!({"not": {"attributes.lang": {"ne": "en"}}}), vec![1, 7]),
        (json!({"attributes.lang": {"in": ["de", "fr", "xx"]}}), vec![2, 7]),
        (json!({"attributes.lang": {"in": []}}), vec![]),
        (json!({"attributes.lang": {"exists": true}}), vec![1, 2, 6, 7]),
        (json!({"attributes.lang": {"exists": false}}), vec![0, 3, 4, 5]),
        (json!({"attributes.lang": {"prefix": "en"}}), vec![1, 6, 7]),
        (json!({"attributes.lang": {"gt": "de", "lt": "en-"}}), vec![1, 7]),
        (json!({"attributes.year": {"gte": 1999, "lt": 2020}}), vec![1, 2]),
        (json!({"attributes.year": {"lt": 10}}), vec![7]),
        (json!({"attributes.year": {"gte": "2"}}), vec![3, 7]),
        (json!({"attributes.year": {"eq": 1999.0}}), vec![1]),
        (json!({"attributes.tags": {"eq": "stone"}}), vec![1, 2]),
        (json!({"attributes.draft": {"eq": true}}), vec![3]),
        (json!({"attributes.draft": {"eq": "true"}}), vec![]),
        (json!({"attributes.place.city": {"eq": "Paris"}}), vec![4]),
        (json!({"attributes.place.city": {"prefix": "P"}}), vec![4]),
        (json!({"attributes.place.floor": {"gt": 19}}), vec![4]),
        (json!({"attributes.place.floor.0": {"eq": 1}}), vec![]),
        (json!({"attributes.place.floor.0": {"exists": true}}), vec![]),
        (json!({r"attributes.a\.b": {"eq": "dotted"}}), vec![6]),
        (json!({"source_uri": {"in": ["note/0", "note/3"]}}), vec![0, 3]),
        (json!({"source_uri": {"gt": "note/5"}}), vec![6, 7]),
        (json!({"title": {"exists": false}}), vec![0]),
        (json!({"title": {"prefix": "Tower"}, "source_uri": {"lte": "note/2"}}), vec![1, 2]),
        (json!({"title": {"ne": "Tower 1"}, "source_uri": {"lte": "note/2"}}), vec![0, 2]),
        (json!({"media_type": {"eq": "text/plain"}, "size_bytes": {"gt": 3}}), vec![0, 1, 2, 3, 4, 5, 6, 7]),
        (json!({"created_at": {"gt": "2020-01-01T00:00:00Z"}, "updated_at": {"lt": "2020-01-01T00:00:00Z"}}), vec![]),
        (json!({"or": [{"attributes.year": {"gt": 2010}}, {"attributes.draft": {"exists": true}}]}), vec![3, 5, 6]),
        (
            json!({"and": [{"attributes.lang": {"exists": true}}, {"not": {"attributes.year": {"exists": true}}}]}),
            vec![6],
        ),
    ] {
        let answer = ask(&app, &user, &json!({"query": "tall tower", "filter": filter, "debug": true})).await;
        let expected: Vec<String> = passing.iter().map(|n| format!("note/{n}")).collect();
        let found: BTreeSet<&str> = sources(&answer).into_iter().collect();
        assert_eq!(found, expected.iter().map(String::as_str).collect(), "{filter}: {}", answer["debug"]);
        assert_eq!(hits(&answer).len(), expected.len());
    }
}

#[tokio::test]
async fn pages_show_every_hit_once_and_in_the_order_of_one_long_page() {
    let app = quick().await;
    let user = app.register("ann").await;
    for n in 0..24 {
        let text = format!("# One\n\nTower {n} {}.\n\n# Two\n\nThe tower {n} again.", "stands tall ".repeat(n % 7));
        post(&app, &user, json!({"text": text, "media_type": "text/markdown", "source_uri": format!("t/{n}")})).await;
    }
    for more in [json!({}), json!({"group_by": "document"}), json!({"mode": "sparse", "min_score": 0.2})] {
        let question = with(&json!({"query": "How tall does the tower stand?"}), more);
        let whole = ask(&app, &user, &with(&question, json!({"k": 100}))).await;
        assert_eq!(whole["next_cursor"], Value::Null);
        let mut paged = Vec::new();
        let question = with(&question, json!({"k": 5}));
        let mut page = ask(&app, &user, &question).await;
        loop {
            paged.extend(chunks(&page).into_iter().map(ToOwned::to_owned));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            page = ask(&app, &user, &with(&question, json!({ "cursor": cursor }))).await;
        }
        assert_eq!(paged, chunks(&whole), "{question}");
        if question["group_by"] == "document" {
            let documents: BTreeSet<&str> = sources(&whole).into_iter().collect();
            assert_eq!((documents.len(), paged.len()), (24, 24));
        }
    }
    let question = json!({"query": "tower", "k": 5});
    let cursor = ask(&app, &user, &question).await["next_cursor"].clone();
    let other = json!({"query": "another tower", "k": 5, "cursor": cursor});
    let reply = app.call(Method::POST, "/query", Some(&user.token), Some(other)).await;
    assert_eq!((reply.problem(400), &reply.json["field"]), ("invalid_field", &json!("cursor")));
}

#[tokio::test]
async fn a_hit_comes_with_what_was_asked_for_and_nothing_else() {
    let app = quick().await;
    let user = app.register("ann").await;
    let section = |n: usize| {
        format!(
            "# Part {n}\n\nPart {n} tells of {}. {}\n\n",
            ["keys", "doors", "gardens", "roofs"][n],
            "Words follow upon words. ".repeat(30)
        )
    };
    let text: String = (0..4).map(section).collect();
    post(&app, &user, json!({"text": text, "media_type": "text/markdown", "source_uri": "house", "title": "A House"}))
        .await;
    let question = json!({"query": "garden doors", "k": 1, "mode": "sparse"});
    let plain = ask(&app, &user, &question).await;
    for extra in ["context", "highlights", "legs"] {
        assert_eq!(plain["hits"][0].get(extra), None);
    }
    let asked = with(&question, json!({"context": 2, "highlights": true, "debug": true}));
    let answer = ask(&app, &user, &asked).await;
    let hit = &answer["hits"][0];
    let words: Vec<&str> = hit["highlights"]
        .as_array()
        .unwrap()
        .iter()
        .map(|range| {
            let at = |end: &str| usize::try_from(range[end].as_u64().unwrap()).unwrap();
            hit["text"].as_str().unwrap().get(at("start")..at("end")).unwrap()
        })
        .collect();
    assert!(!words.is_empty() && words.iter().all(|word| ["doors", "gardens"].contains(word)), "{words:?}");
    assert_eq!((&hit["legs"]["sparse"]["rank"], &hit["legs"]["dense"]), (&json!(1), &Value::Null));
    assert_eq!(hit["heading_path"][0], "A House");
    let around = hit["context"].as_array().unwrap();
    assert!(!around.is_empty());
    for neighbour in around {
        let at = |end: &str| usize::try_from(neighbour["byte_range"][end].as_u64().unwrap()).unwrap();
        assert_eq!(text.get(at("start")..at("end")), neighbour["text"].as_str());
        assert!((1..=2).contains(&neighbour["distance"].as_i64().unwrap().abs()), "{neighbour}");
        let before = neighbour["byte_range"]["start"].as_u64() < hit["byte_range"]["start"].as_u64();
        assert_eq!(before, neighbour["distance"].as_i64().unwrap() < 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_question_makes_one_request_to_each_store() {
    let plain = quick().await;
    let qdrant = QdrantProxy::before(&plain.app.config.qdrant.url).await;
    let postgres = PostgresProxy::before(plain.database_url().expose_secret()).await;
    let app = TestApp::with(|parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
        parts.config.qdrant.url = qdrant.url();
        parts.config.database.url = postgres.redirect(parts.config.database.url.expose_secret()).into();
    })
    .await;
    let user = with_notes(&app).await;
    let requests = async |more: Value| {
        let before = (postgres.requests(), qdrant.calls(Call::Search));
        let answer = ask(&app, &user, &with(&json!({"query": "tall tower", "debug": true}), more)).await;
        assert!(!hits(&answer).is_empty());
        (postgres.requests() - before.0, qdrant.calls(Call::Search) - before.1)
    };
    // The container learns what the user may read, and sees revisions that were activated a moment ago.
    assert_eq!(requests(json!({})).await, (3, 2));
    for more in [
        json!({}),
        json!({"mode": "dense", "k": 3}),
        json!({"context": 1, "highlights": true, "group_by": "document"}),
        json!({"knowledge_bases": [user.knowledge_base]}),
    ] {
        assert_eq!(requests(more.clone()).await, (1, 1), "{more}");
    }
    // A filter is planned first.
    assert_eq!(requests(json!({"filter": {"attributes.lang": {"eq": "en"}}})).await, (2, 1));
}

#[tokio::test]
async fn what_a_container_remembers_of_rights_gives_none_and_keeps_none_back() {
    let app = quick().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    post(&app, &ann, json!({"text": "The key is under the flowerpot.", "source_uri": "ann"})).await;
    post(&app, &bob, json!({"text": "The key is in the safe.", "source_uri": "bob"})).await;
    let pg = app.pg().await;
    let question = json!({"query": "Where is the key?"});
    let grant = "INSERT INTO knowledge_base_members (knowledge_base_id, user_id, role) VALUES ($1, $2, 'viewer')";
    let revoke = "DELETE FROM knowledge_base_members WHERE knowledge_base_id = $1 AND user_id = $2";
    for _ in 0..2 {
        assert_eq!(sources(&ask(&app, &bob, &question).await), ["bob"]);
        pg.execute(grant, &[&ann.knowledge_base.0, &bob.id.0]).await.unwrap();
        assert_eq!(sources(&ask(&app, &bob, &question).await).len(), 2, "from the next question on");
        pg.execute(revoke, &[&ann.knowledge_base.0, &bob.id.0]).await.unwrap();
        let answer = ask(&app, &bob, &question).await;
        assert_eq!(sources(&answer), ["bob"]);
    }
}
