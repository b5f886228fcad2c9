//! Updates: each request becomes one engine operation, checked against the collection first.

use std::collections::HashMap;

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;
use tonic::Status;

use super::select::Points;
use super::{filter, select, value, vector};
use crate::errors;

/// Refuses custom sharding: all points are in one shard here, so a key would change the answer.
///
/// # Errors
/// `UNIMPLEMENTED` when a selector is given.
pub fn refuse_shard_key(selector: Option<&proto::ShardKeySelector>) -> Result<(), Status> {
    errors::refuse("shard_key_selector", selector.is_some())
}

/// Inserts or replaces points.
///
/// # Errors
/// `INVALID_ARGUMENT` when an id or a vector does not fit; nothing is applied then.
pub fn upsert(
    points: Vec<proto::PointStruct>,
    update_filter: Option<proto::Filter>,
    update_mode: Option<i32>,
    config: &edge::EdgeConfig,
) -> Result<edge::UpdateOperation, Status> {
    let points = points.into_iter().map(|point| {
        Ok(edge::PointStructPersisted {
            id: value::id(point.id)?,
            vector: vector::stored(point.vectors, config)?,
            payload: (!point.payload.is_empty()).then(|| value::payload(point.payload)),
        })
    });
    let points_op = edge::PointInsertOperations::PointsList(points.collect::<Result<_, Status>>()?);
    let mode = match update_mode.map(proto::UpdateMode::try_from) {
        None | Some(Ok(proto::UpdateMode::Upsert)) => None,
        Some(Ok(proto::UpdateMode::InsertOnly)) => Some(edge::UpdateMode::InsertOnly),
        Some(Ok(proto::UpdateMode::UpdateOnly)) => Some(edge::UpdateMode::UpdateOnly),
        Some(Err(_)) => return Err(errors::bad_input("unknown update_mode")),
    };
    let operation = if update_filter.is_some() || mode.is_some() {
        // An empty condition matches every point.
        let condition = filter::optional(update_filter)?.unwrap_or_default();
        edge::PointOperations::UpsertPointsConditional(edge::ConditionalInsertOperation {
            points_op,
            condition,
            update_mode: mode,
        })
    } else {
        edge::PointOperations::UpsertPoints(points_op)
    };
    Ok(edge::UpdateOperation::PointOperation(operation))
}

/// Deletes points.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn delete(selector: Option<proto::PointsSelector>) -> Result<edge::UpdateOperation, Status> {
    Ok(edge::UpdateOperation::PointOperation(match select::points(selector)? {
        Points::Ids(ids) => edge::PointOperations::DeletePoints { ids },
        Points::Matching(filter) => edge::PointOperations::DeletePointsByFilter(filter),
    }))
}

/// Replaces some vectors of points.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn update_vectors(
    points: Vec<proto::PointVectors>,
    update_filter: Option<proto::Filter>,
    config: &edge::EdgeConfig,
) -> Result<edge::UpdateOperation, Status> {
    let points = points.into_iter().map(|point| {
        Ok(edge::PointVectorsPersisted { id: value::id(point.id)?, vector: vector::stored(point.vectors, config)? })
    });
    let operation = edge::UpdateVectorsOp {
        points: points.collect::<Result<_, Status>>()?,
        update_filter: filter::optional(update_filter)?,
    };
    Ok(edge::UpdateOperation::VectorOperation(edge::VectorOperations::UpdateVectors(operation)))
}

/// Removes some vectors of points.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn delete_vectors(
    selector: Option<proto::PointsSelector>,
    vectors: Option<proto::VectorsSelector>,
    config: &edge::EdgeConfig,
) -> Result<edge::UpdateOperation, Status> {
    let names = vectors.map(|vectors| vectors.names).unwrap_or_default();
    if names.is_empty() {
        return Err(errors::bad_input("No vector names provided"));
    }
    for name in &names {
        vector::require_name(name, config)?;
    }
    Ok(edge::UpdateOperation::VectorOperation(match select::points(selector)? {
        Points::Ids(ids) => edge::VectorOperations::DeleteVectors(ids.into(), names),
        Points::Matching(filter) => edge::VectorOperations::DeleteVectorsByFilter(filter, names),
    }))
}

/// Sets payload fields, or with `overwrite` the whole payload.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn set_payload(
    payload: HashMap<String, proto::Value>,
    selector: Option<proto::PointsSelector>,
    key: Option<&str>,
    overwrite: bool,
) -> Result<edge::UpdateOperation, Status> {
    let (points, filter) = split(select::points(selector)?);
    let operation =
        edge::SetPayloadOp { payload: value::payload(payload), points, filter, key: key.map(value::path).transpose()? };
    Ok(edge::UpdateOperation::PayloadOperation(if overwrite {
        edge::PayloadOps::OverwritePayload(operation)
    } else {
        edge::PayloadOps::SetPayload(operation)
    }))
}

/// Removes payload fields.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn delete_payload(
    keys: &[String],
    selector: Option<proto::PointsSelector>,
) -> Result<edge::UpdateOperation, Status> {
    let (points, filter) = split(select::points(selector)?);
    let operation = edge::DeletePayloadOp { keys: value::paths(keys)?, points, filter };
    Ok(edge::UpdateOperation::PayloadOperation(edge::PayloadOps::DeletePayload(operation)))
}

/// Removes whole payloads.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn clear_payload(selector: Option<proto::PointsSelector>) -> Result<edge::UpdateOperation, Status> {
    Ok(edge::UpdateOperation::PayloadOperation(match select::points(selector)? {
        Points::Ids(points) => edge::PayloadOps::ClearPayload { points },
        Points::Matching(filter) => edge::PayloadOps::ClearPayloadByFilter(filter),
    }))
}

fn split(points: Points) -> (Option<Vec<edge::PointId>>, Option<edge::Filter>) {
    match points {
        Points::Ids(ids) => (Some(ids), None),
        Points::Matching(filter) => (None, Some(filter)),
    }
}

/// One operation of a batch.
///
/// # Errors
/// `INVALID_ARGUMENT`, or `UNIMPLEMENTED` for a shard key.
#[allow(deprecated)] // The two older forms of deleting and clearing are still accepted.
pub fn batch_operation(
    operation: proto::PointsUpdateOperation,
    config: &edge::EdgeConfig,
) -> Result<edge::UpdateOperation, Status> {
    use proto::points_update_operation::Operation;
    let missing = || Status::invalid_argument("Operation is missing");
    match operation.operation.ok_or_else(missing)? {
        Operation::Upsert(list) => {
            refuse_shard_key(list.shard_key_selector.as_ref())?;
            upsert(list.points, list.update_filter, list.update_mode, config)
        }
        Operation::DeleteDeprecated(selector) => delete(Some(selector)),
        Operation::DeletePoints(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            delete(given.points)
        }
        Operation::SetPayload(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            set_payload(given.payload, given.points_selector, given.key.as_deref(), false)
        }
        Operation::OverwritePayload(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            set_payload(given.payload, given.points_selector, given.key.as_deref(), true)
        }
        Operation::DeletePayload(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            delete_payload(&given.keys, given.points_selector)
        }
        Operation::ClearPayloadDeprecated(selector) => clear_payload(Some(selector)),
        Operation::ClearPayload(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            clear_payload(given.points)
        }
        Operation::UpdateVectors(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            update_vectors(given.points, given.update_filter, config)
        }
        Operation::DeleteVectors(given) => {
            refuse_shard_key(given.shard_key_selector.as_ref())?;
            delete_vectors(given.points_selector, given.vectors, config)
        }
    }
}
