//! The lexical leg: BM25 term weights as sparse vectors.
//!
//! Qdrant multiplies by the inverse document frequency itself (`modifier: idf`), so a passage carries BM25's term
//! frequency part and a query carries ones. Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009.
//!
//! The same words are what PostgreSQL's full-text search has ([`TsVector`], [`tsquery`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    ops::Range,
};

use bytes::BytesMut;
use foldhash::quality::RandomState;
use indexmap::IndexSet;
use rust_stemmers::{Algorithm, Stemmer};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

/// How soon repetitions of a term stop to count.
const K1: f32 = 1.2;

/// How much a long passage is held against its terms.
const B: f32 = 0.75;

/// The length, in terms, that counts as average: a full chunk of English prose less its stop words. A constant, so
/// that a passage's weights never depend on what else is indexed.
const TERMS_AVERAGE: f32 = 100.0;

/// English function words, which say nothing about a passage (the list of Lucene's `EnglishAnalyzer` and question words).
const STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "did", "do", "does", "for", "from", "had", "has", "have",
    "how", "if", "in", "into", "is", "it", "its", "no", "not", "of", "on", "or", "such", "that", "the", "their",
    "then", "there", "these", "they", "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom",
    "why", "will", "with",
];

/// Bytes of a lexeme, the last place, and places of one lexeme that PostgreSQL takes
/// (<https://www.postgresql.org/docs/current/textsearch-limitations.html>).
const LEXEME_BYTES_MAX: usize = 2_046;
const PLACES_MAX: u16 = 16_383;
const PLACES_OF_LEXEME_MAX: usize = 255;

/// Words that are remembered: more than a book has, and a few megabytes.
const STEMS_MAX: usize = 50_000;

/// A sparse vector: term ids, ascending and unique, and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector {
    /// Ascending, unique.
    pub indices: Vec<u32>,
    /// One for each index.
    pub values: Vec<f32>,
}

/// Words of passages, stemmed once however often they stand there: for many passages in a row.
pub struct Passages {
    stemmer: Stemmer,
    /// A word's term: its id, and which of the stems it is. `None` for a stop word.
    words: HashMap<String, Option<(u32, usize)>, RandomState>,
    stems: IndexSet<String, RandomState>,
}

/// What both stores search of a passage.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// For Qdrant.
    pub weights: SparseVector,
    /// For PostgreSQL: the stems and their places.
    pub lexemes: TsVector,
}

/// PostgreSQL's `tsvector`, as its binary protocol has it (`tsvectorrecv`), which it reads in a fraction of the time that the
/// text takes: the number of lexemes, and of each its bytes, a zero, the number of its places, and those.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TsVector {
    count: u32,
    lexemes: Vec<u8>,
}

impl TsVector {
    /// `places` are ascending.
    fn push(&mut self, lexeme: &str, places: impl Iterator<Item = u16>) {
        self.count += 1;
        self.lexemes.extend_from_slice(lexeme.as_bytes());
        self.lexemes.push(0);
        let at = self.lexemes.len();
        self.lexemes.extend_from_slice(&[0, 0]);
        let mut count = 0_u16;
        for place in places.take(PLACES_OF_LEXEME_MAX) {
            self.lexemes.extend_from_slice(&place.to_be_bytes());
            count += 1;
        }
        if let Some(bytes) = self.lexemes.get_mut(at..at + 2) {
            bytes.copy_from_slice(&count.to_be_bytes());
        }
    }
}

impl ToSql for TsVector {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.lexemes);
        Ok(IsNull::No)
    }

    accepts!(TS_VECTOR);
    to_sql_checked!();
}

impl Default for Passages {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), words: HashMap::default(), stems: IndexSet::default() }
    }
}

