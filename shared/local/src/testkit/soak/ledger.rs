//! Which revision was active when: noted by PostgreSQL itself, in the transaction that makes it so; and what a reader may
//! have been shown.
//!
//! No clock is compared. The ledger is read before a query and after it; what was active at some moment between is what the
//! first reading ends with, and all that the second has beyond it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::{
    db::{Db, DbError},
    domain::{ContentHash, DocumentId, KnowledgeBaseId},
};

use super::text::Texts;

/// Makes the ledger in a test's own database. A document's row is locked by whoever changes it, so its entries are in the
/// order in which they became true.
pub(super) const SCHEMA: &str = "
CREATE TABLE soak_ledger (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id uuid NOT NULL, knowledge_base_id uuid NOT NULL, revision integer, content_hash bytea
);
GRANT SELECT ON soak_ledger TO PUBLIC;
CREATE FUNCTION soak_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO soak_ledger (document_id, knowledge_base_id) VALUES (OLD.id, OLD.knowledge_base_id);
    ELSE
        INSERT INTO soak_ledger (document_id, knowledge_base_id, revision, content_hash)
        SELECT NEW.id, NEW.knowledge_base_id, r.number, r.content_hash
        FROM document_revisions r WHERE r.document_id = NEW.id AND r.number = NEW.active_revision;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER soak_activated AFTER UPDATE OF active_revision ON documents FOR EACH ROW
    WHEN (NEW.active_revision IS DISTINCT FROM OLD.active_revision) EXECUTE FUNCTION soak_note();
CREATE TRIGGER soak_deleted AFTER DELETE ON documents FOR EACH ROW EXECUTE FUNCTION soak_note();";

/// Leaves what is true now: between rounds, when nobody is at work.
pub(super) const COMPACT: &str = "
DELETE FROM soak_ledger l WHERE revision IS NULL
    OR EXISTS (SELECT FROM soak_ledger later WHERE later.document_id = l.document_id AND later.seq > l.seq)";

/// A revision became active, or its document was deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) seq: i64,
    pub(super) document: DocumentId,
    pub(super) knowledge_base: KnowledgeBaseId,
    /// `None`: deleted.
    pub(super) revision: Option<i32>,
    /// Of that revision, in hexadecimal.
    pub(super) content_hash: Option<String>,
}

/// All entries, in their order.
pub(super) async fn read(db: &Db) -> Result<Vec<Entry>, DbError> {
    db.transaction("soak: read ledger", async |tx| {
        let rows = tx
            .query_typed(
                "-- soak::read_ledger
                SELECT seq, document_id, knowledge_base_id, revision, content_hash FROM soak_ledger ORDER BY seq",
                &[],
            )
            .await?;
        let entry = |row: &tokio_postgres::Row| -> Result<Entry, DbError> {
            let hash: Option<&[u8]> = row.try_get("content_hash")?;
            let hash = hash.map(ContentHash::try_from).transpose().map_err(DbError::column("soak_ledger.content_hash"));
            Ok(Entry {
                seq: row.try_get("seq")?,
                document: DocumentId(row.try_get("document_id")?),
                knowledge_base: KnowledgeBaseId(row.try_get("knowledge_base_id")?),
                revision: row.try_get("revision")?,
                content_hash: hash?.map(|hash| hash.to_string()),
            })
        };
        rows.iter().map(entry).collect()
    })
    .await
}

/// A query, and what was true around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness<'a> {
    /// The ledger before the query.
    pub(super) before: &'a [Entry],
    /// The ledger after it.
    pub(super) after: &'a [Entry],
    /// What the caller may read and has asked for.
    pub(super) scope: &'a [KnowledgeBaseId],
    /// Whether all that is there must have been found: not when words alone were searched.
    pub(super) whole: bool,
    /// At most so many hits were asked for.
    pub(super) hits_max: usize,
    pub(super) texts: &'a Texts,
}

