//! A function as a process of its own, so that it can be killed while the stores stay: `ingest`, configured by the
//! environment as in the cloud, with the quick embedder. Told to stop at `auth`, it is that function instead, and does
//! not stop.
//!
//! Standard output: `ready URL`, and `reached POINT` when the process has come to the failpoint at which it was told to
//! stop. There it stands, until it is killed, or told to go on by a line on its standard input. It ends when that does.

use std::{
    io::BufRead,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, TryRecvError},
    },
    thread,
};

use axum::Router;
use shared::{
    App,
    config::{Config, ConfigError, LogConfig},
    db::Db,
    embed::Embedder,
    secrets::SecretsManager,
    telemetry,
    tokens::Verifier,
    vectors::qdrant::QdrantIndex,
};

use super::HashEmbedder;
use crate::{failure::Failure, settings};

/// Makes it the function `auth`.
const AUTH: &str = "auth";

/// Enough that one which stands at a failpoint is not missed.
const WORKERS: usize = 4;

/// Serves until it is killed, or its standard input ends. Stops at the failpoint `stop_at`, if one is named.
///
/// # Errors
/// When the configuration does not hold, or there is no port.
pub fn run(stop_at: Option<String>) -> Result<(), Failure> {
    let (go_on, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.next();
        // From here on nobody waits any more.
        drop(go_on);
        // Whoever started us holds the other end.
        lines.for_each(drop);
        std::process::exit(0);
    });
    // Standard error is a test's own, unless it asks for the log.
    if settings::var("RUST_LOG").is_some() {
        let log = LogConfig::from_env();
        telemetry::init(&log.filter, log.json);
    }
    let auth = stop_at.as_deref() == Some(AUTH);
    if let Some(point) = stop_at.filter(|_| !auth) {
        let (name, wait) = (point.clone(), Mutex::new(wait));
        let stop = move || {
            let wait = wait.lock().unwrap_or_else(PoisonError::into_inner);
            if wait.try_recv() == Err(TryRecvError::Empty) {
                println!("reached {point}");
                wait.recv().ok();
            }
        };
        fail::cfg_callback(name, stop).map_err(Failure::new)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    runtime.map_err(Failure::because("the runtime can not start"))?.block_on(serve(auth))
}

async fn serve(auth: bool) -> Result<(), Failure> {
    let config = Config::from_env(&SecretsManager::shared()).await;
    let app = app(config.map_err(Failure::because("the configuration does not hold"))?)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(Failure::because("no port"))?;
    println!("ready http://{}", listener.local_addr().map_err(Failure::because("no address"))?);
    let router =
        if auth { auth_router(app).map_err(Failure::because("auth does not start"))? } else { ingest::router(app) };
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .await
        .map_err(Failure::because("the port is lost"))
}

fn auth_router(app: App) -> Result<Router, ConfigError> {
    let signer = auth::Signer::new(&app.config.tokens)?;
    auth::router(app, signer)
}

fn app(config: Config) -> Result<App, Failure> {
    let embedder: Arc<dyn Embedder> = Arc::new(HashEmbedder::default());
    let index = QdrantIndex::new(&config.qdrant, embedder.space());
    Ok(App {
        db: Db::new(&config.database).map_err(Failure::because("the database's configuration does not hold"))?,
        index: Arc::new(index.map_err(Failure::because("Qdrant's configuration does not hold"))?),
        index_retries: shared::retry::RetryBudget::new("qdrant"),
        verifier: Verifier::new(&config.tokens).map_err(Failure::because("the key set does not hold"))?,
        embedder,
        next: None,
        config: Arc::new(config),
    })
}
