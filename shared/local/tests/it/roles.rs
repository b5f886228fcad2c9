//! The functions' role can not change the schema, nor the record of what happened.

use local::testkit::{TestApp, private_postgres};
use secrecy::ExposeSecret;
use shared::{
    config::DatabaseConfig,
    db::{Db, DbError, migrations},
};
use tokio_postgres::NoTls;

/// What PostgreSQL says to a statement of the functions: `None` when it is done.
async fn refusal(db: &Db, statement: &str) -> Option<String> {
    let run = db.transaction::<_, DbError, _>("try", async |tx| Ok(tx.batch_execute(statement).await?)).await;
    match run {
        Ok(()) => None,
        Err(DbError::Statement(error)) => Some(error.code().unwrap().code().to_owned()),
        Err(other) => panic!("{statement}: {other:?}"),
    }
}

#[tokio::test]
async fn the_functions_can_not_change_the_schema() {
    let app = TestApp::start().await;
    for statement in [
        "ALTER TABLE users ADD COLUMN admin boolean",
        "DROP TABLE audit_log",
        "CREATE TABLE more (id int)",
        "CREATE INDEX more ON users (email)",
        "TRUNCATE users CASCADE",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "ALTER ROLE lockstep_app SUPERUSER",
        "SELECT * FROM refinery_schema_history",
    ] {
        // insufficient_privilege
        assert_eq!(refusal(&app.app.db, statement).await.as_deref(), Some("42501"), "{statement}");
    }
    assert_eq!(refusal(&app.app.db, "SELECT * FROM users").await, None);
}

#[tokio::test]
async fn the_audit_log_is_append_only_for_the_functions() {
    let app = TestApp::start().await;
    let db = &app.app.db;
    assert_eq!(refusal(db, "INSERT INTO audit_log (event) VALUES ('tested')").await, None);
    assert_eq!(refusal(db, "SELECT * FROM audit_log").await, None);
    // A GRANT by who has nothing to grant is a warning and no error.
    assert_eq!(refusal(db, "GRANT UPDATE, DELETE ON audit_log TO lockstep_app").await, None);
    for statement in [
        "UPDATE audit_log SET event = 'other'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log (id, event) OVERRIDING SYSTEM VALUE VALUES (1, 'x') ON CONFLICT ON CONSTRAINT audit_log_pk
            DO UPDATE SET event = 'x'",
    ] {
        assert_eq!(refusal(db, statement).await.as_deref(), Some("42501"), "{statement}");
    }
    let row = app.pg().await.query_one("SELECT count(*) FROM audit_log WHERE event = 'tested'", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn databases_of_one_server_are_migrated_at_the_same_time_and_by_who_may_make_no_roles() {
    let server = private_postgres();
    let (client, connection) = tokio_postgres::connect(server.url("postgres").expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    // As on a new server: the role is still to be made.
    client.batch_execute("DROP OWNED BY lockstep_app; DROP ROLE lockstep_app").await.unwrap();
    for name in ["one", "two", "three"] {
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }
    let configs = ["one", "two", "three"].map(|name| DatabaseConfig::at(server.url(name)));
    let [one, two, three] = &configs;
    let (one, two, three) = tokio::join!(migrations::run(one), migrations::run(two), migrations::run(three));
    assert!(one.unwrap() > 0 && two.unwrap() > 0 && three.unwrap() > 0);
    let app = Db::new(&DatabaseConfig::at(migrations::as_app_role(&server.url("three")))).unwrap();
    assert_eq!(refusal(&app, "SELECT * FROM documents").await, None);
    assert_eq!(refusal(&app, "DELETE FROM audit_log").await.as_deref(), Some("42501"));
    let row = "SELECT current_setting('statement_timeout') = '20s' AS bounded";
    let bounded =
        app.transaction::<bool, DbError, _>("look", async |tx| Ok(tx.query_one(row, &[]).await?.get(0))).await;
    assert!(bounded.unwrap(), "the bound on statements holds for the functions' role");

    for statement in ["CREATE ROLE lowly LOGIN PASSWORD 'lowly'", "CREATE DATABASE four OWNER lowly"] {
        client.batch_execute(statement).await.unwrap();
    }
    for name in ["one", "two", "three", "postgres"] {
        let (client, connection) = tokio_postgres::connect(server.url(name).expose_secret(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("DROP OWNED BY lockstep_app").await.unwrap();
    }
    drop(app);
    client.batch_execute("DROP ROLE lockstep_app").await.unwrap();
    let mut url = server.url("four").expose_secret().to_owned();
    let authority = url.find("://").unwrap() + 3..url.find('@').unwrap();
    url.replace_range(authority, "lowly:lowly");
    assert!(migrations::run(&DatabaseConfig::at(url.into())).await.unwrap() > 0, "without the role, but migrated");
}
