//! The gRPC services. Each request is turned into blocking work on one collection, off the async
//! threads; `timeout`, `ordering` and `read_consistency` have no meaning on a single node and are
//! ignored, whatever else is not implemented is refused by name.

mod collections;
mod health;
mod points;
mod reads;
mod snapshots;
mod writes;

use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::QdrantServer;
use qdrant_client::qdrant::snapshots_server::SnapshotsServer;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::server::Router;
use tonic::{Response, Status};

use crate::collection::Collection;
use crate::errors;
use crate::store::Store;

/// The server's default `max_request_size_mb`.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What every RPC answers.
type Answer<T> = Result<Response<T>, Status>;

/// The implementation of all four services.
#[derive(Clone, Debug)]
struct Service {
    store: Arc<Store>,
}

/// All services over one store.
pub fn router(store: Arc<Store>) -> Router {
    let service = Service { store };
    // Answers are compressed only for clients that say they can read it, as in the server.
    tonic::transport::Server::builder()
        .add_service(QdrantServer::new(service.clone()))
        .add_service(
            CollectionsServer::new(service.clone())
                .send_compressed(Gzip)
                .accept_compressed(Gzip)
                .max_decoding_message_size(REQUEST_BYTES_MAX),
        )
        .add_service(
            PointsServer::new(service.clone())
                .send_compressed(Gzip)
                .accept_compressed(Gzip)
                .max_decoding_message_size(REQUEST_BYTES_MAX),
        )
        .add_service(SnapshotsServer::new(service))
}

impl Service {
    /// Runs blocking work on the store.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(&self.store);
        finished(tokio::task::spawn_blocking(move || work(&store)).await)
    }

    /// Runs blocking work on the collection of this name or alias.
    async fn on_collection<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Collection) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let collection = self.store.require(name)?;
        finished(tokio::task::spawn_blocking(move || work(&collection)).await)
    }
}

/// A panic in the engine fails the request, not the server.
fn finished<T>(result: Result<Result<T, Status>, tokio::task::JoinError>) -> Result<T, Status> {
    result.unwrap_or_else(|error| Err(errors::internal(error)))
}

/// The seconds for an answer's `time`.
fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
