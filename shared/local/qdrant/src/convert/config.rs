//! The configuration of a collection: from the request to the engine (by way of the engine's own
//! JSON form, in which every setting that is not given takes the engine's default) and back to what
//! `Get` answers.
//!
//! Deprecated fields (`on_disk`, `always_ram`, `on_disk_payload`) are passed on like the rest.
#![allow(deprecated)]

use std::time::Duration;

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;
use serde_json::{Map, Value as Json, json};
use tonic::Status;

use crate::errors;

/// Settings in the engine's JSON form; those that are not given are left out.
pub type Settings = Map<String, Json>;

/// The pairs whose value is given.
pub fn given<const N: usize>(pairs: [(&str, Option<Json>); N]) -> Settings {
    let present = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    present.collect()
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, settings: Settings) -> Result<T, Status> {
    serde_json::from_value(Json::Object(settings)).map_err(|error| errors::bad_input(format!("{what}: {error}")))
}

/// The engine's configuration of a new collection.
///
/// # Errors
/// `INVALID_ARGUMENT`, or `UNIMPLEMENTED` naming the field.
pub fn shard_config(request: &proto::CreateCollection) -> Result<edge::EdgeConfig, Status> {
    let custom_sharding = request.sharding_method == Some(proto::ShardingMethod::Custom.into());
    errors::refuse("CreateCollection.sharding_method = Custom", custom_sharding)?;
    let strict = request.strict_mode_config.as_ref().and_then(|strict| strict.enabled);
    errors::refuse("CreateCollection.strict_mode_config", strict == Some(true))?;
    // Accepted without effect, for they change nothing that a caller of one node can see:
    // shard_number, replication_factor, write_consistency_factor, wal_config, timeout.

    let mut vectors = Settings::new();
    for (name, params) in named_vectors(request)? {
        vectors.insert(name, Json::Object(dense(&params, request.hnsw_config.as_ref())?));
    }
    let mut sparse_vectors = Settings::new();
    for (name, params) in request.sparse_vectors_config.iter().flat_map(|config| &config.map) {
        if vectors.contains_key(name) {
            return Err(errors::bad_input(format!(
                "Dense and sparse vector names must be unique - duplicate names: {name}"
            )));
        }
        sparse_vectors.insert(name.clone(), Json::Object(sparse(params)?));
    }
    let payload_memory = request.payload.as_ref().and_then(|payload| payload.memory);
    let id_tracker_memory = request.id_tracker.as_ref().and_then(|tracker| tracker.memory);
    let settings = given([
        ("on_disk_payload", request.on_disk_payload.map(Json::from)),
        ("payload_memory", memory(payload_memory)),
        ("id_tracker_memory", memory(id_tracker_memory)),
        ("vectors", Some(Json::Object(vectors))),
        ("sparse_vectors", Some(Json::Object(sparse_vectors))),
        ("hnsw_config", Some(Json::Object(hnsw_settings(None, request.hnsw_config.as_ref())?))),
        ("quantization_config", quantization(request.quantization_config.as_ref())?),
        ("optimizers", Some(optimizer_settings(request.optimizers_config.as_ref())?.into())),
    ]);
    parse("collection config", settings)
}

fn named_vectors(request: &proto::CreateCollection) -> Result<Vec<(String, proto::VectorParams)>, Status> {
    use proto::vectors_config::Config;
    let config = request.vectors_config.as_ref().and_then(|config| config.config.as_ref());
    Ok(match config {
        Some(Config::Params(params)) => vec![(edge::DEFAULT_VECTOR_NAME.to_owned(), *params)],
        Some(Config::ParamsMap(map)) => map.map.iter().map(|(name, params)| (name.clone(), *params)).collect(),
        None if request.sparse_vectors_config.is_some() => Vec::new(),
        None => return Err(errors::bad_input("expected at least one vector configuration")),
    })
}

fn dense(params: &proto::VectorParams, collection_hnsw: Option<&proto::HnswConfigDiff>) -> Result<Settings, Status> {
    if !(1..=65_536).contains(&params.size) {
        let what = format!("value {} invalid, must be from 1 to 65536", params.size);
        return Err(errors::invalid_field("size", what));
    }
    let own_hnsw = match &params.hnsw_config {
        Some(own) => Some(Json::Object(hnsw_settings(collection_hnsw, Some(own))?)),
        None => None,
    };
    Ok(given([
        ("size", Some(params.size.into())),
        ("distance", Some(distance(params.distance)?.into())),
        ("on_disk", params.on_disk.map(Json::from)),
        ("memory", memory(params.memory)),
        ("multivector_config", params.multivector_config.map(|_| json!({"comparator": "max_sim"}))),
        ("datatype", datatype(params.datatype)?.map(Json::from)),
        ("quantization_config", quantization(params.quantization_config.as_ref())?),
        ("hnsw_config", own_hnsw),
    ]))
}

