//! BERT's tokenizer (uncased): clean, strip accents, lowercase, split at spaces and punctuation,
//! then the longest known pieces from the left.
//!
//! Follows Hugging Face's `BertNormalizer`, `BertPreTokenizer` and `WordPiece`, down to the Unicode
//! tables (`unicode_categories`, which are that library's too): the model saw its training text
//! through them. Its crate reads a `tokenizer.json` many times slower than this reads `vocab.txt`,
//! and that would be part of every cold start. One difference is wanted: `[CLS]` in a text is text.

use std::{collections::HashMap, fs, io, ops::ControlFlow, path::Path};

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

use super::{EmbedError, Source};

/// Longer words are unknown as a whole, as in BERT's `max_input_chars_per_word`.
const WORD_CHARS_MAX: usize = 100;

/// A vocabulary, and the way from text to its ids.
pub(super) struct WordPiece {
    /// Pieces that begin a word.
    starts: HashMap<Box<str>, i32>,
    /// Pieces that continue one, without their `##`.
    continuations: HashMap<Box<str>, i32>,
    /// Bytes of the longest piece: no prefix beyond it is worth a look.
    piece_bytes_max: usize,
    begin: i32,
    end: i32,
    unknown: i32,
}

impl WordPiece {
    /// Reads a `vocab.txt`: one piece a line, the id is the line's number.
    pub(super) fn load(path: &Path) -> Result<Self, EmbedError> {
        let fault = |source: Source| EmbedError::Model { path: path.to_owned(), source };
        let lines = fs::read_to_string(path).map_err(|error| fault(error.into()))?;
        Self::parse(&lines).map_err(|error| fault(error.into()))
    }

    fn parse(lines: &str) -> Result<Self, io::Error> {
        let mut starts = HashMap::with_capacity(32 * 1024);
        let mut continuations = HashMap::with_capacity(8 * 1024);
        let mut piece_bytes_max = 0;
        for (id, piece) in (0..).zip(lines.lines()) {
            piece_bytes_max = piece_bytes_max.max(piece.len());
            match piece.strip_prefix("##") {
                Some(rest) if !rest.is_empty() => continuations.insert(rest.into(), id),
                _ => starts.insert(piece.into(), id),
            };
        }
        let special = |piece: &str| {
            let missing = || io::Error::other(format!("the vocabulary lacks {piece}"));
            starts.get(piece).copied().ok_or_else(missing)
        };
        Ok(Self {
            begin: special("[CLS]")?,
            end: special("[SEP]")?,
            unknown: special("[UNK]")?,
            starts,
            continuations,
            piece_bytes_max,
        })
    }

    /// Ids of `text` between the two special ones; `tokens_max` bounds what stands between.
    pub(super) fn encode(&self, text: &str, tokens_max: usize) -> Vec<i32> {
        let mut ids = vec![self.begin];
        let _ = self.pieces(text, |pieces| {
            let room = tokens_max + 1 - ids.len();
            ids.extend(pieces.iter().take(room));
            if ids.len() > tokens_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ids.push(self.end);
        ids
    }

    /// How many ids `text` has, without the special ones.
    pub(super) fn count(&self, text: &str) -> usize {
        let mut count = 0;
        let _ = self.pieces(text, |pieces| {
            count += pieces.len();
            ControlFlow::Continue(())
        });
        count
    }

    /// Hands the pieces of one word after another to `each`.
    fn pieces(&self, text: &str, mut each: impl FnMut(&[i32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut pieces = Vec::new();
        words(text, |word| {
            pieces.clear();
            if self.split(word, &mut pieces).is_none() {
                pieces.clear();
                pieces.push(self.unknown);
            }
            each(&pieces)
        })
    }

    /// The longest known piece, again and again; `None` if some part is in no piece.
    fn split(&self, word: &str, pieces: &mut Vec<i32>) -> Option<()> {
        if word.len() > WORD_CHARS_MAX && word.chars().count() > WORD_CHARS_MAX {
            return None;
        }
        let mut table = &self.starts;
        let mut rest = word;
        while !rest.is_empty() {
            let (id, tail) = (1..=rest.len().min(self.piece_bytes_max))
                .rev()
                .filter_map(|end| rest.split_at_checked(end))
                .find_map(|(head, tail)| Some((*table.get(head)?, tail)))?;
            pieces.push(id);
            rest = tail;
            table = &self.continuations;
        }
        Some(())
    }
}

/// Hands the normalised words of `text` to `each`; a punctuation character is a word.
fn words(text: &str, mut each: impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut word = String::new();
    let mut chars = 0;
    for c in normalise(text) {
        let punctuation = is_punctuation(c);
        if !punctuation && !c.is_whitespace() {
            // One character too many is enough to know that the word is unknown, and keeps the
            // buffer small on a text without spaces.
            if chars <= WORD_CHARS_MAX {
                word.push(c);
                chars += 1;
            }
            continue;
        }
        if !word.is_empty() {
            each(&word)?;
            word.clear();
            chars = 0;
        }
        if punctuation {
            each(c.encode_utf8(&mut [0; 4]))?;
        }
    }
    if word.is_empty() {
        return ControlFlow::Continue(());
    }
    each(&word)
}

fn normalise(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|c| !is_noise(*c))
        .flat_map(|c| {
            let space = is_ideograph(c).then_some(' ');
            [space, Some(c), space].into_iter().flatten()
        })
        .nfd()
        .filter(|c| c.is_ascii() || !c.is_mark_nonspacing())
        .flat_map(char::to_lowercase)
}

/// Control, format and private characters, and what decoders put for broken bytes.
fn is_noise(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | ' '..='~' => false,
        '\u{fffd}' => true,
        _ => c.is_other(),
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || !c.is_ascii() && c.is_punctuation()
}

/// Han characters, each a word of its own. The blocks are Hugging Face's, whose fifth begins
/// 256 characters late.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = "[UNK]\n[CLS]\n[SEP]\n##ing\nembed\n##d\nto\n.\n##\n日\nuber\n#";

    fn tokenizer() -> WordPiece {
        WordPiece::parse(VOCABULARY).unwrap()
    }

    #[test]
    fn a_word_is_split_into_the_longest_known_pieces() {
        assert_eq!(tokenizer().encode("Embedding", 10), [1, 4, 5, 3, 2]);
    }

    #[test]
    fn a_word_with_an_unknown_part_is_unknown_as_a_whole() {
        assert_eq!(tokenizer().encode("embedx to", 10), [1, 0, 6, 2]);
    }

    #[test]
    fn accents_case_and_control_characters_do_not_matter() {
        assert_eq!(tokenizer().encode("Ü\u{0}BER u\u{308}ber", 10), [1, 10, 10, 2]);
    }

    #[test]
    fn ideographs_and_punctuation_are_words_of_their_own() {
        assert_eq!(tokenizer().encode("to日to.to", 10), [1, 6, 9, 6, 7, 6, 2]);
    }

    #[test]
    fn a_typed_hash_sign_is_text() {
        assert_eq!(tokenizer().encode("##ing", 10), [1, 11, 11, 0, 2]);
    }

    #[test]
    fn encoding_stops_inside_a_word_when_the_room_is_used_up() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("to embedding to", 2), [1, 6, 4, 2]);
        assert_eq!(tokenizer.encode("to embedding to", 0), [1, 2]);
        assert_eq!(tokenizer.count("to embedding to"), 5);
    }

    #[test]
    fn a_vocabulary_without_the_special_pieces_is_refused() {
        let error = WordPiece::parse("to\n##ing").err().unwrap();
        assert_eq!(error.to_string(), "the vocabulary lacks [CLS]");
    }
}
