//! The question's embedding, or none: a question is answered by its words while the embedder is away.

use std::time::Duration;

use shared::{App, deadline::Deadline, problem::Causes};

use crate::{request::Query, warm::Warm};

/// How long embedding a question may take: a cold model loads in a fraction of a second, and who waits longer is better
/// served by words alone.
const EMBED_MAX: Duration = Duration::from_secs(5);

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    /// `None` when it is not needed, or could not be had.
    pub(crate) vector: Option<Vec<f32>>,
    /// It is needed, and could not be had.
    pub(crate) failed: bool,
}

/// Embeds the question, where its mode or its answer needs it.
pub(crate) async fn question(app: &App, warm: &Warm, query: &Query, deadline: Deadline) -> Embedded {
    if !(query.mode.dense() || query.answer) {
        return Embedded::default();
    }
    let failed = Embedded { vector: None, failed: true };
    let Some(permit) = warm.embedder.admit() else { return failed };
    match app.embedder.embed_query(query.text.clone(), deadline.at_most(EMBED_MAX).instant()).await {
        Ok(vector) => {
            permit.succeeded();
            Embedded { vector: Some(vector), failed: false }
        }
        Err(error) => {
            if error.retryable() {
                permit.failed();
                tracing::warn!(error = %Causes(&error), "answered without an embedding");
            } else {
                // Somebody must mend it; asking again does not.
                permit.succeeded();
                tracing::error!(error = %Causes(&error), "answered without an embedding");
            }
            failed
        }
    }
}
