//! Searches: from the protocol's requests to the engine's. Vectors that are named by a point's id
//! are read from the collection here, so this module needs the shard.

use qdrant_client::qdrant as proto;
use qdrant_edge as edge;
use tonic::Status;

use super::vector::Given;
use super::{filter, select, value, vector};
use crate::errors;

/// The server's default for `limit` of queries and prefetches.
const LIMIT_DEFAULT: usize = 10;
/// The server's default `k` of reciprocal rank fusion.
const RRF_K_DEFAULT: usize = 2;
/// The server's default `diversity` of maximal marginal relevance.
const DIVERSITY_DEFAULT: f32 = 0.5;

/// Reads requests against one collection.
pub struct Reader<'a> {
    shard: &'a edge::EdgeShard,
    config: &'a edge::EdgeConfig,
}

/// How to score, and the points that stand in the query and must not be found by it.
struct Scoring {
    query: Option<edge::ScoringQuery>,
    not: Vec<edge::PointId>,
}

impl<'a> Reader<'a> {
    /// For one request; `config` is a snapshot of the shard's.
    pub fn new(shard: &'a edge::EdgeShard, config: &'a edge::EdgeConfig) -> Self {
        Self { shard, config }
    }

    /// A universal query.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_FOUND` for an unknown point in it, or `UNIMPLEMENTED` naming the
    /// field. `read_consistency` and `timeout` have no meaning on one node and are ignored.
    pub fn query(&self, request: proto::QueryPoints) -> Result<edge::QueryRequest, Status> {
        super::update::refuse_shard_key(request.shard_key_selector.as_ref())?;
        errors::refuse("lookup_from", request.lookup_from.is_some())?;
        let limit = select::limit(request.limit, LIMIT_DEFAULT)?;
        let prefetches = self.prefetches(request.prefetch)?;
        let scoring = self.scoring(request.query, request.using, &prefetches, limit)?;
        Ok(edge::QueryRequest {
            prefetches,
            query: scoring.query,
            filter: without(filter::optional(request.filter)?, scoring.not),
            score_threshold: request.score_threshold,
            limit,
            offset: filter::count(request.offset.unwrap_or_default()),
            params: request.params.map(params).transpose()?,
            with_vector: select::vectors(request.with_vectors, self.config)?,
            with_payload: select::payload(request.with_payload)?.unwrap_or_default(),
        })
    }

    /// A universal query whose results are grouped by a payload field.
    ///
    /// # Errors
    /// As [`Reader::query`].
    pub fn groups(&self, request: proto::QueryPointGroups) -> Result<edge::GroupRequest, Status> {
        errors::refuse("with_lookup", request.with_lookup.is_some())?;
        let groups = select::limit(request.limit, 3)?;
        let group_size = select::limit(request.group_size, 10)?;
        let group_by = value::path(&request.group_by)?;
        let query = self.query(proto::QueryPoints {
            prefetch: request.prefetch,
            query: request.query,
            using: request.using,
            filter: request.filter,
            params: request.params,
            score_threshold: request.score_threshold,
            with_vectors: request.with_vectors,
            with_payload: request.with_payload,
            shard_key_selector: request.shard_key_selector,
            lookup_from: request.lookup_from,
            ..proto::QueryPoints::default()
        })?;
        Ok(edge::GroupRequest::new(query, group_by, groups, group_size))
    }

    fn prefetches(&self, prefetches: Vec<proto::PrefetchQuery>) -> Result<Vec<edge::Prefetch>, Status> {
        prefetches.into_iter().map(|prefetch| self.prefetch(prefetch)).collect()
    }

    fn prefetch(&self, request: proto::PrefetchQuery) -> Result<edge::Prefetch, Status> {
        errors::refuse("PrefetchQuery.lookup_from", request.lookup_from.is_some())?;
        let limit = select::limit(request.limit, LIMIT_DEFAULT)?;
        let prefetches = self.prefetches(request.prefetch)?;
        let scoring = self.scoring(request.query, request.using, &prefetches, limit)?;
        Ok(edge::Prefetch {
            prefetches,
            query: scoring.query,
            limit,
            params: request.params.map(params).transpose()?,
            filter: without(filter::optional(request.filter)?, scoring.not),
            score_threshold: request.score_threshold,
        })
    }

