//! Finding.

use qdrant_client::qdrant::group_id::Kind;
use qdrant_client::qdrant::{
    Condition, Filter, Fusion, PrefetchQueryBuilder, Query, QueryBatchPointsBuilder, QueryPointGroupsBuilder,
    QueryPoints, QueryPointsBuilder, RrfBuilder, ScoredPoint, SearchParamsBuilder, SearchPointsBuilder, VectorInput,
};
use tonic::Code;

use crate::server::{refusal, with_points};

fn dense(vector: [f32; 4]) -> QueryPointsBuilder {
    QueryPointsBuilder::new("c").query(vector.to_vec()).using("dense")
}

fn sparse(pairs: &[(u32, f32)]) -> QueryPointsBuilder {
    let indices: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
    let values: Vec<f32> = pairs.iter().map(|pair| pair.1).collect();
    let vector = VectorInput::new_sparse(indices, values);
    QueryPointsBuilder::new("c").query(Query::new_nearest(vector)).using("bm25")
}

fn ids(points: &[ScoredPoint]) -> Vec<u64> {
    use qdrant_client::qdrant::point_id::PointIdOptions;
    let numbers = points.iter().map(|point| match point.id.as_ref().and_then(|id| id.point_id_options.clone()) {
        Some(PointIdOptions::Num(number)) => number,
        other => panic!("not a number: {other:?}"),
    });
    numbers.collect()
}

#[tokio::test]
async fn the_nearest_vectors_come_first_with_their_cosine() {
    let (_folder, _server, client) = with_points().await;
    let found = client.query(dense([1.0, 0.0, 0.0, 0.0]).limit(3)).await.unwrap().result;
    assert_eq!(ids(&found), [1, 2, 4]);
    assert!((found[0].score - 1.0).abs() < 1e-5);
    assert!((found[1].score - 0.9 / 0.82_f32.sqrt()).abs() < 1e-5);
    assert!(found[0].payload.is_empty() && found[0].vectors.is_none());
}

#[tokio::test]
async fn offset_threshold_filter_and_parameters_are_respected() {
    let (_folder, _server, client) = with_points().await;
    let query = || dense([1.0, 0.0, 0.0, 0.0]);
    let exact = SearchParamsBuilder::default().exact(true).hnsw_ef(64);
    let found = client.query(query().offset(1).limit(2).params(exact)).await.unwrap().result;
    assert_eq!(ids(&found), [2, 4]);
    let found = client.query(query().score_threshold(0.98)).await.unwrap().result;
    assert_eq!(ids(&found), [1, 2]);
    let in_b = Filter::must([Condition::matches("kb", "b".to_owned())]);
    let found = client.query(query().filter(in_b).limit(1).with_payload(true)).await.unwrap().result;
    assert_eq!(ids(&found), [4]);
    assert_eq!(found[0].payload["kb"].as_str().unwrap(), "b");
}

#[tokio::test]
async fn rare_terms_weigh_more_than_common_ones() {
    let (_folder, _server, client) = with_points().await;
    // Term 9 stands in all six points, term 1 in two.
    let found = client.query(sparse(&[(1, 1.0), (9, 1.0)]).limit(10)).await.unwrap().result;
    assert_eq!(found.len(), 6);
    assert_eq!(ids(&found)[..2], [1, 4]);
    // BM25's idf, ln(1 + (N - n + 0.5) / (n + 0.5)), is what the server multiplies with.
    let idf = |n: f32| (1.0 + (6.0 - n + 0.5) / (n + 0.5)).ln();
    let expected = idf(2.0) + 0.5 * idf(6.0);
    assert!((found[0].score - expected).abs() < 1e-4, "{} {expected}", found[0].score);
}

