//! The points service: which RPC is answered where, and which are not.

// `Reader::query` as a path fixes the reader's lifetime and does not compile; the closure leaves it open.
#![allow(clippy::redundant_closure_for_method_calls)]

use std::time::Instant;

use qdrant_client::qdrant as proto;
use qdrant_client::qdrant::points_server::Points;
use tonic::Request;

use super::{Answer, Service, seconds};
use crate::convert::update;
use crate::convert::update::refuse_shard_key;
use crate::errors::unimplemented;

#[tonic::async_trait]
impl Points for Service {
    async fn upsert(&self, request: Request<proto::UpsertPoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, move |config| {
            update::upsert(request.points, request.update_filter, request.update_mode, config)
        })
        .await
    }

    async fn delete(&self, request: Request<proto::DeletePoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, |_| update::delete(request.points)).await
    }

    async fn get(&self, request: Request<proto::GetPoints>) -> Answer<proto::GetResponse> {
        self.read_points(request.into_inner()).await
    }

    async fn update_vectors(
        &self,
        request: Request<proto::UpdatePointVectors>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, |config| {
            update::update_vectors(request.points, request.update_filter, config)
        })
        .await
    }

    async fn delete_vectors(
        &self,
        request: Request<proto::DeletePointVectors>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, |config| {
            update::delete_vectors(request.points_selector, request.vectors, config)
        })
        .await
    }

    async fn set_payload(&self, request: Request<proto::SetPayloadPoints>) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, move |_| {
            let key = request.key.as_deref();
            update::set_payload(request.payload, request.points_selector, key, false)
        })
        .await
    }

    async fn overwrite_payload(
        &self,
        request: Request<proto::SetPayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, move |_| {
            let key = request.key.as_deref();
            update::set_payload(request.payload, request.points_selector, key, true)
        })
        .await
    }

    async fn delete_payload(
        &self,
        request: Request<proto::DeletePayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, move |_| {
            update::delete_payload(&request.keys, request.points_selector)
        })
        .await
    }

    async fn clear_payload(
        &self,
        request: Request<proto::ClearPayloadPoints>,
    ) -> Answer<proto::PointsOperationResponse> {
        let request = request.into_inner();
        refuse_shard_key(request.shard_key_selector.as_ref())?;
        self.write(&request.collection_name, request.wait, |_| update::clear_payload(request.points)).await
    }

    async fn create_field_index(
        &self,
        request: Request<proto::CreateFieldIndexCollection>,
    ) -> Answer<proto::PointsOperationResponse> {
        self.write_index(request.into_inner()).await
    }

    async fn delete_field_index(
        &self,
        request: Request<proto::DeleteFieldIndexCollection>,
    ) -> Answer<proto::PointsOperationResponse> {
        self.drop_index(request.into_inner()).await
    }

    async fn create_vector_name(
        &self,
        _: Request<proto::CreateVectorNameRequest>,
    ) -> Answer<proto::PointsOperationResponse> {
        Err(unimplemented("Points.CreateVectorName"))
    }

    async fn delete_vector_name(
        &self,
        _: Request<proto::DeleteVectorNameRequest>,
    ) -> Answer<proto::PointsOperationResponse> {
        Err(unimplemented("Points.DeleteVectorName"))
    }

    async fn search(&self, request: Request<proto::SearchPoints>) -> Answer<proto::SearchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name.clone();
        let result = self.search_one(&name, request, |reader, one| reader.search(one)).await?;
        Ok(proto::SearchResponse { result, time: seconds(started), usage: None }.into())
    }

    async fn search_batch(&self, request: Request<proto::SearchBatchPoints>) -> Answer<proto::SearchBatchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name;
        let result = self.search_all(&name, request.search_points, |reader, one| reader.search(one)).await?;
        Ok(proto::SearchBatchResponse { result, time: seconds(started), usage: None }.into())
    }

    async fn search_groups(&self, _: Request<proto::SearchPointGroups>) -> Answer<proto::SearchGroupsResponse> {
        Err(unimplemented("Points.SearchGroups"))
    }

    async fn scroll(&self, request: Request<proto::ScrollPoints>) -> Answer<proto::ScrollResponse> {
        self.read_page(request.into_inner()).await
    }

    async fn recommend(&self, _: Request<proto::RecommendPoints>) -> Answer<proto::RecommendResponse> {
        Err(unimplemented("Points.Recommend"))
    }

    async fn recommend_batch(&self, _: Request<proto::RecommendBatchPoints>) -> Answer<proto::RecommendBatchResponse> {
        Err(unimplemented("Points.RecommendBatch"))
    }

    async fn recommend_groups(
        &self,
        _: Request<proto::RecommendPointGroups>,
    ) -> Answer<proto::RecommendGroupsResponse> {
        Err(unimplemented("Points.RecommendGroups"))
    }

    async fn discover(&self, _: Request<proto::DiscoverPoints>) -> Answer<proto::DiscoverResponse> {
        Err(unimplemented("Points.Discover"))
    }

    async fn discover_batch(&self, _: Request<proto::DiscoverBatchPoints>) -> Answer<proto::DiscoverBatchResponse> {
        Err(unimplemented("Points.DiscoverBatch"))
    }

    async fn count(&self, request: Request<proto::CountPoints>) -> Answer<proto::CountResponse> {
        self.read_count(request.into_inner()).await
    }

    async fn update_batch(&self, request: Request<proto::UpdateBatchPoints>) -> Answer<proto::UpdateBatchResponse> {
        self.write_batch(request.into_inner()).await
    }

    async fn query(&self, request: Request<proto::QueryPoints>) -> Answer<proto::QueryResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name.clone();
        let result = self.search_one(&name, request, |reader, one| reader.query(one)).await?;
        Ok(proto::QueryResponse { result, time: seconds(started), usage: None }.into())
    }

    async fn query_batch(&self, request: Request<proto::QueryBatchPoints>) -> Answer<proto::QueryBatchResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name;
        let result = self.search_all(&name, request.query_points, |reader, one| reader.query(one)).await?;
        Ok(proto::QueryBatchResponse { result, time: seconds(started), usage: None }.into())
    }

    async fn query_groups(&self, request: Request<proto::QueryPointGroups>) -> Answer<proto::QueryGroupsResponse> {
        self.read_groups(request.into_inner()).await
    }

    async fn facet(&self, request: Request<proto::FacetCounts>) -> Answer<proto::FacetResponse> {
        self.read_facet(request.into_inner()).await
    }

    async fn search_matrix_pairs(
        &self,
        _: Request<proto::SearchMatrixPoints>,
    ) -> Answer<proto::SearchMatrixPairsResponse> {
        Err(unimplemented("Points.SearchMatrixPairs"))
    }

    async fn search_matrix_offsets(
        &self,
        _: Request<proto::SearchMatrixPoints>,
    ) -> Answer<proto::SearchMatrixOffsetsResponse> {
        Err(unimplemented("Points.SearchMatrixOffsets"))
    }
}
