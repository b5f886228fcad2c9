//! `lockstep up`: the whole stack in one process and two children.

use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use auth::signer::GeneratedKeys;
use secrecy::SecretString;
use shared::{
    App,
    config::{
        AccountsConfig, AnswersConfig, Config, DatabaseConfig, EmbeddingConfig, ExtractionConfig, Limits, LogConfig,
        ObjectsConfig, QdrantConfig, TokenConfig,
    },
    db::migrations,
    deadline::Deadline,
    problem::Causes,
    secrets::SecretsManager,
    telemetry,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    args::Options, demo, failure::Failure, folder, gateway, keys, metrics, model, queue::Queue, s3, settings,
    stores::Stores,
};

/// How long requests that are running may take to end, once we are asked to.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often interrupted ingestions are looked for; the scheduled function in the cloud.
const SWEEP: Duration = Duration::from_secs(2);

/// The most time of one sweep.
const SWEEP_MAX: Duration = Duration::from_secs(25);

/// Runs the stack until it is asked to end.
///
/// # Errors
/// When something does not start; the sentence says what to do.
pub fn run(options: Options) -> Result<(), Failure> {
    let started = Instant::now();
    let log = LogConfig::from_env();
    // At a terminal a line for each request is noise between the demo's lines; for a machine it is the point.
    let asked = settings::var("RUST_LOG").is_some() || options.json;
    metrics::collect();
    let filter = if asked { log.filter } else { "warn".to_owned() };
    telemetry::init(&LogConfig { filter, json: options.json, ..log });

    let data = settings::data_dir();
    folder::make(&data)?;
    let _lock = lock(&data)?;
    let listener = bind(options.port)?;
    let address = listener.local_addr().map_err(Failure::because("the gateway has no address"))?;
    let queue = Queue::default();
    let s3 = s3::open(&data.join("s3"), queue.clone())?;
    let s3_listener = bind(0)?;
    let s3_address = s3_listener.local_addr().map_err(Failure::because("S3 has no address"))?;
    let keys = keys::load_or_generate(&data.join("keys"))?;
    let models = models()?;
    let stores = Stores::start(&data)?;
    stores.announce(&data)?;
    let mut config = config(stores.database_url.clone(), &stores.qdrant_url, models, format!("http://{address}"), keys);
    config.objects = ObjectsConfig {
        endpoint: Some(format!("http://{s3_address}")),
        credentials: Some((s3::ACCESS_KEY.to_owned(), s3.secret_key.clone().into())),
        upload_bucket: Some(s3::INBOX.to_owned()),
        ..ObjectsConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    let result = runtime.block_on(serve(
        config,
        stores.private_database,
        (listener, address),
        (s3, s3_listener, s3_address, queue),
        &data,
        options,
        started,
    ));
    // What still runs now has had its time; a model's inference may run on in its thread.
    runtime.shutdown_timeout(Duration::from_secs(1));
    stores.stop();
    result
}

/// The configuration of the functions on these stores.
pub(crate) fn config(
    database_url: SecretString,
    qdrant_url: &str,
    Models { embedding, next, answers }: Models,
    issuer: String,
    keys: GeneratedKeys,
) -> Config {
    Config {
        database: DatabaseConfig::at(database_url),
        qdrant: QdrantConfig::at(qdrant_url),
        embedding,
        embedding_next: next,
        tokens: TokenConfig {
            issuer,
            audience: "lockstep".to_owned(),
            access_ttl: Duration::from_mins(15),
            jwks: keys.jwks,
            jwks_entry: None,
            signing_key: Some(keys.private_pem),
            signing_key_entry: None,
        },
        answers,
        extraction: ExtractionConfig::default(),
        limits: Limits::default(),
        objects: ObjectsConfig::default(),
        accounts: AccountsConfig::local(settings::data_dir().join("mail")),
    }
}

/// Migrates as the owner, then serves under the functions' role until a signal comes, and lets running requests end. A given
/// database's URL is taken as it is.
async fn serve(
    mut config: Config,
    private: bool,
    (listener, address): (TcpListener, SocketAddr),
    (s3, s3_listener, s3_address, queue): (s3::S3, TcpListener, SocketAddr, Queue),
    data: &Path,
    options: Options,
    started: Instant,
) -> Result<(), Failure> {
    let ending = ending()?;
    migrations::run(&config.database)
        .await
        .map_err(|error| Failure::new(format!("the database can not be brought up to date: {}", Causes(&error))))?;
    if private {
        config.database.url = migrations::as_app_role(&config.database.url);
    }
    let app = App::new(config).map_err(Failure::because("the configuration does not hold"))?;
    let router = gateway::router(&app).map_err(Failure::because("the configuration does not hold"))?;
    let s3_listener = tokio::net::TcpListener::from_std(s3_listener).map_err(Failure::because("S3's port is lost"))?;
    let s3_serve = axum::serve(s3_listener, s3.router).with_graceful_shutdown(ended(ending.clone()));
    let s3_task = tokio::spawn(s3_serve.into_future());

    let listener = tokio::net::TcpListener::from_std(listener).map_err(Failure::because("the port is lost"))?;
    let gateway = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(ended(ending.clone()));
    let gateway = tokio::spawn(gateway.into_future());
    let sweeper = tokio::spawn(sweep(app.clone(), ending.clone()));
    let events = tokio::spawn(consume(queue, app, ending.clone()));

    let url = format!("http://{address}");
    if options.quiet {
        say(&format!("ready {url} s3 http://{s3_address}\n"));
    } else {
        let banner = demo::Banner { url: &url, s3: &format!("http://{s3_address}"), data, started };
        say(&banner.to_string());
    }
    if options.demo {
        let ended = ended(ending.clone());
        tokio::select! {
            // The stack is of use without its demo.
            result = demo::run(&url, data, say) => if let Err(error) = result { say(&format!("\n  the demo failed: {error}\n")); },
            () = ended => {}
        }
    }
    ended(ending).await;
    if !options.quiet {
        say("\n  stopping\n");
    }
    let drain = async {
        gateway.await.ok();
        s3_task.await.ok();
        sweeper.await.ok();
        events.await.ok();
    };
    if tokio::time::timeout(DRAIN_MAX, drain).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// The models that the environment names, as in the cloud.
pub(crate) struct Models {
    /// The endpoint that `EMBEDDING_URL` names, or the model in this process.
    embedding: EmbeddingConfig,
    /// The other one, while one takes the other's place.
    next: Option<EmbeddingConfig>,
    /// The language model and the reranker, if there are any.
    answers: AnswersConfig,
}

pub(crate) fn models() -> Result<Models, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("there is no runtime"))?;
    let secrets = SecretsManager::shared();
    let mut embedding = runtime
        .block_on(EmbeddingConfig::from_env(&secrets))
        .map_err(Failure::because("the embedding's settings do not hold"))?;
    if let EmbeddingConfig::MiniLm { dir, .. } = &mut embedding {
        *dir = model::dir()?;
    }
    let next = runtime
        .block_on(EmbeddingConfig::next_from_env(&secrets))
        .map_err(Failure::because("the other embedding's settings do not hold"))?;
    let answers = runtime
        .block_on(AnswersConfig::from_env(&secrets))
        .map_err(Failure::because("the settings of the language model do not hold"))?;
    Ok(Models { embedding, next, answers })
}