fn sparse(params: &proto::SparseVectorParams) -> Result<Settings, Status> {
    let index = params.index.unwrap_or_default();
    Ok(given([
        ("full_scan_threshold", index.full_scan_threshold.map(Json::from)),
        ("on_disk", index.on_disk.map(Json::from)),
        ("memory", memory(index.memory)),
        ("modifier", modifier(params.modifier).map(Json::from)),
        ("datatype", datatype(index.datatype)?.map(Json::from)),
    ]))
}

/// The engine's name of a distance.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not given.
fn distance(number: i32) -> Result<&'static str, Status> {
    match proto::Distance::try_from(number) {
        Ok(proto::Distance::Cosine) => Ok("Cosine"),
        Ok(proto::Distance::Euclid) => Ok("Euclid"),
        Ok(proto::Distance::Dot) => Ok("Dot"),
        Ok(proto::Distance::Manhattan) => Ok("Manhattan"),
        Ok(proto::Distance::UnknownDistance) | Err(_) => {
            Err(Status::invalid_argument("Malformed distance parameter: unknown"))
        }
    }
}

/// The engine's name of a type of vector elements.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown one.
fn datatype(number: Option<i32>) -> Result<Option<&'static str>, Status> {
    Ok(match number.map(proto::Datatype::try_from) {
        None | Some(Ok(proto::Datatype::Default)) => None,
        Some(Ok(proto::Datatype::Float32)) => Some("float32"),
        Some(Ok(proto::Datatype::Uint8)) => Some("uint8"),
        Some(Ok(proto::Datatype::Float16)) => Some("float16"),
        Some(Ok(proto::Datatype::Turbo4)) => Some("turbo4"),
        Some(Ok(proto::Datatype::Turbo8)) => Some("turbo8"),
        Some(Ok(proto::Datatype::Turbo16)) => Some("turbo16"),
        Some(Err(_)) => return Err(errors::bad_input("unknown datatype")),
    })
}

/// The engine's name of a modifier of sparse vectors.
fn modifier(number: Option<i32>) -> Option<&'static str> {
    match number.map(proto::Modifier::try_from) {
        Some(Ok(proto::Modifier::Idf)) => Some("idf"),
        Some(Ok(proto::Modifier::None)) => Some("none"),
        Some(Err(_)) | None => None,
    }
}

/// The engine's name of a memory placement.
pub fn memory(number: Option<i32>) -> Option<Json> {
    match number.map(proto::Memory::try_from) {
        Some(Ok(proto::Memory::Cold)) => Some("cold".into()),
        Some(Ok(proto::Memory::Cached)) => Some("cached".into()),
        Some(Ok(proto::Memory::Pinned)) => Some("pinned".into()),
        Some(Ok(proto::Memory::Unknown) | Err(_)) | None => None,
    }
}

/// The engine's HNSW settings: its defaults, then the collection's, then the vector's own.
fn hnsw_settings(
    base: Option<&proto::HnswConfigDiff>,
    own: Option<&proto::HnswConfigDiff>,
) -> Result<Settings, Status> {
    let defaults = serde_json::to_value(edge::HnswIndexConfig::default());
    let mut settings = match defaults.map_err(errors::internal)? {
        Json::Object(defaults) => defaults,
        other => return Err(errors::internal(format!("unexpected HNSW defaults {other}"))),
    };
    for diff in [base, own].into_iter().flatten() {
        settings.extend(given([
            ("m", diff.m.map(Json::from)),
            ("ef_construct", diff.ef_construct.map(Json::from)),
            ("full_scan_threshold", diff.full_scan_threshold.map(Json::from)),
            ("max_indexing_threads", diff.max_indexing_threads.map(Json::from)),
            ("on_disk", diff.on_disk.map(Json::from)),
            ("payload_m", diff.payload_m.map(Json::from)),
            ("inline_storage", diff.inline_storage.map(Json::from)),
            ("memory", memory(diff.memory)),
        ]));
    }
    Ok(settings)
}

