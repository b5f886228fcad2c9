//! The schema comes up to date, whoever brings it there and however often.

use local::testkit::private_postgres;
use shared::{config::DatabaseConfig, db::migrations};
use tokio_postgres::NoTls;

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
    pg.batch_execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await.unwrap();
    let error = migrations::run(&config).await.unwrap_err();
    assert!(matches!(error, migrations::MigrationError::Migrate(_)), "{error:?}");
}
