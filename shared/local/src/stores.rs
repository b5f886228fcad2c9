//! The stores of the local stack: private ones that are started again when they end, or given ones.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    folder,
    postgres::{Durability, PostgresServer},
    qdrant::QdrantServer,
    settings,
};

/// How often it is looked whether they still run.
const WATCH: Duration = Duration::from_millis(250);

/// The database of a private server. `initdb` makes it.
const DATABASE: &str = "postgres";

/// The file, below the data folder, in which a running stack says where its stores are. It holds a password.
const ANNOUNCED: &str = "stores.json";

/// The private servers.
#[derive(Debug)]
struct Servers {
    postgres: Option<PostgresServer>,
    qdrant: Option<QdrantServer>,
    stopping: bool,
}

/// PostgreSQL and Qdrant. They end with this value, and with this process.
#[derive(Debug)]
pub struct Stores {
    /// PostgreSQL's URL.
    pub database_url: SecretString,
    /// Whether PostgreSQL is our own, where the URL's role owns everything.
    pub private_database: bool,
    /// Qdrant's gRPC endpoint.
    pub qdrant_url: String,
    servers: Arc<Mutex<Servers>>,
}

impl Stores {
    /// Starts both at once, below `data`; `DATABASE_URL` and `QDRANT_URL` are used instead where they are set.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(data: &Path) -> Result<Self, Failure> {
        let (given_database, given_qdrant) = (settings::var("DATABASE_URL"), settings::var("QDRANT_URL"));
        let (postgres, qdrant) = thread::scope(|scope| {
            let qdrant = scope
                .spawn(|| given_qdrant.is_none().then(|| QdrantServer::start(&data.join("qdrant"), 0)).transpose());
            let postgres = given_database
                .is_none()
                .then(|| PostgresServer::start(&data.join("postgres"), 0, Durability::Full))
                .transpose();
            let qdrant = qdrant.join().unwrap_or_else(|_| Err(Failure::new("starting Qdrant panicked")));
            (postgres, qdrant)
        });
        let (postgres, qdrant) = (postgres?, qdrant?);
        let stores = Self {
            database_url: match &postgres {
                Some(server) => server.url(DATABASE),
                None => given_database.unwrap_or_default().into(),
            },
            private_database: postgres.is_some(),
            qdrant_url: qdrant.as_ref().map_or_else(|| given_qdrant.unwrap_or_default(), QdrantServer::url),
            servers: Arc::new(Mutex::new(Servers { postgres, qdrant, stopping: false })),
        };
        let servers = Arc::clone(&stores.servers);
        thread::spawn(move || watch(&servers));
        Ok(stores)
    }

    /// Writes down where they are, for other commands on the same data folder: the ports are others with each start.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn announce(&self, data: &Path) -> Result<(), Failure> {
        let file = data.join(ANNOUNCED);
        std::fs::remove_file(&file).ok();
        let urls = json!({ "database_url": self.database_url.expose_secret(), "qdrant_url": self.qdrant_url });
        folder::secret(&file, || Ok(urls.to_string())).map(drop)
    }

    /// Where the stores of the stack are that runs on `data`: the database's URL, and Qdrant's.
    ///
    /// # Errors
    /// When it has not written that down (yet).
    pub fn announced(data: &Path) -> Result<(SecretString, String), Failure> {
        let unreadable = "the running stack has not said where its stores are; it may still be starting";
        let text = std::fs::read(data.join(ANNOUNCED)).map_err(Failure::because(unreadable))?;
        let urls: Value = serde_json::from_slice(&text).map_err(Failure::because(unreadable))?;
        let url = |name: &str| urls.get(name).and_then(Value::as_str).map(str::to_owned);
        let both = url("database_url").zip(url("qdrant_url")).ok_or_else(|| Failure::new(unreadable))?;
        Ok((both.0.into(), both.1))
    }

    /// Stops Qdrant, then PostgreSQL, in order.
    pub fn stop(&self) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.stopping = true;
        if let Some(mut server) = servers.qdrant.take() {
            server.stop();
        }
        if let Some(mut server) = servers.postgres.take() {
            server.stop();
        }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts again what has ended without being asked to.
fn watch(servers: &Mutex<Servers>) {
    loop {
        thread::sleep(WATCH);
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.stopping {
            return;
        }
        if let Some(server) = &mut servers.postgres
            && server.pid().is_none()
        {
            report("PostgreSQL", server.resume());
        }
        if let Some(server) = &mut servers.qdrant
            && server.pid().is_none()
        {
            report("Qdrant", server.resume());
        }
    }
}

fn report(store: &str, result: Result<(), Failure>) {
    match result {
        Ok(()) => tracing::warn!(store, "had ended, and was started again"),
        Err(error) => tracing::error!(store, %error, "has ended, and could not be started again"),
    }
}
