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

/// The chunks as ranges of units, in order.
pub(super) fn choose(units: &[Unit], limits: &Limits) -> Vec<(usize, usize)> {
    let small_costs = small_costs(limits);
    let bytes_max = limits.chunk_bytes_max;
    // best[i]: the least price of the units before i, and where the last of their chunks begins.
    let mut best: Vec<(u64, usize)> = Vec::with_capacity(units.len() + 1);
    best.push((0, 0));
    for (index, last) in units.iter().enumerate() {
        let mut least = (u64::MAX, index);
        let mut tokens = 0;
        let mut crossed = 0;
        // Longer and longer chunks that end with `last`: as many as fit, which is what bounds the work.
        let firsts = units.iter().zip(&best).enumerate().rev();
        for (first, (unit, (before, _))) in firsts {
            tokens += unit.tokens as usize;
            let too_long = tokens > limits.chunk_tokens_max || last.end - unit.start > bytes_max;
            let alone = first == index;
            if too_long && !alone {
                break;
            }
            if tokens <= unit.room as usize || alone {
                let small = small_costs.get(tokens).copied().unwrap_or(0);
                let price = before + unit.cut_cost + crossed + small;
                if price < least.0 {
                    least = (price, first);
                }
            }
            // The boundary before this unit lies inside of any longer chunk.
            crossed += u64::from(unit.cross_cost);
        }
        best.push(least);
    }

    let mut chunks = Vec::new();
    let mut after = units.len();
    while after > 0 {
        let first = best.get(after).map_or(0, |(_, first)| *first);
        chunks.push((first, after));
        after = first;
    }
    chunks.reverse();
    chunks
}

/// What a chunk of so many tokens costs for being small.
fn small_costs(limits: &Limits) -> Vec<u64> {
    let small = limits.chunk_tokens_max * SMALL_PERCENT / 100;
    (0..small).map(|tokens| SMALL_COST * ((small - tokens) as u64) / (small as u64)).collect()
}
