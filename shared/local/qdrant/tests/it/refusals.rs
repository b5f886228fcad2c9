//! What is wrong, and what is not implemented.

use qdrant_client::Payload;
use qdrant_client::qdrant::{
    CountPointsBuilder, DeletePointsBuilder, Document, LookupLocation, NamedVectors, PointStruct, PointsIdsList, Query,
    QueryPointsBuilder, RecommendInputBuilder, ScrollPointsBuilder, SetPayloadPointsBuilder, ShardKeySelector,
    UpsertPointsBuilder, Vector, shard_key,
};
use tonic::Code;

use crate::server::{point, refusal, with_points};

#[tokio::test]
async fn an_unknown_collection_is_not_found_by_name() {
    let (_folder, _server, client) = with_points().await;
    let (code, text) = refusal(client.count(CountPointsBuilder::new("nope")).await);
    assert_eq!(code, Code::NotFound);
    assert_eq!(text, "Not found: Collection `nope` doesn't exist!");
}

#[tokio::test]
async fn a_vector_that_does_not_fit_spoils_the_whole_upsert() {
    let (_folder, _server, client) = with_points().await;
    let bad = |name: &str, vector: Vector| {
        let vectors = NamedVectors::default().add_vector(name, vector);
        vec![point(100, [1.0; 4], &[(1, 1.0)], "a"), PointStruct::new(101, vectors, Payload::default())]
    };
    let cases = [
        (bad("dense", Vector::new_dense(vec![1.0; 3])), "Wrong input: Vector dimension error: expected dim: 4, got 3"),
        (bad("other", Vector::new_dense(vec![1.0; 4])), "Wrong input: Not existing vector name error: other"),
        (
            bad("bm25", Vector::new_dense(vec![1.0; 4])),
            "Wrong input: Conversion between sparse and regular vectors failed",
        ),
    ];
    for (points, expected) in cases {
        let request = UpsertPointsBuilder::new("c", points).wait(true);
        let (code, text) = refusal(client.upsert_points(request).await);
        assert_eq!((code, text.as_str()), (Code::InvalidArgument, expected));
    }
    let count = client.count(CountPointsBuilder::new("c").exact(true)).await.unwrap();
    assert_eq!(count.result.unwrap().count, 6);
    let query = QueryPointsBuilder::new("c").query(vec![1.0; 5]).using("dense");
    assert_eq!(refusal(client.query(query).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_malformed_uuid_is_an_invalid_argument() {
    let (_folder, _server, client) = with_points().await;
    let ids = PointsIdsList { ids: vec!["not-a-uuid".into()] };
    let (code, text) = refusal(client.delete_points(DeletePointsBuilder::new("c").points(ids)).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(text, "Unable to parse UUID: not-a-uuid");
}

#[tokio::test]
async fn a_payload_for_a_missing_point_is_not_found() {
    let (_folder, _server, client) = with_points().await;
    let request = SetPayloadPointsBuilder::new("c", Payload::from([("x", 1.into())]))
        .points_selector(PointsIdsList { ids: vec![99.into()] })
        .wait(true);
    let (code, text) = refusal(client.set_payload(request).await);
    assert_eq!((code, text.as_str()), (Code::NotFound, "Not found: No point with id 99 found"));
}

#[tokio::test]
async fn a_limit_of_zero_is_refused() {
    let (_folder, _server, client) = with_points().await;
    let request = ScrollPointsBuilder::new("c").limit(0);
    assert_eq!(refusal(client.scroll(request).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_request_above_32_megabytes_is_refused() {
    let (_folder, _server, client) = with_points().await;
    let text = "x".repeat(33 * 1024 * 1024);
    let mut large = point(1, [1.0; 4], &[(1, 1.0)], "a");
    large.payload.insert("text".to_owned(), text.into());
    let (code, text) = refusal(client.upsert_points(UpsertPointsBuilder::new("c", vec![large])).await);
    assert_eq!(code, Code::OutOfRange, "{text}");
}

#[tokio::test]
async fn what_is_not_implemented_is_refused_by_its_name() {
    let (_folder, server, client) = with_points().await;
    let key = || ShardKeySelector::from(vec![shard_key::Key::Keyword("k".to_owned())]);
    let upsert = UpsertPointsBuilder::new("c", vec![point(1, [1.0; 4], &[(1, 1.0)], "a")]);
    let query = || QueryPointsBuilder::new("c").using("dense");
    let elsewhere = LookupLocation { collection_name: "d".to_owned(), ..Default::default() };
    let recommend = RecommendInputBuilder::default().add_positive(1_u64);
    let document = Query::new_nearest(Document::new("a text", "a model"));
    let refused = [
        ("shard_key_selector", refusal(client.upsert_points(upsert.shard_key_selector(key())).await)),
        ("lookup_from", refusal(client.query(query().query(Query::new_nearest(1_u64)).lookup_from(elsewhere)).await)),
        ("Query.recommend", refusal(client.query(query().query(Query::new_recommend(recommend))).await)),
        ("VectorInput.document", refusal(client.query(query().query(document)).await)),
        ("Snapshots.Create", refusal(client.create_snapshot("c").await)),
        ("Collections.ListShardKeys", {
            let request = qdrant_client::qdrant::ListShardKeysRequest::default();
            let url = server.url.clone();
            let mut raw = qdrant_client::qdrant::collections_client::CollectionsClient::connect(url).await.unwrap();
            let status = raw.list_shard_keys(request).await.unwrap_err();
            (status.code(), status.message().to_owned())
        }),
    ];
    for (name, (code, text)) in refused {
        assert_eq!(code, Code::Unimplemented, "{text}");
        assert!(text.contains(name), "{text}");
    }
}
