//! Where schedules run: private stores that can be killed, proxies before them that do what they are told, processes of
//! the function `ingest`, and two tenants.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use secrecy::ExposeSecret;
use serde_json::json;
use shared::{
    config::Config,
    db::{Db, DbError},
    domain::KnowledgeBaseId,
};

use super::{
    ledger,
    plan::{PROCESSES, SHELVES, SLOTS},
    text::Texts,
};
use crate::{
    postgres::PostgresServer,
    qdrant::QdrantServer,
    testkit::{
        HashEmbedder, Place, PostgresProxy, Private, QdrantProxy, TestApp, TestUser,
        function::{Caller, Function},
        private_postgres, private_qdrant,
    },
};

/// Time of a request to each process, and with it of a lease. The first one has enough for the sweeper to begin something;
/// the other one has so little that a slow answer of Qdrant ends it, and its client is told 202.
const REQUEST_TIMEOUTS: [Duration; PROCESSES] = [Duration::from_secs(8), Duration::from_secs(3)];

/// The process that has time.
pub(super) const PATIENT: usize = 0;

/// The stores' servers.
#[derive(Debug)]
struct Servers {
    postgres: Private<PostgresServer>,
    qdrant: Private<QdrantServer>,
}

/// Where schedules run.
#[derive(Debug)]
pub(super) struct World {
    /// The app of readers and of those who look: straight at the stores.
    pub(super) app: TestApp,
    pub(super) postgres: PostgresProxy,
    pub(super) qdrant: QdrantProxy,
    pub(super) texts: Texts,
    /// The tenants.
    pub(super) users: Vec<TestUser>,
    /// The knowledge bases, in the order of [`SHELVES`].
    pub(super) shelves: Vec<KnowledgeBaseId>,
    functions: Vec<tokio::sync::Mutex<Option<Function>>>,
    callers: Mutex<Vec<Vec<Caller>>>,
    /// What the functions are told: the way through the proxies.
    config: Config,
    servers: Arc<Mutex<Servers>>,
}

impl World {
    /// Private stores, empty but for the tenants.
    pub(super) async fn start() -> Self {
        let servers =
            tokio::task::spawn_blocking(|| Servers { postgres: private_postgres(), qdrant: private_qdrant() });
        let servers = servers.await.expect("the stores start");
        let place = Place::private(&servers.postgres, &servers.qdrant);
        let app = TestApp::at(place, |parts| {
            parts.embedder = Arc::new(HashEmbedder::default());
        });
        app.pg().await.batch_execute(ledger::SCHEMA).await.expect("the ledger can be made");
        let users = vec![app.register("ann").await, app.register("bob").await];
        let [ann, bob] = users.as_slice() else { panic!("two tenants") };
        let made = app.call(Method::POST, "/knowledge-bases", Some(&ann.token), Some(json!({ "name": "More" }))).await;
        let more = made.expect(201).json["id"].as_str().and_then(|id| id.parse().ok()).expect("it has an id");
        let shelves = vec![ann.knowledge_base, more, bob.knowledge_base];
        let database = &app.app.config.database.url;
        let postgres = PostgresProxy::before(database.expose_secret()).await;
        let qdrant = QdrantProxy::before(&app.app.config.qdrant.url).await;
        let mut config = Config::clone(&app.app.config);
        config.database.url = postgres.redirect(database.expose_secret()).into();
        config.qdrant.url = qdrant.url();
        let world = Self {
            app,
            postgres,
            qdrant,
            texts: Texts::default(),
            users,
            shelves,
            functions: (0..PROCESSES).map(|_| tokio::sync::Mutex::new(None)).collect(),
            callers: Mutex::default(),
            config,
            servers: Arc::new(Mutex::new(servers)),
        };
        world.callers().resize(PROCESSES, Vec::new());
        world.renew().await;
        world
    }

    /// New processes without failpoints, and new access tokens.
    pub(super) async fn renew(&self) {
        for process in 0..PROCESSES {
            self.replace(process, &[]).await;
        }
    }

    /// Kills a process (`kill -9`), and starts another with these arguments in its place.
    pub(super) async fn replace(&self, process: usize, arguments: &[&str]) {
        let mut function = self.functions.get(process).expect("a process").lock().await;
        if let Some(function) = function.take() {
            function.kill().await;
        }
        let mut config = self.config.clone();
        config.limits.request_timeout = REQUEST_TIMEOUTS.get(process).copied().expect("a process");
        let fresh = Function::launch(&config, arguments).await;
        let callers = self.users.iter().map(|user| fresh.client(&self.with_token(user))).collect();
        if let Some(place) = self.callers().get_mut(process) {
            *place = callers;
        }
        *function = Some(fresh);
    }

    /// Starts another process where one has died at its failpoint.
    pub(super) async fn revive(&self, process: usize) {
        let dead = {
            let mut function = self.functions.get(process).expect("a process").lock().await;
            !function.as_mut().is_some_and(Function::lives)
        };
        if dead {
            self.replace(process, &[]).await;
        }
    }

    /// A client of a process.
    pub(super) fn caller(&self, process: usize, tenant: usize) -> Caller {
        self.callers().get(process).and_then(|callers| callers.get(tenant)).expect("a process, a tenant").clone()
    }

    /// A tenant with a new access token: the first one does not outlive a long soak.
    pub(super) fn with_token(&self, user: &TestUser) -> TestUser {
        TestUser { token: self.app.token(user.id), ..user.clone() }
    }

    /// Whose document it is, in which knowledge base, and its name.
    pub(super) fn slot(&self, slot: usize) -> (usize, KnowledgeBaseId, &'static str) {
        let (shelf, name) = SLOTS.get(slot).copied().expect("a slot");
        (SHELVES.get(shelf).copied().expect("a shelf"), self.shelf(shelf), name)
    }

    pub(super) fn shelf(&self, shelf: usize) -> KnowledgeBaseId {
        self.shelves.get(shelf).copied().expect("a shelf")
    }

    /// `kill -9` for both stores, and a new start.
    pub(super) async fn kill_stores(&self) {
        let servers = Arc::clone(&self.servers);
        let die = move || {
            let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
            servers.postgres.kill();
            servers.qdrant.kill();
            servers.postgres.resume().expect("PostgreSQL starts again");
            servers.qdrant.resume().expect("Qdrant starts again");
        };
        tokio::task::spawn_blocking(die).await.expect("the stores start again");
    }

    /// Runs statements straight on the database; whether they took effect.
    pub(super) async fn execute(&self, statements: &'static str) -> bool {
        execute(&self.app.app.db, statements.to_owned()).await.is_ok()
    }

    fn callers(&self) -> MutexGuard<'_, Vec<Vec<Caller>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn execute(db: &Db, statements: String) -> Result<(), DbError> {
    db.transaction("soak: execute", async move |tx| Ok(tx.batch_execute(&statements).await?)).await
}

/// All leases run out, whoever holds them.
pub(super) const EXPIRE: &str = "
    UPDATE idempotency_keys SET lease_expires_at = now() WHERE response_status IS NULL;
    UPDATE document_revisions SET lease_expires_at = LEAST(lease_expires_at, now()), next_attempt_at = now()
        WHERE state IN ('claimed', 'staged');
    UPDATE audits SET lease_expires_at = now() WHERE finished_at IS NULL";

/// All retired points are due.
pub(super) const DUE: &str = "UPDATE retired_points SET due_at = now()";

/// Whoever has not come again for what only the client can go on with, never will.
pub(super) const ABANDON: &str =
    "UPDATE document_revisions SET lease_expires_at = now() - interval '1 day' WHERE state = 'claimed'";
