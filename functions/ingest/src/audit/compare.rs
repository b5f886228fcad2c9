//! One page of the merge: what each store holds in a range of ids, and what disagrees.
//!
//! The order of reading is the whole point: Qdrant's page first, PostgreSQL's range after it, then a second look by id at
//! all that seems to disagree.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    vectors::{Linked, Part, VectorIndex},
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::error::IngestError;

/// Ids of one page of each store: some hundred kilobytes, and few round trips.
const PAGE: u32 = 2_000;

/// Points that are embedded again for one page: two batches of inference. A page with more ends after these, so that an
/// audit that is cut has lost little.
const REPAIRS_MAX: usize = 64;

/// A page of the merge.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where the next one begins; `None` on the last one.
    pub(crate) next: Option<ChunkId>,
    /// What stands in it, in the order of the ids.
    pub(crate) findings: Vec<Finding>,
}

/// An id, and what the two stores say of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) id: ChunkId,
    pub(crate) verdict: Verdict,
    /// As PostgreSQL has it; as the payload says it, where PostgreSQL knows nothing.
    pub(crate) knowledge_base: Option<KnowledgeBaseId>,
    /// Likewise.
    pub(crate) document: Option<DocumentId>,
    /// The audited part of PostgreSQL expects it.
    pub(crate) expected: bool,
    /// The audited part of Qdrant holds it.
    pub(crate) found: bool,
}

/// What the two stores say of an id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Both hold it, with the same link keys.
    Agreed,
    /// Of a staged revision, or on the list of retired points: it may be in Qdrant or not.
    InFlight,
    /// PostgreSQL expects it, and Qdrant does not hold it.
    Missing,
    /// Qdrant holds it with other link keys.
    Mislinked,
    /// Qdrant holds it, and PostgreSQL will never know it again.
    Orphan,
}

impl Verdict {
    /// Whether its point must be written again.
    pub(crate) fn needs_repair(self) -> bool {
        match self {
            Self::Missing | Self::Mislinked => true,
            Self::Agreed | Self::InFlight | Self::Orphan => false,
        }
    }
}

/// A chunk as PostgreSQL has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Known {
    id: ChunkId,
    knowledge_base: KnowledgeBaseId,
    document: DocumentId,
    active: bool,
}

impl Known {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: ChunkId(row.try_get("id")?),
            knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
            document: DocumentId(row.try_get("document_id")?),
            active: row.try_get("active")?,
        })
    }

    /// What there is to say of a chunk whose point is there.
    fn judge(self, point: &Linked, expected: bool) -> Finding {
        let linked = point.knowledge_base == Some(self.knowledge_base) && point.document == Some(self.document);
        let verdict = match (self.active, linked) {
            (false, _) => Verdict::InFlight,
            (true, true) => Verdict::Agreed,
            (true, false) => Verdict::Mislinked,
        };
        Finding { expected: expected && self.active, found: self.active, ..self.finding(verdict) }
    }

    fn finding(self, verdict: Verdict) -> Finding {
        Finding {
            id: self.id,
            verdict,
            knowledge_base: Some(self.knowledge_base),
            document: Some(self.document),
            expected: true,
            found: false,
        }
    }
}

/// Compares the stores from the id `from` on, for one page.
pub(crate) async fn page(
    app: &App,
    index: &dyn VectorIndex,
    scope: Option<KnowledgeBaseId>,
    from: ChunkId,
    deadline: Deadline,
) -> Result<Page, IngestError> {
    let part = scope.map_or(Part::Whole, Part::KnowledgeBase);
    let mut points = index.scroll(part, from, PAGE, deadline).await?;
    let mut end = end(points.len(), points.last().map(|point| point.id));
    let known = known_between(app, scope, from, end).await?;
    end = end.min(self::end(known.len(), known.last().map(|chunk| chunk.id)));
    points.retain(|point| point.id <= end);

    let first = merge(&known, &points);
    let mut findings = first.findings;
    findings.extend(look_again_at_missing(app, index, &first.missing, deadline).await?);
    findings.extend(look_again_at_strays(app, index, &first.strays, deadline).await?);
    findings.sort_unstable_by_key(|finding| finding.id);

    let repairs = findings.iter().enumerate().filter(|(_, finding)| finding.verdict.needs_repair());
    if let Some((at, last)) = repairs.take(REPAIRS_MAX).last()
        && findings.iter().skip(at + 1).any(|finding| finding.verdict.needs_repair())
    {
        end = last.id;
        findings.truncate(at + 1);
    }
    Ok(Page { next: after(end), findings })
}

