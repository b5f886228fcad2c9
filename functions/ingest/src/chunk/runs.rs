//! Text too long for a sentence: runs of words, and of characters where a word has no end.

use super::units::Before;

/// A run is at least this long, if it is not the last.
const RUN_BYTES_MIN: usize = 48;

/// A run is at most this long.
const RUN_BYTES_MAX: usize = 160;

/// One in so many places ends a run; a power of two.
const PLACES: u64 = 8;

/// Bytes before a place by which it is chosen.
const WINDOW_BYTES: usize = 12;

/// A stretch of the text that was split.
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) end: usize,
    /// What a cut behind it would separate.
    pub(super) after: Before,
}

/// Splits at places chosen by the text before them, so that they move with it.
///
/// Ends of words are preferred; inside of a word a run ends when it is long.
pub(super) fn split(text: &str) -> impl Iterator<Item = Run> {
    let bytes = text.as_bytes();
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= text.len() {
            return None;
        }
        let mut end = text.len();
        let mut after = Before::Word;
        let mut word_end = None;
        let rest = text.get(start..).unwrap_or_default();
        for (offset, character) in rest.char_indices() {
            let at = start + offset;
            if offset >= RUN_BYTES_MAX {
                // The last end of a word, or else here.
                (end, after) = match word_end {
                    Some(word_end) => (word_end, Before::Word),
                    None => (at, Before::Character),
                };
                break;
            }
            if offset < RUN_BYTES_MIN || !character.is_whitespace() {
                continue;
            }
            word_end = Some(at);
            let window = bytes.get(at.saturating_sub(WINDOW_BYTES)..at);
            if hash(window.into_iter().flatten().copied()) % PLACES == 0 {
                end = at;
                break;
            }
        }
        let run = Run { start, end, after };
        start = end;
        Some(run)
    })
}

/// FNV-1a with a finisher. Not the standard library's hash: that may change, and every document
/// would be cut anew.
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