impl Passages {
    /// The terms of a passage. What stands above it counts for the weights alone.
    #[must_use]
    pub fn terms(&mut self, above: &str, text: &str) -> Terms {
        if self.words.len() > STEMS_MAX {
            *self = Self::default();
        }
        // Of each term its id, its stem, and its place or 0.
        let mut found = Vec::new();
        for (_, word) in words(above) {
            found.extend(self.stem(word).map(|(id, stem)| (id, stem, 0)));
        }
        let mut places = 1..=PLACES_MAX;
        for (_, word) in words(text) {
            found.extend(self.stem(word).map(|(id, stem)| (id, stem, places.next().unwrap_or(0))));
        }
        found.sort_unstable();

        let length = found.iter().fold(0.0_f32, |length, _| length + 1.0);
        let norm = K1 * (1.0 - B + B * length / TERMS_AVERAGE);
        let mut weights = SparseVector::default();
        let mut lexemes = TsVector::default();
        for term in found.chunk_by(|(a, ..), (b, ..)| a == b) {
            let tf = term.iter().fold(0.0_f32, |tf, _| tf + 1.0);
            weights.indices.extend(term.first().map(|(id, ..)| id));
            weights.values.push(tf * (K1 + 1.0) / (tf + norm));
            // Seldom, two stems have one id.
            for occurrences in term.chunk_by(|(_, a, _), (_, b, _)| a == b) {
                let stem = occurrences.first().and_then(|(_, stem, _)| self.stems.get_index(*stem));
                let mut places = occurrences.iter().map(|(.., place)| *place).filter(|place| *place > 0).peekable();
                if let Some(stem) = stem.filter(|stem| is_lexeme(stem))
                    && places.peek().is_some()
                {
                    lexemes.push(stem, places);
                }
            }
        }
        Terms { weights, lexemes }
    }

    /// A word's term: its id, and which of the stems it is.
    fn stem(&mut self, word: &str) -> Option<(u32, usize)> {
        if let Some(known) = self.words.get(word) {
            return *known;
        }
        let term = stem(&self.stemmer, word).map(|stem| (term_id(&stem), self.stems.insert_full(stem).0));
        self.words.insert(word.to_owned(), term);
        term
    }
}

/// The term weights of one passage.
#[must_use]
pub fn passage(text: &str) -> SparseVector {
    Passages::default().terms("", text).weights
}

/// The terms of a query, each with weight one; empty when it has none but stop words.
#[must_use]
pub fn query(text: &str) -> SparseVector {
    terms(text).map(|term| (term, 1.0)).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// A `tsquery` for any of a question's stems, such as `lamp | tall`; empty when it has none but stop words.
#[must_use]
pub fn tsquery(text: &str) -> String {
    let stems: BTreeSet<String> = stems(text).filter(|stem| is_lexeme(stem)).collect();
    stems.into_iter().collect::<Vec<_>>().join(" | ")
}

/// Where the words of `text` stand whose terms `query` has, as byte ranges in order.
#[must_use]
pub fn matches(query: &SparseVector, text: &str) -> Vec<Range<usize>> {
    let stemmer = Stemmer::create(Algorithm::English);
    words(text)
        .filter(|(_, word)| {
            stem(&stemmer, word).is_some_and(|stem| query.indices.binary_search(&term_id(&stem)).is_ok())
        })
        .map(|(start, word)| start..start + word.len())
        .collect()
}

impl FromIterator<(u32, f32)> for SparseVector {
    fn from_iter<I: IntoIterator<Item = (u32, f32)>>(pairs: I) -> Self {
        let (indices, values) = pairs.into_iter().unzip();
        Self { indices, values }
    }
}

/// The stemmed words of a text, as 32-bit ids.
fn terms(text: &str) -> impl Iterator<Item = u32> {
    stems(text).map(|stem| term_id(&stem))
}

/// The stemmed words of a text, in order, without the stop words.
fn stems(text: &str) -> impl Iterator<Item = String> {
    let stemmer = Stemmer::create(Algorithm::English);
    words(text).filter_map(move |(_, word)| stem(&stemmer, word))
}

/// The words of a text, each with its first byte.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive(|c: char| !c.is_alphanumeric()).filter_map(move |piece| {
        let start = at;
        at += piece.len();
        let word = piece.strip_suffix(|c: char| !c.is_alphanumeric()).unwrap_or(piece);
        (!word.is_empty()).then_some((start, word))
    })
}

/// A word's stem; `None` for a stop word.
fn stem(stemmer: &Stemmer, word: &str) -> Option<String> {
    let word = word.to_lowercase();
    STOP_WORDS.binary_search(&word.as_str()).is_err().then(|| stemmer.stem(&word).into_owned())
}

