//! A bucket with versions in memory, and the events that it would send.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use shared::{
    deadline::Deadline,
    objects::{ObjectError, ObjectHead, ObjectId, ObjectStore, PresignedPut},
};

/// The name of the bucket.
const NAME: &str = "inbox";

/// What stands in one version; `None` for a delete marker.
type Content = Option<(Bytes, String)>;

#[derive(Debug, Default)]
struct State {
    /// By key, oldest first, with the version's name.
    versions: BTreeMap<String, Vec<(String, Content)>>,
}

/// A bucket that keeps versions, as S3 does.
#[derive(Clone, Debug, Default)]
pub struct TestBucket {
    state: Arc<Mutex<State>>,
    sequence: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    reads_max: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
}

impl TestBucket {
    /// Puts an object, and returns the event that says so.
    #[must_use]
    pub fn put(&self, key: &str, media_type: &str, bytes: impl Into<Bytes>) -> Value {
        let version = self.add(key, Some((bytes.into(), media_type.to_owned())));
        self.event("ObjectCreated:Put", key, &version)
    }

    /// Hides an object under a delete marker.
    #[must_use]
    pub fn hide(&self, key: &str) -> Value {
        let version = self.add(key, None);
        self.event("ObjectRemoved:DeleteMarkerCreated", key, &version)
    }

    /// Removes the newest version for good: the one before is the newest now.
    #[must_use]
    pub fn remove_newest(&self, key: &str) -> Value {
        let (version, _) = self.lock().versions.get_mut(key).and_then(Vec::pop).expect("there is a version");
        self.event("ObjectRemoved:Delete", key, &version)
    }

    /// Stops answering, or answers again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Breaks down after so many more ranges.
    pub fn break_after(&self, ranges: u64) {
        self.reads_max.store(self.reads() + ranges, Ordering::Relaxed);
    }

    /// How many ranges were read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: &str, content: Content) -> String {
        let version = format!("v{}", self.sequence.fetch_add(1, Ordering::Relaxed));
        self.lock().versions.entry(key.to_owned()).or_default().push((version.clone(), content));
        version
    }

    fn event(&self, name: &str, key: &str, version: &str) -> Value {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        // Of unequal lengths, as S3's are: the order holds once they are padded.
        let sequencer =
            if number.is_multiple_of(16) { format!("{:015X}", number / 16) } else { format!("{number:016X}") };
        let key: String = url_encoded(key);
        json!({"Records": [{
            "eventSource": "aws:s3", "eventName": name,
            "s3": {"bucket": {"name": NAME}, "object": {"key": key, "versionId": version, "sequencer": sequencer}},
        }]})
    }

    fn find(&self, object: &ObjectId) -> Result<(String, Bytes, String), ObjectError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(ObjectError::Unavailable("the test has stopped it".into()));
        }
        let state = self.lock();
        let versions = state.versions.get(&object.key).ok_or(ObjectError::Missing)?;
        let found = match &object.version {
            Some(wanted) => versions.iter().find(|(version, _)| version == wanted),
            None => versions.last(),
        };
        let (version, content) = found.ok_or(ObjectError::Missing)?;
        let (bytes, media_type) = content.clone().ok_or(ObjectError::Missing)?;
        Ok((version.clone(), bytes, media_type))
    }
}

/// As a form encodes it; enough for the keys of tests.
fn url_encoded(key: &str) -> String {
    key.replace('%', "%25").replace('+', "%2B").replace(' ', "+")
}

#[async_trait]
impl ObjectStore for TestBucket {
    async fn head(&self, object: &ObjectId, _: Deadline) -> Result<ObjectHead, ObjectError> {
        let (version, bytes, media_type) = self.find(object)?;
        let etag = Some(format!("\"{version}\""));
        Ok(ObjectHead { size_bytes: bytes.len() as u64, media_type: Some(media_type), version: Some(version), etag })
    }

    async fn get(
        &self,
        object: &ObjectId,
        etag: Option<&str>,
        start: u64,
        length: u64,
        _: Deadline,
    ) -> Result<Bytes, ObjectError> {
        let (version, bytes, _) = self.find(object)?;
        if self.reads.fetch_add(1, Ordering::Relaxed) + 1 == self.reads_max.load(Ordering::Relaxed) {
            self.set_down(true);
        }
        if etag.is_some_and(|etag| etag != format!("\"{version}\"")) {
            return Err(ObjectError::Changed);
        }
        let place = |at: u64| usize::try_from(at).expect("a place in memory").min(bytes.len());
        Ok(bytes.slice(place(start)..place(start + length)))
    }

    async fn presign_put(&self, _: &ObjectId, _: &str, _: u64, _: Duration) -> Result<PresignedPut, ObjectError> {
        Err(ObjectError::Unsigned("a bucket in memory has no address".into()))
    }
}
