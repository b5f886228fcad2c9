//! Full-text search in PostgreSQL: what a question has while Qdrant is away. By words only, and without the weight that
//! rare words have in BM25; rights and filters are the same.

use shared::{
    db::{Db, DbError},
    domain::ChunkId,
    sparse,
    vectors::{Candidates, Scored},
};
use tokio_postgres::types::Type;

use crate::{
    error::QueryError,
    filter::sql::Condition,
    scope::{SCOPE, View},
};

/// The best candidates for `question` in `view`, as those of the sparse leg.
///
/// A chunk matches when it has one of the question's words.
pub(crate) async fn search(db: &Db, view: &View, question: &str, limit: usize) -> Result<Candidates, QueryError> {
    let words = sparse::tsquery(question);
    let (named, documents) = (view.named(), view.documents());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let condition = Condition::new(view.filter.as_ref(), 5);
    let statement = format!(
        "-- query::lexical
        WITH {SCOPE}, question AS (SELECT $3::tsquery AS words)
        SELECT m.id, ts_rank(m.words, q.words, 1) AS score
        FROM question q
        JOIN chunk_metadata m ON m.words @@ q.words
        JOIN chunk_positions p ON p.chunk_id = m.id
        JOIN documents d ON d.id = p.document_id AND d.active_revision = p.revision
        JOIN document_revisions r ON r.document_id = d.id AND r.number = d.active_revision
        WHERE d.knowledge_base_id IN (SELECT id FROM scope)
            AND ($4::uuid[] IS NULL OR d.id = ANY ($4::uuid[])) AND {}
        ORDER BY score DESC, m.id LIMIT $5",
        condition.text
    );
    let mut parameters: Vec<shared::db::Parameter<'_>> = vec![
        (&view.user.0, Type::UUID),
        (&named, Type::UUID_ARRAY),
        (&words, Type::TEXT),
        (&documents, Type::UUID_ARRAY),
        (&limit, Type::INT8),
    ];
    parameters.extend(condition.parameters());
    let rows = db.query("search words", &statement, &parameters).await?;
    let scored = |row: &tokio_postgres::Row| -> Result<Scored, DbError> {
        Ok(Scored { id: ChunkId(row.try_get("id")?), score: row.try_get("score")? })
    };
    let sparse = rows.iter().map(scored).collect::<Result<_, _>>()?;
    Ok(Candidates { dense: Vec::new(), sparse })
}
