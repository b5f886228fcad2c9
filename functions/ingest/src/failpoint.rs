//! Named points, before and after each step's effect, at which tests stop or kill the process. They exist only in
//! unoptimised builds with the feature `failpoints`: what is shipped has none.

/// All points, in the order in which an ingestion reaches them, then those of a deletion.
pub const POINTS: [&str; 16] = [
    CLAIM_BEFORE,
    CLAIM_COMMITTED,
    STAGE_BEFORE,
    STAGE_COMMITTED,
    EMBED_BEFORE_UPSERT,
    EMBED_UPSERTED,
    EMBED_COMMITTED,
    VERIFY_BEFORE,
    VERIFY_DONE,
    ACTIVATE_BEFORE,
    ACTIVATE_COMMITTED,
    CLEAN_BEFORE_DELETE,
    CLEAN_DELETED,
    CLEAN_DONE,
    DELETE_BEFORE,
    DELETE_COMMITTED,
];

/// The points of a text that is read part by part, between [`CLAIM_COMMITTED`] and [`STAGE_BEFORE`]: once for each part.
pub const POINTS_OF_A_PART: [&str; 2] = [PART_BEFORE, PART_COMMITTED];

/// Nothing is done.
pub const CLAIM_BEFORE: &str = "claim.before";
/// There is a claimed revision under a lease, without chunks.
pub const CLAIM_COMMITTED: &str = "claim.committed";
/// A part is read and cut.
pub const PART_BEFORE: &str = "part.before";
/// A part's chunks are committed, and how far the text is read.
pub const PART_COMMITTED: &str = "part.committed";
/// The chunks are cut.
pub const STAGE_BEFORE: &str = "stage.before";
/// The chunks are committed, with their ids; what was older and unfinished is gone.
pub const STAGE_COMMITTED: &str = "stage.committed";
/// A batch is embedded.
pub const EMBED_BEFORE_UPSERT: &str = "embed.before_upsert";
/// A batch is in Qdrant, and PostgreSQL does not know.
pub const EMBED_UPSERTED: &str = "embed.upserted";
/// A batch is in Qdrant, and PostgreSQL knows.
pub const EMBED_COMMITTED: &str = "embed.committed";
/// All batches are written.
pub const VERIFY_BEFORE: &str = "verify.before";
/// Qdrant's count matches.
pub const VERIFY_DONE: &str = "verify.done";
/// The revision is complete in both stores, and not seen yet.
pub const ACTIVATE_BEFORE: &str = "activate.before";
/// The revision is seen, and the answer is stored.
pub const ACTIVATE_COMMITTED: &str = "activate.committed";
/// There are retired points to remove.
pub const CLEAN_BEFORE_DELETE: &str = "clean.before_delete";
/// Retired points are removed, and still on the list.
pub const CLEAN_DELETED: &str = "clean.deleted";
/// A document's retired points are off the list.
pub const CLEAN_DONE: &str = "clean.done";
/// A document is to be deleted.
pub const DELETE_BEFORE: &str = "delete.before";
/// A document is out of sight, and its points are on the list.
pub const DELETE_COMMITTED: &str = "delete.committed";

/// The process is at this point. Does nothing, unless a test has configured the point (`fail::cfg_callback`).
#[cfg(all(feature = "failpoints", debug_assertions))]
pub(crate) fn reached(point: &'static str) {
    debug_assert!(POINTS.contains(&point) || POINTS_OF_A_PART.contains(&point), "{point} is not listed");
    fail::fail_point!(point);
}

/// The process is at this point.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline]
pub(crate) fn reached(_: &'static str) {}
