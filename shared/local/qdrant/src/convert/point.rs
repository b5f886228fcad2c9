//! Points on their way out.

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;

use super::{value, vector};

/// A point without a score.
pub fn retrieved(record: edge::Record) -> proto::RetrievedPoint {
    proto::RetrievedPoint {
        id: Some(value::id_out(record.id)),
        payload: value::payload_out(record.payload),
        vectors: record.vector.map(vector::out),
        shard_key: None,
        order_value: record.order_value.map(order_value),
    }
}

/// A point with a score.
pub fn scored(point: edge::ScoredPoint) -> proto::ScoredPoint {
    proto::ScoredPoint {
        id: Some(value::id_out(point.id)),
        payload: value::payload_out(point.payload),
        score: point.score,
        version: point.version,
        vectors: point.vector.map(vector::out),
        shard_key: None,
        order_value: point.order_value.map(order_value),
    }
}

/// Many points with a score.
pub fn scored_all(points: Vec<edge::ScoredPoint>) -> Vec<proto::ScoredPoint> {
    points.into_iter().map(scored).collect()
}

fn order_value(value: edge::OrderValue) -> proto::OrderValue {
    use proto::order_value::Variant;
    let variant = match value {
        edge::OrderValue::Int(number) => Variant::Int(number),
        edge::OrderValue::Float(number) => Variant::Float(number),
    };
    proto::OrderValue { variant: Some(variant) }
}

/// A group of points under one value of a payload field.
pub fn group(group: edge::Group) -> proto::PointGroup {
    use proto::group_id::Kind;
    // The key's type is not exported by the engine; its JSON form is the value itself.
    let kind = match serde_json::to_value(&group.key) {
        Ok(serde_json::Value::String(text)) => Some(Kind::StringValue(text)),
        Ok(serde_json::Value::Number(number)) => match number.as_u64() {
            Some(number) => Some(Kind::UnsignedValue(number)),
            None => number.as_i64().map(Kind::IntegerValue),
        },
        _ => None,
    };
    proto::PointGroup { id: Some(proto::GroupId { kind }), hits: scored_all(group.hits), lookup: None }
}

/// A value of a field and how many points have it.
pub fn facet(hit: edge::FacetValueHit) -> proto::FacetHit {
    use proto::facet_value::Variant;
    let variant = match hit.value {
        edge::FacetValue::Keyword(text) => Variant::StringValue(text),
        edge::FacetValue::Int(number) => Variant::IntegerValue(number),
        edge::FacetValue::Uuid(bits) => Variant::StringValue(edge::external::uuid::Uuid::from_u128(bits).to_string()),
        edge::FacetValue::Bool(flag) => Variant::BoolValue(flag),
    };
    proto::FacetHit { value: Some(proto::FacetValue { variant: Some(variant) }), count: hit.count as u64 }
}
