//! What the caller may read, and where a question looks.

use std::collections::BTreeSet;

use shared::{
    db::{Db, DbError},
    domain::{DocumentId, KnowledgeBaseId, UserId},
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    error::QueryError,
    filter::{Filter, sql::Condition},
    warm::Warm,
};

/// Up to so many documents a filter is resolved to ids, which go into Qdrant's filter; beyond, Qdrant is asked first. A
/// thousand ids are 40 kilobytes of request and a fraction of a millisecond of Qdrant's; a filter that lets more through
/// than that seldom costs a search more than one further round.
const SELECTIVE_DOCUMENTS_MAX: usize = 1_000;

/// As many documents as a filter is resolved to at all, when searching first has not found enough: 4 megabytes of request.
const DOCUMENTS_MAX: usize = 100_000;

/// The part of a statement that says what the caller may read now, of what the request names; every role may read. `$1` is
/// the user, `$2` the knowledge bases that the request names, or NULL.
pub(crate) const SCOPE: &str = "scope AS (
                SELECT m.knowledge_base_id AS id FROM knowledge_base_members m
                WHERE m.user_id = $1 AND ($2::uuid[] IS NULL OR m.knowledge_base_id = ANY ($2::uuid[]))
            )";

/// Whose eyes see the hits, and where they look.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) user: UserId,
    /// Only these, and all of them must be readable.
    pub(crate) knowledge_bases: Option<BTreeSet<KnowledgeBaseId>>,
    /// Only these.
    pub(crate) documents: Option<Vec<DocumentId>>,
    /// Only what passes this.
    pub(crate) filter: Option<Filter>,
}

/// In which order the stores are asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Plan {
    /// Nothing is filtered.
    Unfiltered,
    /// PostgreSQL has said which documents pass; Qdrant looks among them.
    DocumentsFirst(Vec<DocumentId>),
    /// Too many pass to be named: Qdrant looks among all, and what does not pass is left out at the join.
    IndexFirst,
}

/// Where Qdrant is to look.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// What the caller may read. Where it was only remembered, the join says whether it still holds.
    pub(crate) knowledge_bases: Vec<KnowledgeBaseId>,
    pub(crate) plan: Plan,
}

/// The scope of a question: what the request names, or what the caller could read a moment ago, without asking anyone. The
/// join checks it in any case, so a wrong guess costs one more round and never a right. Asked is PostgreSQL where nothing
/// is known, and where a filter must be planned.
///
/// # Errors
/// [`QueryError::KnowledgeBaseNotFound`], which does not tell what does not exist from what is somebody else's.
pub(crate) async fn begin(db: &Db, warm: &Warm, view: &View) -> Result<Scope, QueryError> {
    if view.filter.is_none() {
        let guess = match &view.knowledge_bases {
            Some(named) => Some(named.iter().copied().collect()),
            None => warm.readable(view.user),
        };
        if let Some(knowledge_bases) = guess {
            return Ok(Scope { knowledge_bases, plan: Plan::Unfiltered });
        }
    }
    let (knowledge_bases, matching) = resolve(db, view, SELECTIVE_DOCUMENTS_MAX).await?;
    let plan = match matching {
        _ if view.filter.is_none() => Plan::Unfiltered,
        Some(documents) => Plan::DocumentsFirst(documents),
        None => Plan::IndexFirst,
    };
    if view.knowledge_bases.is_none() {
        warm.note_readable(view.user, &knowledge_bases);
    }
    Ok(Scope { knowledge_bases, plan })
}

/// The plan for when [`Plan::IndexFirst`] has not found enough; `None` when too many documents pass for this one, too.
///
/// # Errors
/// As [`begin`].
pub(crate) async fn other_plan(db: &Db, view: &View) -> Result<Option<Plan>, QueryError> {
    Ok(resolve(db, view, DOCUMENTS_MAX).await?.1.map(Plan::DocumentsFirst))
}

/// What the caller may read, and the documents that pass the filter, if they are no more than `documents_max`.
async fn resolve(
    db: &Db,
    view: &View,
    documents_max: usize,
) -> Result<(Vec<KnowledgeBaseId>, Option<Vec<DocumentId>>), QueryError> {
    let (named, documents) = (view.named(), view.documents());
    let condition = Condition::new(view.filter.as_ref(), 4);
    // One more than may be tells that there are too many.
    let limit =
        if view.filter.is_some() { i64::try_from(documents_max).unwrap_or(i64::MAX).saturating_add(1) } else { 0 };
    let statement = format!(
        "-- query::scope
        WITH {SCOPE}
        SELECT (SELECT array_agg(id ORDER BY id) FROM scope) AS readable,
            (SELECT array_agg(id) FROM (
                SELECT d.id FROM documents d
                JOIN document_revisions r ON r.document_id = d.id AND r.number = d.active_revision
                WHERE d.knowledge_base_id IN (SELECT id FROM scope)
                    AND ($3::uuid[] IS NULL OR d.id = ANY ($3::uuid[])) AND {}
                LIMIT $4
            ) AS passing) AS matching",
        condition.text
    );
    let mut parameters: Vec<shared::db::Parameter<'_>> = vec![
        (&view.user.0, Type::UUID),
        (&named, Type::UUID_ARRAY),
        (&documents, Type::UUID_ARRAY),
        (&limit, Type::INT8),
    ];
    parameters.extend(condition.parameters());
    let rows = db.query("resolve scope", &statement, &parameters).await?;
    let row = rows.first().ok_or(DbError::RowCount { statement: "query::scope", rows: 0 })?;
    let matching: Option<Vec<Uuid>> = row.try_get("matching").map_err(DbError::from)?;
    let matching: Vec<DocumentId> = matching.unwrap_or_default().into_iter().map(DocumentId).collect();
    Ok((readable(row, view)?, (matching.len() <= documents_max).then_some(matching)))
}

/// The column `readable` of a statement with [`SCOPE`]: what the caller may read.
///
/// # Errors
/// [`QueryError::KnowledgeBaseNotFound`] when it is not all that the request names.
pub(crate) fn readable(row: &Row, view: &View) -> Result<Vec<KnowledgeBaseId>, QueryError> {
    let ids: Option<Vec<Uuid>> = row.try_get("readable").map_err(DbError::from)?;
    let ids: Vec<KnowledgeBaseId> = ids.unwrap_or_default().into_iter().map(KnowledgeBaseId).collect();
    match &view.knowledge_bases {
        Some(named) if named.len() != ids.len() => Err(QueryError::KnowledgeBaseNotFound),
        _ => Ok(ids),
    }
}

impl View {
    /// As the statements' `$2`.
    pub(crate) fn named(&self) -> Option<Vec<Uuid>> {
        self.knowledge_bases.as_ref().map(|ids| ids.iter().map(|id| id.0).collect())
    }

    /// The documents that the request names, as a parameter.
    pub(crate) fn documents(&self) -> Option<Vec<Uuid>> {
        self.documents.as_ref().map(|ids| ids.iter().map(|id| id.0).collect())
    }
}
