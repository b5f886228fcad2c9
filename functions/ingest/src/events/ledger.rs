//! Which event of an object is the newest that was acted on. Events come twice, late and out of order; what they ask for is
//! done only in the transaction that moves this mark forward, so an older one never follows a newer one.

use sha2::{Digest, Sha256};
use shared::{App, db::DbError};
use tokio_postgres::{Transaction, types::Type};

use super::notice::Notice;

/// Names an object in the ledger.
fn id(notice: &Notice) -> Vec<u8> {
    let mut hash = Sha256::new();
    // The length first, so that no two pairs run together into the same bytes.
    hash.update((notice.bucket.len() as u64).to_le_bytes());
    hash.update(&notice.bucket);
    hash.update(&notice.key);
    hash.finalize().to_vec()
}

/// Moves the mark to this event, in the caller's transaction, and keeps all other events of the object waiting for its end.
/// False when this or a newer one was acted on before: then nothing may be done.
///
/// An event without a sequencer tells nothing new about the content (a version can be read again), and counts as long as
/// its version is still the one that was spoken of last.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn advance(tx: &Transaction<'_>, notice: &Notice) -> Result<bool, DbError> {
    let rows = tx
        .execute_typed(
            "-- objects::advance
            INSERT INTO objects AS o (id, last_sequencer, last_version) VALUES ($1, COALESCE($2, ''), $3)
            ON CONFLICT ON CONSTRAINT objects_pk DO UPDATE
            SET last_sequencer = COALESCE($2, o.last_sequencer), last_version = $3, noted_at = now()
            WHERE o.last_sequencer < $2 OR ($2 IS NULL AND o.last_version IS NOT DISTINCT FROM $3)",
            &[
                (&id(notice), Type::BYTEA),
                (&notice.sequencer.as_ref().map(super::notice::Sequencer::as_str), Type::TEXT),
                (&notice.version, Type::TEXT),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Whether the event is late or a duplicate already: a look that spares reading the object. [`advance`] decides.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn is_stale(app: &App, notice: &Notice) -> Result<bool, DbError> {
    let (id, notice) = (id(notice), notice.clone());
    let row = app.db.query_opt("look for newer event", 
                    "-- objects::is_stale
                    SELECT NOT (COALESCE(last_sequencer < $2, false) OR ($2 IS NULL AND last_version IS NOT DISTINCT FROM $3)) AS stale
                    FROM objects WHERE id = $1",
                    &[
                        (&id, Type::BYTEA),
                        (&notice.sequencer.as_ref().map(super::notice::Sequencer::as_str), Type::TEXT),
                        (&notice.version, Type::TEXT),
                    ],
                )
                .await?;
    Ok(row.map(|row| row.try_get("stale")).transpose()?.unwrap_or(false))
}
