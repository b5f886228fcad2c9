//! Both stores simulated: what Qdrant holds, and which of it PostgreSQL says is active.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// A chunk as both stores know it.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    n: u32,
    dense: f32,
    sparse: Option<f32>,
    alive: Option<Alive>,
}

fn id(n: u32) -> ChunkId {
    ChunkId(Uuid::from_u128(u128::from(n)))
}

fn chunk(n: u32, score: f32, revision: Option<i32>) -> Chunk {
    let document = DocumentId(Uuid::from_u128(1));
    let alive = revision.map(|revision| Alive { id: id(n), document, revision, fresh: false });
    Chunk { n, dense: score, sparse: Some(score * 20.0), alive }
}

fn search(world: &[Chunk], limit: usize, except: &[ChunkId]) -> Candidates {
    let leg = |score: fn(&Chunk) -> Option<f32>| {
        let mut leg: Vec<Scored> = world
            .iter()
            .filter(|chunk| !except.contains(&id(chunk.n)))
            .filter_map(|chunk| Some(Scored { id: id(chunk.n), score: score(chunk)? }))
            .collect();
        fusion::sort(&mut leg);
        leg.truncate(limit);
        leg
    };
    Candidates { dense: leg(|chunk| Some(chunk.dense)), sparse: leg(|chunk| chunk.sparse) }
}

fn join(world: &[Chunk], asked: &[ChunkId]) -> Vec<Alive> {
    let alive: HashMap<ChunkId, Alive> = world.iter().filter_map(|chunk| Some((id(chunk.n), chunk.alive?))).collect();
    asked.iter().filter_map(|id| alive.get(id).copied()).collect()
}

/// Runs a query against `worlds`: one state of both stores for each search and each join, in turn; the last one stays.
/// Returns the hits, and the searches that it took.
fn run(worlds: &[Vec<Chunk>], hits_max: usize) -> (Vec<Scored>, u32) {
    let mut worlds = worlds.iter();
    let mut now = worlds.next().unwrap();
    let mut refill = Refill::new(hits_max, 0);
    let (mut next, mut round) = (Next::Search, 0);
    loop {
        if next == Next::Search {
            round += 1;
            let limit = refill.limit();
            refill.add(search(now, limit, &refill.dead()), limit);
            now = worlds.next().unwrap_or(now);
        }
        let asked = refill.order();
        let alive = join(now, &asked.ids);
        now = worlds.next().unwrap_or(now);
        let ids: HashSet<ChunkId> = alive.iter().map(|chunk| chunk.id).collect();
        let hits = asked.ranked.iter().filter(|ranked| ids.contains(&ranked.id)).take(hits_max);
        let hits: Vec<Scored> = hits.map(|ranked| Scored { id: ranked.id, score: ranked.score }).collect();
        next = refill.learn(&asked, &alive, &[], hits.len(), hits_max);
        if next == Next::Done || round == ROUNDS_MAX {
            return (hits, round);
        }
    }
}

fn ids(hits: &[Scored]) -> Vec<ChunkId> {
    hits.iter().map(|hit| hit.id).collect()
}

/// `n` live chunks with falling scores below 0.5.
fn live(n: u32) -> Vec<Chunk> {
    (0..n).map(|n| chunk(n, 0.5 - f32::from(u16::try_from(n).unwrap()) / 1_000.0, Some(1))).collect()
}

#[test]
fn one_round_suffices_when_nothing_is_dead() {
    let (hits, rounds) = run(&[live(300)], 10);
    assert_eq!((ids(&hits), rounds), ((0..10).map(id).collect(), 1));
    assert_eq!(run(&[live(3)], 10).0.len(), 3);
    assert_eq!(run(&[Vec::new()], 10), (Vec::new(), 1));
}

#[test]
fn stale_points_that_outscore_everything_change_nothing_but_the_rounds() {
    for (stale, rounds_max) in [(1, 2), (99, 2), (100, 3), (500, 4), (1_000, 4), (5_000, 5)] {
        let mut world = live(300);
        world.extend((0..stale).map(|n| chunk(10_000 + n, 1.0, None)));
        for hits_max in [1, 10, 100] {
            let (expected, _) = run(&[live(300)], hits_max);
            let (hits, rounds) = run(&[world.clone()], hits_max);
            assert_eq!(hits, expected, "{stale} stale, {hits_max} hits");
            assert!(rounds <= rounds_max, "{stale} stale, {hits_max} hits: {rounds} rounds");
        }
    }
}

#[test]
fn work_is_bounded_however_many_points_are_stale() {
    let world: Vec<Chunk> = (0..60_000).map(|n| chunk(n, 1.0, None)).collect();
    let mut refill = Refill::new(100, 0);
    for _ in 0..ROUNDS_MAX {
        let limit = refill.limit();
        assert!(limit <= CANDIDATES_MAX);
        let dead: HashSet<ChunkId> = refill.dead().into_iter().collect();
        let answer: Vec<Scored> = world
            .iter()
            .map(|chunk| Scored { id: id(chunk.n), score: 1.0 })
            .filter(|scored| !dead.contains(&scored.id))
            .take(limit)
            .collect();
        refill.add(Candidates { dense: answer, sparse: Vec::new() }, limit);
        let asked = refill.order();
        assert_eq!(refill.learn(&asked, &[], &[], 0, 100), Next::Search);
    }
}

