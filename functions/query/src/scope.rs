//! What the caller may read.

use std::collections::BTreeSet;

use shared::{
    db::Db,
    domain::{KnowledgeBaseId, UserId},
    knowledge_bases,
};

use crate::error::QueryError;

/// The knowledge bases to search: those of `user`, or the `requested` ones if all of them are among these.
///
/// # Errors
/// [`QueryError::KnowledgeBaseNotFound`], which does not tell what does not exist from what is somebody else's.
pub(crate) async fn resolve(
    db: &Db,
    user: UserId,
    requested: Option<&BTreeSet<KnowledgeBaseId>>,
) -> Result<Vec<KnowledgeBaseId>, QueryError> {
    // Every role may read.
    let memberships =
        db.transaction("authorise query", async move |tx| knowledge_bases::list_memberships(tx, user).await).await?;
    let readable: BTreeSet<KnowledgeBaseId> = memberships.into_iter().map(|m| m.id).collect();
    match requested {
        None => Ok(readable.into_iter().collect()),
        Some(requested) if requested.is_subset(&readable) => Ok(requested.iter().copied().collect()),
        Some(_) => Err(QueryError::KnowledgeBaseNotFound),
    }
}
