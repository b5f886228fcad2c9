//! The sweeper: all that is done unasked, on a schedule. Its parts do not depend on each other: one that fails leaves the
//! others their turn.

use serde::{Deserialize, Serialize};
use shared::{App, deadline::Deadline, metrics, problem::Causes};

use crate::{
    audit, erasures,
    error::IngestError,
    idempotency,
    reindex::{self, Command, Progress},
    sweep,
    sweep::Swept,
};

/// The part of the time that is kept for what comes after the interrupted ingestions, of which there can be any number.
const KEPT_FOR_THE_REST: u32 = 3;

/// What starts the sweeper: a schedule's event, whatever stands in it, or an operator's `{"approve": 17}` or
/// `{"reindex": "start"}`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct SweeperEvent {
    /// The audit whose withheld removals may go on. Nothing else is done then.
    pub approve: Option<i64>,
    /// What is to be done about the collections. Nothing else is done then.
    pub reindex: Option<Command>,
}

/// What was done, for the log and for whoever invoked it by hand.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Done {
    /// Interrupted ingestions that are active now.
    pub completed: usize,
    /// Interrupted ingestions that need more time, or failed and will be tried again.
    pub left: usize,
    /// The audit that was worked on.
    pub audit: Option<i64>,
    /// Points whose removal was approved.
    pub approved: u64,
    /// The collections, when an operator asked about them.
    pub collections: Vec<Progress>,
}

/// Handles one event.
///
/// # Errors
/// The first part's that failed, after all have had their turn; [`IngestError::NoAudit`] when there is nothing to approve.
pub async fn sweeper(app: &App, event: SweeperEvent, deadline: Deadline) -> Result<Done, IngestError> {
    let app = &app.until(deadline);
    if let Some(audit) = event.approve {
        return Ok(Done { approved: audit::approve(app, audit, deadline).await?, ..Done::default() });
    }
    if let Some(command) = event.reindex {
        return Ok(Done { collections: reindex::command(app, command, deadline).await?, ..Done::default() });
    }
    let rest = deadline.remaining() / KEPT_FOR_THE_REST;
    let for_sweep = deadline.minus(rest);
    let swept = sweep(&app.until(for_sweep), for_sweep).await;
    let keys = idempotency::delete_expired(app, deadline).await.map_err(IngestError::from);
    // Before the audit, which would find all of a lost index missing: what is built anew need not be repaired.
    let build = reindex::run_due(app, deadline.minus(deadline.remaining() / KEPT_FOR_THE_REST)).await;
    let audit = audit::run_due(app, deadline).await;
    let erasures = erasures::complete_due(app, deadline).await;

    metrics::sweep();
    let mut first = None;
    let mut note = |part: &'static str, error: IngestError| {
        tracing::warn!(sweeper.part = part, error = %Causes(&error), "a part of the sweep failed");
        first.get_or_insert(error);
    };
    let Swept { completed, left } = swept.unwrap_or_else(|error| {
        note("sweep", error);
        Swept::default()
    });
    if let Err(error) = keys {
        note("idempotency keys", error);
    }
    if let Err(error) = build {
        note("reindex", error);
    }
    let audit = audit.unwrap_or_else(|error| {
        note("audit", error);
        None
    });
    if let Err(error) = erasures {
        note("erasures", error);
    }
    match first {
        Some(error) => Err(error),
        None => Ok(Done { completed, left, audit: audit.map(|audit| audit.id), ..Done::default() }),
    }
}
