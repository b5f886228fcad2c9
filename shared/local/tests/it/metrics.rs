//! What is measured, as Prometheus sees it.

use http::Method;
use local::testkit::TestApp;
use serde_json::json;

use crate::world::send;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_functions_do_is_measured() {
    local::metrics::collect();
    let app = TestApp::start().await;
    let user = app.register("ann").await;
    let note = json!({ "text": "The spare key lies under the third flowerpot.", "source_uri": "note" });
    send(&app, &user, "key", &note).await.expect(201);
    let question = json!({ "query": "Where is the spare key?" });
    app.call(Method::POST, "/query", Some(&user.token), Some(question)).await.expect(200);
    app.call(Method::GET, "/documents/nothing", Some(&user.token), None).await.expect(404);
    ingest::sweeper(
        &app.app,
        ingest::SweeperEvent::default(),
        shared::deadline::Deadline::after(std::time::Duration::from_secs(20)),
    )
    .await
    .unwrap();
    let shown = app.call(Method::GET, "/metrics", None, None).await.expect(200);
    let text = String::from_utf8(shown.bytes.to_vec()).unwrap();
    // Other tests of this process count as well.
    for line in [
        "requests{route=\"/query\"}",
        "errors{code=\"not_found\"}",
        "request_duration_ms_bucket{route=\"/documents\"",
        "stage_duration_ms_bucket{stage=\"qdrant\"",
        "stage_duration_ms_bucket{stage=\"postgresql\"",
        "pool_wait_ms_bucket",
        "ingested_chunks",
        "ingested_bytes",
        "sweeps",
        "drift_missing ",
        "drift_orphans ",
    ] {
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{line} is not among\n{text}");
    }
    assert!(!text.contains("flowerpot") && !text.contains(&user.email));
}

/// The dashboard asks for nothing that is not measured, in the form that Prometheus has of it.
#[test]
fn the_dashboard_shows_what_is_measured() {
    let source = include_str!("../../../src/metrics.rs");
    let rows =
        source.lines().filter_map(|line| line.strip_prefix("//! | `")?.split(" | ").next().map(|names| (line, names)));
    let measured: Vec<String> = rows
        .flat_map(|(line, names)| {
            let ending = if line.contains("histogram") { "_bucket" } else { "" };
            names.split(", ").map(move |name| format!("{}{ending}", name.trim_matches('`')))
        })
        .collect();
    assert!(measured.len() > 15, "{measured:?}");
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/dashboards/lockstep.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let shown: Vec<&str> = panels
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .flat_map(|target| target["expr"].as_str().unwrap().split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| word.contains('_') || measured.iter().any(|name| name == word))
        .filter(|word| !["histogram_quantile", "__rate_interval"].contains(word))
        .collect();
    for name in &shown {
        assert!(measured.iter().any(|known| known == name), "{name} is not among {measured:?}");
    }
    for name in &measured {
        assert!(shown.contains(&name.as_str()), "no panel shows {name}");
    }
}
