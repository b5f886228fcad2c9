//! The audit's memory is that of a page: with ten times the points it makes ten times the requests, and none is larger.
//! `make bench-audit` measures the memory itself, with a million points.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use ingest::audit;
use local::testkit::{HashEmbedder, TestApp, drift};
use shared::{
    deadline::Deadline,
    domain::ChunkId,
    vectors::{Candidates, IndexError, Linked, Part, Point, Search, VectorIndex},
};

use crate::audit::soon;

/// An index that notes what the audit asks it for.
#[derive(Debug)]
struct Noted {
    inner: Arc<dyn VectorIndex>,
    pages: Arc<Mutex<Vec<usize>>>,
    others: Arc<AtomicUsize>,
}

#[async_trait]
impl VectorIndex for Noted {
    async fn ensure(&self, deadline: Deadline) -> Result<(), IndexError> {
        self.inner.ensure(deadline).await
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collection(&self, name: &str) -> Arc<dyn VectorIndex> {
        let inner = self.inner.collection(name);
        Arc::new(Self { inner, pages: self.pages.clone(), others: self.others.clone() })
    }

    async fn drop_collection(&self, deadline: Deadline) -> Result<(), IndexError> {
        self.inner.drop_collection(deadline).await
    }

    async fn behind(&self, deadline: Deadline) -> Result<Option<String>, IndexError> {
        self.inner.behind(deadline).await
    }

    async fn point_to(&self, collection: &str, deadline: Deadline) -> Result<(), IndexError> {
        self.inner.point_to(collection, deadline).await
    }

    async fn upsert(&self, points: &[Point], deadline: Deadline) -> Result<(), IndexError> {
        self.inner.upsert(points, deadline).await
    }

    async fn delete(&self, ids: &[ChunkId], deadline: Deadline) -> Result<(), IndexError> {
        self.inner.delete(ids, deadline).await
    }

    async fn count(&self, ids: &[ChunkId], deadline: Deadline) -> Result<usize, IndexError> {
        self.inner.count(ids, deadline).await
    }

    async fn present(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<ChunkId>, IndexError> {
        self.others.fetch_add(1, Ordering::Relaxed);
        self.inner.present(ids, deadline).await
    }

    async fn linked(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<Linked>, IndexError> {
        self.others.fetch_add(1, Ordering::Relaxed);
        self.inner.linked(ids, deadline).await
    }

    async fn scroll(
        &self,
        part: Part,
        from: ChunkId,
        limit: u32,
        deadline: Deadline,
    ) -> Result<Vec<Linked>, IndexError> {
        let page = self.inner.scroll(part, from, limit, deadline).await?;
        self.pages.lock().unwrap().push(page.len());
        Ok(page)
    }

    async fn count_part(&self, part: Part, deadline: Deadline) -> Result<u64, IndexError> {
        self.inner.count_part(part, deadline).await
    }

    async fn search(&self, search: Search, deadline: Deadline) -> Result<Candidates, IndexError> {
        self.inner.search(search, deadline).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_points_are_ten_times_the_pages_and_no_larger_ones() {
    let mut counted = Vec::new();
    for points in [2_000, 20_000] {
        let (pages, others) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let app = TestApp::with(|parts| {
            parts.embedder = Arc::new(HashEmbedder::of("hash", drift::DIMENSION));
            let (inner, pages, others) = (parts.qdrant_index(), pages.clone(), others.clone());
            parts.index = Some(Arc::new(Noted { inner, pages, others }));
        })
        .await;
        let user = app.register("ann").await;
        drift::fill(&app, user.knowledge_base, points, drift::CHUNKS, |_| {}).await;
        let audit = audit::run(&app.app, None, soon()).await.unwrap();
        assert_eq!((audit.expected, audit.found), (i64::from(points), i64::from(points)));
        assert!(audit.in_step());
        assert_eq!(others.load(Ordering::Relaxed), 0, "nothing is asked for twice when nothing disagrees");
        let pages = pages.lock().unwrap().clone();
        counted.push((pages.len(), pages.iter().copied().max().unwrap()));
    }
    let [(few, small), (many, large)] = counted[..] else { panic!("{counted:?}") };
    assert!(few <= 2 && many <= 11 && many > 5 * few, "{counted:?}");
    assert!(small == large && large <= 2_000, "{counted:?}");
}
