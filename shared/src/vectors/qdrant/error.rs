//! What the client's errors mean to who asked.

use std::time::Duration;

use qdrant_client::QdrantError;
use tonic::Code;

use crate::vectors::IndexError;

impl From<QdrantError> for IndexError {
    fn from(error: QdrantError) -> Self {
        match &error {
            QdrantError::ResourceExhaustedError { retry_after_seconds, .. } => {
                Self::Throttled { retry_after: Duration::from_secs(*retry_after_seconds) }
            }
            QdrantError::ResponseError { status } => match status.code() {
                Code::DeadlineExceeded => Self::Timeout,
                // All that we ask for by name is the collection.
                Code::NotFound => Self::Missing,
                Code::ResourceExhausted => Self::Throttled { retry_after: Duration::from_secs(1) },
                Code::Cancelled
                | Code::Unknown
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => Self::Unavailable(error.into()),
                Code::Ok
                | Code::InvalidArgument
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated => Self::Refused(error.into()),
            },
            QdrantError::Io(_) => Self::Unavailable(error.into()),
            QdrantError::ConversionError(_) | QdrantError::InvalidUri(_) | QdrantError::NoSnapshotFound(_) => {
                Self::Refused(error.into())
            }
            #[allow(unreachable_patterns, reason = "other crates may switch features of qdrant-client on")]
            _ => Self::Refused(error.into()),
        }
    }
}
