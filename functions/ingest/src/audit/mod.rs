//! The drift audit: a merge of the ordered ids of both stores, over everything or over one knowledge base.
//!
//! | part | what it does | why repeating it is harmless |
//! |---|---|---|
//! | compare | reads a page of ids from Qdrant, then the same range from PostgreSQL, and tells what disagrees | reads |
//! | repair | embeds and writes the points that are missing or bear wrong link keys | the same id is the same point |
//! | record | one transaction: the counts, the digests, the orphans, and where the next page begins | guarded by the fence |
//! | decide | condemns the orphans, or leaves them to an operator when they are too many | the same orphans, the same decision |
//! | remove | removes condemned orphans by id, if PostgreSQL still does not know them | ids are never used again |
//!
//! Memory is constant: a page of both stores, and what was found in it, is all that is held at once. What must outlive a
//! page (counts, digests, orphans) stands in PostgreSQL, and so an audit that is cut goes on where it was.
//!
//! Nothing in flight is misjudged, without looking at a clock. An id is committed in PostgreSQL before its point is
//! written and never comes back once it is gone. Qdrant is read first: a point that PostgreSQL does not know after that is
//! dead for good. Chunks of staged revisions may have points or not, however long their ingestion takes. Points that were
//! retired belong to the list of retired points, which keeps them until no lease can be writing them.

pub(crate) mod compare;
mod digest;
mod ledger;
mod orphans;
mod record;
pub(crate) mod repair;

use std::time::Duration;

use shared::{
    App,
    deadline::Deadline,
    domain::{ContentHash, KnowledgeBaseId},
    embed::EmbedError,
    metrics,
    problem::Causes,
    vectors::IndexError,
};
use time::OffsetDateTime;

use crate::{collections, error::IngestError};
pub(crate) use ledger::last_of;
pub use orphans::approve;

/// How old the last audit of everything may become: drift is found within that time, and the stores are read through once
/// in it. A million points are some five hundred pages.
const INTERVAL: Duration = Duration::from_hours(1);

/// Less time than this is not worth a page: its reads, a batch of inference, and its record.
const PAGE_TIME_MIN: Duration = Duration::from_secs(3);

/// What is kept of the time to give the lease back.
const RELEASE_MARGIN: Duration = Duration::from_secs(1);

/// How long a failed audit is left alone.
const FAILURE_PAUSE: Duration = Duration::from_secs(30);

/// What an audit found and did. The counts are of ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audit {
    /// Its id: what an operator approves.
    pub id: i64,
    /// What was compared; `None`: everything.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// Chunks of active revisions.
    pub expected: i64,
    /// Of their ids in order: each step is SHA-256 of the digest before and the id's 16 bytes, from 32 zero bytes on.
    pub expected_digest: ContentHash,
    /// Points, without those in flight.
    pub found: i64,
    /// Of their ids, likewise.
    pub found_digest: ContentHash,
    /// Points of staged chunks, and retired ones still on the list.
    pub in_flight: i64,
    /// Expected, and not in Qdrant.
    pub missing: i64,
    /// In Qdrant with other link keys than PostgreSQL has.
    pub mislinked: i64,
    /// In Qdrant, and unknown to PostgreSQL.
    pub orphaned: i64,
    /// Points that were embedded and written again.
    pub repaired: i64,
    /// Orphans that were removed.
    pub removed: i64,
    /// Orphans whose removal waits for an operator.
    pub withheld: i64,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended; `None`: it goes on.
    pub finished_at: Option<OffsetDateTime>,
}

impl Audit {
    /// Whether both stores held the same ids, with the same link keys, before anything was repaired.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.finished_at.is_some() && self.expected_digest == self.found_digest && self.mislinked == 0
    }
}

/// Audits `scope` (everything, if `None`) until it is done or the time is over; goes on with an audit of it that was cut.
///
/// # Errors
/// [`IngestError::AuditRunning`], or a store's. What is done stays done.
pub async fn run(app: &App, scope: Option<KnowledgeBaseId>, deadline: Deadline) -> Result<Audit, IngestError> {
    let lease = ledger::open(app, scope, deadline.remaining() + RELEASE_MARGIN).await?;
    work(app, lease, deadline).await
}

