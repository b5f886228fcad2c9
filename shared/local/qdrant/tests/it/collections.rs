//! Collections and aliases.

use std::time::Duration;

use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::{
    ChangeAliases, CollectionStatus, CountPointsBuilder, CreateAlias, CreateAliasBuilder,
    CreateFieldIndexCollectionBuilder, DeleteAlias, FieldType, HnswConfigDiffBuilder, KeywordIndexParamsBuilder,
    OptimizersConfigDiffBuilder, RenameAliasBuilder, UpdateCollectionBuilder, UpsertPointsBuilder,
    payload_index_params::IndexParams, vectors_config::Config,
};
use tonic::Code;

use crate::server::{Folder, Server, point, refusal, schema, with_points};

#[tokio::test]
async fn a_collection_is_described_as_it_was_asked_for_also_after_a_restart() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let client = server.client();
    let hnsw = HnswConfigDiffBuilder::default().m(0).payload_m(24);
    client.create_collection(schema("c").hnsw_config(hnsw).on_disk_payload(true)).await.unwrap();
    let tenant = KeywordIndexParamsBuilder::default().is_tenant(true);
    let index = CreateFieldIndexCollectionBuilder::new("c", "kb", FieldType::Keyword);
    client.create_field_index(index.field_index_params(tenant).wait(true)).await.unwrap();
    let points = vec![point(1, [1.0; 4], &[(1, 1.0)], "a")];
    client.upsert_points(UpsertPointsBuilder::new("c", points).wait(true)).await.unwrap();

    let (ended, _) = server.terminate();
    assert!(ended.success());
    let server = Server::start(&folder);
    let info = server.client().collection_info("c").await.unwrap().result.unwrap();

    assert_eq!(info.status(), CollectionStatus::Green);
    assert_eq!(info.points_count, Some(1));
    let kb = &info.payload_schema["kb"];
    assert_eq!(kb.points, Some(1));
    let params = kb.params.as_ref().and_then(|params| params.index_params.as_ref());
    assert!(matches!(params, Some(IndexParams::KeywordIndexParams(p)) if p.is_tenant == Some(true)));
    let config = info.config.unwrap();
    let hnsw = config.hnsw_config.unwrap();
    assert_eq!((hnsw.m, hnsw.payload_m, hnsw.ef_construct), (Some(0), Some(24), Some(100)));
    let vectors = config.params.unwrap().vectors_config.unwrap().config.unwrap();
    assert!(matches!(vectors, Config::ParamsMap(map) if map.map["dense"].size == 4));
}

#[tokio::test]
async fn a_collection_can_be_created_listed_and_deleted_once() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let client = server.client();
    client.create_collection(schema("one")).await.unwrap();
    client.create_collection(schema("two")).await.unwrap();

    let (code, text) = refusal(client.create_collection(schema("one")).await);
    assert_eq!(code, Code::AlreadyExists);
    assert_eq!(text, "Wrong input: Collection `one` already exists!");
    let listed = client.list_collections().await.unwrap().collections;
    assert_eq!(listed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);

    assert!(client.delete_collection("one").await.unwrap().result);
    assert!(!client.delete_collection("one").await.unwrap().result);
    assert!(!client.collection_exists("one").await.unwrap());
    assert!(!folder.path().join("collections/one").exists());
    client.create_collection(schema("one")).await.unwrap();
    assert_eq!(client.count(CountPointsBuilder::new("one")).await.unwrap().result.unwrap().count, 0);
}

#[tokio::test]
async fn a_name_that_would_leave_the_data_folder_is_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for name in ["../x", "a/b", "..", ""] {
        let (code, _) = refusal(server.client().create_collection(schema(name)).await);
        assert_eq!(code, Code::InvalidArgument, "{name}");
    }
}

#[tokio::test]
async fn an_alias_is_taken_wherever_a_collection_is() {
    let (folder, server, client) = with_points().await;
    client.create_alias(CreateAliasBuilder::new("c", "current")).await.unwrap();
    let count = client.count(CountPointsBuilder::new("current")).await.unwrap();
    assert_eq!(count.result.unwrap().count, 6);
    assert!(client.collection_exists("current").await.unwrap());
    assert!(client.collection_info("current").await.is_ok());
    assert_eq!(client.list_collections().await.unwrap().collections.len(), 1);

    client.rename_alias(RenameAliasBuilder::new("current", "now")).await.unwrap();
    server.kill();
    let server = Server::start(&folder);
    let client = server.client();
    let aliases = client.list_collection_aliases("c").await.unwrap().aliases;
    assert_eq!(aliases.len(), 1);
    assert_eq!(aliases[0].alias_name, "now");

    let (code, _) = refusal(client.create_collection(schema("now")).await);
    assert_eq!(code, Code::InvalidArgument);
    client.delete_collection("c").await.unwrap();
    assert!(client.list_aliases().await.unwrap().aliases.is_empty());
}

