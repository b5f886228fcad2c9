//! The servers of a test process, started when first needed. They end with the process, however it ends.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, OnceLock},
};

use auth::signer::GeneratedKeys;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    config::DatabaseConfig,
    db::migrations,
    embed::{Embedder, MiniLm},
};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{
    folder::TempFolder,
    model,
    postgres::{Durability, PostgresServer},
    qdrant::QdrantServer,
    settings,
};

/// The database that every test's database is a copy of.
const TEMPLATE: &str = "lockstep_template";

/// What all tests of a process share. Nothing in it is bound to a runtime: each test has its own.
pub(super) struct Servers {
    /// A database of the server in which others can be made.
    pub(super) database_url: SecretString,
    /// Qdrant's gRPC endpoint.
    pub(super) qdrant_url: String,
    /// The servers stay when the process goes: what a test has made in them must go.
    pub(super) external: bool,
    // Held, not used: the servers live as long as the process.
    _owned: Mutex<(Option<PostgresServer>, Option<QdrantServer>, TempFolder)>,
}

/// The servers of this process.
pub(super) fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(start)
}

/// The signing key of all apps of this process.
pub(super) fn keys() -> &'static GeneratedKeys {
    static KEYS: OnceLock<GeneratedKeys> = OnceLock::new();
    KEYS.get_or_init(|| auth::signer::generate().expect("a key can be generated"))
}

/// Where one app keeps its things.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) database_url: SecretString,
    pub(super) qdrant_url: String,
    /// Begins the names of its collections.
    pub(super) prefix: String,
    /// Its database, when that must go with the app because the server stays.
    pub(super) to_drop: Option<String>,
}

impl Place {
    /// A new database and a new collection on the servers that the tests of this process share.
    pub(super) async fn own() -> Self {
        let servers = servers();
        let id = Uuid::new_v4().simple();
        let database = format!("t_{id}");
        make_database(&database).await;
        Self {
            database_url: with_database(&servers.database_url, &database),
            qdrant_url: servers.qdrant_url.clone(),
            prefix: format!("t{id}"),
            to_drop: servers.external.then_some(database),
        }
    }

    /// What [`private_postgres`] and [`private_qdrant`] have, which goes with them.
    #[must_use]
    pub fn private(postgres: &PostgresServer, qdrant: &QdrantServer) -> Self {
        let database_url = postgres.url("postgres");
        Self { database_url, qdrant_url: qdrant.url(), prefix: "soak".to_owned(), to_drop: None }
    }
}

fn start() -> Servers {
    let folder = TempFolder::new().unwrap_or_else(|error| panic!("{error}"));
    let postgres = settings::var("DATABASE_URL").is_none().then(|| {
        PostgresServer::start(&folder.path().join("postgres"), 0, Durability::ThrowAway)
            .unwrap_or_else(|error| panic!("{error}"))
    });
    let qdrant = settings::var("QDRANT_URL")
        .is_none()
        .then(|| QdrantServer::start(&folder.path().join("qdrant"), 0).unwrap_or_else(|error| panic!("{error}")));
    let database_url = match (&postgres, settings::var("DATABASE_URL")) {
        (Some(server), _) => server.url("postgres"),
        (None, url) => url.unwrap_or_default().into(),
    };
    let qdrant_url = match (&qdrant, settings::var("QDRANT_URL")) {
        (Some(server), _) => server.url(),
        (None, url) => url.unwrap_or_default(),
    };
    let url = database_url.clone();
    blocking(async move { make_template(&url).await });
    Servers {
        database_url,
        qdrant_url,
        external: postgres.is_none() || qdrant.is_none(),
        _owned: Mutex::new((postgres, qdrant, folder)),
    }
}

/// The embedding model, loaded once for all tests of the process.
pub(super) fn embedder() -> Arc<dyn Embedder> {
    static EMBEDDER: OnceLock<Arc<dyn Embedder>> = OnceLock::new();
    let load = || -> Arc<dyn Embedder> {
        // It loads when a text is first embedded: a test that embeds nothing does not wait for it.
        Arc::new(MiniLm::new(model::dir().unwrap_or_else(|error| panic!("{error}"))))
    };
    Arc::clone(EMBEDDER.get_or_init(load))
}

/// A server for one test, with a folder that goes when it goes.
#[derive(Debug)]
pub struct Private<S> {
    // Dropped in this order.
    server: S,
    _folder: TempFolder,
}

impl<S> Deref for Private<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.server
    }
}

impl<S> DerefMut for Private<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.server
    }
}

/// A PostgreSQL server for one test, to be stopped and started at will, with the schema in its database `postgres`.
///
/// Blocks for two seconds or so.
#[must_use]
pub fn private_postgres() -> Private<PostgresServer> {
    let folder = TempFolder::new().unwrap_or_else(|error| panic!("{error}"));
    let server = PostgresServer::start(&folder.path().join("postgres"), 0, Durability::ThrowAway)
        .unwrap_or_else(|error| panic!("{error}"));
    let config = DatabaseConfig::at(server.url("postgres"));
    blocking(async move { migrations::run(&config).await }).expect("the migrations hold");
    Private { server, _folder: folder }
}

/// A Qdrant server for one test, to be stopped and started at will.
#[must_use]
pub fn private_qdrant() -> Private<QdrantServer> {
    let folder = TempFolder::new().unwrap_or_else(|error| panic!("{error}"));
    let server = QdrantServer::start(&folder.path().join("qdrant"), 0).unwrap_or_else(|error| panic!("{error}"));
    Private { server, _folder: folder }
}

/// `url` with another database's name.
fn with_database(url: &SecretString, database: &str) -> SecretString {
    let url = url.expose_secret();
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let (head, tail) = base.split_at(authority);
    let host = tail.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{head}{host}/{database}{query}").into()
}

/// Runs `work` to its end on a thread and a runtime of its own: a test's runtime may be waiting for us.
pub(super) fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work)
        };
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A direct connection.
pub(super) async fn connect(url: &SecretString) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url.expose_secret(), NoTls).await.expect("PostgreSQL takes a connection");
    tokio::spawn(connection);
    client
}

/// Runs one statement on the server, again while another test process is at the template.
pub(super) async fn administer(url: &SecretString, statement: &str) -> Result<(), tokio_postgres::Error> {
    let client = connect(url).await;
    let mut attempts = 50;
    loop {
        attempts -= 1;
        match client.batch_execute(statement).await {
            Err(error) if attempts > 0 && error.code().is_some_and(|code| code.code() == "55006") => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

/// Makes the copy for one test.
async fn make_database(name: &str) {
    let statement = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
    administer(&servers().database_url, &statement).await.expect("the test's database can be made");
}

async fn make_template(url: &SecretString) {
    let config = DatabaseConfig::at(with_database(url, TEMPLATE));
    for attempt in 1.. {
        // It is there already on a server that stays, or when another process has just made it.
        administer(url, &format!("CREATE DATABASE {TEMPLATE}")).await.ok();
        match migrations::run(&config).await {
            Ok(_) => return,
            // On a server that stays, the migrations may have changed since.
            Err(_) if attempt == 1 => {
                administer(url, &format!("DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")).await.ok();
            }
            Err(error) => panic!("the migrations fail: {}", shared::problem::Causes(&error)),
        }
    }
}
