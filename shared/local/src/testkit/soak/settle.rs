//! The end of a round: faults are over, all requests have arrived, leases and graces have ended, the sweeper has run. Then
//! P3 to P5, and a look at both stores.

use std::{collections::BTreeSet, time::Duration};

use shared::{deadline::Deadline, domain::ChunkId, problem::Causes};

use super::{
    act::{Actor, Told},
    ledger::{self, Entry},
    plan::SHELVES,
    world::{ABANDON, DUE, EXPIRE},
};

/// Sends of one request, or runs of the sweeper, until all is done: leases are ended by hand in between.
const ATTEMPTS_MAX: usize = 40;

/// Time of one run of the sweeper or the audit.
const SWEEP: Duration = Duration::from_secs(20);

impl Actor {
    /// Lets all come to rest.
    pub(super) async fn settle(&self, hasty: bool) {
        let world = &self.world;
        world.qdrant.heal();
        world.postgres.heal();
        // From here on nobody works but who is started here.
        world.renew().await;
        world.qdrant.deliver_what_arrives().await;
        self.send_the_rest().await;
        world.execute(ABANDON).await;
        self.sweep().await;
        world.execute(DUE).await;
        self.sweep().await;
        self.audit(hasty).await;
    }

    /// Every second request without a last word comes again; the other clients never do.
    async fn send_the_rest(&self) {
        let requests: Vec<_> = {
            let memory = self.record.memory();
            let open = memory.requests.iter().filter(|(_, request)| request.last_word.is_none());
            open.map(|(key, request)| (key.clone(), request.clone())).collect()
        };
        for (key, request) in requests.iter().step_by(2) {
            let mut told = Told::Again;
            for attempt in 0..ATTEMPTS_MAX {
                self.world.execute(EXPIRE).await;
                told = self.send(request, Some(key), attempt).await;
                if told == Told::LastWord {
                    break;
                }
            }
            if told == Told::Again {
                self.record.violation(&self.name, &format!("P3: {key} has no last word, though nothing is in its way"));
            }
        }
    }

    /// Runs the sweeper until there is nothing left to finish.
    async fn sweep(&self) {
        for _ in 0..ATTEMPTS_MAX {
            self.world.execute(EXPIRE).await;
            match ingest::sweep(&self.world.app.app, Deadline::after(SWEEP)).await {
                Ok(swept) if swept == ingest::Swept::default() => return,
                Ok(swept) => self.record.note(&self.name, &format!("{swept:?}")),
                Err(error) => self.record.note(&self.name, &format!("the sweeper fails: {}", Causes(&error))),
            }
        }
        self.record.violation(&self.name, "P5: the sweeper does not come to an end");
    }

    /// The audit finds nothing missing, and takes away what came after the list had forgotten it.
    async fn audit(&self, hasty: bool) {
        let app = &self.world.app.app;
        for last in [false, true] {
            self.world.execute(EXPIRE).await;
            let audit = match ingest::audit::run(app, None, Deadline::after(SWEEP)).await {
                Ok(audit) => audit,
                Err(error) => {
                    return self.record.violation(&self.name, &format!("P5: the audit fails: {}", Causes(&error)));
                }
            };
            if audit.finished_at.is_none() || audit.missing > 0 || audit.mislinked > 0 {
                self.record.violation(&self.name, &format!("P2: the audit finds what is not there: {audit:?}"));
            }
            if audit.orphaned > 0 && (last || !hasty) {
                self.record.violation(&self.name, &format!("P5: nobody has removed what is dead: {audit:?}"));
            }
            if audit.withheld > 0
                && let Err(error) = ingest::audit::approve(app, audit.id, Deadline::after(SWEEP)).await
            {
                self.record.violation(&self.name, &format!("P5: an approval fails: {}", Causes(&error)));
            }
        }
    }

    /// What must be true now.
    pub(super) async fn check(&self) {
        let entries = ledger::read(&self.world.app.app.db).await.expect("PostgreSQL answers");
        self.check_promises(&entries);
        self.check_stores(&entries).await;
        let requests: Vec<_> = {
            let memory = self.record.memory();
            let done = memory.requests.iter().filter(|(_, request)| request.last_word.is_some());
            done.map(|(key, request)| (key.clone(), request.clone())).collect()
        };
        for (nth, (key, request)) in requests.iter().enumerate() {
            if self.send(request, Some(key), nth).await == Told::Again {
                self.record.violation(&self.name, &format!("P3: the answer under {key} is not there any more"));
            }
        }
        let unchanged = ledger::read(&self.world.app.app.db).await.expect("PostgreSQL answers");
        if unchanged != entries {
            self.record.violation(&self.name, "P3: a request that had its last word was carried out again");
        }
        for (shelf, tenant) in SHELVES.into_iter().enumerate() {
            for mode in ["hybrid", "dense", "sparse"] {
                self.query(tenant, Some(shelf), mode).await;
            }
            self.query(tenant, None, "hybrid").await;
        }
    }