#[test]
fn a_later_tier_follows_behind_the_first_and_repeats_nothing() {
    let mut refill = Refill::new(10, 0);
    let world = live(300);
    refill.add(search(&world, 100, &[]), 100);
    let first = refill.order();
    // More hits are wanted than the first tier has, as for a later page.
    assert_eq!(refill.learn(&first, &join(&world, &first.ids), &[], 100, 150), Next::Search);
    assert_eq!(refill.limit(), 400);
    refill.add(search(&world, 400, &[]), 400);
    let both = refill.order();
    assert_eq!(both.ranked[..100], first.ranked[..]);
    assert_eq!(both.ranked.len(), 300);
    assert!(both.ranked.is_sorted_by(|a, b| a.score >= b.score));
    assert_eq!(both.ranked.iter().map(|ranked| ranked.id).collect::<HashSet<_>>().len(), 300);
    assert_eq!(refill.learn(&both, &join(&world, &both.ids), &[], 300, 400), Next::Done);
}

#[test]
fn what_is_left_out_by_a_filter_changes_no_score() {
    // Every second chunk passes; the others outscore them.
    let passing =
        |n: u32| chunk(n, 0.5 - f32::from(u16::try_from(n).unwrap()) / 1_000.0, n.is_multiple_of(2).then_some(1));
    let world: Vec<Chunk> = (0..400).map(passing).collect();
    let only: Vec<Chunk> = world.iter().filter(|chunk| chunk.alive.is_some()).copied().collect();
    assert_eq!(run(&[world], 10).0, run(&[only], 10).0);
}

/// Old chunks 1 to 3 and new chunks 4 to 6; `active` says which revision is, and `indexed` how many of the new are in Qdrant.
fn replacing(active: i32, indexed: u32) -> Vec<Chunk> {
    let old = (1..=3).map(|n| chunk(n, 0.3, (active == 1).then_some(1)));
    let new = (4..4 + indexed).map(|n| chunk(n, 0.3, (active == 2).then_some(2)));
    old.chain(new).collect()
}

#[test]
fn a_revision_that_retires_between_search_and_join_is_replaced_whole() {
    let (hits, _) = run(&[replacing(1, 0), replacing(2, 3)], 10);
    assert_eq!(ids(&hits), [id(4), id(5), id(6)]);
}

#[test]
fn a_staged_chunk_that_was_found_dead_and_then_became_active_is_a_hit() {
    // First search and join: one of three is staged. Then the activation, before the second search or after it.
    for worlds in [
        [replacing(1, 1), replacing(1, 1), replacing(1, 3), replacing(2, 3)],
        [replacing(1, 1), replacing(1, 1), replacing(2, 3), replacing(2, 3)],
        [replacing(1, 3), replacing(1, 3), replacing(1, 3), replacing(2, 3)],
    ] {
        assert_eq!(ids(&run(&worlds, 10).0), [id(4), id(5), id(6)]);
    }
}

#[test]
fn chunks_added_by_an_activation_after_the_search_are_not_missed() {
    let before = vec![chunk(1, 0.3, Some(1))];
    let fresh = |n| {
        let mut chunk = chunk(n, 0.3, Some(2));
        chunk.alive.as_mut().unwrap().fresh = true;
        chunk
    };
    // Chunk 1 is carried over, chunk 2 is new: nothing is dead.
    let (hits, rounds) = run(&[before, vec![fresh(1), fresh(2)]], 10);
    assert_eq!((ids(&hits), rounds), (vec![id(1), id(2)], 2));
}

proptest! {
    #[test]
    fn there_are_as_many_hits_as_there_can_be_and_all_are_alive(
        chunks in prop::collection::vec((-1.0_f32..1.0, prop::option::of(0.1_f32..30.0), any::<bool>()), 0..400),
        hits_max in 1_usize..=100,
    ) {
        let world: Vec<Chunk> = (0..).zip(chunks).map(|(n, (dense, sparse, alive))| {
            Chunk { dense, sparse, ..chunk(n, 0.0, alive.then_some(1)) }
        }).collect();
        let alive: HashSet<ChunkId> = world.iter().filter(|chunk| chunk.alive.is_some()).map(|chunk| id(chunk.n)).collect();
        let (hits, rounds) = run(&[world], hits_max);
        prop_assert_eq!(hits.len(), hits_max.min(alive.len()));
        prop_assert!(hits.iter().all(|hit| alive.contains(&hit.id)));
        prop_assert!(rounds < ROUNDS_MAX, "{} rounds", rounds);
    }
}
