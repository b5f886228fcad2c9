//! Qdrant over gRPC. Only here and in the modules below is `qdrant_client` named.

mod error;
mod server;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use qdrant_client::{
    Qdrant, QdrantError,
    qdrant::{
        Condition, CountPointsBuilder, CreateAliasBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder,
        DeletePointsBuilder, Distance, FieldType, Filter, GetPointsBuilder, HnswConfigDiffBuilder, IdfParams,
        KeywordIndexParamsBuilder, Modifier, NamedVectors, PointId, PointStruct, PointsIdsList, Query,
        QueryBatchPointsBuilder, QueryPoints, QueryPointsBuilder, RetrievedPoint, ScoredPoint, ScrollPointsBuilder,
        SearchParams, SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpsertPointsBuilder, Vector, VectorInput,
        VectorParamsBuilder, VectorsConfigBuilder, point_id::PointIdOptions,
    },
};

use self::server::Server;
use super::{Candidates, IndexError, Linked, Part, Point, Scored, Search, VectorIndex};
use crate::{
    config::{ConfigError, QdrantConfig},
    deadline::Deadline,
    domain::{ChunkId, DocumentId, KnowledgeBaseId},
    embed::Space,
};

/// The payload keys. There are no others.
const KNOWLEDGE_BASE: &str = "kb";
const DOCUMENT: &str = "doc";

/// The vectors' names.
const DENSE: &str = "dense";
const SPARSE: &str = "bm25";

/// Links of each node in the HNSW graph, in the whole and within each knowledge base (Qdrant's default for `m`).
const HNSW_LINKS: u64 = 16;

/// One space in Qdrant, under its alias or under a collection's own name. Connects when first used. Cheap to clone.
#[derive(Clone)]
pub struct QdrantIndex {
    server: Arc<Server>,
    /// The space's alias, or a collection's own name.
    name: String,
    dimension: u64,
    timeout: Duration,
}

impl QdrantIndex {
    /// The index of `space`, under its alias.
    ///
    /// # Errors
    /// When the URL can not be read.
    pub fn new(config: &QdrantConfig, space: &Space) -> Result<Self, ConfigError> {
        let server = Server::new(config)?;
        Ok(Self {
            server: Arc::new(server),
            name: format!("{}-{}", config.prefix, space.collection_name()),
            dimension: space.dimension as u64,
            timeout: config.timeout,
        })
    }

    /// Runs one request within the deadline and Qdrant's own timeout. It is made twice when the key was refused and has been
    /// rotated: then the first did nothing.
    async fn within<R: Clone, T, F>(
        &self,
        deadline: Deadline,
        request: R,
        call: impl Fn(Arc<Qdrant>, R) -> F,
    ) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        let asked = self.server.ask(request, call);
        match tokio::time::timeout_at(deadline.at_most(self.timeout).instant(), asked).await {
            Ok(result) => result.map_err(IndexError::from),
            Err(_) => Err(IndexError::Timeout),
        }
    }

    /// Creates collection and payload indexes. Every step is safe to repeat, and two containers that do it at once end in
    /// the same place.
    async fn create(&self, client: &Qdrant) -> Result<(), QdrantError> {
        let mut vectors = VectorsConfigBuilder::default();
        vectors.add_named_vector_params(DENSE, VectorParamsBuilder::new(self.dimension, Distance::Cosine));
        let mut sparse = SparseVectorsConfigBuilder::default();
        sparse.add_named_vector_params(SPARSE, SparseVectorParamsBuilder::default().modifier(Modifier::Idf));
        let hnsw = HnswConfigDiffBuilder::default().m(HNSW_LINKS).payload_m(HNSW_LINKS);
        already_there(
            client
                .create_collection(
                    CreateCollectionBuilder::new(&self.name)
                        .vectors_config(vectors)
                        .sparse_vectors_config(sparse)
                        .hnsw_config(hnsw),
                )
                .await,
        )?;
        for (field, is_tenant) in [(KNOWLEDGE_BASE, true), (DOCUMENT, false)] {
            client
                .create_field_index(
                    CreateFieldIndexCollectionBuilder::new(&self.name, field, FieldType::Keyword)
                        .field_index_params(KeywordIndexParamsBuilder::default().is_tenant(is_tenant))
                        .wait(true),
                )
                .await?;
        }
        Ok(())
    }

    fn query(&self, search: &Search, query: Query, vector: &str) -> QueryPoints {
        let mut conditions = vec![in_knowledge_bases(search)];
        if let Some(documents) = &search.documents {
            conditions
                .push(Condition::matches(DOCUMENT, documents.iter().map(ToString::to_string).collect::<Vec<_>>()));
        }
        let mut filter = Filter::must(conditions);
        if !search.except.is_empty() {
            filter.must_not.push(Condition::has_id(point_ids(&search.except)));
        }
        QueryPointsBuilder::new(&self.name)
            .query(query)
            .using(vector)
            .filter(filter)
            .limit(search.limit as u64)
            .with_payload(false)
            .with_vectors(false)
            // Only the sparse leg has an IDF to take from somewhere: from what the caller may read, and not from what others
            // have indexed. Else scores would tell which words those use.
            .params(SearchParams {
                idf: (vector == SPARSE).then(|| IdfParams { corpus: Some(Filter::must([in_knowledge_bases(search)])) }),
                ..SearchParams::default()
            })
            .build()
    }
}

