//! Where to cut: the cheapest way through the document.
//!
//! Every boundary has a price, from what it separates and from a hash of the text on both sides. The
//! chunks are those for which the sum of all prices is least while each fits its limits (a shortest path,
//! in one pass). A new chunk costs a boundary, so they come out full; and because prices are the
//! boundaries' own, two versions of a document agree on the cuts again shortly after an edit.

use super::Limits;
use super::units::Unit;

/// Share of the limit below which a chunk is small, in percent.
const SMALL_PERCENT: usize = 40;

/// Price of an almost empty chunk, on top of its boundary; see [`super::units`] for the others.
const SMALL_COST: u64 = 1_600;

/// The chunks of units that come one after the other.
pub(super) struct Cuts {
    tokens_max: usize,
    bytes_max: usize,
    small_costs: Vec<u64>,
    /// Of each boundary so far: the least price of the units before it, and where the last of their chunks begins.
    best: Vec<(u64, usize)>,
    /// The chunks before this boundary are given.
    given: usize,
}

impl Cuts {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tokens_max: limits.chunk_tokens_max,
            bytes_max: limits.chunk_bytes_max,
            small_costs: small_costs(limits),
            best: vec![(0, 0)],
            given: 0,
        }
    }

    /// The next chunks, as ranges of `units` in order, that are the same whatever comes behind these. `units` are all from the
    /// first one on.
    pub(super) fn settled(&mut self, units: &[Unit]) -> Vec<(usize, usize)> {
        self.extend(units);
        // Every way on begins at one of these boundaries; what the ways to all of them have in common is decided.
        let mut common = units.len();
        let mut tokens = 0;
        for (first, unit) in units.iter().enumerate().rev() {
            tokens += unit.tokens as usize;
            let bytes = units.last().map_or(0, |last| last.end - unit.start);
            if tokens > self.tokens_max || bytes > self.bytes_max {
                break;
            }
            common = self.common(common, first);
        }
        self.give(common)
    }

    /// The chunks that are left, when no unit follows.
    pub(super) fn rest(&mut self, units: &[Unit]) -> Vec<(usize, usize)> {
        self.extend(units);
        self.give(units.len())
    }

    fn extend(&mut self, units: &[Unit]) {
        for (index, last) in units.iter().enumerate().skip(self.best.len() - 1) {
            let mut least = (u64::MAX, index);
            let mut tokens = 0;
            let mut crossed = 0;
            // Longer and longer chunks that end with `last`: as many as fit, which is what bounds the work.
            let firsts = units.iter().zip(&self.best).enumerate().rev();
            for (first, (unit, (before, _))) in firsts {
                tokens += unit.tokens as usize;
                let too_long = tokens > self.tokens_max || last.end - unit.start > self.bytes_max;
                let alone = first == index;
                if too_long && !alone {
                    break;
                }
                if tokens <= unit.room as usize || alone {
                    let small = self.small_costs.get(tokens).copied().unwrap_or(0);
                    let price = before + unit.cut_cost + crossed + small;
                    if price < least.0 {
                        least = (price, first);
                    }
                }
                // The boundary before this unit lies inside of any longer chunk.
                crossed += u64::from(unit.cross_cost);
            }
            self.best.push(least);
        }
    }

    /// Where the last chunk before a boundary begins, on the cheapest way there.
    fn begin(&self, boundary: usize) -> usize {
        self.best.get(boundary).map_or(0, |(_, first)| *first)
    }

    /// The last boundary on the ways to both.
    fn common(&self, mut a: usize, mut b: usize) -> usize {
        while a != b {
            let later = if a > b { &mut a } else { &mut b };
            *later = self.begin(*later);
        }
        a
    }

    fn give(&mut self, until: usize) -> Vec<(usize, usize)> {
        let mut chunks = Vec::new();
        let mut after = until;
        while after > self.given {
            let first = self.begin(after);
            chunks.push((first, after));
            after = first;
        }
        chunks.reverse();
        self.given = until;
        chunks
    }
}

/// What a chunk of so many tokens costs for being small.
fn small_costs(limits: &Limits) -> Vec<u64> {
    let small = limits.chunk_tokens_max * SMALL_PERCENT / 100;
    (0..small).map(|tokens| SMALL_COST * ((small - tokens) as u64) / (small as u64)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit() -> impl Strategy<Value = Unit> {
        (1..60_u32, 40..64_u32, 0..20_000_u64, prop_oneof![Just(0), Just(1_700), Just(1_000_000)]).prop_map(
            |(tokens, room, cut_cost, cross_cost)| Unit {
                start: 0,
                end: 0,
                section: 0,
                tokens,
                room,
                cut_cost,
                cross_cost,
            },
        )
    }

    proptest! {
        #[test]
        fn chunks_that_are_given_early_are_those_of_the_whole(
            mut units in prop::collection::vec(unit(), 0..400),
            step in 1..50_usize,
        ) {
            let limits = Limits { chunk_tokens_max: 64, heading_tokens_max: 16, chunk_bytes_max: 300 };
            let mut end = 0;
            for unit in &mut units {
                (unit.start, unit.end) = (end, end + unit.tokens as usize * 4);
                end = unit.end + 1;
            }
            let whole = Cuts::new(&limits).rest(&units);
            let mut cuts = Cuts::new(&limits);
            let mut given = Vec::new();
            for so_far in (0..units.len()).step_by(step) {
                given.extend(cuts.settled(units.get(..so_far).unwrap_or_default()));
            }
            // Most of a long text is decided long before its end.
            let early = given.len();
            given.extend(cuts.rest(&units));
            prop_assert_eq!(&given, &whole);
            prop_assert!(units.len() < 200 || early * 2 > whole.len(), "{} of {}", early, whole.len());
        }
    }
}
