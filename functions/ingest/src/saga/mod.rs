//! An ingestion, step by step. Every step commits before the next begins, so that each is a place to resume from.
//!
//! | step | what it does | why repeating it is harmless |
//! |---|---|---|
//! | claim | opens a revision under a lease and a fencing token | who comes second finds the lease, or takes it over |
//! | extract | reads text and structure, cuts chunks | pure |
//! | stage | commits the chunks and their new ids; discards what is older and unfinished | one transaction, guarded by the fence |
//! | embed | writes points, batch by batch | the same id is the same point; progress is committed after each batch |
//! | verify | counts the revision's points in Qdrant | reads, and writes only what is missing |
//! | activate | makes the revision the one that queries see | one transaction, guarded by the fence |
//! | clean | removes retired points by id | ids are never used again |
//!
//! Rows are locked in one order everywhere: idempotency keys, then the document, then its revisions.

mod activate;
mod ahead;
mod claim;
mod claim_object;
mod clean;
mod embed;
mod failure;
mod parts;
mod passages;
mod resume;
mod revisions;
mod stage;
mod unread;
mod verify;

use std::time::{Duration, Instant};

use http::StatusCode;
use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{DocumentId, KnowledgeBaseId},
    embed::EmbedError,
    objects::ObjectError,
    problem::{Causes, Problem},
    telemetry,
    vectors::IndexError,
};
use tokio_postgres::{Transaction, types::Type};
use tracing::Instrument;

pub(crate) use self::failure::fail_abandoned;
use self::{ahead::Ahead, passages::Passages, unread::Unread};
pub use self::{
    claim::{Claimed, Request, claim, take_over_expired},
    claim_object::{ClaimedObject, DeletedObject, Refusal, claim_object, delete_object, fail_object},
    clean::{clean_document, clean_due, retire_remains},
    passages::Opened,
    resume::{Resumed, resume},
    revisions::draw_fence,
};
use crate::{
    documents::{self, DocumentView},
    error::IngestError,
    idempotency::{self, StoredResponse},
};

/// Less time than this is not worth a lease: a batch of inference, its write, and giving the lease back.
pub const TIME_MIN: Duration = Duration::from_secs(5);

/// What is kept of an invocation's time to commit progress and give the lease back.
const RELEASE_MARGIN: Duration = Duration::from_secs(2);

/// The steps, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// See [`claim`].
    Claim,
    /// See [`passages::Passages`].
    Extract,
    /// See [`stage::stage`].
    Stage,
    /// See [`embed`].
    Embed,
    /// See [`verify`].
    Verify,
    /// See [`activate`].
    Activate,
    /// See [`clean`].
    Clean,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 7] =
        [Self::Claim, Self::Extract, Self::Stage, Self::Embed, Self::Verify, Self::Activate, Self::Clean];
}

/// The right to work on an unfinished revision: every write names the fence, and changes nothing once another holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The document.
    pub document: DocumentId,
    /// Its knowledge base.
    pub knowledge_base: KnowledgeBaseId,
    /// The revision.
    pub revision: i32,
    /// The holder's fencing token.
    pub fence: i64,
    /// How often the work was begun, this time included.
    pub attempt: i32,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The revision is active; the answer is the one that its keys keep.
    Active(StoredResponse),
    /// The invocation's time ran out; what is done stays done, and the next invocation goes on.
    Paused(Box<DocumentView>),
}

/// Works on a revision until it is active, or the time is over. `opened` is needed as long as the chunks are
/// not staged, unless it is an object that can be read again.
///
/// # Errors
/// See [`IngestError`]. What can not be read is given up at once, what is refused again and again after a while; all else
/// is left for whoever comes next.
pub async fn run(
    app: &App,
    lease: Lease,
    opened: Option<Opened>,
    request_id: &str,
    deadline: Deadline,
) -> Result<Outcome, IngestError> {
    let work_deadline = deadline.minus(RELEASE_MARGIN);
    let app = &app.until(deadline);
    let was_sent = opened.is_some();
    let mut result = steps(&app.until(work_deadline), lease, opened, work_deadline).await;
    if result.as_ref().is_err_and(|error| out_of_time(error, work_deadline)) {
        // The invocation's end is no fault of anybody's; but until the text is stored, only who sent it can go on.
        let view = still_there(app, lease).await;
        result = view.and_then(|view| match view.ingestion.chunks {
            None if was_sent && view.ingestion.revision == lease.revision => Err(IngestError::OutOfTime),
            _ => Ok(Outcome::Paused(Box::new(view))),
        });
    }
    match &result {
        Ok(Outcome::Active(_)) => {}
        Err(IngestError::Fenced) => free_key(app, lease).await,
        Ok(Outcome::Paused(_)) => release(app, lease, None).await?,
        Err(IngestError::Extract(error)) => {
            let problem = IngestError::Extract(error.clone()).into();
            give_up(app, lease, &problem, request_id).await?;
        }
        Err(error) => {
            // The first error is the one to tell; if PostgreSQL is gone, the lease runs out by itself.
            let settled = match failure::Failure::of(error) {
                Some(failure) => failure::refused(app, lease, failure).await,
                None => release(app, lease, Some(retry_pause(lease.attempt))).await.map_err(IngestError::from),
            };
            if let Err(second) = settled {
                tracing::warn!(document.id = %lease.document, first = %Causes(error), error = %Causes(&second), "lease not released");
            }
        }
    }
    result
}

