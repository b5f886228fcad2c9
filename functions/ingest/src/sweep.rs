//! What is done unasked: finish interrupted ingestions, and remove retired points that are due.

use shared::{App, deadline::Deadline, problem::Causes};

use crate::{
    error::IngestError,
    saga::{self, Outcome},
};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Interrupted ingestions that are active now.
    pub completed: usize,
    /// Interrupted ingestions that were worked on and need more time, or failed and will be tried again.
    pub left: usize,
}

/// Sweeps until there is nothing to do, or the time is over.
///
/// # Errors
/// When PostgreSQL does not answer, or Qdrant not for removals. An ingestion that fails is counted and left for later.
pub async fn sweep(app: &App, deadline: Deadline) -> Result<Swept, IngestError> {
    let mut swept = Swept::default();
    saga::fail_abandoned(app).await?;
    while deadline.remaining() > saga::TIME_MIN {
        let Some(lease) = saga::take_over_expired(app, deadline).await? else { break };
        match saga::run(app, lease, None, "sweep", deadline).await {
            Ok(Outcome::Active(_)) => swept.completed += 1,
            Ok(Outcome::Paused(_)) => {
                // The time is over. Taking it up again at once would only spend what is left on leases.
                swept.left += 1;
                break;
            }
            Err(error) => {
                swept.left += 1;
                tracing::warn!(document.id = %lease.document, error = %Causes(&error), "ingestion left for later");
            }
        }
    }
    saga::retire_remains(app, deadline).await?;
    while !deadline.passed() && saga::clean_due(app, deadline).await? {}
    Ok(swept)
}
