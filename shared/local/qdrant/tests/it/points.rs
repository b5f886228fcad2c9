//! Writing, reading back, counting, paging, deleting.

use qdrant_client::Payload;
use qdrant_client::qdrant::points_update_operation::{self as operation, Operation};
use qdrant_client::qdrant::vector_output::Vector as Output;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    ClearPayloadPointsBuilder, Condition, CountPointsBuilder, CreateFieldIndexCollectionBuilder,
    DeletePayloadPointsBuilder, DeletePointVectorsBuilder, DeletePointsBuilder, Direction, FacetCountsBuilder,
    FieldType, Filter, GetPointsBuilder, NamedVectors, OrderByBuilder, PointId, PointStruct, PointVectors,
    PointsIdsList, PointsUpdateOperation, Range, ScrollPointsBuilder, SetPayloadPointsBuilder,
    UpdateBatchPointsBuilder, UpdateMode, UpdatePointVectorsBuilder, UpdateStatus, UpsertPointsBuilder, Vector,
};
use qdrant_client::{Qdrant, qdrant::point_id::PointIdOptions};
use uuid::Uuid;

use crate::server::{point, refusal, with_points};

async fn count(client: &Qdrant, filter: Filter) -> u64 {
    let request = CountPointsBuilder::new("c").filter(filter).exact(true);
    client.count(request).await.unwrap().result.unwrap().count
}

async fn get(client: &Qdrant, id: impl Into<PointId>) -> qdrant_client::qdrant::RetrievedPoint {
    let request = GetPointsBuilder::new("c", vec![id.into()]).with_payload(true).with_vectors(true);
    client.get_points(request).await.unwrap().result.remove(0)
}

#[tokio::test]
async fn a_point_comes_back_as_it_was_written() {
    let (_folder, _server, client) = with_points().await;
    let found = get(&client, 4).await;
    assert_eq!(found.payload["kb"].as_str().unwrap(), "b");
    assert_eq!(found.payload["n"].as_integer(), Some(4));
    let Some(VectorsOptions::Vectors(named)) = found.vectors.unwrap().vectors_options else {
        panic!("not named");
    };
    let Some(Output::Sparse(sparse)) = &named.vectors["bm25"].vector else { panic!("not sparse") };
    assert_eq!((sparse.indices.as_slice(), sparse.values.as_slice()), (&[1, 9][..], &[0.4, 0.5][..]));
    let Some(Output::Dense(dense)) = &named.vectors["dense"].vector else { panic!("not dense") };
    let length: f32 = dense.data.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5, "cosine vectors are kept at length 1, not {length}");
}

#[tokio::test]
async fn an_upsert_applied_twice_leaves_one_point() {
    let (_folder, _server, client) = with_points().await;
    for _ in 0..2 {
        let request = UpsertPointsBuilder::new("c", vec![point(1, [0.5; 4], &[(7, 1.0)], "z")]).wait(true);
        let result = client.upsert_points(request).await.unwrap().result.unwrap();
        assert_eq!(result.status(), UpdateStatus::Completed);
    }
    assert_eq!(count(&client, Filter::default()).await, 6);
    assert_eq!(count(&client, Filter::must([Condition::matches("kb", "z".to_owned())])).await, 1);
}

#[tokio::test]
async fn a_write_that_does_not_wait_is_acknowledged_and_visible() {
    let (_folder, _server, client) = with_points().await;
    let points = vec![point(70, [0.5; 4], &[(7, 1.0)], "z")];
    let answer = client.upsert_points(UpsertPointsBuilder::new("c", points)).await.unwrap();
    assert_eq!(answer.result.unwrap().status(), UpdateStatus::Acknowledged);
    assert_eq!(count(&client, Filter::default()).await, 7);
}

#[tokio::test]
async fn filters_select_what_they_say() {
    let (_folder, _server, client) = with_points().await;
    let kb = |name: &str| Condition::matches("kb", name.to_owned());
    let n = |gte, lt| Condition::range("n", Range { gte: Some(gte), lt: Some(lt), ..Range::default() });
    for indexed in [false, true] {
        if indexed {
            for (field, kind) in [("kb", FieldType::Keyword), ("n", FieldType::Integer)] {
                let index = CreateFieldIndexCollectionBuilder::new("c", field, kind).wait(true);
                client.create_field_index(index).await.unwrap();
            }
        }
        let cases = [
            (Filter::must([kb("a")]), 3),
            (Filter::must_not([kb("a")]), 3),
            (Filter::should([kb("a"), kb("b")]), 6),
            (Filter::must([n(2.0, 5.0)]), 3),
            (Filter::must([kb("a"), n(2.0, 5.0)]), 2),
            (Filter::must([Condition::matches("kb", vec!["a".to_owned(), "x".to_owned()])]), 3),
            (Filter::must([Condition::matches("n", vec![1, 6])]), 2),
            (Filter::must([Condition::matches("n", 3)]), 1),
            (
                Filter::must([Condition::matches(
                    "kb",
                    qdrant_client::qdrant::r#match::MatchValue::ExceptKeywords(vec!["a".to_owned()].into()),
                )]),
                3,
            ),
            (Filter::must([Condition::has_id([1, 2, 99])]), 2),
            (Filter::must([Condition::is_empty("missing")]), 6),
            (Filter::must([Condition::is_empty("kb")]), 0),
            (Filter::must([Condition::is_null("kb")]), 0),
            (Filter::must([Condition::has_vector("bm25")]), 6),
            (Filter::must([Filter::should([kb("a"), n(4.0, 5.0)]).into()]), 4),
            (Filter::min_should(2, vec![kb("a"), n(1.0, 3.0), Condition::has_id([1])]), 2),
        ];
        for (filter, expected) in cases {
            assert_eq!(count(&client, filter.clone()).await, expected, "{filter:?} {indexed}");
        }
    }
}

