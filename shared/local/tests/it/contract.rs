//! The API's contract: that it is what the handlers say, that it is true, and that its examples work.

use std::{cell::RefCell, collections::BTreeSet};

use http::{Method, Request, header};
use local::{
    contract,
    testkit::{Parts, Reply, TestApp, TestUser},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::config::Quota;

const METHODS: [&str; 4] = ["get", "post", "patch", "delete"];

fn committed() -> Value {
    serde_json::from_str(include_str!("../../../../docs/contracts/openapi.json")).unwrap()
}

fn operations(contract: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = contract["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| Some((path.as_str(), *method, item.get(*method)?)))
    })
}

/// The errors of `value` by a schema of the contract, which is `schema` or a reference to one.
fn errors(contract: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let schema = json!({ "allOf": [schema], "components": contract["components"] });
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn what_is_committed_is_what_the_handlers_say() {
    let says: Value = serde_json::from_str(&contract::document().unwrap()).unwrap();
    assert!(says == committed(), "docs/contracts/openapi.json has fallen behind: make openapi");
    let page = include_str!("../../../../docs/contracts/index.html");
    assert!(contract::page().unwrap() == page, "docs/contracts/index.html has fallen behind: make openapi");
}

#[test]
fn the_page_shows_every_operation_and_asks_no_other_host() {
    let (contract, page) = (committed(), contract::page().unwrap());
    for (path, method, operation) in operations(&contract) {
        let id = operation["operationId"].as_str().unwrap();
        assert_eq!(page.matches(&format!("<details id=\"{id}\">")).count(), 1, "{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
    }
    for part in ["src=", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(part), "{part}");
    }
    let links = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for link in links {
        let target = link.strip_prefix('#').map(|id| format!("id=\"{id}\""));
        assert!(target.map_or(link == "openapi.json", |target| page.contains(&target)), "{link}");
    }
}

#[test]
fn every_example_is_of_its_schema() {
    let contract = committed();
    let mut seen = 0;
    for (name, schema) in contract["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            let found = errors(&contract, &json!({ "$ref": format!("#/components/schemas/{name}") }), example);
            assert!(found.is_empty(), "{name}: {found:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Calls operations by their names, with their examples, and holds every answer against the contract.
struct Client<'a> {
    app: &'a TestApp,
    contract: Value,
    called: RefCell<BTreeSet<String>>,
}

impl Client<'_> {
    /// Calls an operation: `path` are the values of its path, in order; `other` replaces members of its example, which can not
    /// know a test's ids and secrets.
    async fn call(&self, name: &str, token: Option<&str>, path: &[&str], other: Value) -> Reply {
        let (template, method, operation) =
            operations(&self.contract).find(|(_, _, operation)| operation["operationId"] == name).expect(name);
        assert_eq!(operation.get("security").is_some_and(|ways| ways[0] != json!({})), token.is_some(), "{name}");
        let mut uri = template.to_owned();
        for value in path {
            let (before, after) = (uri.find('{').expect(name), uri.find('}').expect(name));
            uri.replace_range(before..=after, value);
        }
        assert!(!uri.contains('{'), "{uri}");
        let mut request =
            Request::builder().method(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap()).uri(uri);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = self.example(operation, other);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let reply = self.app.send(request.body(body).unwrap()).await;
        assert!(reply.status.is_success(), "{name}: {} {}", reply.status, String::from_utf8_lossy(&reply.bytes));
        self.check(name, operation, &reply);
        self.called.borrow_mut().insert(name.to_owned());
        reply
    }

    fn example(&self, operation: &Value, other: Value) -> Option<Value> {
        let schema = operation.get("requestBody")?["content"]["application/json"]["schema"].clone();
        let reference = schema["$ref"]
            .as_str()
            .or_else(|| schema["oneOf"][1]["$ref"].as_str())
            .or_else(|| schema["oneOf"][0]["$ref"].as_str());
        let name = reference.unwrap().rsplit('/').next().unwrap();
        let mut example = self.contract["components"]["schemas"][name]["examples"][0].clone();
        let Value::Object(other) = other else { return Some(example) };
        example.as_object_mut().expect(name).extend(other);
        Some(example)
    }

    fn check(&self, name: &str, operation: &Value, reply: &Reply) {
        let response = &operation["responses"][reply.status.as_str()];
        assert!(response.is_object(), "{name}: {} is not in the contract", reply.status);
        for (header, of) in response["headers"].as_object().into_iter().flatten() {
            assert!(reply.headers.contains_key(header), "{name}: no {header} {of}");
        }
        let Some(content) = response["content"].as_object() else {
            assert!(reply.bytes.is_empty(), "{name}: {reply:?}");
            return;
        };
        let media_type = reply.header("content-type").split(';').next().unwrap();
        let schema = &content.get(media_type).unwrap_or_else(|| panic!("{name}: {media_type}"))["schema"];
        if media_type == "application/json" {
            let found = errors(&self.contract, schema, &reply.json);
            assert!(found.is_empty(), "{name}: {found:?}\n{:#}", reply.json);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_with_its_example_and_answers_as_described() {
    let app = TestApp::with(ready_for_all).await;
    call_all(&app).await;
}

/// Sets an app up for [`call_all`].
pub fn ready_for_all(parts: &mut Parts) {
    let endless = Quota { requests: 1_000_000, window: std::time::Duration::from_secs(1) };
    let accounts = &mut parts.config.accounts;
    (accounts.address_quota, accounts.account_quota, accounts.mail_quota) = (endless, endless, endless);
    let objects = &mut parts.config.objects;
    // Signing asks nobody.
    objects.endpoint = Some("http://127.0.0.1:1".to_owned());
    objects.credentials = Some(("key".to_owned(), SecretString::from("secret")));
    objects.upload_bucket = Some("inbox".to_owned());
}

/// Calls every operation with its example, in the order of a life, and holds the answers against the contract.
#[allow(clippy::too_many_lines, reason = "the life of two accounts, operation by operation")]
pub async fn call_all(app: &TestApp) {
    let client = Client { app, contract: committed(), called: RefCell::default() };
    let call = async |name: &str, token: Option<&str>, path: &[&str], other: Value| {
        client.call(name, token, path, other).await.json
    };
    let none = || json!(null);
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).expect(pointer).to_owned();

    for name in ["get_key_set", "get_openid_configuration", "get_contract", "browse_contract"] {
        call(name, None, &[], none()).await;
    }

    // The account of the examples.
    let ada = call("register", None, &[], none()).await;
    let (token, personal) = (text(&ada, "/access_token"), text(&ada, "/knowledge_base"));
    let ada_s = Some(token.as_str());
    call("resend_code", None, &[], none()).await;
    call("verify_address", None, &[], json!({ "code": app.mailed_code() })).await;
    let second = call("log_in", None, &[], none()).await;
    let second = call("refresh_session", None, &[], json!({ "refresh_token": second["refresh_token"] })).await;
    let sessions = call("list_sessions", ada_s, &[], none()).await;
    assert_eq!(sessions["items"].as_array().unwrap().len(), 2);
    let other = sessions["items"].as_array().unwrap().iter().find(|session| session["current"] == false).unwrap();
    call("end_session", ada_s, &[&text(other, "/id")], none()).await;
    drop(second);
    let third = call("log_in", None, &[], none()).await;
    call("log_out", None, &[], json!({ "refresh_token": third["refresh_token"] })).await;
    call("get_account", ada_s, &[], none()).await;
    call("update_account", ada_s, &[], none()).await;
    call("change_password", ada_s, &[], none()).await;
    call("reset_password", None, &[], none()).await;
    call("confirm_password_reset", None, &[], json!({ "code": app.mailed_code() })).await;

    let key = call("create_api_key", ada_s, &[], none()).await;
    let key_id = text(&key, "/id");
    call("list_api_keys", ada_s, &[], none()).await;
    call("narrow_api_key", ada_s, &[&key_id], none()).await;
    call("get_account", Some(&text(&key, "/secret")), &[], none()).await;
    call("revoke_api_key", ada_s, &[&key_id], none()).await;

    // Knowledge bases and members.
    let shared = text(&call("create_knowledge_base", ada_s, &[], none()).await, "/id");
    call("list_knowledge_bases", ada_s, &[], none()).await;
    call("rename_knowledge_base", ada_s, &[&shared], none()).await;
    let grace = app.register("grace").await;
    let invited = json!({ "email": grace.email });
    for (operation, then) in [("accept_invitation", true), ("decline_invitation", false)] {
        let person = if then { grace.clone() } else { app.register("kay").await };
        let invited = json!({ "email": person.email });
        call("invite_member", ada_s, &[&shared], invited).await;
        let invitations = call("list_invitations", Some(&person.token), &[], none()).await;
        call(operation, Some(&person.token), &[&text(&invitations, "/items/0/id")], none()).await;
    }
    let members = call("list_members", ada_s, &[&shared], none()).await;
    assert_eq!(members["items"].as_array().unwrap().len(), 2);
    call("change_member", ada_s, &[&shared, &grace.id.to_string()], none()).await;
    call("remove_member", ada_s, &[&shared, &grace.id.to_string()], none()).await;
    call("invite_member", ada_s, &[&shared], invited).await;
    let members = call("list_members", ada_s, &[&shared], none()).await;
    call("withdraw_invitation", ada_s, &[&shared, &text(&members, "/invitations/0/id")], none()).await;

    // A document's life.
    let document = client.call("create_document", ada_s, &[], none()).await.expect(201).json;
    assert_eq!(document["knowledge_base"], personal);
    let id = text(&document, "/id");
    client.call("create_document", ada_s, &[], none()).await.expect(200);
    call("list_documents", ada_s, &[], none()).await;
    call("get_document", ada_s, &[&id], none()).await;
    call("retry_document", ada_s, &[&id], none()).await;
    call("create_upload", ada_s, &[], none()).await;
    let everything = json!({ "debug": true, "highlights": true, "context": 1, "filter": { "attributes.lang": { "in": ["en", "de"] } } });
    let answer = call("query", ada_s, &[], everything).await;
    let citation = &answer["answer"]["statements"][0]["citations"][0];
    let cited = format!("{}@{}", text(citation, "/chunk_id"), citation["revision"]);
    assert_eq!(call("check_citation", ada_s, &[&cited], none()).await["stands"], true);
    call("stream_query", ada_s, &[], none()).await;
    assert_eq!(call("verify_consistency", ada_s, &[], none()).await["in_step"], true);
    call("get_consistency", ada_s, &[], none()).await;
    call("delete_document", ada_s, &[&id], none()).await;
    assert_eq!(call("get_erasure", ada_s, &[&id], none()).await["erased"], true);

    call("delete_knowledge_base", ada_s, &[&shared], none()).await;
    let TestUser { token: grace_s, .. } = &grace;
    call("log_out_everywhere", Some(grace_s), &[], none()).await;
    call("delete_account", ada_s, &[], json!({ "password": "staple of another horse" })).await;

    let all: BTreeSet<String> =
        operations(&client.contract).map(|(_, _, it)| it["operationId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(*client.called.borrow(), all);
}
