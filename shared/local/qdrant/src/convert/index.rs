//! Field indexes.
//!
//! Deprecated fields (`on_disk`) are passed on like the rest.
#![allow(deprecated)]

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;
use serde_json::{Value as Json, json};
use tonic::Status;

use super::config::{given, memory};
use crate::errors;

/// The engine's description of a field index. Without parameters the type alone decides.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is no type or the parameters contradict each other.
pub fn schema(request: &proto::CreateFieldIndexCollection) -> Result<edge::PayloadFieldSchema, Status> {
    use proto::payload_index_params::IndexParams;
    let params = request.field_index_params.as_ref().and_then(|params| params.index_params.as_ref());
    let settings = match params {
        None => Json::from(type_name(request.field_type)?),
        Some(IndexParams::KeywordIndexParams(params)) => Json::Object(given([
            ("type", Some("keyword".into())),
            ("is_tenant", params.is_tenant.map(Json::from)),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("prefix", params.prefix.map(|_| true.into())),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::IntegerIndexParams(params)) => Json::Object(given([
            ("type", Some("integer".into())),
            ("lookup", params.lookup.map(Json::from)),
            ("range", params.range.map(Json::from)),
            ("is_principal", params.is_principal.map(Json::from)),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::FloatIndexParams(params)) => Json::Object(given([
            ("type", Some("float".into())),
            ("is_principal", params.is_principal.map(Json::from)),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::DatetimeIndexParams(params)) => Json::Object(given([
            ("type", Some("datetime".into())),
            ("is_principal", params.is_principal.map(Json::from)),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::UuidIndexParams(params)) => Json::Object(given([
            ("type", Some("uuid".into())),
            ("is_tenant", params.is_tenant.map(Json::from)),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::GeoIndexParams(params)) => Json::Object(given([
            ("type", Some("geo".into())),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::BoolIndexParams(params)) => Json::Object(given([
            ("type", Some("bool".into())),
            ("on_disk", params.on_disk.map(Json::from)),
            ("memory", memory(params.memory)),
            ("enable_hnsw", params.enable_hnsw.map(Json::from)),
            ("nested", params.nested.clone().map(Json::from)),
        ])),
        Some(IndexParams::TextIndexParams(params)) => text(params)?,
    };
    serde_json::from_value(settings).map_err(errors::bad_input)
}

fn text(params: &proto::TextIndexParams) -> Result<Json, Status> {
    errors::refuse("TextIndexParams.stopwords", params.stopwords.is_some())?;
    errors::refuse("TextIndexParams.stemmer", params.stemmer.is_some())?;
    let tokenizer = match proto::TokenizerType::try_from(params.tokenizer) {
        Ok(proto::TokenizerType::Prefix) => "prefix",
        Ok(proto::TokenizerType::Whitespace) => "whitespace",
        Ok(proto::TokenizerType::Word) => "word",
        Ok(proto::TokenizerType::Multilingual) => "multilingual",
        Ok(proto::TokenizerType::Code) => "code",
        Ok(proto::TokenizerType::Unknown) | Err(_) => {
            return Err(Status::invalid_argument("unknown tokenizer type"));
        }
    };
    Ok(Json::Object(given([
        ("type", Some("text".into())),
        ("tokenizer", Some(tokenizer.into())),
        ("lowercase", params.lowercase.map(Json::from)),
        ("min_token_len", params.min_token_len.map(Json::from)),
        ("max_token_len", params.max_token_len.map(Json::from)),
        ("on_disk", params.on_disk.map(Json::from)),
        ("memory", memory(params.memory)),
        ("phrase_matching", params.phrase_matching.map(Json::from)),
        ("ascii_folding", params.ascii_folding.map(Json::from)),
        ("enable_hnsw", params.enable_hnsw.map(Json::from)),
        ("scoring", params.scoring.map(|_| json!({"type": "bm25"}))),
        ("nested", params.nested.clone().map(Json::from)),
    ])))
}

fn type_name(field_type: Option<i32>) -> Result<&'static str, Status> {
    let missing = || Status::invalid_argument("Field type is missing");
    let number = field_type.ok_or_else(missing)?;
    Ok(match proto::FieldType::try_from(number).map_err(|_| missing())? {
        proto::FieldType::Keyword => "keyword",
        proto::FieldType::Integer => "integer",
        proto::FieldType::Float => "float",
        proto::FieldType::Geo => "geo",
        proto::FieldType::Text => "text",
        proto::FieldType::Bool => "bool",
        proto::FieldType::Datetime => "datetime",
        proto::FieldType::Uuid => "uuid",
    })
}

/// What `Get` tells about a field index: the engine's type and count, the caller's parameters.
pub fn schema_info(
    live: &edge::PayloadIndexInfo,
    params: Option<proto::PayloadIndexParams>,
) -> proto::PayloadSchemaInfo {
    let data_type = match live.data_type {
        edge::PayloadSchemaType::Keyword => proto::PayloadSchemaType::Keyword,
        edge::PayloadSchemaType::Integer => proto::PayloadSchemaType::Integer,
        edge::PayloadSchemaType::Float => proto::PayloadSchemaType::Float,
        edge::PayloadSchemaType::Geo => proto::PayloadSchemaType::Geo,
        edge::PayloadSchemaType::Text => proto::PayloadSchemaType::Text,
        edge::PayloadSchemaType::Bool => proto::PayloadSchemaType::Bool,
        edge::PayloadSchemaType::Datetime => proto::PayloadSchemaType::Datetime,
        edge::PayloadSchemaType::Uuid => proto::PayloadSchemaType::Uuid,
    };
    proto::PayloadSchemaInfo { data_type: data_type.into(), params, points: Some(live.points as u64) }
}
