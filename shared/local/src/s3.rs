//! A private S3: path-style, signatures checked, objects as files.

use std::{convert::Infallible, path::Path};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;

use crate::{failure::Failure, folder};

/// Where documents are dropped.
pub const INBOX: &str = "lockstep-inbox";

/// The access key's public half. One installation has one.
pub const ACCESS_KEY: &str = "lockstep";

/// An S3 that keeps its buckets below a folder.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Serves the bucket.
    pub router: Router,
    /// The access key's secret half.
    pub secret_key: String,
}

/// The S3 in `folder`, with the bucket [`INBOX`].
///
/// # Errors
/// When the folder can not be written.
pub fn open(folder: &Path) -> Result<S3, Failure> {
    let buckets = folder.join("buckets");
    folder::make(&buckets.join(INBOX))?;
    let secret = || Ok(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()));
    let secret_key = folder::secret(&folder.join("secret-key"), secret)?;
    let files = FileSystem::new(&buckets).map_err(|error| Failure::new(format!("S3 can not start: {error:?}")))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, secret_key.as_str()));
    let service = service.build();
    let router = Router::new().fallback(async move |request: Request| -> Result<Response, Infallible> {
        Ok(match service.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => response.map(axum::body::Body::new),
            Err(error) => {
                tracing::warn!(?error, "S3 failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        })
    });
    Ok(S3 { router, secret_key })
}