fn in_knowledge_bases(search: &Search) -> Condition {
    let ids: Vec<String> = search.knowledge_bases.iter().map(ToString::to_string).collect();
    Condition::matches(KNOWLEDGE_BASE, ids)
}

#[async_trait]
impl VectorIndex for QdrantIndex {
    fn name(&self) -> &str {
        &self.name
    }

    fn collection(&self, name: &str) -> Arc<dyn VectorIndex> {
        Arc::new(Self { name: name.to_owned(), ..self.clone() })
    }

    async fn ensure(&self, deadline: Deadline) -> Result<(), IndexError> {
        match self
            .within(deadline, self.name.clone(), |client, name| async move { client.collection_info(&name).await })
            .await
        {
            // Boxed: seldom run, and large.
            Err(IndexError::Missing) => {
                Box::pin(self.within(
                    deadline,
                    self.clone(),
                    |client, index| async move { index.create(&client).await },
                ))
                .await
            }
            other => other.map(drop),
        }
    }

    async fn drop_collection(&self, deadline: Deadline) -> Result<(), IndexError> {
        match self
            .within(deadline, self.name.clone(), |client, name| async move { client.delete_collection(&name).await })
            .await
        {
            Err(IndexError::Missing) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn behind(&self, deadline: Deadline) -> Result<Option<String>, IndexError> {
        let answer = self.within(deadline, (), |client, ()| async move { client.list_aliases().await }).await?;
        let alias = answer.aliases.into_iter().find(|alias| alias.alias_name == self.name);
        Ok(alias.map(|alias| alias.collection_name))
    }

    async fn point_to(&self, collection: &str, deadline: Deadline) -> Result<(), IndexError> {
        // One action: Qdrant puts the new name in the old one's place under a lock, so that no search falls in between.
        let request = CreateAliasBuilder::new(collection, &self.name);
        self.within(deadline, request, |client, request| async move { client.create_alias(request).await })
            .await
            .map(drop)
    }

    async fn upsert(&self, points: &[Point], deadline: Deadline) -> Result<(), IndexError> {
        // The request is several times as many objects as the points: made for each attempt, and not copied for another.
        self.within(deadline, points, |client, points| async move {
            let points: Vec<PointStruct> = points.iter().map(point_struct).collect();
            client.upsert_points(UpsertPointsBuilder::new(&self.name, points).wait(true)).await
        })
        .await
        .map(drop)
    }

    async fn delete(&self, ids: &[ChunkId], deadline: Deadline) -> Result<(), IndexError> {
        let request = DeletePointsBuilder::new(&self.name).points(PointsIdsList { ids: point_ids(ids) }).wait(true);
        match self.within(deadline, request, |client, request| async move { client.delete_points(request).await }).await
        {
            // No collection, no points: what was to be removed is not there.
            Err(IndexError::Missing) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn count(&self, ids: &[ChunkId], deadline: Deadline) -> Result<usize, IndexError> {
        let request =
            CountPointsBuilder::new(&self.name).filter(Filter::must([Condition::has_id(point_ids(ids))])).exact(true);
        let answer =
            self.within(deadline, request, |client, request| async move { client.count(request).await }).await?;
        Ok(answer.result.map_or(0, |result| usize::try_from(result.count).unwrap_or(usize::MAX)))
    }

    async fn present(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<ChunkId>, IndexError> {
        let request = GetPointsBuilder::new(&self.name, point_ids(ids)).with_payload(false).with_vectors(false);
        let answer =
            self.within(deadline, request, |client, request| async move { client.get_points(request).await }).await?;
        answer.result.into_iter().map(|point| chunk_id(point.id)).collect()
    }

    async fn linked(&self, ids: &[ChunkId], deadline: Deadline) -> Result<Vec<Linked>, IndexError> {
        let request = GetPointsBuilder::new(&self.name, point_ids(ids)).with_payload(true).with_vectors(false);
        match self.within(deadline, request, |client, request| async move { client.get_points(request).await }).await {
            Err(IndexError::Missing) => Ok(Vec::new()),
            answer => answer?.result.into_iter().map(linked).collect(),
        }
    }

    async fn scroll(
        &self,
        part: Part,
        from: ChunkId,
        limit: u32,
        deadline: Deadline,
    ) -> Result<Vec<Linked>, IndexError> {
        let mut request = ScrollPointsBuilder::new(&self.name)
            .offset(PointId::from(from.to_string()))
            .limit(limit)
            .with_payload(true)
            .with_vectors(false);
        if let Some(filter) = part_filter(part) {
            request = request.filter(filter);
        }
        match self.within(deadline, request, |client, request| async move { client.scroll(request).await }).await {
            Err(IndexError::Missing) => Ok(Vec::new()),
            answer => answer?.result.into_iter().map(linked).collect(),
        }
    }

    async fn count_part(&self, part: Part, deadline: Deadline) -> Result<u64, IndexError> {
        let mut request = CountPointsBuilder::new(&self.name).exact(true);
        if let Some(filter) = part_filter(part) {
            request = request.filter(filter);
        }
        match self.within(deadline, request, |client, request| async move { client.count(request).await }).await {
            Err(IndexError::Missing) => Ok(0),
            answer => Ok(answer?.result.map_or(0, |result| result.count)),
        }
    }

    async fn search(&self, search: Search, deadline: Deadline) -> Result<Candidates, IndexError> {
        let mut legs = Vec::new();
        if let Some(dense) = &search.dense {
            legs.push(self.query(&search, Query::new_nearest(dense.clone()), DENSE));
        }
        if let Some(sparse) = &search.sparse {
            let input = VectorInput::new_sparse(sparse.indices.clone(), sparse.values.clone());
            legs.push(self.query(&search, Query::new_nearest(input), SPARSE));
        }
        if legs.is_empty() || search.knowledge_bases.is_empty() || search.documents.as_ref().is_some_and(Vec::is_empty)
        {
            return Ok(Candidates::default());
        }
        let request = QueryBatchPointsBuilder::new(&self.name, legs);
        let answer =
            self.within(deadline, request, |client, request| async move { client.query_batch(request).await }).await?;
        let mut results = answer.result.into_iter().map(|batch| scored(batch.result));
        let mut leg = |asked: bool| {
            if asked {
                results.next().unwrap_or_else(|| Err(bad_answer("fewer results than queries")))
            } else {
                Ok(Vec::new())
            }
        };
        Ok(Candidates { dense: leg(search.dense.is_some())?, sparse: leg(search.sparse.is_some())? })
    }
}

impl std::fmt::Debug for QdrantIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QdrantIndex").field("name", &self.name).finish_non_exhaustive()
    }
}

fn point_struct(point: &Point) -> PointStruct {
    let vectors = NamedVectors {
        vectors: HashMap::from([
            (DENSE.to_owned(), Vector::new_dense(point.dense.clone())),
            (SPARSE.to_owned(), Vector::new_sparse(point.sparse.indices.clone(), point.sparse.values.clone())),
        ]),
    };
    let payload: HashMap<String, qdrant_client::qdrant::Value> = HashMap::from([
        (KNOWLEDGE_BASE.to_owned(), point.knowledge_base.to_string().into()),
        (DOCUMENT.to_owned(), point.document.to_string().into()),
    ]);
    PointStruct::new(point.id.to_string(), vectors, payload)
}

fn point_ids(ids: &[ChunkId]) -> Vec<PointId> {
    ids.iter().map(|id| PointId::from(id.to_string())).collect()
}

fn chunk_id(id: Option<PointId>) -> Result<ChunkId, IndexError> {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Uuid(uuid)) => uuid.parse().map_err(|_| bad_answer("a point's id is not a UUID")),
        Some(PointIdOptions::Num(_)) | None => Err(bad_answer("a point's id is not a UUID")),
    }
}

fn part_filter(part: Part) -> Option<Filter> {
    match part {
        Part::Whole => None,
        Part::KnowledgeBase(id) => Some(Filter::must([Condition::matches(KNOWLEDGE_BASE, id.to_string())])),
        Part::Document(id) => Some(Filter::must([Condition::matches(DOCUMENT, id.to_string())])),
    }
}

fn linked(point: RetrievedPoint) -> Result<Linked, IndexError> {
    let link = |key: &str| point.payload.get(key).and_then(|value| value.as_str()?.parse().ok());
    let (knowledge_base, document) = (link(KNOWLEDGE_BASE), link(DOCUMENT));
    Ok(Linked {
        id: chunk_id(point.id)?,
        knowledge_base: knowledge_base.map(KnowledgeBaseId),
        document: document.map(DocumentId),
    })
}

fn scored(points: Vec<ScoredPoint>) -> Result<Vec<Scored>, IndexError> {
    points.into_iter().map(|point| Ok(Scored { id: chunk_id(point.id)?, score: point.score })).collect()
}

fn bad_answer(what: &'static str) -> IndexError {
    IndexError::Refused(what.into())
}

fn already_there<T>(result: Result<T, QdrantError>) -> Result<(), QdrantError> {
    match result {
        Err(QdrantError::ResponseError { status })
            if status.code() == tonic::Code::AlreadyExists || status.message().contains("already exists") =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}
