//! The API's contract, put together from what the functions' handlers say of themselves: OpenAPI 3.1, and a page for people.
//!
//! Handlers name the problems that are theirs alone (`x-codes`). What every handler may answer follows here from what it
//! takes: credentials, a path, a query string, a body.

#![allow(
    clippy::indexing_slicing,
    reason = "of a `Value`: what is not there is null, and what is written into was just seen"
)]

mod page;

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};
use shared::problem::{self, Code};

use crate::failure::Failure;

/// Where the contract is kept, below the checkout's root.
pub const DOCUMENT: &str = "docs/contracts/openapi.json";

/// Where its page is kept.
pub const PAGE: &str = "docs/contracts/index.html";

const REQUEST_ID: &str = "x-request-id";

/// Whatever a request is, it may meet these.
const ALWAYS: [Code; 3] = [Code::Internal, Code::DependencyUnavailable, Code::DeadlineExceeded];

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The contract as it is kept.
///
/// # Errors
/// When what the handlers say does not fit together.
pub fn document() -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(&contract()?).map_err(Failure::because("the contract is no JSON"))?;
    text.push('\n');
    Ok(text)
}

/// The page as it is kept.
///
/// # Errors
/// As [`document`].
pub fn page() -> Result<String, Failure> {
    Ok(page::of(&contract()?))
}

/// Writes both below `root`, a checkout.
///
/// # Errors
/// As [`document`], and when a file can not be written.
pub fn write(root: &Path) -> Result<(), Failure> {
    for (file, text) in [(DOCUMENT, document()?), (PAGE, page()?)] {
        let file = root.join(file);
        std::fs::write(&file, text).map_err(Failure::because(format!("{} can not be written", file.display())))?;
        println!("{}", file.display());
    }
    Ok(())
}

fn contract() -> Result<Value, Failure> {
    let mut functions = auth::contract();
    functions.merge(ingest::contract());
    functions.merge(query::contract());
    let mut contract = serde_json::to_value(functions).map_err(Failure::because("the contract is no JSON"))?;
    let misfit = || Failure::new("the handlers' descriptions have another shape than OpenAPI's");
    let mut problems = Map::new();
    for path in contract["paths"].as_object_mut().ok_or_else(misfit)?.values_mut() {
        for method in METHODS {
            if let Some(operation) = path.get_mut(method).and_then(Value::as_object_mut) {
                complete(operation, &mut problems)?;
            }
        }
    }
    contract["components"]["responses"] = Value::Object(problems);
    contract["components"]["headers"] = json!({ REQUEST_ID: {
        "description": "Names the request, in the log too.", "required": true, "schema": { "type": "string" }
    } });
    let schemas = contract["components"]["schemas"].as_object_mut().ok_or_else(misfit)?;
    schemas.insert("Problem".to_owned(), problem_schema());
    contract["components"]["securitySchemes"] = json!({
        "access_token": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token, as `/auth/login` gives it: `Authorization: Bearer eyJ...`."
        },
        "api_key": {
            "type": "http", "scheme": "bearer", "bearerFormat": "lk_<prefix>_<secret>",
            "description": "An API key, as `/auth/api-keys` gives it, with the scope that is named: `Authorization: Bearer lk_...`."
        }
    });
    contract["openapi"] = json!("3.1.0");
    contract["info"] = json!({
        "title": "Lockstep",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Ask your documents. What is wrong is answered as RFC 9457 has it, with a stable `code`."
    });
    contract["servers"] = json!([{ "url": "/" }]);
    contract["tags"] = json!([
        { "name": "accounts", "description": "Registration, login, the caller's account." },
        { "name": "mail", "description": "What is confirmed by a code in a mail." },
        { "name": "sessions", "description": "Refresh and logout." },
        { "name": "api keys", "description": "Keys for programs." },
        { "name": "knowledge bases", "description": "Whom documents belong to." },
        { "name": "members", "description": "Who may read and write them." },
        { "name": "documents", "description": "Into both stores, and out of both." },
        { "name": "query", "description": "Passages and answers with citations." },
        { "name": "consistency", "description": "Whether the two stores are in step, with proofs." },
        { "name": "keys", "description": "By which others check access tokens." },
        { "name": "contract", "description": "This document." }
    ]);
    // Whatever order the build's `serde_json` keeps.
    contract.sort_all_objects();
    Ok(contract)
}