#[tokio::test]
async fn two_legs_in_one_batch_answer_like_two_requests() {
    let (_folder, _server, client) = with_points().await;
    let in_a = || Filter::must([Condition::matches("kb", "a".to_owned())]);
    let legs: Vec<QueryPoints> = vec![
        dense([0.0, 1.0, 0.0, 0.0]).filter(in_a()).limit(2).build(),
        sparse(&[(2, 1.0)]).filter(in_a()).limit(2).build(),
    ];
    let batch = QueryBatchPointsBuilder::new("c", legs.clone());
    let together = client.query_batch(batch).await.unwrap().result;
    assert_eq!(together.len(), 2);
    for (leg, result) in legs.into_iter().zip(together) {
        assert_eq!(client.query(leg).await.unwrap().result, result.result);
    }
}

#[tokio::test]
async fn prefetched_legs_are_fused() {
    let (_folder, _server, client) = with_points().await;
    let legs = || {
        let nearest = Query::new_nearest(vec![1.0, 0.0, 0.0, 0.0]);
        let terms = Query::new_nearest(VectorInput::new_sparse(vec![6], vec![1.0]));
        [
            PrefetchQueryBuilder::default().query(nearest).using("dense").limit(2_u64),
            PrefetchQueryBuilder::default().query(terms).using("bm25").limit(1_u64),
        ]
    };
    let fused = |query: Query| {
        let [one, two] = legs();
        QueryPointsBuilder::new("c").add_prefetch(one).add_prefetch(two).query(query)
    };
    let found = client.query(fused(Query::new_fusion(Fusion::Rrf))).await.unwrap().result;
    let mut found_ids = ids(&found);
    assert_eq!(found_ids.pop(), Some(2), "second place of one leg comes last");
    found_ids.sort_unstable();
    assert_eq!(found_ids, [1, 6]);
    assert!((found[0].score - 0.5).abs() < 1e-6, "1 / (k + rank) with k = 2");
    assert_eq!(client.query(fused(Query::new_fusion(Fusion::Dbsf))).await.unwrap().result.len(), 3);
    let rrf = Query::new_rrf(RrfBuilder::default().k(60));
    let found = client.query(fused(rrf)).await.unwrap().result;
    assert!((found[0].score - 1.0 / 60.0).abs() < 1e-6, "{}", found[0].score);
}

#[tokio::test]
async fn a_point_can_be_the_question_and_does_not_find_itself() {
    let (_folder, _server, client) = with_points().await;
    let by_id = |id: u64| QueryPointsBuilder::new("c").query(Query::new_nearest(id)).using("dense").limit(2);
    assert_eq!(ids(&client.query(by_id(1)).await.unwrap().result), [2, 4]);
    let (code, text) = refusal(client.query(by_id(99)).await);
    assert_eq!(code, Code::NotFound);
    assert_eq!(text, "Not found: No point with id 99 found");
}

#[tokio::test]
async fn results_are_grouped_by_a_field() {
    let (_folder, _server, client) = with_points().await;
    let request = QueryPointGroupsBuilder::new("c", "kb")
        .query(vec![1.0, 0.0, 0.0, 0.0])
        .using("dense")
        .limit(2_u64)
        .group_size(2_u64);
    let groups = client.query_groups(request).await.unwrap().result.unwrap().groups;
    let names: Vec<_> = groups.iter().map(|g| g.id.clone().unwrap().kind.unwrap()).collect();
    assert_eq!(names, ["a", "b"].map(|name| Kind::StringValue(name.to_owned())));
    assert_eq!(ids(&groups[0].hits), [1, 2]);
}

#[tokio::test]
async fn the_older_search_answers_like_the_query() {
    let (_folder, _server, client) = with_points().await;
    let search = SearchPointsBuilder::new("c", [0.0, 0.0, 1.0, 0.1], 3).vector_name("dense");
    let old = client.search_points(search).await.unwrap().result;
    let new = client.query(dense([0.0, 0.0, 1.0, 0.1]).limit(3)).await.unwrap().result;
    assert_eq!(ids(&old)[..2], [5, 6]);
    assert_eq!(old[..2], new[..2]);
}