    fn scoring(
        &self,
        query: Option<proto::Query>,
        using: Option<String>,
        prefetches: &[edge::Prefetch],
        limit: usize,
    ) -> Result<Scoring, Status> {
        use proto::query::Variant;
        let using = using.unwrap_or_default();
        let only = |query| Ok(Scoring { query: Some(query), not: Vec::new() });
        let Some(query) = query else { return Ok(Scoring { query: None, not: Vec::new() }) };
        let missing = || Status::invalid_argument("Query is missing");
        match query.variant.ok_or_else(missing)? {
            Variant::Nearest(input) => {
                let (vector, not) = self.input(input, &using)?;
                let nearest = edge::QueryEnum::Nearest(edge::NamedQuery::new(vector, using));
                Ok(Scoring { query: Some(edge::ScoringQuery::Vector(nearest)), not })
            }
            Variant::NearestWithMmr(given) => {
                let input = given.nearest.ok_or_else(missing)?;
                let mmr = given.mmr.unwrap_or_default();
                let diversity = mmr.diversity.unwrap_or(DIVERSITY_DEFAULT);
                if !(0.0..=1.0).contains(&diversity) {
                    return Err(errors::invalid_field("diversity", "must be from 0.0 to 1.0"));
                }
                let (vector, not) = self.input(input, &using)?;
                let candidates = mmr.candidates_limit.map(|limit| filter::count(limit.into()));
                let query = edge::ScoringQuery::Mmr(edge::Mmr {
                    vector,
                    using,
                    lambda: (1.0 - diversity).into(),
                    candidates_limit: candidates.unwrap_or(limit),
                });
                Ok(Scoring { query: Some(query), not })
            }
            Variant::Fusion(number) => only(match proto::Fusion::try_from(number) {
                Ok(proto::Fusion::Rrf) => {
                    edge::ScoringQuery::Fusion(edge::Fusion::Rrf { k: RRF_K_DEFAULT, weights: None })
                }
                Ok(proto::Fusion::Dbsf) => edge::ScoringQuery::Fusion(edge::Fusion::Dbsf),
                Err(_) => return Err(errors::bad_input("unknown fusion")),
            }),
            Variant::Rrf(given) => {
                let weights = given.weights;
                if !weights.is_empty() && weights.len() != prefetches.len() {
                    return Err(errors::bad_input(format!(
                        "RRF weights length ({}) must match number of prefetches ({})",
                        weights.len(),
                        prefetches.len()
                    )));
                }
                let weights = weights.into_iter().map(Into::into).collect::<Vec<_>>();
                only(edge::ScoringQuery::Fusion(edge::Fusion::Rrf {
                    k: given.k.map_or(RRF_K_DEFAULT, |k| filter::count(k.into())),
                    weights: (!weights.is_empty()).then_some(weights),
                }))
            }
            Variant::OrderBy(given) => only(edge::ScoringQuery::OrderBy(order_by(given)?)),
            Variant::Sample(_) => only(edge::ScoringQuery::Sample(edge::Sample::Random)),
            Variant::Recommend(_) => Err(errors::unimplemented("Query.recommend")),
            Variant::Discover(_) => Err(errors::unimplemented("Query.discover")),
            Variant::Context(_) => Err(errors::unimplemented("Query.context")),
            Variant::Formula(_) => Err(errors::unimplemented("Query.formula")),
            Variant::RelevanceFeedback(_) => Err(errors::unimplemented("Query.relevance_feedback")),
            Variant::Text(_) => Err(errors::unimplemented("Query.text")),
        }
    }

    /// The vector of a query, and the point whose vector it is.
    fn input(
        &self,
        input: proto::VectorInput,
        using: &str,
    ) -> Result<(edge::VectorInternal, Vec<edge::PointId>), Status> {
        use proto::vector_input::Variant;
        let missing = || Status::invalid_argument("VectorInput is missing");
        let given = match input.variant.ok_or_else(missing)? {
            Variant::Id(id) => {
                let id = value::id(Some(id))?;
                return Ok((self.vector_of(id, using)?, vec![id]));
            }
            Variant::Dense(dense) => Given::Dense(dense.data),
            Variant::Sparse(sparse) => vector::sparse(sparse.indices, sparse.values)?,
            Variant::MultiDense(multi) => Given::Multi(multi.vectors.into_iter().map(|dense| dense.data).collect()),
            Variant::Document(_) => return Err(errors::unimplemented("VectorInput.document")),
            Variant::Image(_) => return Err(errors::unimplemented("VectorInput.image")),
            Variant::Object(_) => return Err(errors::unimplemented("VectorInput.object")),
        };
        Ok((self.fitting(given, using)?, Vec::new()))
    }

    /// A query vector that fits the vector it is compared with.
    fn fitting(&self, given: Given, using: &str) -> Result<edge::VectorInternal, Status> {
        given.check(using, self.config)?;
        let params = self.config.vectors.get(using);
        let multi = params.is_some_and(|params| params.multivector_config.is_some());
        match given {
            Given::Dense(row) if multi => Given::Multi(vec![row]),
            given => given,
        }
        .into_query()
    }

