//! Going on with an ingestion because somebody asks, instead of waiting for the sweeper's turn.

use shared::{
    App,
    deadline::Deadline,
    domain::{DocumentId, UserId},
};

use super::{
    Lease,
    claim::LEASE_MARGIN,
    revisions::{draw_fence, lease_left, take_over, unfinished},
};
use crate::{
    documents::{self, DocumentView, State},
    error::IngestError,
};

/// What there was to go on with.
#[derive(Debug)]
pub enum Resumed {
    /// An unfinished revision, whose lease is now the caller's. Its chunks are stored, or its text can be read again.
    Lease(Lease),
    /// Nothing: the document is active.
    Active(Box<DocumentView>),
}

/// Takes over a document's revision that can be completed without the client, if nobody works on the document, however long its pause would still be. Also
/// beside a newer one that is claimed: its text may never come.
///
/// # Errors
/// [`IngestError::Busy`] while somebody works on it, [`IngestError::NotResumable`] when the client must send the document
/// again; else see [`IngestError`].
pub async fn resume(app: &App, caller: UserId, id: DocumentId, deadline: Deadline) -> Result<Resumed, IngestError> {
    let lease = deadline.remaining() + LEASE_MARGIN;
    app.db
        .transaction("resume ingestion", async move |tx| {
            let knowledge_base = documents::lock_for_change(tx, caller, id).await?;
            let unfinished = unfinished(tx, id).await?;
            if let Some(retry_after) = lease_left(&unfinished) {
                return Err(IngestError::Busy { retry_after });
            }
            if let Some(staged) = unfinished.iter().find(|revision| revision.staged || revision.readable) {
                let fence = draw_fence(tx).await?;
                return Ok(Resumed::Lease(take_over(tx, id, knowledge_base, staged.number, fence, lease).await?));
            }
            let view = documents::get(tx, id).await?.ok_or(IngestError::NoDocument)?;
            match view.ingestion.state {
                State::Active => Ok(Resumed::Active(Box::new(view))),
                State::Failed | State::Ingesting => {
                    Err(IngestError::NotResumable { failure: view.ingestion.failure.map(|failure| failure.detail) })
                }
            }
        })
        .await
}