/// The engine's HNSW configuration of a collection.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn hnsw(diff: Option<&proto::HnswConfigDiff>) -> Result<edge::HnswIndexConfig, Status> {
    parse("hnsw_config", hnsw_settings(None, diff)?)
}

fn optimizer_settings(diff: Option<&proto::OptimizersConfigDiff>) -> Result<Settings, Status> {
    let Some(diff) = diff else { return Ok(Settings::new()) };
    let hides_points = diff.prevent_unoptimized == Some(true);
    errors::refuse("OptimizersConfigDiff.prevent_unoptimized", hides_points)?;
    // Without effect here: memmap_threshold (deprecated), flush_interval_sec, and the number of
    // optimisation threads; none of them changes an answer.
    Ok(given([
        ("deleted_threshold", diff.deleted_threshold.map(Json::from)),
        ("vacuum_min_vector_number", diff.vacuum_min_vector_number.map(Json::from)),
        ("default_segment_number", diff.default_segment_number.map(Json::from)),
        ("max_segment_size", diff.max_segment_size.map(Json::from)),
        ("indexing_threshold", diff.indexing_threshold.map(Json::from)),
    ]))
}

/// The engine's optimiser configuration.
///
/// # Errors
/// `INVALID_ARGUMENT`, or `UNIMPLEMENTED` for `prevent_unoptimized`.
pub fn optimizers(diff: Option<&proto::OptimizersConfigDiff>) -> Result<edge::EdgeOptimizersConfig, Status> {
    parse("optimizers_config", optimizer_settings(diff)?)
}

fn quantization(config: Option<&proto::QuantizationConfig>) -> Result<Option<Json>, Status> {
    use proto::quantization_config::Quantization;
    let Some(config) = config else { return Ok(None) };
    let missing = || errors::bad_input("Unable to convert quantization config");
    Ok(Some(match config.quantization.as_ref().ok_or_else(missing)? {
        Quantization::Scalar(scalar) => json!({"scalar": given([
            ("type", Some("int8".into())),
            ("quantile", scalar.quantile.map(Json::from)),
            ("always_ram", scalar.always_ram.map(Json::from)),
            ("memory", memory(scalar.memory)),
        ])}),
        Quantization::Product(product) => json!({"product": given([
            ("compression", Some(compression(product.compression)?.into())),
            ("always_ram", product.always_ram.map(Json::from)),
            ("memory", memory(product.memory)),
        ])}),
        Quantization::Binary(binary) => {
            let has_encoding = binary.encoding.is_some() || binary.query_encoding.is_some();
            errors::refuse("BinaryQuantization.encoding", has_encoding)?;
            json!({"binary": given([
                ("always_ram", binary.always_ram.map(Json::from)),
                ("memory", memory(binary.memory)),
            ])})
        }
        Quantization::Turboquant(_) => {
            return Err(errors::unimplemented("QuantizationConfig.turboquant"));
        }
    }))
}

fn compression(number: i32) -> Result<&'static str, Status> {
    Ok(match proto::CompressionRatio::try_from(number) {
        Ok(proto::CompressionRatio::X4) => "x4",
        Ok(proto::CompressionRatio::X8) => "x8",
        Ok(proto::CompressionRatio::X16) => "x16",
        Ok(proto::CompressionRatio::X32) => "x32",
        Ok(proto::CompressionRatio::X64) => "x64",
        Err(_) => return Err(errors::bad_input("unknown compression ratio")),
    })
}

