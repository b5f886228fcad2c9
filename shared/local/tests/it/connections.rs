//! A connection to PostgreSQL that is begun at a function's start, before anybody asks.

use std::time::Duration;

use local::testkit::{TcpProxy, TestApp};
use secrecy::ExposeSecret;
use shared::db::{Db, DbError};
use tokio::task::JoinHandle;

struct World {
    app: TestApp,
    proxy: TcpProxy,
    db: Db,
}

async fn start() -> World {
    let app = TestApp::start().await;
    let proxy = TcpProxy::before(app.database_url().expose_secret()).await;
    let mut config = app.app.config.database.clone();
    config.url = proxy.redirect(config.url.expose_secret()).into();
    let db = Db::new(&config).unwrap();
    World { app, proxy, db }
}

async fn backend(db: &Db) -> Result<i32, DbError> {
    let row = db.query_one("own backend", "-- test\nSELECT pg_backend_pid()", &[]).await?;
    Ok(row.try_get(0)?)
}

/// The process that serves the connection, once it is made.
async fn begun(world: &World) -> i32 {
    let pg = world.app.pg().await;
    let others = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'lockstep' AND state = 'idle'";
    world.db.connect_early();
    for _ in 0..500 {
        if let Some(row) = pg.query(others, &[]).await.unwrap().first() {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing connects");
}

/// Begins to connect to a server that does not answer yet, and asks.
async fn ask_on_its_way(world: &World) -> JoinHandle<Result<i32, DbError>> {
    world.proxy.pause();
    world.db.connect_early();
    let db = world.db.clone();
    let asked = tokio::spawn(async move { backend(&db).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    asked
}

#[tokio::test]
async fn who_asks_first_takes_the_connection_that_was_begun_made_or_on_its_way() {
    let world = start().await;
    let made = begun(&world).await;
    assert_eq!(backend(&world.db).await.unwrap(), made);
    assert_eq!(world.proxy.accepted(), 1);

    let world = start().await;
    let asked = ask_on_its_way(&world).await;
    world.proxy.forward();
    asked.await.unwrap().unwrap();
    assert_eq!(world.proxy.accepted(), 1);
}

#[tokio::test]
async fn one_that_broke_before_anybody_asked_is_made_anew() {
    let world = start().await;
    let made = begun(&world).await;
    world.proxy.cut();
    assert_ne!(backend(&world.db).await.unwrap(), made);

    let world = start().await;
    world.proxy.refuse();
    world.db.connect_early();
    while world.proxy.accepted() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.proxy.forward();
    tokio::time::sleep(Duration::from_millis(100)).await;
    backend(&world.db).await.unwrap();
}

#[tokio::test]
async fn one_that_breaks_while_it_is_waited_for_is_made_anew_and_told_if_that_fails() {
    for server_is_back in [true, false] {
        let world = start().await;
        let asked = ask_on_its_way(&world).await;
        if server_is_back {
            world.proxy.cut();
            world.proxy.forward();
            asked.await.unwrap().unwrap();
        } else {
            world.proxy.refuse();
            let error = asked.await.unwrap().unwrap_err();
            assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
        }
    }
}
