//! Members of knowledge bases: invited, changed, removed; and what they reach from the next request on.

use std::sync::Arc;

use http::Method;
use local::testkit::{HashEmbedder, Reply, TestApp, TestUser};
use serde_json::{Value, json};
use shared::domain::KnowledgeBaseId;

use crate::deletion::{create, join};

async fn app() -> TestApp {
    TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await
}

async fn call(app: &TestApp, user: &TestUser, method: Method, path: &str, body: Value) -> Reply {
    app.call(method, path, Some(&user.token), Some(body).filter(|body| !body.is_null())).await
}

async fn invite(app: &TestApp, by: &TestUser, id: KnowledgeBaseId, email: &str, role: &str) -> Reply {
    let path = format!("/knowledge-bases/{id}/members");
    call(app, by, Method::POST, &path, json!({ "email": email, "role": role })).await
}

async fn invitations(app: &TestApp, user: &TestUser) -> Vec<Value> {
    let reply = call(app, user, Method::GET, "/auth/invitations", Value::Null).await.expect(200);
    reply.json["items"].as_array().unwrap().clone()
}

async fn answer(app: &TestApp, user: &TestUser, method: Method, invitation: &Value) -> Reply {
    let path = format!("/auth/invitations/{}", invitation["id"].as_str().unwrap());
    call(app, user, method, &path, Value::Null).await
}

fn member(id: KnowledgeBaseId, user: &TestUser) -> String {
    format!("/knowledge-bases/{id}/members/{}", user.id)
}

async fn change(app: &TestApp, by: &TestUser, id: KnowledgeBaseId, user: &TestUser, role: &str) -> Reply {
    call(app, by, Method::PATCH, &member(id, user), json!({ "role": role })).await
}

async fn remove(app: &TestApp, by: &TestUser, id: KnowledgeBaseId, user: &TestUser) -> Reply {
    call(app, by, Method::DELETE, &member(id, user), Value::Null).await
}

async fn write(app: &TestApp, user: &TestUser, id: KnowledgeBaseId, source: &str) -> Reply {
    let body =
        json!({ "knowledge_base": id, "source_uri": source, "text": format!("The lighthouse of {source} stands.") });
    call(app, user, Method::POST, "/documents", body).await
}

async fn hits(app: &TestApp, user: &TestUser) -> usize {
    let reply =
        call(app, user, Method::POST, "/query", json!({ "query": "Where is the lighthouse?" })).await.expect(200);
    reply.json["hits"].as_array().unwrap().len()
}

#[tokio::test]
async fn inviting_does_not_tell_whether_the_address_has_an_account_and_makes_nobody_a_member() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let id = create(&app, &ann, "shared").await;
    write(&app, &ann, id, "a").await.expect(201);
    let known = invite(&app, &ann, id, &bob.email.to_uppercase(), "viewer").await.expect(202);
    let unknown = invite(&app, &ann, id, "nobody@example.com", "viewer").await.expect(202);
    assert_eq!(known.bytes, unknown.bytes);
    assert_eq!(hits(&app, &bob).await, 0, "not before it is accepted");

    let list = call(&app, &ann, Method::GET, &format!("/knowledge-bases/{id}/members"), Value::Null).await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(list.json["invitations"].as_array().unwrap().len(), 2);

    let found = invitations(&app, &bob).await;
    assert_eq!((found.len(), &found[0]["name"], &found[0]["role"]), (1, &json!("shared"), &json!("viewer")));
    let eve = app.register("eve").await;
    answer(&app, &eve, Method::POST, &found[0]).await.expect(404);
    answer(&app, &eve, Method::DELETE, &found[0]).await.expect(404);
    answer(&app, &bob, Method::POST, &found[0]).await.expect(200);
    assert_eq!(hits(&app, &bob).await, 1);
    answer(&app, &bob, Method::POST, &found[0]).await.expect(404);
    let list = call(&app, &bob, Method::GET, &format!("/knowledge-bases/{id}/members"), Value::Null).await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 2);
    assert_eq!(list.json["invitations"], json!([]), "only owners see who is invited");
}

#[tokio::test]
async fn an_invitation_ends_when_it_is_refused_withdrawn_too_old_or_its_inviter_is_no_owner_any_more() {
    let app = app().await;
    let (ann, bob, cat) = (app.register("ann").await, app.register("bob").await, app.register("cat").await);
    let id = create(&app, &ann, "shared").await;
    let fresh = async || {
        invite(&app, &ann, id, &bob.email, "editor").await.expect(202);
        invitations(&app, &bob).await.remove(0)
    };
    let one = fresh().await;
    answer(&app, &bob, Method::DELETE, &one).await.expect(204);
    answer(&app, &bob, Method::POST, &one).await.expect(404);

    let one = fresh().await;
    let path = format!("/knowledge-bases/{id}/invitations/{}", one["id"].as_str().unwrap());
    call(&app, &bob, Method::DELETE, &path, Value::Null).await.expect(404);
    call(&app, &ann, Method::DELETE, &path, Value::Null).await.expect(204);
    answer(&app, &bob, Method::POST, &one).await.expect(404);

    let one = fresh().await;
    app.pg().await.batch_execute("UPDATE invitations SET expires_at = now()").await.unwrap();
    answer(&app, &bob, Method::POST, &one).await.expect(404);

    let one = fresh().await;
    join(&app, &cat, id, "owner").await;
    change(&app, &cat, id, &ann, "editor").await.expect(204);
    answer(&app, &bob, Method::POST, &one).await.expect(404);
}