/// Whether a call was cut by the invocation's end.
fn out_of_time(error: &IngestError, deadline: Deadline) -> bool {
    let cut = matches!(
        error,
        IngestError::OutOfTime
            | IngestError::Embed(EmbedError::Timeout)
            | IngestError::Index(IndexError::Timeout)
            | IngestError::Object(ObjectError::Timeout)
            // Whether an activation was committed is seen in the document that is read next.
            | IngestError::Db(DbError::Timeout | DbError::CommitUnknown(None))
    );
    deadline.passed() && cut
}

/// The document as it stands when the time is over. If it was deleted meanwhile, so was the revision, as any guarded write
/// would find.
async fn still_there(app: &App, lease: Lease) -> Result<DocumentView, IngestError> {
    match documents::require(app, lease.document).await {
        Err(IngestError::NoDocument) => Err(IngestError::Fenced),
        view => view,
    }
}

/// [`run`], to its end also when the caller goes away: a client that closes its connection is no reason to leave a
/// lease behind that nobody uses.
///
/// # Errors
/// As [`run`].
pub async fn run_detached(
    app: App,
    lease: Lease,
    opened: Option<Opened>,
    request_id: String,
    deadline: Deadline,
) -> Result<Outcome, IngestError> {
    let work = async move { run(&app, lease, opened, &request_id, deadline).await };
    tokio::spawn(work.in_current_span()).await.map_err(IngestError::Panicked)?
}

/// Runs a step in its span, and logs how long it took.
async fn timed<T>(
    step: &'static str,
    lease: Lease,
    work: impl Future<Output = Result<T, IngestError>>,
) -> Result<T, IngestError> {
    let started = Instant::now();
    let result = work.instrument(telemetry::stage(step)).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (document, revision, ended) = (lease.document, lease.revision, result.is_ok());
    tracing::info!(document.id = %document, document.revision = revision, step, duration_ms, ended, "step");
    result
}

async fn steps(app: &App, lease: Lease, opened: Option<Opened>, deadline: Deadline) -> Result<Outcome, IngestError> {
    let (mut passages, mut ahead) = (None, None);
    let mut expected = verify::Page::new();
    let mut answer = None;
    let unread = if opened.is_none() { unread::unread(app, lease, deadline).await? } else { Unread::Nothing };
    let mut opened = match unread {
        Unread::Nothing => opened,
        Unread::Whole(source) => Some(Opened::new(source)),
        Unread::Parts(object) => {
            if timed("read_parts", lease, parts::read(app, lease, &object, deadline)).await?
                == parts::Progress::OutOfTime
            {
                return Err(IngestError::OutOfTime);
            }
            None
        }
    };
    let mut step = if opened.is_some() { Step::Extract } else { Step::Embed };
    loop {
        step = match (step, opened.take()) {
            (Step::Claim | Step::Extract, Some(opened)) => {
                let (begun, inputs) = Ahead::begin(app, lease, deadline).unzip();
                let reading = Passages::begin(app, opened, inputs, deadline);
                passages = Some(timed("extract", lease, reading).await?);
                ahead = begun;
                Step::Stage
            }
            (Step::Stage, _) => {
                if let Some(passages) = passages.take() {
                    timed("stage", lease, stage::stage(app, lease, passages)).await?;
                }
                Step::Embed
            }
            (Step::Embed | Step::Claim | Step::Extract, _) => {
                let embedding = timed("embed", lease, embed::embed(app, lease, ahead.take(), deadline));
                let (progress, first) = tokio::join!(embedding, verify::first(app, lease));
                let progress = progress?;
                expected = first?;
                if progress == embed::Progress::OutOfTime {
                    return Ok(Outcome::Paused(Box::new(still_there(app, lease).await?)));
                }
                Step::Verify
            }
            (Step::Verify, _) => {
                timed("verify", lease, verify::verify(app, lease, std::mem::take(&mut expected), deadline)).await?;
                Step::Activate
            }
            (Step::Activate, _) => {
                answer = Some(timed("activate", lease, activate::activate(app, lease)).await?);
                Step::Clean
            }
            (Step::Clean, _) => {
                // The answer stands whatever happens here: what is left is on the list of retired points.
                if let Err(error) = timed("clean", lease, clean_document(app, lease.document, deadline)).await {
                    tracing::warn!(document.id = %lease.document, error = %Causes(&error), "retired points are left to the sweeper");
                }
                return answer.map(Outcome::Active).ok_or(IngestError::Fenced);
            }
        };
    }
}

