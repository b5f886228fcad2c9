//! Lists of documents, page by page.

use serde::{Deserialize, Serialize};
use shared::{
    App,
    db::DbError,
    domain::{KnowledgeBaseId, SourceUri, UserId},
    knowledge_bases,
    problem::Problem,
};
use tokio_postgres::types::Type;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::view::{DocumentView, LATEST, select};
use crate::error::IngestError;

/// The page of a list when the client does not say.
const LIMIT_DEFAULT: i64 = 50;

/// The largest page of a list.
const LIMIT_MAX: i64 = 200;

/// Which documents, and how many.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only those of this knowledge base.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// Only the one with this `source_uri` (in each knowledge base).
    #[param(value_type = Option<SourceUri>)]
    pub source_uri: Option<String>,
    /// At most so many, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// Where the page before ended: its `next_cursor`.
    #[param(value_type = Option<Uuid>)]
    pub cursor: Option<String>,
}

/// A page of documents, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DocumentPage {
    /// The documents.
    pub items: Vec<DocumentView>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// A list's parameters, checked.
#[derive(Clone, Debug)]
pub struct ListQuery {
    knowledge_base: Option<Uuid>,
    source_uri: Option<String>,
    limit: i64,
    before: Option<Uuid>,
}

impl ListParams {
    /// Checks the parameters.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn check(self) -> Result<ListQuery, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::invalid_field("limit", format!("is not between 1 and {LIMIT_MAX}")));
        }
        let before = self.cursor.map(|cursor| {
            Uuid::try_parse(&cursor).map_err(|_| Problem::invalid_field("cursor", "is not one that a list returned"))
        });
        let source_uri = self.source_uri.map(|uri| {
            uri.parse::<SourceUri>().map(|uri| uri.to_string()).map_err(|e| Problem::invalid_field("source_uri", e))
        });
        Ok(ListQuery {
            knowledge_base: self.knowledge_base.map(|id| id.0),
            source_uri: source_uri.transpose()?,
            limit,
            before: before.transpose()?,
        })
    }
}

/// A page of the documents that `caller` may read.
///
/// # Errors
/// [`IngestError::NoKnowledgeBase`] when one is named that the caller may not read, or PostgreSQL's.
pub async fn list(app: &App, caller: UserId, query: ListQuery) -> Result<DocumentPage, IngestError> {
    app.db
        .transaction("list documents", async move |tx| {
            let memberships = knowledge_bases::list_memberships(tx, caller).await?;
            let readable: Vec<Uuid> = memberships
                .iter()
                .map(|membership| membership.id.0)
                .filter(|id| query.knowledge_base.is_none_or(|wanted| wanted == *id))
                .collect();
            if readable.is_empty() && query.knowledge_base.is_some() {
                return Err(IngestError::NoKnowledgeBase);
            }
            let statement = format!(
                "-- documents::list{}
                WHERE d.knowledge_base_id = ANY($1) AND ($2::uuid IS NULL OR d.id < $2)
                    AND ($3::text IS NULL OR d.source_uri = $3)
                ORDER BY d.id DESC LIMIT $4",
                select(LATEST)
            );
            // One more than asked for tells whether there is a next page.
            let rows = tx
                .query_typed(
                    &statement,
                    &[
                        (&readable, Type::UUID_ARRAY),
                        (&query.before, Type::UUID),
                        (&query.source_uri, Type::TEXT),
                        (&(query.limit + 1), Type::INT8),
                    ],
                )
                .await
                .map_err(DbError::from)?;
            let mut items = rows.iter().map(DocumentView::from_row).collect::<Result<Vec<_>, _>>()?;
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            let more = items.len() > limit;
            items.truncate(limit);
            let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
            Ok(DocumentPage { items, next_cursor })
        })
        .await
}
