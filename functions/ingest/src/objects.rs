//! Documents that lie in a bucket: what is known of one, and how it is read.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use shared::{
    App,
    deadline::Deadline,
    domain::ContentHash,
    objects::{ObjectError, ObjectId},
};

use crate::extract::Format;

/// Bytes of one request to the bucket.
const RANGE_BYTES: u64 = 8 * 1024 * 1024;

/// A text above this size is read and stored part by part, so that neither memory nor one invocation's time limits it.
pub const PARTS_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// The largest object that must be read as a whole, because its format has no parts.
pub const WHOLE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// One content of one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredObject {
    /// Where it is.
    pub id: ObjectId,
    /// Changes with the content.
    pub etag: Option<String>,
    /// Its size.
    pub size_bytes: u64,
}

impl StoredObject {
    /// Whether a document of this format is read part by part.
    #[must_use]
    pub fn in_parts(&self, format: Format) -> bool {
        self.size_bytes > PARTS_FROM_BYTES && matches!(format, Format::Plain | Format::Markdown)
    }

    /// The bytes from `start` on.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn range(&self, app: &App, start: u64, length: u64, deadline: Deadline) -> Result<Bytes, ObjectError> {
        let length = length.min(self.size_bytes.saturating_sub(start));
        let bytes = app.objects.get(&self.id, self.etag.as_deref(), start, length, deadline).await?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(ObjectError::Changed) }
    }

    /// All bytes.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn whole(&self, app: &App, deadline: Deadline) -> Result<Bytes, ObjectError> {
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < self.size_bytes {
            bytes.extend_from_slice(&self.range(app, bytes.len() as u64, RANGE_BYTES, deadline).await?);
        }
        Ok(bytes.freeze())
    }

    /// The hash of all bytes, in constant memory.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn hash(&self, app: &App, deadline: Deadline) -> Result<ContentHash, ObjectError> {
        let (mut hash, mut start) = (Sha256::new(), 0);
        while start < self.size_bytes {
            let bytes = self.range(app, start, RANGE_BYTES, deadline).await?;
            start += bytes.len() as u64;
            hash.update(&bytes);
        }
        Ok(ContentHash(hash.finalize().into()))
    }
}