    /// P3, P4: each success that a client was told of is still true, or was followed by another change.
    fn check_promises(&self, entries: &[Entry]) {
        let (acknowledged, deleted) = {
            let memory = self.record.memory();
            (memory.acknowledged.clone(), memory.deleted.clone())
        };
        for told in acknowledged {
            let mut of_document = entries.iter().filter(|entry| entry.document == told.document);
            let same_text = |entry: &Entry| told.content_hash.is_none() || told.content_hash == entry.content_hash;
            let kept = if told.active {
                of_document.any(|entry| entry.revision == Some(told.revision) && same_text(entry))
            } else {
                // The number that a 202 tells is the document's latest, which may be that of somebody who came after: then
                // either text will do.
                of_document.any(|entry| match entry.revision {
                    Some(number) => number >= told.revision || (told.content_hash.is_some() && same_text(entry)),
                    None => true,
                })
            };
            if !kept {
                self.record.violation(&self.name, &format!("P3: {told:?} is lost"));
            }
        }
        for document in deleted {
            if entries.iter().rfind(|entry| entry.document == document).is_none_or(|last| last.revision.is_some()) {
                self.record.violation(&self.name, &format!("P4: {document} was deleted, and is there"));
            }
        }
        // One content is activated at most as often as it was asked for.
        let mut contents = std::collections::BTreeMap::<_, usize>::new();
        for entry in entries.iter().filter(|entry| entry.revision.is_some()) {
            *contents.entry((entry.document, entry.content_hash.clone())).or_default() += 1;
        }
        let mut asked = std::collections::BTreeMap::<_, usize>::new();
        for request in self.record.memory().requests.values() {
            let text = request.body["text"].as_str().unwrap_or_default();
            *asked.entry(super::text::hash(text)).or_default() += 1;
        }
        for ((document, hash), times) in contents {
            let requests = hash.as_ref().and_then(|hash| asked.get(hash)).copied();
            // A content that also came without a key may come as often as it likes.
            let keyed_only = hash.as_deref().is_some_and(|hash| !self.record.memory().keyless.contains(hash));
            if keyed_only && requests.is_some_and(|requests| times > requests) {
                let what = format!("P3: {hash:?} became active {times} times in {document}, for {requests:?} requests");
                self.record.violation(&self.name, &what);
            }
        }
    }

    /// P4, P5: both stores hold what is active, and nothing else.
    async fn check_stores(&self, entries: &[Entry]) {
        let app = &self.world.app;
        for wrong in app.disagreements().await {
            self.record.violation(&self.name, &format!("P5: {wrong}"));
        }
        let pg = app.pg().await;
        for (what, statement) in [
            ("retired points are left", "SELECT count(*) FROM retired_points"),
            (
                "revisions are unfinished",
                "SELECT count(*) FROM document_revisions WHERE state IN ('claimed', 'staged')",
            ),
            (
                "chunks stand nowhere",
                "SELECT count(*) FROM chunk_metadata c WHERE NOT EXISTS (SELECT FROM chunk_positions p
                JOIN documents d ON d.id = p.document_id AND d.active_revision = p.revision WHERE p.chunk_id = c.id)",
            ),
            ("orphans are listed", "SELECT count(*) FROM orphaned_points"),
            ("audits have found what was not there", "SELECT count(*) FROM audits WHERE missing > 0 OR mislinked > 0"),
        ] {
            let count: i64 = pg.query_one(statement, &[]).await.expect("PostgreSQL answers").get(0);
            if count > 0 {
                self.record.violation(&self.name, &format!("P5: {count} {what}"));
            }
        }
        let rows = pg.query("SELECT id FROM chunk_metadata", &[]).await.expect("PostgreSQL answers");
        let chunks: BTreeSet<ChunkId> = rows.iter().map(|row| ChunkId(row.get(0))).collect();
        let points: BTreeSet<ChunkId> = app.all_points().await.into_iter().map(|(id, _)| id).collect();
        if chunks != points {
            let (lost, dead) = (chunks.difference(&points).count(), points.difference(&chunks).count());
            self.record
                .violation(&self.name, &format!("P5: {lost} chunks without a point, {dead} points without a chunk"));
        }
        let rows = pg.query("SELECT id, active_revision FROM documents", &[]).await.expect("PostgreSQL answers");
        for row in rows {
            let (id, active): (uuid::Uuid, Option<i32>) = (row.get(0), row.get(1));
            let last = entries.iter().rfind(|entry| entry.document.0 == id).and_then(|entry| entry.revision);
            if last != active {
                self.record
                    .violation(&self.name, &format!("{id} has the revision {active:?}, and {last:?} became active"));
            }
        }
        self.record.note(&self.name, &format!("{} chunks, {} points", chunks.len(), points.len()));
    }
}