/// The last id of which a page that was read tells something: all to the end, unless the page is full.
fn end(read: usize, last: Option<ChunkId>) -> ChunkId {
    last.filter(|_| read >= PAGE as usize).unwrap_or(ChunkId(Uuid::max()))
}

/// The id that comes after this one.
pub(crate) fn after(id: ChunkId) -> Option<ChunkId> {
    id.0.as_u128().checked_add(1).map(|next| ChunkId(Uuid::from_u128(next)))
}

/// What a merge can say without a second look.
#[derive(Debug, Default)]
struct Merged {
    findings: Vec<Finding>,
    missing: Vec<Known>,
    strays: Vec<Linked>,
}

/// Merges two lists that are ordered by id.
fn merge(known: &[Known], points: &[Linked]) -> Merged {
    let mut merged = Merged::default();
    let (mut known, mut points) = (known.iter().peekable(), points.iter().peekable());
    loop {
        let order = match (known.peek(), points.peek()) {
            (None, None) => return merged,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(chunk), Some(point)) => chunk.id.cmp(&point.id),
        };
        let chunk = if order.is_le() { known.next() } else { None };
        let point = if order.is_ge() { points.next() } else { None };
        match (chunk, point) {
            (Some(chunk), Some(point)) => merged.findings.push(chunk.judge(point, true)),
            // A staged chunk may not be written yet.
            (Some(chunk), None) => merged.missing.extend(chunk.active.then_some(*chunk)),
            (None, point) => merged.strays.extend(point),
        }
    }
}

/// A chunk can have become active after Qdrant's page was read: Qdrant is asked again, by id, and PostgreSQL whether the
/// chunk still stands.
async fn look_again_at_missing(
    app: &App,
    index: &dyn VectorIndex,
    missing: &[Known],
    deadline: Deadline,
) -> Result<Vec<Finding>, IngestError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<ChunkId> = missing.iter().map(|chunk| chunk.id).collect();
    let points = index.linked(&ids, deadline).await?;
    let points: HashMap<ChunkId, Linked> = points.into_iter().map(|point| (point.id, point)).collect();
    let standing = known_by_id(app, &ids).await?.0;
    Ok(standing
        .into_iter()
        .filter_map(|chunk| match points.get(&chunk.id) {
            Some(point) => Some(chunk.judge(point, true)),
            None => chunk.active.then(|| chunk.finding(Verdict::Missing)),
        })
        .collect())
}

/// A point that PostgreSQL did not have in the audited part can stand on the list of retired points, or belong to another
/// knowledge base than its payload says. What is left must still be there: it could have been removed meanwhile.
async fn look_again_at_strays(
    app: &App,
    index: &dyn VectorIndex,
    strays: &[Linked],
    deadline: Deadline,
) -> Result<Vec<Finding>, IngestError> {
    if strays.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<ChunkId> = strays.iter().map(|point| point.id).collect();
    let (known, retired) = known_by_id(app, &ids).await?;
    let known: HashMap<ChunkId, Known> = known.into_iter().map(|chunk| (chunk.id, chunk)).collect();
    let there: HashSet<ChunkId> = index.present(&ids, deadline).await?.into_iter().collect();
    let judge = |point: &Linked| {
        let stray = |verdict, found| Finding {
            id: point.id,
            verdict,
            knowledge_base: point.knowledge_base,
            document: point.document,
            expected: false,
            found,
        };
        match known.get(&point.id) {
            Some(chunk) => Some(chunk.judge(point, false)),
            None if retired.contains(&point.id) => Some(stray(Verdict::InFlight, false)),
            None => there.contains(&point.id).then(|| stray(Verdict::Orphan, true)),
        }
    };
    Ok(strays.iter().filter_map(judge).collect())
}

