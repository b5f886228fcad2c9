//! Snapshots: the engine in process cannot create them.

use qdrant_client::qdrant::snapshots_server::Snapshots;
use qdrant_client::qdrant::{
    CreateFullSnapshotRequest, CreateSnapshotRequest, CreateSnapshotResponse, DeleteFullSnapshotRequest,
    DeleteSnapshotRequest, DeleteSnapshotResponse, ListFullSnapshotsRequest, ListSnapshotsRequest,
    ListSnapshotsResponse,
};
use tonic::Request;

use super::{Answer, Service};
use crate::errors::unimplemented;

#[tonic::async_trait]
impl Snapshots for Service {
    async fn create(&self, _: Request<CreateSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        Err(unimplemented("Snapshots.Create"))
    }

    async fn list(&self, _: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        Err(unimplemented("Snapshots.List"))
    }

    async fn delete(&self, _: Request<DeleteSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        Err(unimplemented("Snapshots.Delete"))
    }

    async fn create_full(&self, _: Request<CreateFullSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        Err(unimplemented("Snapshots.CreateFull"))
    }

    async fn list_full(&self, _: Request<ListFullSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        Err(unimplemented("Snapshots.ListFull"))
    }

    async fn delete_full(&self, _: Request<DeleteFullSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        Err(unimplemented("Snapshots.DeleteFull"))
    }
}