/// Proves, inside a transaction, that the lease is still held, and keeps it from being taken over until the end. The
/// document's row is locked first, as claims and deletions do: else each would wait for what the other holds.
///
/// # Errors
/// [`IngestError::Fenced`] when it is not.
pub(crate) async fn hold(tx: &Transaction<'_>, lease: Lease) -> Result<(), IngestError> {
    let row = tx
        .query_typed_opt(
            "-- saga::hold
            SELECT FROM documents d JOIN document_revisions r ON r.document_id = d.id
            WHERE d.id = $1 AND r.number = $2 AND r.fence = $3 AND r.state IN ('claimed', 'staged')
            FOR NO KEY UPDATE OF d FOR UPDATE OF r",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4), (&lease.fence, Type::INT8)],
        )
        .await
        .map_err(DbError::from)?;
    row.map(drop).ok_or(IngestError::Fenced)
}

/// Ends the lease now. After a failure, nobody takes the work over unasked before `pause` is over; the same request may at
/// once. Without one, the time was over: that is no failure, and the attempts count from the beginning.
async fn release(app: &App, lease: Lease, pause: Option<Duration>) -> Result<(), DbError> {
    let pause_s = pause.unwrap_or_default().as_secs_f64();
    app.db
        .transaction("release lease", async move |tx| {
            idempotency::release_ingestion(tx, lease.document, lease.fence).await?;
            tx.execute_typed(
                "-- saga::release
                UPDATE document_revisions
                SET lease_expires_at = now(), next_attempt_at = now() + make_interval(secs => $4),
                    attempt = CASE WHEN $5 THEN attempt ELSE 0 END
                WHERE document_id = $1 AND number = $2 AND fence = $3 AND state IN ('claimed', 'staged')",
                &[
                    (&lease.document.0, Type::UUID),
                    (&lease.revision, Type::INT4),
                    (&lease.fence, Type::INT8),
                    (&pause_s, Type::FLOAT8),
                    (&pause.is_some(), Type::BOOL),
                ],
            )
            .await?;
            Ok(())
        })
        .await
}

/// Ends the lease of the own key of who has lost the revision's: the same request, sent again, hears what became of it.
async fn free_key(app: &App, lease: Lease) {
    let freed = app
        .db
        .transaction("free key", async move |tx| idempotency::release_ingestion(tx, lease.document, lease.fence).await);
    if let Err(error) = freed.await {
        // Then it ends by itself.
        tracing::warn!(document.id = %lease.document, error = %Causes(&error), "key not freed");
    }
}

/// Takes back a revision whose document can not be read, so that nothing of it is left, and keeps the refusal. One that
/// came as an object ends as failed, and says why.
async fn give_up(app: &App, lease: Lease, problem: &Problem, request_id: &str) -> Result<(), IngestError> {
    let refusal = StoredResponse::refusal(problem, request_id);
    let end = failure::End { code: problem.code().as_str(), detail: problem.detail().to_owned() };
    app.db
        .transaction("give up revision", async move |tx| {
            idempotency::lock_ingestion(tx, lease.document, lease.revision).await?;
            hold(tx, lease).await?;
            if let Some(refusal) = &refusal {
                idempotency::finish_ingestion(tx, lease.document, lease.revision, refusal).await?;
            }
            // Nobody hears a refusal of an object: the document shows it.
            if revisions::has_object(tx, lease).await? {
                revisions::retire_chunks(tx, lease.document, lease.revision, lease.revision).await?;
                failure::fail(tx, lease, &end).await?;
            } else {
                revisions::discard(tx, lease.document, lease.revision).await?;
                documents::delete_if_empty(tx, lease.document).await?;
            }
            Ok(())
        })
        .await
}

/// How long the sweeper leaves a failed ingestion alone: doubled with each attempt, at most five minutes.
fn retry_pause(attempt: i32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(attempt.clamp(0, 9).unsigned_abs())).min(Duration::from_mins(5))
}

/// The status of an ingestion's answer: created, or replaced.
fn status(revision_is_first: bool) -> StatusCode {
    if revision_is_first { StatusCode::CREATED } else { StatusCode::OK }
}
