//! Is anybody there?

use qdrant_client::qdrant::qdrant_server::Qdrant;
use qdrant_client::qdrant::{HealthCheckReply, HealthCheckRequest};
use tonic::Request;

use super::{Answer, Service};

/// The server version whose behaviour this is. Clients compare it with their own.
const VERSION: &str = "1.20.0";

#[tonic::async_trait]
impl Qdrant for Service {
    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Answer<HealthCheckReply> {
        let reply =
            HealthCheckReply { title: "qdrant - local-qdrant".to_owned(), version: VERSION.to_owned(), commit: None };
        Ok(reply.into())
    }
}
