//! Reindex: a new collection is built from PostgreSQL while the old one serves, and takes its place when it is complete.
//!
//! | part | what it does | why repeating it is harmless |
//! |---|---|---|
//! | begin | registers the collection, creates it in Qdrant; from then on everybody writes to it too | its name is its own |
//! | scan | reads all chunks in the order of their ids, embeds and writes them, batch by batch | the same id is the same point; progress is committed after each batch |
//! | compare | the drift audit's merge, on the new collection; repairs and removes, until a whole pass finds nothing | reads, and writes as the audit does |
//! | switch | one transaction: it is live, the former one is kept for a rollback | guarded by the fence |
//! | settle | makes the alias stand for what is live; drops what is leaving | PostgreSQL leads; done again by every sweep |
//!
//! A rollback is a build whose scan is done already: the previous collection is compared, and takes its place again.

mod ledger;
mod orders;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::{
    App, app::Model, deadline::Deadline, domain::ChunkId, embed::EmbedError, problem::Causes, vectors::IndexError,
};
use time::OffsetDateTime;

use self::ledger::Build;
use crate::{
    audit::{
        compare::{self, Verdict},
        repair,
    },
    collections,
    error::IngestError,
};

/// Less time than this is not worth a batch: its inference, its write, and its record.
const BATCH_TIME_MIN: Duration = Duration::from_secs(3);

/// What is kept of the time to give the lease back.
const RELEASE_MARGIN: Duration = Duration::from_secs(1);

/// How long a build that failed is left alone by the schedule.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// What an operator asks for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begins a build of the space that queries search, or goes on with one.
    Start,
    /// The same, of the other model's space.
    StartNext,
    /// How it stands.
    Status,
    /// Makes the previous collection ready to take its place again.
    Rollback,
    /// Drops the previous collection, and those of a model that was replaced.
    Finish,
    /// Gives up what is being built, and what another model's space has got so far.
    Cancel,
}

/// A collection, for whoever watches.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Its own name.
    pub name: String,
    /// The model that fills it.
    pub model: String,
    /// The vectors' dimension.
    pub dimension: i32,
    /// `building`, `live`, `previous` or `leaving`.
    pub state: String,
    /// Whether all chunks were written once, and what is left is to compare.
    pub scanned: bool,
    /// Chunks that there were when it began.
    pub expected: i64,
    /// Chunks that the scan has written.
    pub written: i64,
    /// Points that the comparison has written again.
    pub repaired: i64,
    /// Points that the comparison has removed.
    pub removed: i64,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was complete; null: it is not yet, or was the first.
    #[serde(with = "time::serde::rfc3339::option")]
    pub built_at: Option<OffsetDateTime>,
}

/// Does what an operator asks for, as far as the time goes; the schedule goes on with what is left.
///
/// # Errors
/// [`IngestError::NotPossible`] with a sentence; [`IngestError::BuildRunning`] when another process builds; a store's.
pub async fn command(app: &App, command: Command, deadline: Deadline) -> Result<Vec<Progress>, IngestError> {
    match command {
        Command::Start => {
            orders::start(app, &app.model()).await?;
            work(app, deadline).await?;
        }
        Command::StartNext => {
            let next =
                app.next.clone().ok_or(IngestError::NotPossible("no other model is configured (EMBEDDING_NEXT_*)"))?;
            orders::start(app, &next).await?;
            work(app, deadline).await?;
        }
        Command::Rollback => {
            orders::roll_back(app).await?;
            work(app, deadline).await?;
        }
        Command::Finish => orders::finish(app).await?,
        Command::Cancel => orders::cancel(app).await?,
        Command::Status => return Ok(orders::list(app).await?),
    }
    settle(app, deadline).await?;
    Ok(orders::list(app).await?)
}

/// How the collections stand.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn status(app: &App) -> Result<Vec<Progress>, IngestError> {
    Ok(orders::list(app).await?)
}

