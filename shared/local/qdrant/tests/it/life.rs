//! The process: starting, ending, dying, and what is still there afterwards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    CollectionStatus, CountPointsBuilder, CreateFieldIndexCollectionBuilder, FieldType, HnswConfigDiffBuilder,
    OptimizersConfigDiffBuilder, QueryPointsBuilder, ScrollPointsBuilder, UpsertPointsBuilder,
};

use crate::server::{Folder, Server, command, point, schema, with_points};

#[tokio::test]
async fn it_says_who_it_is() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let reply = server.client().health_check().await.unwrap();
    assert!(reply.title.starts_with("qdrant"));
    assert!(reply.version.starts_with("1."), "{}", reply.version);
}

#[test]
fn a_taken_port_ends_it_with_a_line_that_names_the_port() {
    let (one, two) = (Folder::new(), Folder::new());
    let server = Server::start(&one);
    let output = command(two.path(), server.port()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&server.port().to_string()), "{text}");
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let output = command(folder.path(), 0).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("in use by another process"), "{text}");
    server.kill();
    Server::start(&folder);
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_within_two_seconds_even_with_clients_connected() {
    let (folder, server, client) = with_points().await;
    let writing = tokio::spawn(async move {
        for id in 1_000.. {
            let points = vec![point(id, [1.0; 4], &[(1, 1.0)], "a")];
            if client.upsert_points(UpsertPointsBuilder::new("c", points)).await.is_err() {
                break;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (ended, took) = tokio::task::spawn_blocking(|| server.terminate()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    writing.await.unwrap();
    let started = Instant::now();
    Server::start(&folder);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn sigterm_does_not_wait_for_a_long_optimisation() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let client = server.client();
    // A graph that takes far longer to build than there is time to end.
    let slow = HnswConfigDiffBuilder::default().m(64).ef_construct(4_000);
    let early = OptimizersConfigDiffBuilder::default().indexing_threshold(10);
    let create = schema("c").hnsw_config(slow).optimizers_config(early);
    client.create_collection(create).await.unwrap();
    let points = (0..8_000_u16).map(|id| {
        let n = f32::from(id);
        let vector = [(n * 0.37).sin(), (n * 1.31).cos(), (n * 2.17).sin(), (n * 3.73).cos()];
        point(id.into(), vector, &[(1, 1.0)], "a")
    });
    let request = UpsertPointsBuilder::new("c", points.collect::<Vec<_>>()).wait(true);
    client.upsert_points(request).await.unwrap();
    loop {
        let info = client.collection_info("c").await.unwrap().result.unwrap();
        match info.status() {
            CollectionStatus::Yellow => break,
            _ if info.indexed_vectors_count >= Some(16_000) => panic!("it was not slow enough"),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (ended, took) = tokio::task::spawn_blocking(|| server.terminate()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let server = Server::start(&folder);
    let count = server.client().count(CountPointsBuilder::new("c").exact(true)).await.unwrap();
    assert_eq!(count.result.unwrap().count, 8_000);
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let next = Arc::new(AtomicU64::new(0));
    let rounds = 4;
    for round in 0..rounds {
        let server = Server::start(&folder);
        if round == 0 {
            // A low threshold, so that some of the kills hit an optimisation.
            let early = OptimizersConfigDiffBuilder::default().indexing_threshold(10);
            let create = schema("c").optimizers_config(early);
            server.client().create_collection(create).await.unwrap();
            let index = CreateFieldIndexCollectionBuilder::new("c", "kb", FieldType::Keyword);
            server.client().create_field_index(index.wait(true)).await.unwrap();
        }
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let client = server.client();
                let (acknowledged, next) = (Arc::clone(&acknowledged), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let ids: Vec<u64> = (0..10).map(|_| next.fetch_add(1, Ordering::Relaxed)).collect();
                        let points = ids.iter().map(|id| point(*id, [1.0; 4], &[(1, 1.0)], "a"));
                        let request = UpsertPointsBuilder::new("c", points.collect::<Vec<_>>()).wait(writer % 2 == 0);
                        if client.upsert_points(request).await.is_err() {
                            break;
                        }
                        acknowledged.lock().unwrap().extend(ids);
                    }
                })
            })
            .collect();
        // Long enough in the last rounds for an optimisation to be in progress.
        tokio::time::sleep(Duration::from_millis(400 * (round + 1))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        let server = Server::start(&folder);
        let request = ScrollPointsBuilder::new("c").limit(1_000_000).with_payload(false);
        let found: BTreeSet<u64> = server
            .client()
            .scroll(request)
            .await
            .unwrap()
            .result
            .into_iter()
            .map(|point| match point.id.unwrap().point_id_options {
                Some(PointIdOptions::Num(number)) => number,
                other => panic!("not a number: {other:?}"),
            })
            .collect();
        let acknowledged = acknowledged.lock().unwrap().clone();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: {} of {} lost", lost.len(), acknowledged.len());
        assert!(acknowledged.len() > 100, "only {} were written", acknowledged.len());
        server.kill();
    }
}

#[tokio::test]
async fn what_was_written_is_found_after_a_kill() {
    let (folder, server, _client) = with_points().await;
    server.kill();
    let server = Server::start(&folder);
    let query = QueryPointsBuilder::new("c").query(vec![0.0, 0.0, 1.0, 0.0]).using("dense").limit(1);
    let found = server.client().query(query.with_payload(true)).await.unwrap().result;
    assert_eq!(found[0].id, Some(5.into()));
    assert_eq!(found[0].payload["n"].as_integer(), Some(5));
}

#[test]
fn half_a_collection_that_a_crash_left_is_removed_at_the_start() {
    let folder = Folder::new();
    let half = folder.path().join("collections/half");
    std::fs::create_dir_all(half.join("segments")).unwrap();
    Server::start(&folder);
    assert!(!half.exists());
}
