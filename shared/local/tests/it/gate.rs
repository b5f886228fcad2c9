//! An embedder that a test holds back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use local::testkit::{HashEmbedder, TestApp};
use shared::embed::{EmbedError, Embedder, Space};
use tokio::{sync::watch, time::Instant};

/// Embeds by words, but passages only once the gate is open, or each batch after a pause.
#[derive(Clone, Debug)]
pub struct GatedEmbedder {
    inner: Arc<HashEmbedder>,
    pause: Option<Duration>,
    open: Arc<watch::Sender<bool>>,
    reached: Arc<watch::Sender<bool>>,
}

impl Default for GatedEmbedder {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            pause: None,
            open: Arc::new(watch::Sender::new(false)),
            reached: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl GatedEmbedder {
    /// Instead of a closed gate, a pause before each batch, until it is opened.
    pub fn slow(pause: Duration) -> Self {
        Self { pause: Some(pause), ..Self::default() }
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Holds back again, from now on.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Returns when somebody stands at the gate whose text is stored: a new document is embedded while that is done.
    pub async fn reached(&self, app: &TestApp) {
        self.reached.subscribe().wait_for(|reached| *reached).await.unwrap();
        let pg = app.pg().await;
        let staged = "SELECT EXISTS (SELECT FROM document_revisions WHERE state = 'staged')";
        while !pg.query_one(staged, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[async_trait]
impl Embedder for GatedEmbedder {
    fn space(&self) -> &Space {
        self.inner.space()
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.reached.send_replace(true);
        let mut open = self.open.subscribe();
        let opened = open.wait_for(|open| *open);
        match self.pause {
            Some(pause) => drop(tokio::time::timeout_at(deadline.min(Instant::now() + pause), opened).await),
            None => drop(tokio::time::timeout_at(deadline, opened).await.map_err(|_| EmbedError::Timeout)?),
        }
        if Instant::now() >= deadline {
            return Err(EmbedError::Timeout);
        }
        self.inner.embed_passages(texts, deadline).await
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        self.inner.embed_query(text, deadline).await
    }

    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        self.inner.count_tokens(text)
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }
}
