//! Whether the two stores agree.

use std::collections::{BTreeMap, BTreeSet};

use shared::domain::ChunkId;

use super::TestApp;

impl TestApp {
    /// Ends the test unless the stores agree; see [`Self::disagreements`].
    pub async fn assert_consistent(&self) {
        let wrong = self.disagreements().await;
        assert!(wrong.is_empty(), "the stores disagree:\n{}", wrong.join("\n"));
    }

    /// In what the stores disagree; nothing, if all is well: every chunk of an active revision, and every chunk of a staged one
    /// whose vectors Qdrant has acknowledged, has its point; there are no other points, except of staged
    /// chunks and those in `retired_points` that are not due yet; and each payload is `kb` and `doc`, as
    /// PostgreSQL has them.
    pub async fn disagreements(&self) -> Vec<String> {
        let pg = self.pg().await;
        let rows = pg
            .query(
                "-- testkit::assert_consistent
                SELECT c.id, d.id AS document_id, d.knowledge_base_id,
                    bool_or(r.state = 'active' OR p.ordinal <= r.embedded_through) AS required
                FROM chunk_positions p
                JOIN chunk_metadata c ON c.id = p.chunk_id
                JOIN documents d ON d.id = p.document_id
                JOIN document_revisions r ON r.document_id = p.document_id AND r.number = p.revision
                WHERE r.state IN ('active', 'staged')
                GROUP BY c.id, d.id",
                &[],
            )
            .await
            .expect("PostgreSQL answers");
        let mut expected = BTreeMap::new();
        let mut required = BTreeSet::new();
        for row in rows {
            let id = ChunkId(row.get("id"));
            let link = |column: &str| row.get::<_, uuid::Uuid>(column).to_string();
            let payload =
                BTreeMap::from([("kb".to_owned(), link("knowledge_base_id")), ("doc".to_owned(), link("document_id"))]);
            expected.insert(id, payload);
            if row.get("required") {
                required.insert(id);
            }
        }
        let retired = pg
            .query("-- testkit::assert_consistent\nSELECT chunk_id FROM retired_points WHERE due_at > now()", &[])
            .await
            .expect("PostgreSQL answers");
        let retired: BTreeSet<ChunkId> = retired.iter().map(|row| ChunkId(row.get(0))).collect();

        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        for (id, payload) in self.all_points().await {
            if !seen.insert(id) {
                wrong.push(format!("the point {id} is there twice"));
            }
            match expected.get(&id) {
                Some(expected) if *expected != payload => {
                    wrong.push(format!("the point {id} has the payload {payload:?} instead of {expected:?}"));
                }
                Some(_) => {}
                None if retired.contains(&id) => {}
                None => wrong.push(format!("the point {id} is no chunk's: {payload:?}")),
            }
        }
        wrong.extend(required.difference(&seen).map(|id| format!("the chunk {id} has no point")));
        wrong
    }
}
