//! What reads points.

use std::time::Instant;

use qdrant_client::qdrant as proto;
use qdrant_edge::{self as edge, EdgeShardRead};
use tonic::Status;

use super::{Answer, Service, seconds};
use crate::convert::query::Reader;
use crate::convert::update::refuse_shard_key;
use crate::convert::{filter, point, query, select, value};
use crate::errors;

impl Service {
    pub(super) async fn read_points(&self, request: proto::GetPoints) -> Answer<proto::GetResponse> {
        let started = Instant::now();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        let name = request.collection_name.clone();
        let result = self
            .on_collection(&name, move |collection| {
                let config = collection.shard().config_snapshot();
                let records = collection.shard().retrieve(edge::RetrieveRequest {
                    point_ids: value::ids(request.ids)?,
                    with_payload: select::payload(request.with_payload)?,
                    with_vector: Some(select::vectors(request.with_vectors, &config)?),
                });
                let records = records.map_err(errors::from_engine)?;
                Ok(records.into_iter().map(point::retrieved).collect())
            })
            .await?;
        Ok(proto::GetResponse { result, time: seconds(started), usage: None }.into())
    }

    pub(super) async fn read_page(&self, request: proto::ScrollPoints) -> Answer<proto::ScrollResponse> {
        let started = Instant::now();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        let name = request.collection_name.clone();
        let (result, next) = self
            .on_collection(&name, move |collection| {
                let config = collection.shard().config_snapshot();
                let order_by = request.order_by.map(query::order_by).transpose()?;
                let page = collection.shard().scroll(edge::ScrollRequest {
                    offset: request.offset.map(|id| value::id(Some(id))).transpose()?,
                    limit: Some(select::limit(request.limit.map(u64::from), 10)?),
                    filter: filter::optional(request.filter)?,
                    with_payload: select::payload(request.with_payload)?,
                    with_vector: select::vectors(request.with_vectors, &config)?,
                    order_by: order_by.map(edge::OrderByInterface::Struct),
                });
                let (records, next) = page.map_err(errors::from_engine)?;
                Ok((records.into_iter().map(point::retrieved).collect(), next))
            })
            .await?;
        let next_page_offset = next.map(value::id_out);
        let time = seconds(started);
        Ok(proto::ScrollResponse { next_page_offset, result, time, usage: None }.into())
    }

    pub(super) async fn read_count(&self, request: proto::CountPoints) -> Answer<proto::CountResponse> {
        let started = Instant::now();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        let name = request.collection_name.clone();
        let count = self
            .on_collection(&name, move |collection| {
                let count = collection.shard().count(edge::CountRequest {
                    filter: filter::optional(request.filter)?,
                    // The server's default.
                    exact: request.exact.unwrap_or(true),
                });
                count.map_err(errors::from_engine)
            })
            .await?;
        let result = Some(proto::CountResult { count: count as u64 });
        Ok(proto::CountResponse { result, time: seconds(started), usage: None }.into())
    }

    pub(super) async fn read_facet(&self, request: proto::FacetCounts) -> Answer<proto::FacetResponse> {
        let started = Instant::now();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        let name = request.collection_name.clone();
        let hits = self
            .on_collection(&name, move |collection| {
                let response = collection.shard().facet(edge::FacetRequest {
                    key: value::path(&request.key)?,
                    limit: select::limit(request.limit, 10)?,
                    filter: filter::optional(request.filter)?,
                    exact: request.exact.unwrap_or(false),
                });
                let response = response.map_err(errors::from_engine)?;
                Ok(response.hits.into_iter().map(point::facet).collect())
            })
            .await?;
        Ok(proto::FacetResponse { hits, time: seconds(started), usage: None }.into())
    }

    pub(super) async fn read_groups(&self, request: proto::QueryPointGroups) -> Answer<proto::QueryGroupsResponse> {
        let started = Instant::now();
        let name = request.collection_name.clone();
        let groups = self
            .on_collection(&name, move |collection| {
                let config = collection.shard().config_snapshot();
                let request = Reader::new(collection.shard(), &config).groups(request)?;
                let groups = collection.shard().query_groups(request);
                let groups = groups.map_err(errors::from_engine)?;
                Ok(groups.into_iter().map(point::group).collect())
            })
            .await?;
        let result = Some(proto::GroupsResult { groups });
        Ok(proto::QueryGroupsResponse { result, time: seconds(started), usage: None }.into())
    }

    /// Several searches as one engine batch; `read` turns each request into the engine's. The
    /// collection is the batch's, whatever name stands in the single requests.
    pub(super) async fn search_all<R: Send + 'static>(
        &self,
        name: &str,
        requests: Vec<R>,
        read: fn(&Reader<'_>, R) -> Result<edge::QueryRequest, Status>,
    ) -> Result<Vec<proto::BatchResult>, Status> {
        self.on_collection(name, move |collection| {
            let config = collection.shard().config_snapshot();
            let reader = Reader::new(collection.shard(), &config);
            let queries = requests.into_iter().map(|request| read(&reader, request));
            let queries = queries.collect::<Result<Vec<_>, _>>()?;
            let batch = edge::QueryBatchRequest::new(queries);
            let results = collection.shard().query_batch(batch).map_err(errors::from_engine)?;
            let results = results.into_iter().map(point::scored_all);
            Ok(results.map(|result| proto::BatchResult { result }).collect())
        })
        .await
    }

    /// One search.
    pub(super) async fn search_one<R: Send + 'static>(
        &self,
        name: &str,
        request: R,
        read: fn(&Reader<'_>, R) -> Result<edge::QueryRequest, Status>,
    ) -> Result<Vec<proto::ScoredPoint>, Status> {
        let results = self.search_all(name, vec![request], read).await?;
        Ok(results.into_iter().next().map(|batch| batch.result).unwrap_or_default())
    }
}
