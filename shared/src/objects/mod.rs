//! Objects in buckets: what is read of them, and how a client may bring one.

pub mod s3;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use crate::{deadline::Deadline, problem::Problem};

/// An object, or one version of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ObjectId {
    /// Its bucket.
    pub bucket: String,
    /// Its key, as it is: not encoded.
    pub key: String,
    /// The version; `None` for the newest, or in a bucket that keeps none.
    pub version: Option<String>,
}

/// What a store says about an object without giving it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectHead {
    /// Its size.
    pub size_bytes: u64,
    /// The media type that it was stored with.
    pub media_type: Option<String>,
    /// Which version this is, in a bucket that keeps them.
    pub version: Option<String>,
    /// Changes with the content.
    pub etag: Option<String>,
}

/// A request with which a client may bring one object, and nothing else.
#[derive(Clone, Debug, Serialize)]
pub struct PresignedPut {
    /// Where to.
    pub url: String,
    /// Headers that the request must have, exactly so.
    pub headers: Vec<(String, String)>,
}

/// A store of objects.
#[async_trait]
pub trait ObjectStore: Debug + Send + Sync {
    /// What there is to know of an object.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] when there is none, or the newest version is a delete marker.
    async fn head(&self, object: &ObjectId, deadline: Deadline) -> Result<ObjectHead, ObjectError>;

    /// The bytes from `start` on, `length` of them, or fewer at the object's end. With an `etag`, only of that content.
    ///
    /// # Errors
    /// [`ObjectError::Missing`]; [`ObjectError::Changed`] when the content is another.
    async fn get(
        &self,
        object: &ObjectId,
        etag: Option<&str>,
        start: u64,
        length: u64,
        deadline: Deadline,
    ) -> Result<Bytes, ObjectError>;

    /// Allows one PUT of so many bytes of this media type, for `valid`.
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    async fn presign_put(
        &self,
        object: &ObjectId,
        media_type: &str,
        size_bytes: u64,
        valid: Duration,
    ) -> Result<PresignedPut, ObjectError>;
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object, or no such version.
    #[error("there is no such object")]
    Missing,
    /// It has another content than the one that was asked for.
    #[error("the object has changed")]
    Changed,
    /// It lies in an archive, and must be restored before it can be read.
    #[error("the object is archived")]
    Archived,
    /// The store refuses it. A missing right is the most likely cause: it passes when somebody grants it.
    #[error("the store refuses with status {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The store's own code.
        reason: String,
    },
    /// The store is down, slow or throttles.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// The request could not be signed: there are no credentials.
    #[error("the request can not be signed")]
    Unsigned(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ObjectError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Unavailable(_) | Self::Timeout | Self::Unsigned(_) => true,
            Self::Missing | Self::Changed | Self::Archived => false,
        }
    }
}

/// How soon a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        Self::unavailable("s3", RETRY_AFTER, error)
    }
}