/// What `Get` tells about the configuration: what was asked for over the server's defaults.
pub fn collection_config(request: &proto::CreateCollection) -> proto::CollectionConfig {
    let defaults = edge::HnswIndexConfig::default();
    let mut hnsw_config = proto::HnswConfigDiff {
        m: Some(defaults.m as u64),
        ef_construct: Some(defaults.ef_construct as u64),
        full_scan_threshold: Some(defaults.full_scan_threshold as u64),
        max_indexing_threads: Some(0),
        on_disk: Some(false),
        ..proto::HnswConfigDiff::default()
    };
    merge_hnsw(&mut hnsw_config, request.hnsw_config.as_ref());
    let mut optimizer_config = proto::OptimizersConfigDiff {
        deleted_threshold: Some(0.2),
        vacuum_min_vector_number: Some(1_000),
        default_segment_number: Some(0),
        indexing_threshold: Some(10_000),
        flush_interval_sec: Some(5),
        ..proto::OptimizersConfigDiff::default()
    };
    merge_optimizers(&mut optimizer_config, request.optimizers_config.as_ref());
    proto::CollectionConfig {
        params: Some(proto::CollectionParams {
            shard_number: request.shard_number.unwrap_or(1),
            on_disk_payload: request.on_disk_payload.unwrap_or(true),
            vectors_config: request.vectors_config.clone(),
            replication_factor: Some(request.replication_factor.unwrap_or(1)),
            write_consistency_factor: Some(request.write_consistency_factor.unwrap_or(1)),
            sparse_vectors_config: request.sparse_vectors_config.clone(),
            payload: request.payload,
            id_tracker: request.id_tracker,
            ..proto::CollectionParams::default()
        }),
        hnsw_config: Some(hnsw_config),
        optimizer_config: Some(optimizer_config),
        wal_config: Some(request.wal_config.unwrap_or(proto::WalConfigDiff {
            wal_capacity_mb: Some(32),
            wal_segments_ahead: Some(0),
            wal_retain_closed: Some(1),
        })),
        quantization_config: request.quantization_config,
        strict_mode_config: request.strict_mode_config.clone(),
        metadata: request.metadata.clone(),
    }
}

/// Refuses the parts of an update that cannot be followed.
///
/// # Errors
/// `UNIMPLEMENTED` naming the field.
pub fn refuse_unsupported_update(request: &proto::UpdateCollection) -> Result<(), Status> {
    errors::refuse("UpdateCollection.params", request.params.is_some())?;
    errors::refuse("UpdateCollection.vectors_config", request.vectors_config.is_some())?;
    errors::refuse("UpdateCollection.quantization_config", request.quantization_config.is_some())?;
    let sparse = request.sparse_vectors_config.is_some();
    errors::refuse("UpdateCollection.sparse_vectors_config", sparse)?;
    errors::refuse("UpdateCollection.strict_mode_config", request.strict_mode_config.is_some())
}

/// Merges the parts of an update that can be followed into what `Get` tells.
pub fn merge_update(config: &mut proto::CollectionConfig, request: &proto::UpdateCollection) {
    merge_hnsw(config.hnsw_config.get_or_insert_default(), request.hnsw_config.as_ref());
    let optimizers = config.optimizer_config.get_or_insert_default();
    merge_optimizers(optimizers, request.optimizers_config.as_ref());
    config.metadata.extend(request.metadata.clone());
}

fn merge_hnsw(into: &mut proto::HnswConfigDiff, diff: Option<&proto::HnswConfigDiff>) {
    let Some(diff) = diff else { return };
    *into = proto::HnswConfigDiff {
        m: diff.m.or(into.m),
        ef_construct: diff.ef_construct.or(into.ef_construct),
        full_scan_threshold: diff.full_scan_threshold.or(into.full_scan_threshold),
        max_indexing_threads: diff.max_indexing_threads.or(into.max_indexing_threads),
        on_disk: diff.on_disk.or(into.on_disk),
        payload_m: diff.payload_m.or(into.payload_m),
        inline_storage: diff.inline_storage.or(into.inline_storage),
        memory: diff.memory.or(into.memory),
    };
}

fn merge_optimizers(into: &mut proto::OptimizersConfigDiff, diff: Option<&proto::OptimizersConfigDiff>) {
    let Some(diff) = diff else { return };
    *into = proto::OptimizersConfigDiff {
        deleted_threshold: diff.deleted_threshold.or(into.deleted_threshold),
        vacuum_min_vector_number: diff.vacuum_min_vector_number.or(into.vacuum_min_vector_number),
        default_segment_number: diff.default_segment_number.or(into.default_segment_number),
        max_segment_size: diff.max_segment_size.or(into.max_segment_size),
        memmap_threshold: diff.memmap_threshold.or(into.memmap_threshold),
        indexing_threshold: diff.indexing_threshold.or(into.indexing_threshold),
        flush_interval_sec: diff.flush_interval_sec.or(into.flush_interval_sec),
        deprecated_max_optimization_threads: None,
        max_optimization_threads: diff.max_optimization_threads.or(into.max_optimization_threads),
        prevent_unoptimized: diff.prevent_unoptimized.or(into.prevent_unoptimized),
    };
}

/// A time since 1970 in the protocol's form.
pub fn timestamp(since_1970: Duration) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_1970.subsec_nanos()).unwrap_or_default(),
    }
}
