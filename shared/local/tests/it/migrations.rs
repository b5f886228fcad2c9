//! The schema comes up to date, whoever brings it there and however often.

use std::collections::BTreeSet;

use local::testkit::private_postgres;
use serde_json::{Value, json};
use shared::{
    config::{ConfigError, DatabaseConfig},
    db::migrations,
};
use tokio_postgres::NoTls;

/// The tables that the documentation has a row for.
fn described() -> BTreeSet<String> {
    let page = include_str!("../../../../docs/data-model.md");
    let section = page.split("\n## PostgreSQL").nth(1).unwrap().split("\n## ").next().unwrap();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    section.lines().filter_map(name).collect()
}

#[tokio::test]
async fn migrations_run_once_whoever_runs_them_and_a_changed_file_is_refused() {
    let server = private_postgres();
    let direct = |name: &str| server.url(name);
    let connect = async |name: &str| {
        let url = secrecy::ExposeSecret::expose_secret(&direct(name)).to_owned();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    connect("postgres").await.batch_execute("CREATE DATABASE fresh").await.unwrap();
    let config = DatabaseConfig::at(direct("fresh"));

    let (one, two) = tokio::join!(migrations::run(&config), migrations::run(&config));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.min(two) == 0 && one.max(two) > 0, "two at once apply each file once: {one}, {two}");
    assert_eq!(migrations::run(&config).await.unwrap(), 0, "a second run changes nothing");

    let pg = connect("fresh").await;
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'newer', '2026-11-25T00:00:00Z', '1')";
    pg.batch_execute(newer).await.unwrap();
    assert_eq!(
        migrations::run(&config).await.unwrap(),
        0,
        "a version that is gone back to leaves a newer schema as it is"
    );
    pg.batch_execute("DELETE FROM refinery_schema_history WHERE version = 999").await.unwrap();
    let rows = pg
        .query(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'refinery_schema_history'",
            &[],
        )
        .await
        .unwrap();
    let tables: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(described(), tables, "docs/data-model.md describes the schema's tables");

    pg.batch_execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await.unwrap();
    let error = migrations::run(&config).await.unwrap_err();
    assert!(matches!(error, migrations::MigrationError::Migrate(_)), "{error:?}");
}

/// What `CloudFormation` is told where it waits.
async fn answer_to(config: Result<DatabaseConfig, ConfigError>, kind: &str) -> Value {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/answer?signature=secret", listener.local_addr().unwrap());
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let put = axum::routing::put(async move |headers: http::HeaderMap, body: String| {
        assert_eq!(headers.get("content-type"), None, "the URL is signed for none");
        told.send(body).await.unwrap();
    });
    tokio::spawn(axum::serve(listener, axum::Router::new().route("/answer", put)).into_future());
    let event = json!({
        "RequestType": kind, "ResponseURL": url, "StackId": "arn:stack", "RequestId": "r-1", "LogicalResourceId": "Schema",
        "ResourceType": "Custom::Schema", "ResourceProperties": { "Version": "1" },
    });
    auth::migrate::handle(config, serde_json::from_value(event).unwrap()).await.unwrap();
    serde_json::from_str(&hears.recv().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_deployment_waits_for_the_schema_and_hears_why_it_is_not_there() {
    let server = private_postgres();
    let config = DatabaseConfig::at(server.url("postgres"));
    let expected = |status: &str| {
        json!({
            "Status": status, "PhysicalResourceId": "schema", "StackId": "arn:stack", "RequestId": "r-1",
            "LogicalResourceId": "Schema",
        })
    };
    assert_eq!(answer_to(Ok(config.clone()), "Create").await, expected("SUCCESS"));
    assert_eq!(migrations::run(&config).await.unwrap(), 0, "it was done");
    assert_eq!(answer_to(Ok(config.clone()), "Update").await, expected("SUCCESS"));

    let missing = DatabaseConfig::at(server.url("no_such_database"));
    let mut failed = answer_to(Ok(missing.clone()), "Update").await;
    let reason = failed.as_object_mut().unwrap().remove("Reason").unwrap();
    assert_eq!(failed, expected("FAILED"));
    assert!(reason.as_str().unwrap().contains("no_such_database"), "{reason}");
    assert_eq!(answer_to(Ok(missing.clone()), "Delete").await, expected("SUCCESS"));
    assert!(auth::migrate::handle(Ok(missing), auth::migrate::Event::default()).await.is_err(), "an operator hears it");
    let unset = answer_to(Err(ConfigError::Missing("DATABASE_URL")), "Create").await;
    assert_eq!((&unset["Status"], &unset["Reason"]), (&json!("FAILED"), &json!("DATABASE_URL is not set")));
}
