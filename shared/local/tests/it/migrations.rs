//! The schema comes up to date, whoever brings it there and however often.

use std::collections::BTreeSet;

use local::testkit::private_postgres;
use shared::{config::DatabaseConfig, db::migrations};
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