    fn vector_of(&self, id: edge::PointId, using: &str) -> Result<edge::VectorInternal, Status> {
        vector::require_name(using, self.config)?;
        let records = self
            .shard
            .retrieve(edge::RetrieveRequest {
                point_ids: vec![id],
                with_payload: Some(edge::WithPayloadInterface::Bool(false)),
                with_vector: Some(edge::WithVector::Selector(vec![using.to_owned()])),
            })
            .map_err(errors::from_engine)?;
        let record = records.into_iter().next().ok_or_else(|| errors::no_point(id))?;
        let vector = match record.vector {
            Some(edge::VectorStructInternal::Single(row)) => Some(edge::VectorInternal::Dense(row)),
            Some(edge::VectorStructInternal::MultiDense(rows)) => Some(edge::VectorInternal::MultiDense(rows)),
            Some(edge::VectorStructInternal::Named(mut named)) => named.remove(using),
            None => None,
        };
        vector.ok_or_else(|| errors::bad_input(format!("Vector with name {using:?} for point {id} is missing")))
    }

    /// The older search, as the universal query that it is.
    ///
    /// # Errors
    /// As [`Reader::query`].
    pub fn search(&self, request: proto::SearchPoints) -> Result<edge::QueryRequest, Status> {
        super::update::refuse_shard_key(request.shard_key_selector.as_ref())?;
        let using = request.vector_name.unwrap_or_default();
        let given = match request.sparse_indices {
            Some(indices) => vector::sparse(indices.data, request.vector)?,
            None => Given::Dense(request.vector),
        };
        let vector = self.fitting(given, &using)?;
        let nearest = edge::QueryEnum::Nearest(edge::NamedQuery::new(vector, using));
        Ok(edge::QueryRequest {
            prefetches: Vec::new(),
            query: Some(edge::ScoringQuery::Vector(nearest)),
            filter: filter::optional(request.filter)?,
            score_threshold: request.score_threshold,
            limit: select::limit(Some(request.limit), LIMIT_DEFAULT)?,
            offset: filter::count(request.offset.unwrap_or_default()),
            params: request.params.map(params).transpose()?,
            with_vector: select::vectors(request.with_vectors, self.config)?,
            with_payload: select::payload(request.with_payload)?.unwrap_or_default(),
        })
    }
}

/// `filter`, and none of these points.
fn without(filter: Option<edge::Filter>, not: Vec<edge::PointId>) -> Option<edge::Filter> {
    if not.is_empty() {
        return filter;
    }
    let mut filter = filter.unwrap_or_default();
    let condition = edge::Condition::HasId(not.into_iter().collect());
    filter.must_not.get_or_insert_default().push(condition);
    Some(filter)
}

fn params(given: proto::SearchParams) -> Result<edge::SearchParams, Status> {
    if given.hnsw_ef == Some(0) {
        return Err(errors::invalid_field("hnsw_ef", "value 0 invalid, must be 1 or larger"));
    }
    let corpus = given.idf.and_then(|idf| idf.corpus);
    let idf = filter::optional(corpus)?.map(|corpus| edge::IdfParams::Corpus(edge::IdfCorpusParams { corpus }));
    Ok(edge::SearchParams {
        hnsw_ef: given.hnsw_ef.map(filter::count),
        exact: given.exact.unwrap_or_default(),
        quantization: given.quantization.map(|quantization| edge::QuantizationSearchParams {
            ignore: quantization.ignore.unwrap_or_default(),
            rescore: quantization.rescore,
            oversampling: quantization.oversampling,
        }),
        indexed_only: given.indexed_only.unwrap_or_default(),
        acorn: given.acorn.map(|acorn| edge::AcornSearchParams {
            enable: acorn.enable.unwrap_or_default(),
            max_selectivity: acorn.max_selectivity.map(Into::into),
        }),
        idf,
    })
}

/// An order by a payload field.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn order_by(given: proto::OrderBy) -> Result<edge::OrderBy, Status> {
    use proto::start_from::Value;
    let direction = match given.direction.map(proto::Direction::try_from) {
        None => None,
        Some(Ok(proto::Direction::Asc)) => Some(edge::Direction::Asc),
        Some(Ok(proto::Direction::Desc)) => Some(edge::Direction::Desc),
        Some(Err(_)) => return Err(errors::bad_input("unknown direction")),
    };
    let start_from = match given.start_from.and_then(|start| start.value) {
        None => None,
        Some(Value::Float(number)) => Some(edge::StartFrom::Float(number)),
        Some(Value::Integer(number)) => Some(edge::StartFrom::Integer(number)),
        Some(Value::Timestamp(time)) => Some(edge::StartFrom::Datetime(filter::datetime(&time.to_string())?)),
        Some(Value::Datetime(text)) => Some(edge::StartFrom::Datetime(filter::datetime(&text)?)),
    };
    Ok(edge::OrderBy { key: value::path(&given.key)?, direction, start_from })
}