#[tokio::test]
async fn alias_changes_of_one_request_happen_all_or_not_at_all() {
    let (_folder, server, client) = with_points().await;
    client.create_collection(schema("d")).await.unwrap();
    client.create_alias(CreateAliasBuilder::new("c", "live")).await.unwrap();
    let change = async |actions: Vec<Action>| {
        let actions = actions.into_iter().map(Into::into).collect();
        let mut raw =
            qdrant_client::qdrant::collections_client::CollectionsClient::connect(server.url.clone()).await.unwrap();
        raw.update_aliases(ChangeAliases { actions, timeout: None }).await
    };
    let delete = || Action::DeleteAlias(DeleteAlias { alias_name: "live".to_owned() });
    let create = |collection: &str| {
        let collection_name = collection.to_owned();
        Action::CreateAlias(CreateAlias { collection_name, alias_name: "live".to_owned() })
    };

    let refused = change(vec![delete(), create("nowhere")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let count = client.count(CountPointsBuilder::new("live")).await.unwrap();
    assert_eq!(count.result.unwrap().count, 6);

    change(vec![delete(), create("d")]).await.unwrap();
    let count = client.count(CountPointsBuilder::new("live")).await.unwrap();
    assert_eq!(count.result.unwrap().count, 0);
}

#[tokio::test]
async fn deleting_a_collection_waits_for_those_who_use_it() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for round in 0..5 {
        let client = server.client();
        client.create_collection(schema("c")).await.unwrap();
        let writer = {
            let client = server.client();
            tokio::spawn(async move {
                for id in 0..1_000 {
                    let points = vec![point(id, [1.0; 4], &[(1, 1.0)], "a")];
                    let request = UpsertPointsBuilder::new("c", points).wait(true);
                    if let Err(error) = client.upsert_points(request).await {
                        return refusal::<()>(Err(error)).0;
                    }
                }
                Code::Ok
            })
        };
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        assert!(client.delete_collection("c").await.unwrap().result);
        assert!(!folder.path().join("collections/c").exists());
        let code = writer.await.unwrap();
        assert!(code == Code::NotFound || code == Code::Ok, "{code}");
    }
}

#[tokio::test]
async fn the_optimizer_and_hnsw_settings_can_be_changed() {
    let (_folder, _server, client) = with_points().await;
    let update = UpdateCollectionBuilder::new("c")
        .hnsw_config(HnswConfigDiffBuilder::default().m(8))
        .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(50));
    client.update_collection(update).await.unwrap();
    let config = client.collection_info("c").await.unwrap().result.unwrap().config.unwrap();
    assert_eq!(config.hnsw_config.unwrap().m, Some(8));
    assert_eq!(config.optimizer_config.unwrap().indexing_threshold, Some(50));
}

#[tokio::test]
async fn an_hnsw_graph_is_built_in_the_background() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let client = server.client();
    // 2,000 vectors of 4 floats are 31 KB.
    let early = OptimizersConfigDiffBuilder::default().indexing_threshold(10);
    client.create_collection(schema("c").optimizers_config(early)).await.unwrap();
    let points = (0..2_000_u16).map(|n| {
        let angle = f32::from(n) / 1_000.0;
        point(n.into(), [angle.sin(), angle.cos(), 0.1, 0.0], &[(1, 1.0)], "a")
    });
    let request = UpsertPointsBuilder::new("c", points.collect::<Vec<_>>()).wait(true);
    client.upsert_points(request).await.unwrap();
    for _ in 0..100 {
        let info = client.collection_info("c").await.unwrap().result.unwrap();
        // Sparse vectors always count as indexed, so both kinds are there when it is done.
        if info.indexed_vectors_count.unwrap() >= 4_000 {
            assert_eq!(info.points_count, Some(2_000));
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no vector was indexed");
}
