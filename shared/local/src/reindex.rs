//! `lockstep reindex`: builds Qdrant's collection anew from PostgreSQL, on the stores of a running stack or on its own.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use ingest::{
    error::IngestError,
    reindex::{self, Command, Progress},
};
use shared::{App, config::LogConfig, db::migrations, deadline::Deadline, problem::Causes, telemetry};

use crate::{failure::Failure, folder, keys, settings, stores::Stores, up};

/// The time of one turn; between two of them others may take the work over.
const TURN: Duration = Duration::from_secs(25);

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often a line is written where the last one can not be written over.
const LINE: Duration = Duration::from_secs(10);

/// The time to register a collection and to make it, and for no batch: those come with their progress.
const BEGIN: Duration = Duration::from_secs(3);

/// Does what is asked for, and says how the collections stand then.
///
/// # Errors
/// When it can not be done, or a store or the model fails; the sentence says what to do.
pub fn run(command: Command) -> Result<(), Failure> {
    let log = LogConfig::from_env();
    let filter = if settings::var("RUST_LOG").is_some() { log.filter } else { "error".to_owned() };
    telemetry::init(&LogConfig { filter, json: false, ..log });
    let data = settings::data_dir();
    folder::make(&data)?;
    let models = up::models()?;
    let keys = keys::load_or_generate(&data.join("keys"))?;
    // Held to the end: no stack begins on the same folder meanwhile.
    let lock = up::try_lock(&data)?;
    let (own, (database_url, qdrant_url)) = if lock.is_ok() {
        let stores = Stores::start(&data)?;
        let urls = (stores.database_url.clone(), stores.qdrant_url.clone());
        (Some(stores), urls)
    } else {
        (None, Stores::announced(&data)?)
    };
    let config = up::config(database_url, &qdrant_url, models, "http://127.0.0.1".to_owned(), keys);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    let result = runtime.block_on(async {
        migrations::run(&config.database)
            .await
            .map_err(|error| Failure::new(format!("the database can not be brought up to date: {}", Causes(&error))))?;
        let app = App::new(config).map_err(Failure::because("the configuration does not hold"))?;
        obey(&app, command).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(stores) = own {
        stores.stop();
    }
    result
}

async fn obey(app: &App, command: Command) -> Result<(), Failure> {
    let started = Instant::now();
    let builds = matches!(command, Command::Start | Command::StartNext | Command::Rollback);
    let failed = |error: IngestError| Failure::new(Causes(&error).to_string());
    let time = if builds { BEGIN } else { TURN };
    match reindex::command(app, command, Deadline::after(time)).await {
        // The sweeper of the running stack builds already.
        Ok(_) | Err(IngestError::BuildRunning { .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    if builds {
        build(app, started).await.map_err(failed)?;
        reindex::run_due(app, Deadline::after(TURN)).await.map_err(failed)?;
    }
    let collections = reindex::status(app).await.map_err(failed)?;
    if let Some(latest) = collections.iter().filter(|one| builds && one.state == "live").max_by_key(|one| one.built_at)
    {
        let points = latest.written.max(latest.expected);
        say(&format!("{} is complete: {points} points, {:.1} s\n", latest.name, started.elapsed().as_secs_f64()));
    }
    for one in &collections {
        let kept = if one.state == "previous" { "  (lockstep reindex --rollback, or --finish to drop it)" } else { "" };
        say(&format!("{:<9} {}{kept}\n", one.state, one.name));
    }
    Ok(())
}

/// Builds until there is nothing left to build, and shows how far it is.
async fn build(app: &App, started: Instant) -> Result<(), IngestError> {
    let terminal = std::io::stdout().is_terminal();
    let mut said = None;
    loop {
        let turn = reindex::work(app, Deadline::after(TURN));
        tokio::pin!(turn);
        let turned = loop {
            tokio::select! {
                turned = &mut turn => break turned,
                () = tokio::time::sleep(LOOK) => {
                    let collections = reindex::status(app).await?;
                    let due = said.is_none_or(|said: Instant| terminal || said.elapsed() >= LINE);
                    if let Some(building) = collections.iter().find(|one| one.state == "building" && due) {
                        show(building, started, terminal);
                        said = Some(Instant::now());
                    }
                }
            }
        };
        match turned {
            Ok(true) => break,
            Ok(false) => {}
            Err(IngestError::BuildRunning { .. }) => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(error),
        }
    }
    if terminal && said.is_some() {
        say("\n");
    }
    Ok(())
}

fn show(building: &Progress, started: Instant, terminal: bool) {
    let seconds = started.elapsed().as_secs();
    let Progress { name, written, expected, repaired, .. } = building;
    let what = if building.scanned {
        format!("{name}: comparing, {repaired} repaired, {seconds} s")
    } else {
        // Documents that came since it began are scanned as well.
        let expected = (*expected).max(*written).max(1);
        let percent = written.saturating_mul(100) / expected;
        format!("{name}: {written} of {expected} points, {percent} %, {seconds} s")
    };
    say(&if terminal { format!("\r\x1b[K{what}") } else { format!("{what}\n") });
}

/// Writes to standard output; that nobody reads it ends nothing.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