#[tokio::test]
async fn nested_filters_look_at_one_element_at_a_time() {
    let (_folder, _server, client) = with_points().await;
    let payload: Payload = serde_json::json!({"parts": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]}).try_into().unwrap();
    let request =
        SetPayloadPointsBuilder::new("c", payload).points_selector(PointsIdsList { ids: vec![1.into()] }).wait(true);
    client.set_payload(request).await.unwrap();
    let both = |a: i64, b: i64| Filter::must([Condition::matches("a", a), Condition::matches("b", b)]);
    assert_eq!(count(&client, Filter::must([Condition::nested("parts", both(1, 1))])).await, 1);
    assert_eq!(count(&client, Filter::must([Condition::nested("parts", both(1, 2))])).await, 0);
}

#[tokio::test]
async fn points_are_deleted_by_id_and_by_filter() {
    let (_folder, _server, client) = with_points().await;
    let delete = |filter: Filter| DeletePointsBuilder::new("c").points(filter).wait(true);
    let ids = PointsIdsList { ids: vec![1.into(), 99.into()] };
    client.delete_points(DeletePointsBuilder::new("c").points(ids).wait(true)).await.unwrap();
    assert_eq!(count(&client, Filter::default()).await, 5);
    client.delete_points(delete(Filter::must([Condition::has_id([2, 3])]))).await.unwrap();
    assert_eq!(count(&client, Filter::default()).await, 3);
    let kb = Filter::must([Condition::matches("kb", "b".to_owned())]);
    client.delete_points(delete(kb.clone())).await.unwrap();
    assert_eq!(count(&client, kb).await, 0);
    assert_eq!(count(&client, Filter::default()).await, 0);
}

#[tokio::test]
async fn scrolling_visits_uuids_in_byte_order_once_each() {
    let (_folder, _server, client) = with_points().await;
    // Spread over the whole range, in an order that is not theirs.
    let mut ids: Vec<u128> =
        (1..=250_u128).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).collect();
    let points = ids.iter().map(|id| {
        let id = Uuid::from_u128(*id).to_string();
        let vectors = NamedVectors::default().add_vector("dense", Vector::new_dense(vec![1.0; 4]));
        PointStruct::new(id, vectors, Payload::from([("kb", "u".into())]))
    });
    let request = UpsertPointsBuilder::new("c", points.collect::<Vec<_>>()).wait(true);
    client.upsert_points(request).await.unwrap();

    let mut seen = Vec::new();
    let mut offset: Option<PointId> = None;
    loop {
        let mut request = ScrollPointsBuilder::new("c")
            .filter(Filter::must([Condition::matches("kb", "u".to_owned())]))
            .limit(37)
            .with_payload(false);
        if let Some(offset) = offset {
            request = request.offset(offset);
        }
        let page = client.scroll(request).await.unwrap();
        assert!(page.result.iter().all(|point| point.payload.is_empty()));
        seen.extend(page.result.into_iter().map(|point| {
            let Some(PointIdOptions::Uuid(text)) = point.id.unwrap().point_id_options else {
                panic!("not a UUID");
            };
            Uuid::parse_str(&text).unwrap().as_u128()
        }));
        offset = page.next_page_offset;
        if offset.is_none() {
            break;
        }
    }
    ids.sort_unstable();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn scrolling_can_follow_a_payload_field() {
    let (_folder, _server, client) = with_points().await;
    let request =
        || ScrollPointsBuilder::new("c").order_by(OrderByBuilder::new("n").direction(Direction::Desc.into())).limit(2);
    let (_, text) = refusal(client.scroll(request()).await);
    assert!(text.starts_with("Wrong input: No range index for `order_by` key: `n`"), "{text}");
    let index = CreateFieldIndexCollectionBuilder::new("c", "n", FieldType::Integer).wait(true);
    client.create_field_index(index).await.unwrap();
    let page = client.scroll(request()).await.unwrap().result;
    assert_eq!(page.iter().map(|p| p.id.clone().unwrap()).collect::<Vec<_>>(), [6.into(), 5.into()]);
}

