//! Two legs become one ranking: a convex combination of normalised scores.
//!
//! Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2022,
//! <https://arxiv.org/abs/2210.11934>) find it better than reciprocal rank fusion; so did our own measurements on
//! `squad2-dev` (nDCG@10 .906 against .884) and `scifact-test` (.733 against .714).

use std::collections::BTreeMap;

use shared::{domain::ChunkId, vectors::Scored};

/// The dense leg's share where both legs have candidates. Measured through the whole system (docs/retrieval.md): between 0.3
/// and 0.4 nDCG@10 is flat, and recall@5 is better with 0.4.
const DENSE_WEIGHT: f32 = 0.4;

/// The least difference of cosine similarity that is stretched over the whole range from 0 to 1. A hundred
/// candidates differ by more; two that are nearly alike must not end as "all" and "nothing".
const COSINE_SPAN_MIN: f32 = 0.05;

/// Fuses the legs into one ranking: best first, equal scores in the order of their ids, each id once. Scores are
/// finite and lie in 0..=1; they compare candidates of one question, not answers to two.
///
/// - dense: `1 - (best - cosine) / (best - worst)`, so that the best has 1 and the worst 0;
/// - sparse: `bm25 / best`: BM25 has a natural zero;
/// - whoever a leg does not list has 0 there; a leg without candidates has no share.
///
/// A score that is not a number (a defect of the index) counts as not listed.
#[must_use]
pub fn fuse(dense: &[Scored], sparse: &[Scored]) -> Vec<Scored> {
    let (dense, sparse) = (normalise_dense(dense), normalise_sparse(sparse));
    let dense_weight = match (dense.is_empty(), sparse.is_empty()) {
        (false, false) => DENSE_WEIGHT,
        (_, true) => 1.0,
        (true, false) => 0.0,
    };
    let mut sums = BTreeMap::<ChunkId, (f32, f32)>::new();
    for scored in dense {
        let (dense, _) = sums.entry(scored.id).or_default();
        *dense = dense.max(scored.score);
    }
    for scored in sparse {
        let (_, sparse) = sums.entry(scored.id).or_default();
        *sparse = sparse.max(scored.score);
    }
    let mut fused: Vec<Scored> = sums
        .into_iter()
        .map(|(id, (dense, sparse))| {
            let score = dense_weight * dense + (1.0 - dense_weight) * sparse;
            Scored { id, score: score.clamp(0.0, 1.0) }
        })
        .collect();
    sort(&mut fused);
    fused
}

/// Best first; equal scores in the order of their ids, so that a ranking is the same each time.
pub(crate) fn sort(scored: &mut [Scored]) {
    scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
}

fn normalise_dense(leg: &[Scored]) -> Vec<Scored> {
    let (mut best, mut worst) = (f32::NEG_INFINITY, f32::INFINITY);
    for scored in finite(leg) {
        best = best.max(scored.score);
        worst = worst.min(scored.score);
    }
    let span = (best - worst).max(COSINE_SPAN_MIN);
    finite(leg).map(|scored| Scored { score: 1.0 - (best - scored.score) / span, ..scored }).collect()
}

fn normalise_sparse(leg: &[Scored]) -> Vec<Scored> {
    let best = finite(leg).map(|scored| scored.score).fold(f32::NEG_INFINITY, f32::max);
    let share = |score: f32| if best > 0.0 { (score / best).max(0.0) } else { 0.0 };
    finite(leg).map(|scored| Scored { score: share(scored.score), ..scored }).collect()
}