/// What the schedule does: makes Qdrant follow what was decided, and goes on with a build that was cut.
///
/// # Errors
/// A store's, the embedder's. What is done stays done.
pub async fn run_due(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    settle(app, deadline).await?;
    match work(app, deadline).await {
        Ok(_) | Err(IngestError::BuildRunning { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes each alias stand for its live collection, and drops those that are leaving, once no alias stands for them.
///
/// PostgreSQL leads: between its commit and the alias queries search the former collection, which is complete and is
/// written until somebody ends that. So it does not matter when a process dies here, or how late this happens.
async fn settle(app: &App, deadline: Deadline) -> Result<(), IngestError> {
    let mut unsettled = ledger::unsettled(app).await?;
    for (alias, live) in &unsettled.live {
        let alias = app.index.collection(alias);
        if alias.behind(deadline).await?.as_ref() == Some(live) {
            continue;
        }
        match alias.point_to(live, deadline).await {
            Ok(()) => tracing::info!(alias = alias.name(), collection = live, "the alias follows"),
            // It is lost. Who writes next makes it again, and its alias; a build makes another.
            Err(IndexError::Missing) => {
                tracing::error!(collection = live, "the live collection is lost: reindex");
                unsettled.leaving.retain(|leaving| leaving.alias != alias.name());
            }
            Err(error) => return Err(error.into()),
        }
    }
    for leaving in unsettled.leaving {
        app.index.collection(&leaving.name).drop_collection(deadline).await?;
        ledger::gone(app, leaving.id).await?;
        tracing::info!(collection = leaving.name, "dropped");
    }
    Ok(())
}

/// Works on the build that there is; true when there is none any more.
///
/// # Errors
/// [`IngestError::BuildRunning`] when another process does, [`IngestError::NoEmbedder`], or a store's.
pub async fn work(app: &App, deadline: Deadline) -> Result<bool, IngestError> {
    let work_deadline = deadline.minus(RELEASE_MARGIN);
    loop {
        let Some(build) = ledger::open(app, deadline.remaining() + RELEASE_MARGIN).await? else { return Ok(true) };
        let (id, fence) = (build.collection.id, build.fence);
        match parts(app, build, work_deadline).await {
            Ok(true) => {
                settle(app, deadline).await?;
                return Ok(true);
            }
            Ok(false) => {
                ledger::release(app, id, fence, Duration::ZERO).await?;
                return Ok(false);
            }
            // It was cancelled, or the collection was found lost and the build begins anew: for who opens it next.
            Err(IngestError::BuildLost) => {}
            // The invocation's end is no fault of anybody's.
            Err(error) if work_deadline.passed() && is_timeout(&error) => {
                ledger::release(app, id, fence, Duration::ZERO).await?;
                return Ok(false);
            }
            Err(error) => {
                // The first error is the one to tell; if PostgreSQL is gone, the lease runs out by itself.
                if let Err(second) = ledger::release(app, id, fence, FAILURE_PAUSE).await {
                    tracing::warn!(first = %Causes(&error), error = %Causes(&second), "lease not released");
                }
                return Err(error);
            }
        }
    }
}

fn is_timeout(error: &IngestError) -> bool {
    matches!(error, IngestError::Embed(EmbedError::Timeout) | IngestError::Index(IndexError::Timeout))
}

/// Does the build's parts; false when the time was too short.
async fn parts(app: &App, mut build: Build, deadline: Deadline) -> Result<bool, IngestError> {
    let Some(model) = app.model_of(&build.collection.space) else {
        return Err(collections::no_embedder(&build.collection.space));
    };
    if !build.made {
        model.index.collection(&build.collection.name).ensure(deadline).await?;
        ledger::made(app, &build).await?;
    }
    while !build.scanned {
        if deadline.remaining() < BATCH_TIME_MIN {
            return Ok(false);
        }
        scan(app, &mut build, deadline).await?;
    }
    loop {
        if deadline.remaining() < BATCH_TIME_MIN {
            return Ok(false);
        }
        if compare(app, &model, &mut build, deadline).await? {
            break;
        }
    }
    ledger::switch(app, &build).await?;
    tracing::info!(collection = build.collection.name, "the collection is complete and takes its place");
    Ok(true)
}

/// Writes the next chunks, of active and staged revisions alike, and commits how far it is.
async fn scan(app: &App, build: &mut Build, deadline: Deadline) -> Result<(), IngestError> {
    let chunks = ledger::chunks(app, build.next).await?;
    let Some(last) = chunks.last().map(|chunk| chunk.id) else {
        return ledger::scanned(app, build).await;
    };
    let target = vec![build.collection.clone()];
    let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
    let batch = collections::embed(app, target.clone(), &chunks, None, deadline).await?;
    collections::upsert(app, batch, deadline).await?;
    repair::remove_gone(app, &target, &ids, deadline).await?;
    match compare::after(last) {
        Some(next) => ledger::advance(app, build, next, ids.len()).await,
        None => ledger::scanned(app, build).await,
    }
}

/// Compares one page; true when a whole pass has found nothing.
///
/// Unlike the audit's, its orphans go at once: the collection serves nobody, and what PostgreSQL does not know can be made
/// again should it come back.
async fn compare(app: &App, model: &Model, build: &mut Build, deadline: Deadline) -> Result<bool, IngestError> {
    let index = model.index.collection(&build.collection.name);
    let page = compare::page(app, &*index, None, build.next, deadline).await?;
    let repaired = repair::repair(app, &page.findings, Some(&build.collection), deadline).await?;
    let orphans = page.findings.iter().filter(|finding| finding.verdict == Verdict::Orphan);
    let orphans: Vec<ChunkId> = orphans.map(|finding| finding.id).collect();
    if !orphans.is_empty() {
        index.delete(&orphans, deadline).await?;
    }
    let faults = page.findings.iter().filter(|finding| finding.verdict.needs_repair()).count() + orphans.len();
    ledger::compared(app, build, page.next, faults, repaired.len(), orphans.len()).await
}