#[tokio::test]
async fn rights_end_at_the_next_request() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let id = create(&app, &ann, "shared").await;
    join(&app, &bob, id, "editor").await;
    write(&app, &bob, id, "a").await.expect(201);
    change(&app, &ann, id, &bob, "viewer").await.expect(204);
    assert_eq!(write(&app, &bob, id, "b").await.problem(403), "forbidden");
    assert_eq!(hits(&app, &bob).await, 1);
    remove(&app, &ann, id, &bob).await.expect(204);
    assert_eq!(hits(&app, &bob).await, 0);
    assert_eq!(write(&app, &bob, id, "b").await.problem(404), "not_found");
    call(&app, &bob, Method::GET, &format!("/knowledge-bases/{id}/members"), Value::Null).await.expect(404);
}

#[tokio::test]
async fn only_owners_manage_and_everyone_may_leave() {
    let app = app().await;
    let (ann, bob, eve) = (app.register("ann").await, app.register("bob").await, app.register("eve").await);
    let id = create(&app, &ann, "shared").await;
    let rename = async |user: &TestUser| {
        call(&app, user, Method::PATCH, &format!("/knowledge-bases/{id}"), json!({ "name": "better" })).await
    };
    for role in ["viewer", "editor"] {
        join(&app, &bob, id, role).await;
        assert_eq!(rename(&bob).await.problem(403), "forbidden");
        assert_eq!(invite(&app, &bob, id, &eve.email, "viewer").await.problem(403), "forbidden");
        assert_eq!(change(&app, &bob, id, &bob, "owner").await.problem(403), "forbidden");
        assert_eq!(remove(&app, &bob, id, &ann).await.problem(403), "forbidden");
        remove(&app, &bob, id, &bob).await.expect(204);
    }
    for reply in [rename(&eve).await, remove(&app, &eve, id, &ann).await, change(&app, &eve, id, &eve, "owner").await] {
        assert_eq!(reply.problem(404), "not_found");
    }
    assert_eq!(change(&app, &ann, id, &eve, "viewer").await.problem(404), "not_found");
    assert_eq!(rename(&ann).await.expect(200).json["name"], "better");
}

#[tokio::test]
async fn the_last_owner_can_neither_leave_nor_be_demoted_nor_a_personal_one_be_left() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let id = create(&app, &ann, "shared").await;
    join(&app, &bob, id, "editor").await;
    assert_eq!(remove(&app, &ann, id, &ann).await.problem(409), "last_owner");
    assert_eq!(change(&app, &ann, id, &ann, "viewer").await.problem(409), "last_owner");
    change(&app, &ann, id, &bob, "owner").await.expect(204);
    remove(&app, &ann, id, &ann).await.expect(204);
    assert_eq!(remove(&app, &bob, id, &bob).await.problem(409), "last_owner");
    join(&app, &ann, bob.knowledge_base, "owner").await;
    assert_eq!(remove(&app, &ann, bob.knowledge_base, &bob).await.problem(409), "personal_knowledge_base");
    assert_eq!(change(&app, &ann, bob.knowledge_base, &bob, "viewer").await.problem(409), "personal_knowledge_base");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_who_leave_at_the_same_time_one_stays() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    for _ in 0..10 {
        let id = create(&app, &ann, "shared").await;
        join(&app, &bob, id, "owner").await;
        let (one, two) = tokio::join!(remove(&app, &ann, id, &ann), remove(&app, &bob, id, &bob));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409]);
    }
}

#[tokio::test]
async fn every_change_of_members_is_recorded() {
    let app = app().await;
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let id = create(&app, &ann, "shared").await;
    invite(&app, &ann, id, &bob.email, "viewer").await.expect(202);
    answer(&app, &bob, Method::POST, &invitations(&app, &bob).await[0]).await.expect(200);
    change(&app, &ann, id, &bob, "editor").await.expect(204);
    remove(&app, &ann, id, &bob).await.expect(204);
    let statement = "SELECT event FROM audit_log WHERE detail->>'knowledge_base' = $1 ORDER BY id";
    let rows = app.pg().await.query(statement, &[&id.to_string()]).await.unwrap();
    let events: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        events,
        ["knowledge_base.created", "member.invited", "member.joined", "member.changed", "member.removed"]
    );
    for field in ["id", "user_id", "personal", "knowledge_base"] {
        let body = json!({ "role": "owner", field: "x" });
        assert_eq!(call(&app, &ann, Method::PATCH, &member(id, &bob), body).await.problem(400), "unknown_field");
    }
}