fn finite(leg: &[Scored]) -> impl Iterator<Item = Scored> {
    leg.iter().copied().filter(|scored| scored.score.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn id(n: u8) -> ChunkId {
        ChunkId(Uuid::from_u128(u128::from(n)))
    }

    fn leg(scores: &[(u8, f32)]) -> Vec<Scored> {
        scores.iter().map(|&(n, score)| Scored { id: id(n), score }).collect()
    }

    fn score_of(fused: &[Scored], n: u8) -> f32 {
        fused.iter().find(|scored| scored.id == id(n)).map_or(0.0, |scored| scored.score)
    }

    /// Scores of a leg with ids 0 to 29.
    fn scores(range: std::ops::Range<f32>) -> impl Strategy<Value = Vec<(u8, f32)>> {
        btree_map(0_u8..30, range, 0..30).prop_map(|scores| scores.into_iter().collect())
    }

    #[test]
    fn no_candidates_fuse_to_nothing() {
        assert_eq!(fuse(&[], &[]), []);
    }

    #[test]
    fn a_single_candidate_is_the_best() {
        assert_eq!(fuse(&leg(&[(1, 0.2)]), &[]), leg(&[(1, 1.0)]));
        assert_eq!(fuse(&[], &leg(&[(1, 7.0)])), leg(&[(1, 1.0)]));
        assert_eq!(fuse(&leg(&[(1, 0.2)]), &leg(&[(1, 7.0)])), leg(&[(1, 1.0)]));
    }

    #[test]
    fn equal_candidates_are_all_the_best_and_stand_in_the_order_of_their_ids() {
        assert_eq!(fuse(&leg(&[(2, 0.5), (1, 0.5), (3, 0.5)]), &[]), leg(&[(1, 1.0), (2, 1.0), (3, 1.0)]));
    }

    #[test]
    fn a_difference_that_means_nothing_is_not_stretched() {
        let fused = fuse(&leg(&[(1, 0.500), (2, 0.501)]), &[]);
        assert!(score_of(&fused, 1) > 0.95, "{fused:?}");
    }

    #[test]
    fn the_best_of_the_sparse_leg_beats_the_best_of_the_dense_leg() {
        let fused = fuse(&leg(&[(1, 0.9), (2, 0.1)]), &leg(&[(2, 9.0), (1, 1.0)]));
        assert_eq!(fused[0].id, id(2), "{fused:?}");
    }

    #[test]
    fn scores_that_are_no_numbers_are_left_out() {
        let fused = fuse(&leg(&[(1, f32::NAN), (2, 0.3)]), &leg(&[(3, f32::INFINITY), (4, -1.0)]));
        assert_eq!(fused.iter().map(|scored| scored.id).collect::<Vec<_>>(), [id(2), id(4)]);
    }

    proptest! {
        #[test]
        fn scores_lie_in_bounds_and_the_union_is_kept(dense in scores(-1.0..1.0), sparse in scores(0.0..40.0)) {
            let fused = fuse(&leg(&dense), &leg(&sparse));
            let mut union: Vec<u8> = dense.iter().chain(&sparse).map(|&(n, _)| n).collect();
            union.sort_unstable();
            union.dedup();
            prop_assert_eq!(fused.len(), union.len());
            prop_assert!(fused.iter().all(|scored| (0.0..=1.0).contains(&scored.score)));
            prop_assert!(fused.is_sorted_by(|a, b| a.score > b.score || (a.score >= b.score && a.id < b.id)));
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(
            (dense, shuffled) in scores(-1.0..1.0).prop_flat_map(|d| (Just(d.clone()), Just(d).prop_shuffle())),
            sparse in scores(0.0..40.0),
        ) {
            let mut backwards = sparse.clone();
            backwards.reverse();
            prop_assert_eq!(fuse(&leg(&dense), &leg(&sparse)), fuse(&leg(&shuffled), &leg(&backwards)));
        }

        #[test]
        fn a_higher_score_in_a_leg_never_lowers_the_fused_one(
            dense in scores(-1.0..1.0), sparse in scores(0.0..40.0), at in any::<prop::sample::Index>(),
            by in 0.0_f32..1.0, in_dense in any::<bool>(),
        ) {
            let (mut better_dense, mut better_sparse) = (dense.clone(), sparse.clone());
            let raised = if in_dense { &mut better_dense } else { &mut better_sparse };
            prop_assume!(!raised.is_empty());
            let at = at.index(raised.len());
            raised[at].1 += by;
            let n = raised[at].0;
            let before = score_of(&fuse(&leg(&dense), &leg(&sparse)), n);
            let after = score_of(&fuse(&leg(&better_dense), &leg(&better_sparse)), n);
            prop_assert!(after >= before - 1e-5, "{before} {after}");
        }

        #[test]
        fn whoever_is_better_in_both_legs_ranks_first(dense in scores(-1.0..1.0), sparse in scores(0.1..40.0)) {
            let (mut dense, mut sparse) = (dense, sparse);
            dense.push((99, 1.1));
            sparse.push((99, 41.0));
            prop_assert_eq!(fuse(&leg(&dense), &leg(&sparse))[0].id, id(99));
        }
    }
}