/// What the schedule asks for: removes what is condemned, audits everything when the last audit is too old, or goes on
/// with one that was cut. `None`: there was nothing to audit.
///
/// # Errors
/// A store's. What is done stays done.
pub async fn run_due(app: &App, deadline: Deadline) -> Result<Option<Audit>, IngestError> {
    orphans::remove(app, deadline).await?;
    if deadline.remaining() < PAGE_TIME_MIN {
        return Ok(None);
    }
    let lease = deadline.remaining() + RELEASE_MARGIN;
    let lease = if ledger::is_due(app, INTERVAL).await? {
        match ledger::open(app, None, lease).await {
            Err(IngestError::AuditRunning { .. }) => None,
            opened => Some(opened?),
        }
    } else {
        ledger::take_over_cut(app, lease).await?
    };
    match lease {
        Some(lease) => work(app, lease, deadline).await.map(Some),
        None => Ok(None),
    }
}

async fn work(app: &App, lease: ledger::Lease, deadline: Deadline) -> Result<Audit, IngestError> {
    let id = lease.id;
    match parts(app, lease, deadline.minus(RELEASE_MARGIN)).await {
        Ok(true) => {}
        Ok(false) => ledger::release(app, lease, Duration::ZERO).await?,
        Err(error) if out_of_time(&error, deadline.minus(RELEASE_MARGIN)) => {
            ledger::release(app, lease, Duration::ZERO).await?;
        }
        Err(error) => {
            // The first error is the one to tell; if PostgreSQL is gone, the lease runs out by itself.
            if let Err(second) = ledger::release(app, lease, FAILURE_PAUSE).await {
                tracing::warn!(audit.id = id, first = %error, error = %Causes(&second), "lease not released");
            }
            return Err(error);
        }
    }
    let audit = ledger::require(app, id).await?;
    if audit.finished_at.is_some() && audit.knowledge_base.is_none() {
        metrics::drift(audit.missing, audit.orphaned, audit.mislinked, audit.withheld);
    }
    if audit.finished_at.is_some() {
        tracing::info!(
            audit.id = id,
            audit.knowledge_base = audit.knowledge_base.map(tracing::field::display),
            drift_missing = audit.missing,
            drift_mislinked = audit.mislinked,
            drift_orphans = audit.orphaned,
            audit.expected = audit.expected,
            audit.repaired = audit.repaired,
            audit.removed = audit.removed,
            audit.withheld = audit.withheld,
            "audit finished"
        );
    }
    if audit.withheld > 0 && audit.finished_at.is_some() {
        tracing::error!(audit.id = id, audit.withheld = audit.withheld, "removals wait for an operator's approval");
    }
    Ok(audit)
}

/// Does the audit's parts; false when the time was too short.
async fn parts(app: &App, lease: ledger::Lease, deadline: Deadline) -> Result<bool, IngestError> {
    let mut place = ledger::place(app, lease).await?;
    let index = collections::live(app).await?;
    while let Some(from) = place.next {
        if deadline.remaining() < PAGE_TIME_MIN {
            return Ok(false);
        }
        let page = compare::page(app, &*index, lease.scope, from, deadline).await?;
        let repaired = repair::repair(app, &page.findings, None, deadline).await?;
        place = record::record(app, lease, place, &page, &repaired).await?;
    }
    orphans::decide(app, lease, deadline).await?;
    orphans::remove(app, deadline).await?;
    ledger::finish(app, lease).await?;
    Ok(true)
}

/// The invocation's end is no fault of anybody's.
fn out_of_time(error: &IngestError, deadline: Deadline) -> bool {
    deadline.passed()
        && matches!(error, IngestError::Embed(EmbedError::Timeout) | IngestError::Index(IndexError::Timeout))
}