/// Turns true when a signal asks us to end.
fn ending() -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind| signal(kind).map_err(Failure::because("signals can not be heard"));
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = listen(SignalKind::hangup())?;
    let (send, ending) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hangup.recv() => {}
        }
        send.send_replace(true);
        // Held, so that nobody takes a dropped sender for a signal.
        send.closed().await;
    });
    Ok(ending)
}

async fn ended(mut ending: watch::Receiver<bool>) {
    ending.wait_for(|ended| *ended).await.ok();
}

/// What the schedule does in the cloud: finishes interrupted ingestions, removes retired points, audits for drift.
async fn sweep(app: App, ending: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = ended(ending.clone()) => return,
        }
        // Not broken off at the end: it gets the same time to finish as a request.
        if let Err(error) = ingest::sweeper(&app, ingest::SweeperEvent::default(), Deadline::after(SWEEP_MAX)).await {
            tracing::warn!(error = %Causes(&error), "the sweep did not end");
        }
    }
}

/// What the queue's trigger does in the cloud.
async fn consume(queue: Queue, app: App, ending: watch::Receiver<bool>) {
    tokio::select! {
        () = queue.serve(&app) => {}
        // What is claimed is the sweeper's; what is not lies in the bucket.
        () = ended(ending) => {}
    }
}

/// Holds the data folder: two stacks on one would fight over it.
fn lock(data: &Path) -> Result<File, Failure> {
    try_lock(data)?.map_err(|pid| {
        Failure::new(format!(
            "another `lockstep up` (process {pid}) runs on {}; stop it, or set LOCKSTEP_DATA_DIR to another folder",
            data.display()
        ))
    })
}

/// Holds the data folder, or tells which process does.
pub(crate) fn try_lock(data: &Path) -> Result<Result<File, String>, Failure> {
    let path = data.join("lock");
    let unusable = || format!("{} can not be used", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Failure::because(unusable()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok();
            return Ok(Err(pid.trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(Failure::because(unusable())(error)),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(Failure::because(unusable()))?;
    Ok(Ok(file))
}

fn bind(port: u16) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            Failure::new(format!(
                "the port {port} is taken by another program; choose another with `lockstep up --port N` or PORT=N make run"
            ))
        } else {
            Failure::because(format!("the port {port} can not be used"))(error)
        }
    })?;
    listener.set_nonblocking(true).map_err(Failure::because("the gateway's port can not be used"))?;
    Ok(listener)
}

/// Writes to standard output; that nobody reads it (`| head`) ends nothing.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