/// Adds what follows from what the operation takes. Its problems are among `problems` then, by their codes.
fn complete(operation: &mut Map<String, Value>, problems: &mut Map<String, Value>) -> Result<(), Failure> {
    let name = operation.get("operationId").cloned().unwrap_or_default();
    let mut codes = ALWAYS.to_vec();
    for own in operation.remove("x-codes").and_then(|codes| codes.as_array().cloned()).unwrap_or_default() {
        let code = Code::ALL.iter().copied().find(|code| own == code.as_str());
        codes.push(code.ok_or_else(|| Failure::new(format!("{name} names a problem that there is not: {own}")))?);
    }
    if operation.contains_key("security") {
        codes.extend([Code::Unauthenticated, Code::InsufficientScope]);
    }
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        codes.extend(match parameter["in"].as_str() {
            Some("path") => vec![Code::NotFound],
            Some("query") => vec![Code::InvalidRequest, Code::UnknownField, Code::InvalidField],
            _ => vec![Code::InvalidField],
        });
        // An object in a query string is JSON; utoipa has no word for it.
        if parameter["name"] == "attributes"
            && let Some(parameter) = parameter.as_object_mut()
        {
            parameter.remove("schema");
            parameter.insert("content".to_owned(), json!({ "application/json": { "schema": { "type": "object" } } }));
        }
    }
    let content = operation.get_mut("requestBody").and_then(|body| body["content"].as_object_mut());
    if let Some(content) = content {
        codes.extend([
            Code::InvalidRequest,
            Code::UnknownField,
            Code::InvalidField,
            Code::TooLarge,
            Code::UnsupportedMediaType,
        ]);
        for content in content.values_mut() {
            let schema = &mut content["schema"];
            // To utoipa, a body of bytes is an array of numbers, and one that may be left out may be null.
            if schema["type"] == "array" {
                *schema = json!({ "type": "string", "format": "binary" });
            } else if let Some(body) =
                schema["oneOf"].as_array().and_then(|ways| ways.iter().find(|way| way["$ref"].is_string()))
            {
                *schema = body.clone();
            }
        }
    }
    let misfit = || Failure::new(format!("{name} has no responses"));
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut).ok_or_else(misfit)?;
    for response in responses.values_mut() {
        response["headers"][REQUEST_ID] = request_id();
        if let Some(events) = response.pointer_mut("/content/text~1event-stream") {
            events["schema"] = event_schema();
        }
    }
    for (status, codes) in by_status(&codes) {
        let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        let name = names.join(".");
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
        problems.entry(name).or_insert_with(|| problem(&codes, &names));
    }
    Ok(())
}

/// One of the events; [`query`]'s module `stream` has a table of them.
fn event_schema() -> Value {
    json!({
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": { "enum": ["hits", "token", "citations", "degraded", "usage", "done"] },
            "data": { "type": "string", "contentMediaType": "application/json" }
        }
    })
}

fn request_id() -> Value {
    json!({ "$ref": format!("#/components/headers/{REQUEST_ID}") })
}

/// The codes that share a status, for each status.
fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut statuses: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        statuses.entry(code.status().as_u16()).or_default().push(*code);
    }
    statuses
}

fn problem(codes: &[Code], names: &[&str]) -> Value {
    let titles: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let schema = json!({
        "allOf": [{ "$ref": "#/components/schemas/Problem" }],
        "properties": { "code": { "enum": names } }
    });
    json!({
        "description": titles.join(" "),
        "headers": { REQUEST_ID: request_id() },
        "content": { problem::CONTENT_TYPE: { "schema": schema } }
    })
}

/// [`shared::problem::Problem::body`], described.
fn problem_schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "description": "What is wrong, by RFC 9457. Some have further members, which say more.",
        "required": ["type", "title", "status", "detail", "code", "request_id", "retryable"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string", "description": "The same for every occurrence." },
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": { "type": "string", "description": "A sentence for people, about this occurrence." },
            "code": { "type": "string", "enum": codes, "description": "Stable, for programs." },
            "request_id": { "type": "string", "description": "Names the request, in the log too." },
            "retryable": { "type": "boolean", "description": "Whether the same request may succeed later." },
            "field": { "type": "string", "description": "The field or parameter that is wrong, where one is." }
        },
        "examples": [{
            "type": "urn:lockstep:problem:invalid_field", "title": Code::InvalidField.title(), "status": 400,
            "detail": "`k` is not from 1 to 100.", "code": "invalid_field", "retryable": false, "field": "k",
            "request_id": "019ab1ef-2c10-7f00-9a6d-51b7e4c3d208"
        }]
    })
}