/// Whether PostgreSQL takes it.
fn is_lexeme(stem: &str) -> bool {
    stem.len() <= LEXEME_BYTES_MAX
}

/// FNV-1a, 32 bits: stable over versions and machines, which the index needs. Two of 100,000 words share an id with a
/// probability that does not show in rankings.
fn term_id(term: &str) -> u32 {
    term.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;

    /// As PostgreSQL's text form has them, in order.
    fn read(vector: &TsVector) -> Vec<String> {
        let mut out = BytesMut::new();
        vector.to_sql(&Type::TS_VECTOR, &mut out).unwrap();
        let count = out.get_u32();
        let mut lexemes = Vec::new();
        while !out.is_empty() {
            let end = out.iter().position(|byte| *byte == 0).unwrap();
            let lexeme = String::from_utf8(out.split_to(end).to_vec()).unwrap();
            out.advance(1);
            let places: Vec<String> = (0..out.get_u16()).map(|_| out.get_u16().to_string()).collect();
            lexemes.push(format!("{lexeme}:{}", places.join(",")));
        }
        assert_eq!(lexemes.len(), count as usize);
        lexemes.sort_unstable();
        lexemes
    }

    #[test]
    fn stop_words_are_sorted_for_the_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn inflected_forms_meet_and_stop_words_go() {
        assert_eq!(query("The connections"), query("connected to"));
        assert_eq!(query("what is the"), SparseVector::default());
    }

    #[test]
    fn a_word_that_was_met_before_counts_as_it_did_the_first_time() {
        let mut passages = Passages::default();
        let first = passages.terms("", "The leases of a lamp");
        assert_eq!(passages.terms("", "The leases of a lamp"), first);
        assert_eq!(read(&first.lexemes), ["lamp:2", "leas:1"]);
    }

    #[test]
    fn what_stands_above_a_passage_weighs_and_has_no_place_in_it() {
        let Terms { weights, lexemes } = Passages::default().terms("Lamps of towers\n\n", "A tall lamp");
        assert_eq!(weights, passage("Lamps of towers\n\nA tall lamp"));
        assert_eq!(read(&lexemes), ["lamp:2", "tall:1"]);
    }

    #[test]
    fn a_repeated_term_weighs_more_but_not_twice_as_much() {
        let weight = |text| passage(text).values[0];
        let (once, twice) = (weight("lease"), weight("lease lease"));
        assert!(once < twice && twice < 2.0 * once, "{once} {twice}");
    }

    #[test]
    fn indices_are_ascending_and_unique() {
        let vector = passage("b a c a b a, ünïcode 東京 42");
        assert!(vector.indices.is_sorted_by(|a, b| a < b), "{vector:?}");
        assert_eq!(vector.indices.len(), vector.values.len());
    }

    #[test]
    fn postgresql_is_given_stems_with_their_places_and_nothing_that_it_refuses() {
        let tsvector = |text: &str| read(&Passages::default().terms("", text).lexemes);
        assert_eq!(tsvector("The lamps, a lamp: it's 'Tall' \\ tall:A & (tall)!"), ["lamp:1,2", "s:3", "tall:4,5,6"]);
        assert_eq!(tsquery("What's a tall lamp | !tower:* <-> \\ ''?"), "lamp | s | tall | tower");
        assert_eq!((tsvector("what is the"), tsquery("of the")), (Vec::new(), String::new()));
        assert!(tsvector(&"長".repeat(2_000)).is_empty());
        let many = tsvector(&("lamp ".repeat(16_382) + "tower tall"));
        assert!(many[0].ends_with(",254,255"), "{many:?}");
        assert_eq!(many[1..], ["tower:16383"]);
    }

    #[test]
    fn matched_words_are_found_where_they_stand_inflected_or_not() {
        let text = "Düne: the Connections (of a connected tower).";
        let found = |question| {
            matches(&query(question), text).into_iter().filter_map(|range| text.get(range)).collect::<Vec<_>>()
        };
        assert_eq!(found("What is connected to the dune?"), ["Connections", "connected"]);
        assert_eq!(found("düne of the"), ["Düne"]);
        assert_eq!(found("of the a"), Vec::<&str>::new());
    }
}
