//! What a page has told, committed with where the next one begins.

use std::collections::{BTreeMap, HashSet};

use shared::{
    App,
    db::DbError,
    domain::{ChunkId, KnowledgeBaseId},
};
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use super::{
    compare::{Finding, Page, Verdict},
    digest,
    ledger::{Lease, Place},
};
use crate::error::IngestError;

/// The counts of a page, of one knowledge base or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    expected: i64,
    found: i64,
    in_flight: i64,
    missing: i64,
    mislinked: i64,
    orphaned: i64,
    repaired: i64,
}

impl Counts {
    fn add(&mut self, finding: &Finding, repaired: bool) {
        self.expected += i64::from(finding.expected);
        self.found += i64::from(finding.found);
        self.repaired += i64::from(repaired);
        match finding.verdict {
            Verdict::Agreed => {}
            Verdict::InFlight => self.in_flight += 1,
            Verdict::Missing => self.missing += 1,
            Verdict::Mislinked => self.mislinked += 1,
            Verdict::Orphan => self.orphaned += 1,
        }
    }
}

/// Commits a page: from here on a later invocation goes on behind it.
pub(super) async fn record(
    app: &App,
    lease: Lease,
    place: Place,
    page: &Page,
    repaired: &HashSet<ChunkId>,
) -> Result<Place, IngestError> {
    let mut after = Place { next: page.next, ..place };
    let mut total = Counts::default();
    let mut each: BTreeMap<KnowledgeBaseId, Counts> = BTreeMap::new();
    for finding in &page.findings {
        let repaired = repaired.contains(&finding.id);
        total.add(finding, repaired);
        if let Some(knowledge_base) = finding.knowledge_base {
            each.entry(knowledge_base).or_default().add(finding, repaired);
        }
        if finding.expected {
            after.expected_digest = digest::with(after.expected_digest, finding.id);
        }
        if finding.found {
            after.found_digest = digest::with(after.found_digest, finding.id);
        }
    }
    let orphans: Vec<Finding> =
        page.findings.iter().filter(|finding| finding.verdict == Verdict::Orphan).copied().collect();
    app.db
        .transaction("record audit's page", async move |tx| {
            advance(tx, lease, place, after, total).await?;
            insert_orphans(tx, lease, &orphans).await?;
            Ok::<_, IngestError>(add_results(tx, lease, &each).await?)
        })
        .await?;
    Ok(after)
}

async fn advance(
    tx: &Transaction<'_>,
    lease: Lease,
    before: Place,
    after: Place,
    counts: Counts,
) -> Result<(), IngestError> {
    // Where the page began is named too: recorded twice, it would count twice.
    let rows = tx
        .execute_typed(
            "-- audits::advance
            UPDATE audits SET next_id = COALESCE($4, next_id), merged = $4 IS NULL, expected_digest = $5,
                found_digest = $6, expected = expected + $7, found = found + $8, in_flight = in_flight + $9,
                missing = missing + $10, mislinked = mislinked + $11, orphaned = orphaned + $12,
                repaired = repaired + $13
            WHERE id = $1 AND fence = $2 AND finished_at IS NULL AND NOT merged AND next_id = $3",
            &[
                (&lease.id, Type::INT8),
                (&lease.fence, Type::INT8),
                (&before.next.map(|id| id.0), Type::UUID),
                (&after.next.map(|id| id.0), Type::UUID),
                (&after.expected_digest.0.as_slice(), Type::BYTEA),
                (&after.found_digest.0.as_slice(), Type::BYTEA),
                (&counts.expected, Type::INT8),
                (&counts.found, Type::INT8),
                (&counts.in_flight, Type::INT8),
                (&counts.missing, Type::INT8),
                (&counts.mislinked, Type::INT8),
                (&counts.orphaned, Type::INT8),
                (&counts.repaired, Type::INT8),
            ],
        )
        .await
        .map_err(DbError::from)?;
    if rows == 1 { Ok(()) } else { Err(IngestError::AuditLost) }
}

async fn insert_orphans(tx: &Transaction<'_>, lease: Lease, orphans: &[Finding]) -> Result<(), DbError> {
    if orphans.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = orphans.iter().map(|orphan| orphan.id.0).collect();
    let knowledge_bases: Vec<Option<Uuid>> = orphans.iter().map(|o| o.knowledge_base.map(|id| id.0)).collect();
    let documents: Vec<Option<Uuid>> = orphans.iter().map(|orphan| orphan.document.map(|id| id.0)).collect();
    tx.execute_typed(
        "-- orphaned_points::insert
        INSERT INTO orphaned_points AS o (chunk_id, knowledge_base_id, document_id, first_audit_id, last_audit_id)
        SELECT id, knowledge_base, document, $1, $1
        FROM unnest($2, $3, $4) AS new (id, knowledge_base, document)
        ON CONFLICT ON CONSTRAINT orphaned_points_pk DO UPDATE SET
            first_audit_id = LEAST(o.first_audit_id, $1), last_audit_id = GREATEST(o.last_audit_id, $1)",
        &[
            (&lease.id, Type::INT8),
            (&ids, Type::UUID_ARRAY),
            (&knowledge_bases, Type::UUID_ARRAY),
            (&documents, Type::UUID_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

async fn add_results(
    tx: &Transaction<'_>,
    lease: Lease,
    each: &BTreeMap<KnowledgeBaseId, Counts>,
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = each.keys().map(|id| id.0).collect();
    let column = |of: fn(&Counts) -> i64| -> Vec<i64> { each.values().map(of).collect() };
    tx.execute_typed(
        "-- audit_results::add
        INSERT INTO audit_results AS r
            (audit_id, knowledge_base_id, expected, found, missing, mislinked, orphaned, repaired)
        SELECT $1, new.* FROM unnest($2, $3, $4, $5, $6, $7, $8) AS new
        ON CONFLICT ON CONSTRAINT audit_results_pk DO UPDATE SET
            expected = r.expected + EXCLUDED.expected, found = r.found + EXCLUDED.found,
            missing = r.missing + EXCLUDED.missing, mislinked = r.mislinked + EXCLUDED.mislinked,
            orphaned = r.orphaned + EXCLUDED.orphaned, repaired = r.repaired + EXCLUDED.repaired",
        &[
            (&lease.id, Type::INT8),
            (&ids, Type::UUID_ARRAY),
            (&column(|counts| counts.expected), Type::INT8_ARRAY),
            (&column(|counts| counts.found), Type::INT8_ARRAY),
            (&column(|counts| counts.missing), Type::INT8_ARRAY),
            (&column(|counts| counts.mislinked), Type::INT8_ARRAY),
            (&column(|counts| counts.orphaned), Type::INT8_ARRAY),
            (&column(|counts| counts.repaired), Type::INT8_ARRAY),
        ],
    )
    .await?;
    Ok(())
}