/// What PostgreSQL holds between two ids, both included, in their order; a page at most.
async fn known_between(
    app: &App,
    scope: Option<KnowledgeBaseId>,
    from: ChunkId,
    end: ChunkId,
) -> Result<Vec<Known>, DbError> {
    let rows = app
        .db
        .query(
            "read ids to compare",
            "-- audit::known_between
            SELECT c.id, d.knowledge_base_id, c.document_id, EXISTS (
                SELECT FROM chunk_positions p WHERE p.chunk_id = c.id AND p.revision = d.active_revision
            ) AS active
            FROM chunk_metadata c JOIN documents d ON d.id = c.document_id
            WHERE c.id BETWEEN $1 AND $2 AND ($3::uuid IS NULL OR d.knowledge_base_id = $3)
            ORDER BY c.id LIMIT $4",
            &[
                (&from.0, Type::UUID),
                (&end.0, Type::UUID),
                (&scope.map(|id| id.0), Type::UUID),
                (&i64::from(PAGE), Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(Known::from_row).collect()
}

/// What PostgreSQL holds of these ids, of whichever knowledge base; and which of them are on the list of retired points, or
/// on their way to it.
/// In this order: an id that goes from one to the other in between is seen on the list.
async fn known_by_id(app: &App, ids: &[ChunkId]) -> Result<(Vec<Known>, BTreeSet<ChunkId>), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    app.db
        .transaction("look again", async move |tx| {
            let known = tx
                .query_typed(
                    "-- audit::known_by_id
                    SELECT c.id, d.knowledge_base_id, c.document_id, EXISTS (
                        SELECT FROM chunk_positions p WHERE p.chunk_id = c.id AND p.revision = d.active_revision
                    ) AS active
                    FROM chunk_metadata c JOIN documents d ON d.id = c.document_id WHERE c.id = ANY($1)",
                    &[(&ids, Type::UUID_ARRAY)],
                )
                .await?;
            let retired = tx
                .query_typed(
                    "-- audit::retired_by_id
                    SELECT chunk_id FROM retired_points WHERE chunk_id = ANY($1)
                    UNION ALL
                    SELECT c.id FROM chunk_metadata c JOIN erasures e ON e.document_id = c.document_id
                    WHERE c.id = ANY($1) AND e.remains",
                    &[(&ids, Type::UUID_ARRAY)],
                )
                .await?;
            let known = known.iter().map(Known::from_row).collect::<Result<_, DbError>>()?;
            let retired = retired.iter().map(|row| row.try_get("chunk_id").map(ChunkId));
            Ok((known, retired.collect::<Result<_, _>>()?))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u128, active: bool) -> Known {
        let (knowledge_base, document) = (KnowledgeBaseId(Uuid::from_u128(1)), DocumentId(Uuid::from_u128(2)));
        Known { id: ChunkId(Uuid::from_u128(n)), knowledge_base, document, active }
    }

    fn point(n: u128) -> Linked {
        let chunk = known(n, true);
        Linked { id: chunk.id, knowledge_base: Some(chunk.knowledge_base), document: Some(chunk.document) }
    }

    #[test]
    fn a_merge_tells_each_kind_of_disagreement_and_nothing_else() {
        let wrong = Linked { document: None, ..point(5) };
        let known = [known(1, true), known(2, true), known(3, false), known(4, false), known(5, true), known(9, true)];
        let merged = merge(&known, &[point(0), point(1), point(4), wrong, point(7), point(9)]);
        let verdicts: Vec<_> = merged.findings.iter().map(|f| (f.id.0.as_u128(), f.verdict)).collect();
        assert_eq!(
            verdicts,
            [(1, Verdict::Agreed), (4, Verdict::InFlight), (5, Verdict::Mislinked), (9, Verdict::Agreed)]
        );
        assert_eq!(merged.missing.iter().map(|chunk| chunk.id.0.as_u128()).collect::<Vec<_>>(), [2]);
        assert_eq!(merged.strays, [point(0), point(7)]);
    }

    #[test]
    fn a_page_that_is_not_full_reaches_to_the_end() {
        assert_eq!(after(end(3, Some(known(3, true).id))), None);
        assert_eq!(after(end(PAGE as usize, Some(known(3, true).id))), Some(known(4, true).id));
        assert_eq!(after(end(0, None)), None);
    }
}
