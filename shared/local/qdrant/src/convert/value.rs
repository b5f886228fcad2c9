//! Point ids, payloads and paths into payloads.

use std::collections::HashMap;

use qdrant_client::qdrant::{PointId, Value, point_id::PointIdOptions};
use qdrant_edge::{JsonPath, Payload, PointId as EdgeId, external::uuid::Uuid};
use tonic::Status;

use crate::errors;

/// A point id.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is missing or not a UUID.
pub fn id(id: Option<PointId>) -> Result<EdgeId, Status> {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Num(number)) => Ok(EdgeId::NumId(number)),
        Some(PointIdOptions::Uuid(text)) => Uuid::parse_str(&text)
            .map(EdgeId::Uuid)
            .map_err(|_| Status::invalid_argument(format!("Unable to parse UUID: {text}"))),
        None => Err(Status::invalid_argument("No ID options provided")),
    }
}

/// Many point ids.
///
/// # Errors
/// As [`id`], for the first that is wrong.
pub fn ids(ids: Vec<PointId>) -> Result<Vec<EdgeId>, Status> {
    ids.into_iter().map(|point_id| id(Some(point_id))).collect()
}

/// The protocol's form of a point id.
pub fn id_out(id: EdgeId) -> PointId {
    let options = match id {
        EdgeId::NumId(number) => PointIdOptions::Num(number),
        EdgeId::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
    };
    PointId { point_id_options: Some(options) }
}

/// A payload.
pub fn payload(fields: HashMap<String, Value>) -> Payload {
    Payload(fields.into_iter().map(|(key, value)| (key, value.into_json())).collect())
}

/// The protocol's form of a payload; none is the same as an empty one.
pub fn payload_out(payload: Option<Payload>) -> HashMap<String, Value> {
    let fields = payload.into_iter().flatten();
    fields.map(|(key, value)| (key, Value::from(value))).collect()
}

/// A path into payloads, like `a.b[].c`.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not one.
pub fn path(text: &str) -> Result<JsonPath, Status> {
    text.parse().map_err(|()| errors::bad_input(format!("Invalid json path: '{text}'")))
}

/// Many paths.
///
/// # Errors
/// As [`path`].
pub fn paths(texts: &[String]) -> Result<Vec<JsonPath>, Status> {
    texts.iter().map(|text| path(text)).collect()
}
