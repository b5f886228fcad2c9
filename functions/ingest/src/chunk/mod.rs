//! Cutting a document into the passages that are embedded, found and cited.
//!
//! Text becomes [`units`] (sentences, lines, rows) whose tokens are counted once; [`cuts`] chooses the
//! boundaries that cost least, by what stands around each and never by a running count from the top, so
//! that an edit moves only the boundaries near it; this module makes [`Chunk`]s of them and sees to it
//! that each fits.

mod cuts;
mod paths;
mod runs;
mod title;
mod units;

pub use paths::embedding_input;
pub use title::under as under_title;

use crate::extract::Extracted;
use cuts::Cuts;
use paths::Paths;
use units::{Splitter, Unit};

/// How large a chunk may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of what the embedder reads: heading path and text.
    pub chunk_tokens_max: usize,
    /// Tokens of the heading path within them, at most a quarter of them.
    pub heading_tokens_max: usize,
    /// Bytes of a chunk, whatever its tokens: some tokenizers take a word of any length for one token.
    pub chunk_bytes_max: usize,
}

impl Default for Limits {
    /// For a model that reads 256 tokens, two of which are its own.
    fn default() -> Self {
        Self { chunk_tokens_max: 254, heading_tokens_max: 64, chunk_bytes_max: 4_096 }
    }
}

impl Limits {
    fn heading_tokens_max(&self) -> usize {
        self.heading_tokens_max.min(self.chunk_tokens_max / 4)
    }
}

/// A passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position in the document, from 0.
    pub ordinal: usize,
    /// First byte in the extracted text.
    pub byte_start: usize,
    /// The byte after the last.
    pub byte_end: usize,
    /// Exactly `extracted.text[byte_start..byte_end]`.
    pub text: String,
    /// The page, slide or sheet on which it stands, from 1, for formats that have them.
    pub page: Option<u32>,
    /// The headings that all of it stands under, outermost first. Of a path with too many tokens the
    /// innermost headings are kept.
    pub heading_path: Vec<String>,
    /// Tokens of `text` alone.
    pub tokens: usize,
}

/// Units that are looked at together: so many that looking costs little, and few beside a long text's.
const UNITS_AT_ONCE: usize = 256;

/// Cuts a document into chunks.
///
/// Chunks are in order, do not overlap, begin and end with something visible, and leave out white space only.
/// A chunk and its [`embedding_input`] hold to `limits`, unless a single character exceeds them.
///
/// # Errors
/// Only what `count_tokens` returns.
pub fn chunk<E>(
    extracted: &Extracted,
    limits: Limits,
    count_tokens: &dyn Fn(&str) -> Result<usize, E>,
) -> Result<Vec<Chunk>, E> {
    let mut chunks = Vec::new();
    each_chunk(extracted, limits, count_tokens, &mut |chunk| chunks.push(chunk))?;
    Ok(chunks)
}

/// The same, one after the other: each as soon as no text behind it can change it.
///
/// # Errors
/// Only what `count_tokens` returns; then the chunks before it were given.
pub fn each_chunk<E>(
    extracted: &Extracted,
    limits: Limits,
    count_tokens: &dyn Fn(&str) -> Result<usize, E>,
    give: &mut dyn FnMut(Chunk),
) -> Result<(), E> {
    let mut paths = Paths::new(extracted, limits.heading_tokens_max(), count_tokens)?;
    let mut splitter = Splitter::new(extracted, &limits, count_tokens);
    let mut cuts = Cuts::new(&limits);
    let mut ordinal = 0;
    loop {
        let more = splitter.advance(&paths, UNITS_AT_ONCE)?;
        let units = splitter.units();
        // Ranges of units still to be made chunks, the next one last.
        let mut waiting = if more { cuts.settled(units) } else { cuts.rest(units) };
        waiting.reverse();
        while let Some((first, after)) = waiting.pop() {
            let Some(range) = units.get(first..after) else {
                continue;
            };
            let (Some(head), Some(tail)) = (range.first(), range.last()) else {
                continue;
            };
            let text = extracted.text.get(head.start..tail.end).unwrap_or_default();
            let tokens = count_tokens(text)?;
            let sections = range.iter().map(|unit| unit.section);
            let shared = paths.shared(sections);
            let path = paths.fitted(shared, limits.chunk_tokens_max.saturating_sub(tokens))?;
            // The sum over the units is an estimate; the count of the whole decides.
            let too_long = tokens + path.tokens > limits.chunk_tokens_max || path.is_cut_short;
            if too_long && after - first > 1 {
                let middle = first + weakest_point(range);
                waiting.push((middle, after));
                waiting.push((first, middle));
                continue;
            }
            give(Chunk {
                ordinal,
                byte_start: head.start,
                byte_end: tail.end,
                text: text.to_owned(),
                page: page_of(extracted, head.start),
                heading_path: path.headings,
                tokens,
            });
            ordinal += 1;
        }
        if !more {
            return Ok(());
        }
    }
}

/// The cheapest boundary in the middle half of a range of at least two units.
fn weakest_point(range: &[Unit]) -> usize {
    let margin = range.len() / 4;
    (1..range.len())
        .filter(|at| (margin..=range.len() - margin).contains(at))
        .min_by_key(|at| range.get(*at).map(|unit| unit.cut_cost))
        .unwrap_or(1)
}

fn page_of(extracted: &Extracted, byte: usize) -> Option<u32> {
    let after = extracted.pages.partition_point(|page| page.start <= byte);
    let page = extracted.pages.get(after.checked_sub(1)?)?;
    Some(page.number)
}
