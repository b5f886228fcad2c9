//! What changes points and field indexes. The engine applies an operation before it returns, so
//! `wait = false` differs from `wait = true` only in the status that is answered.

use std::time::Instant;

use qdrant_client::qdrant as proto;
use qdrant_edge::{self as edge, EdgeShardRead};
use tonic::Status;

use super::{Answer, Service, seconds};
use crate::convert::{index, update, value};

impl Service {
    /// Turns a request into an engine operation with the collection's configuration and applies it.
    pub(super) async fn write(
        &self,
        name: &str,
        wait: Option<bool>,
        operation: impl FnOnce(&edge::EdgeConfig) -> Result<edge::UpdateOperation, Status> + Send + 'static,
    ) -> Answer<proto::PointsOperationResponse> {
        let started = Instant::now();
        let id = self
            .on_collection(name, move |collection| {
                let operation = operation(&collection.shard().config_snapshot())?;
                collection.update(operation)
            })
            .await?;
        Ok(answer(id, wait, started))
    }

    pub(super) async fn write_batch(&self, request: proto::UpdateBatchPoints) -> Answer<proto::UpdateBatchResponse> {
        let started = Instant::now();
        let proto::UpdateBatchPoints { collection_name, wait, operations, .. } = request;
        let result = self
            .on_collection(&collection_name, move |collection| {
                let config = collection.shard().config_snapshot();
                // All are read before the first is applied: a malformed one spoils nothing.
                let operations = operations
                    .into_iter()
                    .map(|operation| update::batch_operation(operation, &config))
                    .collect::<Result<Vec<_>, _>>()?;
                let results = operations
                    .into_iter()
                    .map(|operation| collection.update(operation).map(|id| update_result(id, wait)));
                results.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok(proto::UpdateBatchResponse { result, time: seconds(started), usage: None }.into())
    }

    pub(super) async fn write_index(
        &self,
        request: proto::CreateFieldIndexCollection,
    ) -> Answer<proto::PointsOperationResponse> {
        let started = Instant::now();
        let name = request.collection_name.clone();
        let wait = request.wait;
        let id = self
            .on_collection(&name, move |collection| {
                let field_name = value::path(&request.field_name)?;
                let field_schema = Some(index::schema(&request)?);
                let field = field_name.to_string();
                let create = edge::CreateIndex { field_name, field_schema };
                let operation = edge::FieldIndexOperations::CreateIndex(create);
                let id = collection.update(edge::UpdateOperation::FieldIndexOperation(operation))?;
                collection.remember_index(field, request.field_index_params)?;
                Ok(id)
            })
            .await?;
        Ok(answer(id, wait, started))
    }

    pub(super) async fn drop_index(
        &self,
        request: proto::DeleteFieldIndexCollection,
    ) -> Answer<proto::PointsOperationResponse> {
        let started = Instant::now();
        let wait = request.wait;
        let name = request.collection_name.clone();
        let id = self
            .on_collection(&name, move |collection| {
                let path = value::path(&request.field_name)?;
                let field = path.to_string();
                let operation = edge::FieldIndexOperations::DeleteIndex(path);
                let id = collection.update(edge::UpdateOperation::FieldIndexOperation(operation))?;
                collection.forget_index(&field)?;
                Ok(id)
            })
            .await?;
        Ok(answer(id, wait, started))
    }
}

fn answer(id: u64, wait: Option<bool>, started: Instant) -> tonic::Response<proto::PointsOperationResponse> {
    let result = Some(update_result(id, wait));
    proto::PointsOperationResponse { result, time: seconds(started), usage: None }.into()
}

fn update_result(id: u64, wait: Option<bool>) -> proto::UpdateResult {
    let status = if wait == Some(true) { proto::UpdateStatus::Completed } else { proto::UpdateStatus::Acknowledged };
    proto::UpdateResult { operation_id: Some(id), status: status.into() }
}
