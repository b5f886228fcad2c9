//! A private S3: path-style, signatures checked, objects as files. Of each change in its inbox it sends a notification.

mod notices;

use std::{convert::Infallible, path::Path};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;

use self::notices::Change;
use crate::{failure::Failure, folder, queue::Queue};

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

/// The largest answer that is looked at: to a request that deletes a thousand objects.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The S3 in `folder`, with the bucket [`INBOX`]. What lies there already, and what comes, is told to `queue`.
///
/// # Errors
/// When the folder can not be written.
pub fn open(folder: &Path, queue: Queue) -> Result<S3, Failure> {
    let buckets = folder.join("buckets");
    folder::make(&buckets.join(INBOX))?;
    for notice in notices::of_what_is_there(&buckets.join(INBOX)) {
        queue.send(notice);
    }
    let secret = || Ok(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()));
    let secret_key = folder::secret(&folder.join("secret-key"), secret)?;
    let files = FileSystem::new(&buckets).map_err(|error| Failure::new(format!("S3 can not start: {error:?}")))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, secret_key.as_str()));
    let service = service.build();
    let router = Router::new().fallback(async move |request: Request| -> Result<Response, Infallible> {
        let change = Change::of(request.method(), request.uri());
        Ok(match service.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => {
                let response = response.map(axum::body::Body::new);
                match change {
                    Some(change) if response.status().is_success() => tell(&queue, change, response).await,
                    _ => response,
                }
            }
            Err(error) => {
                tracing::warn!(?error, "S3 failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        })
    });
    Ok(S3 { router, secret_key })
}

/// Passes the answer on once the queue has the notification.
async fn tell(queue: &Queue, change: Change, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    for notice in change.notifications(&String::from_utf8_lossy(&bytes)) {
        queue.send(notice);
    }
    Response::from_parts(parts, bytes.into())
}
