//! Collections and aliases.

use std::time::Instant;

use qdrant_client::qdrant as proto;
use qdrant_client::qdrant::collections_server::Collections;
use tonic::{Request, Status};

use super::{Answer, Service, seconds};
use crate::collection::Collection;
use crate::errors::unimplemented;

fn operated(result: Result<bool, Status>, started: Instant) -> Answer<proto::CollectionOperationResponse> {
    let time = seconds(started);
    result.map(|result| proto::CollectionOperationResponse { result, time }.into())
}

#[tonic::async_trait]
impl Collections for Service {
    async fn get(&self, request: Request<proto::GetCollectionInfoRequest>) -> Answer<proto::GetCollectionInfoResponse> {
        let started = Instant::now();
        let name = request.into_inner().collection_name;
        let info = self.on_collection(&name, Collection::info).await?;
        let time = seconds(started);
        Ok(proto::GetCollectionInfoResponse { result: Some(info), time }.into())
    }

    async fn list(&self, _: Request<proto::ListCollectionsRequest>) -> Answer<proto::ListCollectionsResponse> {
        let started = Instant::now();
        let names = self.store.list().into_iter();
        let collections = names.map(|name| proto::CollectionDescription { name }).collect();
        Ok(proto::ListCollectionsResponse { collections, time: seconds(started) }.into())
    }

    async fn create(&self, request: Request<proto::CreateCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let result = self.on_store(move |store| store.create(&request)).await;
        operated(result.map(|()| true), started)
    }

    async fn update(&self, request: Request<proto::UpdateCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name.clone();
        let result = self.on_collection(&name, move |collection| collection.reconfigure(&request)).await;
        operated(result.map(|()| true), started)
    }

    async fn delete(&self, request: Request<proto::DeleteCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let name = request.into_inner().collection_name;
        operated(self.on_store(move |store| store.delete(&name)).await, started)
    }

    async fn update_aliases(
        &self,
        request: Request<proto::ChangeAliases>,
    ) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let actions = request.into_inner().actions;
        let result = self.on_store(move |store| store.change_aliases(actions)).await;
        operated(result.map(|()| true), started)
    }

    async fn list_collection_aliases(
        &self,
        request: Request<proto::ListCollectionAliasesRequest>,
    ) -> Answer<proto::ListAliasesResponse> {
        let started = Instant::now();
        let name = request.into_inner().collection_name;
        let aliases = self.store.list_aliases(Some(&name));
        Ok(proto::ListAliasesResponse { aliases, time: seconds(started) }.into())
    }

    async fn list_aliases(&self, _: Request<proto::ListAliasesRequest>) -> Answer<proto::ListAliasesResponse> {
        let started = Instant::now();
        let aliases = self.store.list_aliases(None);
        Ok(proto::ListAliasesResponse { aliases, time: seconds(started) }.into())
    }

    async fn collection_exists(
        &self,
        request: Request<proto::CollectionExistsRequest>,
    ) -> Answer<proto::CollectionExistsResponse> {
        let started = Instant::now();
        let exists = self.store.get(&request.into_inner().collection_name).is_some();
        let result = Some(proto::CollectionExists { exists });
        Ok(proto::CollectionExistsResponse { result, time: seconds(started) }.into())
    }

    async fn collection_cluster_info(
        &self,
        _: Request<proto::CollectionClusterInfoRequest>,
    ) -> Answer<proto::CollectionClusterInfoResponse> {
        Err(unimplemented("Collections.CollectionClusterInfo"))
    }

    async fn update_collection_cluster_setup(
        &self,
        _: Request<proto::UpdateCollectionClusterSetupRequest>,
    ) -> Answer<proto::UpdateCollectionClusterSetupResponse> {
        Err(unimplemented("Collections.UpdateCollectionClusterSetup"))
    }

    async fn create_shard_key(
        &self,
        _: Request<proto::CreateShardKeyRequest>,
    ) -> Answer<proto::CreateShardKeyResponse> {
        Err(unimplemented("Collections.CreateShardKey"))
    }

    async fn delete_shard_key(
        &self,
        _: Request<proto::DeleteShardKeyRequest>,
    ) -> Answer<proto::DeleteShardKeyResponse> {
        Err(unimplemented("Collections.DeleteShardKey"))
    }

    async fn list_shard_keys(&self, _: Request<proto::ListShardKeysRequest>) -> Answer<proto::ListShardKeysResponse> {
        Err(unimplemented("Collections.ListShardKeys"))
    }
}
