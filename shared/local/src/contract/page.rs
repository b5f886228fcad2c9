//! The contract as one page of HTML that needs no script and no other host.

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}\
summary{cursor:pointer}summary b{display:inline-block;min-width:4rem}code,pre{font-family:ui-monospace,monospace;font-size:.9em}\
pre{background:#f6f8fa;padding:.6rem;overflow:auto;border-radius:6px}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;border-top:1px solid #d0d7de;padding:.3rem .5rem}a{color:#0550ae}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}pre{background:#161b22}details,td,th,h2{border-color:#30363d}a{color:#79c0ff}}";

/// The page of this contract.
pub(super) fn of(contract: &Value) -> String {
    let info = &contract["info"];
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{about} The same for programs: <a href=\"openapi.json\">openapi.json</a>.</p>\n",
        title = text(&info["title"]),
        about = marked(&info["description"]),
    );
    for tag in list(&contract["tags"]) {
        let operations: Vec<String> = operations(contract)
            .filter(|(_, _, operation)| operation["tags"][0] == tag["name"])
            .map(|it| operation(contract, it))
            .collect();
        let (name, about) = (text(&tag["name"]), marked(&tag["description"]));
        let _ = writeln!(html, "<h2 id=\"{name}\">{name}</h2>\n<p>{about}</p>\n{}", operations.concat());
    }
    html.push_str("<h2 id=\"schemas\">schemas</h2>\n");
    for (name, schema) in contract["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = writeln!(html, "<details id=\"schema-{name}\"><summary>{name}</summary>{}</details>", json(schema));
    }
    html.push_str("</body></html>\n");
    html
}

fn operations(contract: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = contract["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn operation(contract: &Value, (path, method, operation): (&str, &str, &Value)) -> String {
    let mut html = format!(
        "<details id=\"{id}\"><summary><b>{method}</b> <code>{path}</code> {summary}</summary>\n<p>{about}</p>\n",
        id = text(&operation["operationId"]),
        method = method.to_uppercase(),
        path = escaped(path),
        summary = marked(&operation["summary"]),
        about = marked(&operation["description"]),
    );
    if let Some(ways) = operation["security"].as_array() {
        let ways: Vec<String> = ways.iter().map(way).collect();
        let _ = writeln!(html, "<p>Needs {}.</p>", ways.join(" or "));
    }
    let mut parameters = String::new();
    for parameter in list(&operation["parameters"]) {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let needed = if parameter["required"] == true { ", required" } else { "" };
        let about = marked(&parameter["description"]);
        let _ = writeln!(parameters, "<tr><td><code>{name}</code></td><td>{place}{needed}</td><td>{about}</td></tr>");
    }
    if !parameters.is_empty() {
        let _ = writeln!(html, "<table>{parameters}</table>");
    }
    for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ =
            writeln!(html, "<p>Takes <code>{}</code>{}</p>", escaped(media_type), body(contract, &content["schema"]));
    }
    html.push_str("<table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = match response["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => &contract["components"]["responses"][name],
            None => response,
        };
        let content = response["content"].as_object().into_iter().flatten();
        let bodies = content
            .filter(|(media_type, _)| !media_type.contains("problem"))
            .map(|(_, content)| body(contract, &content["schema"]));
        let _ = writeln!(
            html,
            "<tr><th>{status}</th><td>{}{}</td></tr>",
            marked(&response["description"]),
            bodies.collect::<String>()
        );
    }
    html.push_str("</table></details>\n");
    html
}

/// A schema's name as a link, and its first example.
fn body(contract: &Value, schema: &Value) -> String {
    let reference = schema["$ref"].as_str().or_else(|| list(&schema["oneOf"]).find_map(|one| one["$ref"].as_str()));
    let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) else { return String::new() };
    let example = &contract["components"]["schemas"][name]["examples"][0];
    let example = if example.is_null() { String::new() } else { json(example) };
    format!(": <a href=\"#schema-{name}\">{name}</a>{example}")
}

fn way(way: &Value) -> String {
    let Some((name, scopes)) = way.as_object().and_then(|way| way.iter().next()) else { return "nothing".to_owned() };
    let scopes: Vec<String> = list(scopes).map(text).collect();
    let scopes = if scopes.is_empty() { String::new() } else { format!(" with <code>{}</code>", scopes.join(", ")) };
    format!("<code>{}</code>{scopes}", escaped(name))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn json(value: &Value) -> String {
    format!("<pre>{}</pre>", escaped(&format!("{value:#}")))
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

/// A text with code between backticks, and paragraphs.
fn marked(value: &Value) -> String {
    let pieces = text(value).replace("\n\n", "</p><p>");
    let mut html = String::new();
    for (at, piece) in pieces.split('`').enumerate() {
        let _ = if at % 2 == 1 { write!(html, "<code>{piece}</code>") } else { write!(html, "{piece}") };
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