impl Witness<'_> {
    /// What is wrong with an answer (P1, P2); nothing, if all is well.
    pub(super) fn judge(&self, answer: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(hits) = answer["hits"].as_array() else { return vec![format!("no hits: {answer}")] };
        let mut by_document = BTreeMap::<DocumentId, Vec<&Value>>::new();
        for hit in hits {
            match hit["document"]["id"].as_str().and_then(|id| id.parse().ok()) {
                Some(id) => by_document.entry(id).or_default().push(hit),
                None => wrong.push(format!("P1: a hit without a document: {hit}")),
            }
        }
        let possible = self.possible();
        for (document, hits) in &by_document {
            let Some(possible) = possible.get(document) else {
                wrong.push(format!("P1: {document} is not the caller's to see, or was never active"));
                continue;
            };
            self.judge_document(*document, hits, possible, self.complete(answer), &mut wrong);
        }
        if self.complete(answer) {
            let expected = possible.iter().filter(|(_, states)| !states.iter().any(|entry| entry.revision.is_none()));
            let unseen = expected.filter(|(document, _)| !by_document.contains_key(document));
            wrong.extend(unseen.map(|(document, _)| format!("P2: {document} was active all the time and is not seen")));
        }
        wrong
    }

    /// Whether the answer must hold all that there is.
    pub(super) fn complete(&self, answer: &Value) -> bool {
        let hits = answer["hits"].as_array().map_or(0, Vec::len);
        let degraded = answer["degraded"].as_array().is_some_and(|names| !names.is_empty());
        self.whole && !degraded && answer["debug"]["complete"] != false && hits < self.hits_max
    }

    /// What each document in scope was at some moment of the query: a revision, or nothing.
    fn possible(&self) -> BTreeMap<DocumentId, Vec<Entry>> {
        let known: BTreeSet<i64> = self.before.iter().map(|entry| entry.seq).collect();
        let in_scope = |entry: &&Entry| self.scope.contains(&entry.knowledge_base);
        let mut possible = BTreeMap::<DocumentId, Vec<Entry>>::new();
        for entry in self.before.iter().filter(in_scope) {
            possible.insert(entry.document, vec![entry.clone()]);
        }
        for entry in self.after.iter().filter(in_scope).filter(|entry| !known.contains(&entry.seq)) {
            let nothing = || vec![Entry { revision: None, content_hash: None, ..entry.clone() }];
            possible.entry(entry.document).or_insert_with(nothing).push(entry.clone());
        }
        possible
    }

    fn judge_document(
        &self,
        document: DocumentId,
        hits: &[&Value],
        possible: &[Entry],
        complete: bool,
        wrong: &mut Vec<String>,
    ) {
        let revisions: BTreeSet<Option<i64>> = hits.iter().map(|hit| hit["document"]["revision"].as_i64()).collect();
        let (Some(&Some(revision)), 1) = (revisions.first(), revisions.len()) else {
            wrong.push(format!("P2: {document} is seen in the revisions {revisions:?} at once"));
            return;
        };
        let Some(entry) = possible.iter().find(|entry| entry.revision.map(i64::from) == Some(revision)) else {
            let possible: Vec<_> = possible.iter().map(|entry| entry.revision).collect();
            wrong.push(format!(
                "P1: {document} is seen in revision {revision}, which was not active; {possible:?} were"
            ));
            return;
        };
        let Some(text) = entry.content_hash.as_deref().and_then(|hash| self.texts.get(hash)) else {
            wrong.push(format!("P1: nobody has sent revision {revision} of {document}"));
            return;
        };
        let mut ranges = Vec::new();
        for hit in hits {
            let end = |name: &str| usize::try_from(hit["byte_range"][name].as_u64().unwrap_or(u64::MAX)).ok();
            let range = end("start").zip(end("end")).map(|(start, end)| start..end);
            let shown = range.clone().and_then(|range| text.get(range));
            if hit["document"]["content_hash"].as_str() != entry.content_hash.as_deref()
                || hit["document"]["knowledge_base"] != entry.knowledge_base.to_string()
                || shown.is_none()
                || hit["text"].as_str() != shown
            {
                wrong.push(format!("P1: a hit is not what was sent as revision {revision} of {document}: {hit}"));
            }
            ranges.extend(range);
        }
        ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        let mut gaps = 0;
        for range in ranges.into_iter().chain(std::iter::once(text.len()..text.len())) {
            let between = text.get(end..range.start);
            gaps += usize::from(between.is_none_or(|between| !between.trim().is_empty()));
            end = range.end;
        }
        if complete && gaps > 0 {
            wrong.push(format!(
                "P2: revision {revision} of {document} is not seen whole: {} hits, {gaps} gaps or overlaps",
                hits.len()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Case {
        document: DocumentId,
        knowledge_base: KnowledgeBaseId,
        texts: Texts,
    }

    const FIRST: &str = "one two\n\nthree";
    const SECOND: &str = "one two\n\nfour";

    impl Case {
        fn new() -> Self {
            Self { document: DocumentId::draw(), knowledge_base: KnowledgeBaseId::draw(), texts: Texts::default() }
        }

        fn entry(&self, seq: i64, revision: Option<i32>) -> Entry {
            let text = revision.map(|revision| if revision == 1 { FIRST } else { SECOND });
            Entry {
                seq,
                document: self.document,
                knowledge_base: self.knowledge_base,
                revision,
                content_hash: text.map(|text| self.texts.note(text)),
            }
        }

        fn hit(&self, revision: i32, start: usize, end: usize) -> Value {
            let text = if revision == 1 { FIRST } else { SECOND };
            json!({
                "text": text.get(start..end),
                "byte_range": { "start": start, "end": end },
                "document": {
                    "id": self.document, "knowledge_base": self.knowledge_base, "revision": revision,
                    "content_hash": self.texts.note(text),
                },
            })
        }

        fn judge(&self, before: &[Entry], after: &[Entry], hits: &[Value]) -> String {
            let witness = Witness {
                before,
                after,
                scope: &[self.knowledge_base],
                whole: true,
                hits_max: 100,
                texts: &self.texts,
            };
            witness.judge(&json!({ "hits": hits, "degraded": [], "debug": { "complete": true } })).join("\n")
        }
    }

    #[test]
    fn each_revision_that_was_active_meanwhile_may_be_seen_and_no_other() {
        let case = Case::new();
        let (first, second) = (case.entry(1, Some(1)), case.entry(2, Some(2)));
        let seen = |revision| [case.hit(revision, 0, 7), case.hit(revision, 9, if revision == 1 { 14 } else { 13 })];
        let (before, after) = (std::slice::from_ref(&first), [first.clone(), second.clone()]);
        assert_eq!(case.judge(before, before, &seen(1)), "");
        assert_eq!(case.judge(before, &after, &seen(1)), "");
        assert_eq!(case.judge(before, &after, &seen(2)), "");
        assert!(case.judge(&after, &after, &seen(1)).starts_with("P1"));
        assert!(case.judge(before, before, &seen(2)).starts_with("P1"));
        // Deleted before the query; and while it ran.
        let gone = [first.clone(), case.entry(2, None)];
        assert!(case.judge(&gone, &gone, &seen(1)).starts_with("P1"));
        assert_eq!(case.judge(before, &gone, &seen(1)), "");
        assert_eq!(case.judge(before, &gone, &[]), "");
    }

    #[test]
    fn a_revision_is_seen_whole_and_alone() {
        let case = Case::new();
        let ledger = [case.entry(1, Some(1))];
        let both = [ledger[0].clone(), case.entry(2, Some(2))];
        assert!(case.judge(&ledger, &ledger, &[]).starts_with("P2"));
        assert!(case.judge(&ledger, &ledger, &[case.hit(1, 0, 7)]).starts_with("P2"));
        assert!(case.judge(&ledger, &ledger, &[case.hit(1, 9, 14)]).starts_with("P2"));
        assert!(case.judge(&ledger, &both, &[case.hit(1, 0, 7), case.hit(2, 9, 13)]).starts_with("P2"));
    }

    #[test]
    fn a_hit_shows_what_was_sent_and_is_the_callers_to_see() {
        let case = Case::new();
        let ledger = [case.entry(1, Some(1))];
        let mut wrong = [case.hit(1, 0, 7), case.hit(1, 9, 14)];
        wrong[1]["text"] = json!("thr33");
        assert!(case.judge(&ledger, &ledger, &wrong).starts_with("P1"));
        let other = Case::new();
        let foreign = [case.hit(1, 0, 7), case.hit(1, 9, 14), other.hit(1, 0, 7)];
        assert!(case.judge(&ledger, &ledger, &foreign).starts_with("P1"));
        let both = [ledger[0].clone(), other.entry(2, Some(1))];
        assert!(case.judge(&both, &both, &foreign).starts_with("P1"), "of a knowledge base that is not in scope");
    }
}
