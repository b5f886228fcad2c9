//! A function as a process of its own, so that it can be killed while the stores stay: `ingest`, configured by the
//! environment as in the cloud, with the quick embedder; `POST /sweep` beside its routes is what a schedule starts, and
//! `POST /events` takes what a bucket or a queue tells. Told to
//! stop at `auth` or `query`, it is that function instead, and does not stop.
//!
//! Standard output: `ready URL`, and `reached POINT` when the process has come to the failpoint at which it was told to
//! stop. There it stands, until it is killed, or told to go on by a line on its standard input. It ends when that does.
//! Told a number as well, it dies there instead, the so-manieth time that it comes to the point.

mod process;

use std::{
    io::BufRead,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, TryRecvError},
    },
    thread,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;

use ingest::SweeperEvent;
use shared::{
    App,
    config::{Config, ConfigError, EmbeddingConfig, LogConfig},
    db::Db,
    deadline::Deadline,
    embed::Embedder,
    http::Json,
    problem::Problem,
    secrets::SecretsManager,
    telemetry,
    tokens::Verifier,
    vectors::qdrant::QdrantIndex,
};

pub use self::process::{Caller, Function};
use super::HashEmbedder;
use crate::{failure::Failure, settings};

/// Makes it this function instead of `ingest`.
const AUTH: &str = "auth";
const QUERY: &str = "query";

/// Enough that one which stands at a failpoint is not missed.
const WORKERS: usize = 4;

/// Serves until it is killed, or its standard input ends. `arguments`: the failpoint at which it stops, and the pass at which
/// it dies there instead.
///
/// # Errors
/// When the arguments or the configuration do not hold, or there is no port.
pub fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let (point, pass) = (arguments.next(), arguments.next());
    let pass = pass.map(|pass| pass.parse::<u32>()).transpose().map_err(Failure::because("a pass is a number"))?;
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
        telemetry::init(&log);
    }
    let (others, point): (Vec<String>, Vec<String>) =
        point.into_iter().partition(|word| ["ingest", AUTH, QUERY].contains(&word.as_str()));
    let (function, point) = (others.into_iter().next(), point.into_iter().next());
    if let (Some(point), Some(pass)) = (&point, pass) {
        let passes = AtomicU32::new(0);
        let die = move || {
            if passes.fetch_add(1, Ordering::Relaxed) + 1 == pass {
                // As a crash does: no destructor runs, no connection is closed in order.
                std::process::abort();
            }
        };
        fail::cfg_callback(point.as_str(), die).map_err(Failure::new)?;
    } else if let Some(point) = point {
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
    runtime.map_err(Failure::because("the runtime can not start"))?.block_on(serve(function.as_deref()))
}

async fn serve(function: Option<&str>) -> Result<(), Failure> {
    let config = Config::from_env(&SecretsManager::shared()).await;
    let app = app(config.map_err(Failure::because("the configuration does not hold"))?)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(Failure::because("no port"))?;
    println!("ready http://{}", listener.local_addr().map_err(Failure::because("no address"))?);
    let router = match function {
        Some(AUTH) => auth_router(app).map_err(Failure::because("auth does not start"))?,
        Some(QUERY) => query::router(app).map_err(Failure::because("query does not start"))?,
        _ => {
            let triggered =
                Router::new().route("/sweep", post(sweep)).route("/events", post(events)).with_state(app.clone());
            ingest::router(app).merge(triggered)
        }
    };
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .await
        .map_err(Failure::because("the port is lost"))
}

fn auth_router(app: App) -> Result<Router, ConfigError> {
    let signer = auth::Signer::new(&app.config.tokens)?;
    auth::router(app, signer)
}

/// What the schedule would start, within a request's time.
async fn sweep(State(app): State<App>) -> Result<Json<ingest::Done>, Problem> {
    let deadline = Deadline::after(app.config.limits.request_timeout);
    Ok(Json(ingest::sweeper(&app, SweeperEvent::default(), deadline).await?))
}

/// What a queue would hand over, within a request's time.
async fn events(State(app): State<App>, axum::Json(event): axum::Json<serde_json::Value>) -> Result<Response, Problem> {
    let deadline = Deadline::after(app.config.limits.request_timeout);
    match ingest::events::events(&app, event, deadline).await {
        Ok(answer) => Ok(axum::Json(answer).into_response()),
        Err(error) => Ok((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()),
    }
}

fn app(config: Config) -> Result<App, Failure> {
    // An endpoint tells the dimension, and is not asked.
    let embedder: Arc<dyn Embedder> = Arc::new(match config.embedding {
        EmbeddingConfig::Http { dimension, .. } => HashEmbedder::of("hash", dimension),
        EmbeddingConfig::MiniLm { .. } => HashEmbedder::default(),
    });
    let index = QdrantIndex::new(&config.qdrant, embedder.space());
    Ok(App {
        objects: Arc::new(shared::objects::s3::S3::new(&config.objects)),
        db: Db::new(&config.database).map_err(Failure::because("the database's configuration does not hold"))?,
        index: Arc::new(index.map_err(Failure::because("Qdrant's configuration does not hold"))?),
        index_retries: shared::retry::RetryBudget::new("qdrant"),
        verifier: Verifier::new(&config.tokens).map_err(Failure::because("the key set does not hold"))?,
        embedder,
        next: None,
        config: Arc::new(config),
    })
}
