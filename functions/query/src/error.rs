//! What can go wrong in a query, and what the client hears of it.

use shared::{
    db::{AsDbError, DbError},
    embed::EmbedError,
    problem::Problem,
    vectors::IndexError,
};

/// A query that has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// A knowledge base that was named does not exist, or the caller may not read it.
    #[error("a knowledge base that was named is not among the caller's")]
    KnowledgeBaseNotFound,
    /// PostgreSQL failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Qdrant failed. Until there is a full-text fallback, that is the end of the query.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The question could not be embedded.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl AsDbError for QueryError {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::KnowledgeBaseNotFound | Self::Index(_) | Self::Embed(_) => None,
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::KnowledgeBaseNotFound => Self::not_found("knowledge base"),
            QueryError::Db(error) => error.into(),
            QueryError::Index(error) => error.into(),
            QueryError::Embed(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::problem::Code;

    use super::*;

    #[test]
    fn a_dependency_that_is_down_is_named_and_worth_another_try() {
        let problem = Problem::from(QueryError::from(IndexError::Timeout));
        assert_eq!(problem.code(), Code::DependencyUnavailable);
        let response = problem.respond("test");
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    }

    #[test]
    fn a_knowledge_base_of_somebody_else_is_not_found() {
        assert_eq!(Problem::from(QueryError::KnowledgeBaseNotFound).code(), Code::NotFound);
    }
}