#[tokio::test]
async fn payloads_are_set_overwritten_deleted_and_cleared() {
    let (_folder, _server, client) = with_points().await;
    let one = || PointsIdsList { ids: vec![1.into()] };
    let x = || Payload::from([("x", 7.into())]);
    let set = SetPayloadPointsBuilder::new("c", x()).points_selector(one()).wait(true);
    client.set_payload(set).await.unwrap();
    assert_eq!(get(&client, 1).await.payload.len(), 3);
    let keys = vec!["n".to_owned()];
    let delete = DeletePayloadPointsBuilder::new("c", keys).points_selector(one()).wait(true);
    client.delete_payload(delete).await.unwrap();
    assert_eq!(get(&client, 1).await.payload.len(), 2);
    let overwrite = SetPayloadPointsBuilder::new("c", x()).points_selector(one()).wait(true);
    client.overwrite_payload(overwrite).await.unwrap();
    assert_eq!(get(&client, 1).await.payload, std::collections::HashMap::from(x()));
    let clear = ClearPayloadPointsBuilder::new("c").points(one()).wait(true);
    client.clear_payload(clear).await.unwrap();
    assert!(get(&client, 1).await.payload.is_empty());
}

#[tokio::test]
async fn single_vectors_are_updated_and_deleted() {
    let (_folder, _server, client) = with_points().await;
    let vectors = NamedVectors::default().add_vector("dense", vec![0.0, 0.0, 0.0, 2.0]);
    let points = vec![PointVectors { id: Some(1.into()), vectors: Some(vectors.into()) }];
    client.update_vectors(UpdatePointVectorsBuilder::new("c", points).wait(true)).await.unwrap();
    let delete = DeletePointVectorsBuilder::new("c")
        .points_selector(PointsIdsList { ids: vec![1.into()] })
        .vectors(vec!["bm25".to_owned()])
        .wait(true);
    client.delete_vectors(delete).await.unwrap();
    let vectors = get(&client, 1).await.vectors.unwrap();
    let Some(VectorsOptions::Vectors(named)) = vectors.vectors_options else { panic!("not named") };
    assert_eq!(named.vectors.len(), 1);
    let Some(Output::Dense(dense)) = &named.vectors["dense"].vector else { panic!("not dense") };
    assert_eq!(dense.data, [0.0, 0.0, 0.0, 1.0]);
}

#[tokio::test]
async fn a_batch_of_operations_is_applied_in_order() {
    let (_folder, _server, client) = with_points().await;
    let upsert = Operation::Upsert(operation::PointStructList {
        points: vec![point(50, [1.0; 4], &[(1, 1.0)], "z")],
        ..Default::default()
    });
    let delete = Operation::DeletePoints(operation::DeletePoints {
        points: Some(Filter::must([Condition::matches("kb", "z".to_owned())]).into()),
        shard_key_selector: None,
    });
    let operations =
        [upsert.clone(), delete, upsert].map(|operation| PointsUpdateOperation { operation: Some(operation) });
    let request = UpdateBatchPointsBuilder::new("c", operations.to_vec()).wait(true);
    let results = client.update_points_batch(request).await.unwrap().result;
    let ids: Vec<u64> = results.iter().map(|result| result.operation_id.unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(count(&client, Filter::default()).await, 7);
}

#[tokio::test]
async fn a_conditional_upsert_leaves_other_points_alone() {
    let (_folder, _server, client) = with_points().await;
    let points = vec![
        point(1, [1.0; 4], &[(1, 1.0)], "new"),
        point(4, [1.0; 4], &[(1, 1.0)], "new"),
        point(80, [1.0; 4], &[(1, 1.0)], "new"),
    ];
    let only_a = Filter::must([Condition::matches("kb", "a".to_owned())]);
    let request = UpsertPointsBuilder::new("c", points.clone()).update_filter(only_a).wait(true);
    client.upsert_points(request).await.unwrap();
    let new = Filter::must([Condition::matches("kb", "new".to_owned())]);
    // 1 was replaced, 4 not, 80 is new: the filter does not keep new points out.
    assert_eq!(count(&client, new.clone()).await, 2);

    let mut request = UpsertPointsBuilder::new("c", points).wait(true).build();
    request.update_mode = Some(UpdateMode::UpdateOnly.into());
    request.points.push(point(81, [1.0; 4], &[(1, 1.0)], "new"));
    client.upsert_points(request).await.unwrap();
    assert_eq!(count(&client, new).await, 3);
}

#[tokio::test]
async fn values_of_a_field_are_counted() {
    let (_folder, _server, client) = with_points().await;
    let index = CreateFieldIndexCollectionBuilder::new("c", "kb", FieldType::Keyword).wait(true);
    client.create_field_index(index).await.unwrap();
    let one = PointsIdsList { ids: vec![1.into()] };
    client.delete_points(DeletePointsBuilder::new("c").points(one).wait(true)).await.unwrap();
    let hits = client.facet(FacetCountsBuilder::new("c", "kb").exact(true)).await.unwrap().hits;
    assert_eq!(hits.iter().map(|hit| hit.count).collect::<Vec<_>>(), [3, 2]);
}
