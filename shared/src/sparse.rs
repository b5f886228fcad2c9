//! The lexical leg: BM25 term weights as sparse vectors.
//!
//! Qdrant multiplies by the inverse document frequency itself (`modifier: idf`), so a passage carries BM25's term
//! frequency part and a query carries ones. Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009.
//!
//! The same words are what PostgreSQL's full-text search has ([`Passages::tsvector`], [`tsquery`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    ops::Range,
};

use rust_stemmers::{Algorithm, Stemmer};

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

/// Bytes of a lexeme, and places of all of them, that PostgreSQL takes
/// (<https://www.postgresql.org/docs/current/textsearch-limitations.html>).
const LEXEME_BYTES_MAX: usize = 2_046;
const PLACES_MAX: usize = 16_383;

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
    /// Each word's stem; `None` for a stop word.
    stems: HashMap<String, Option<Stem>>,
}

struct Stem {
    text: String,
    id: u32,
}

impl Default for Passages {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), stems: HashMap::new() }
    }
}

impl Passages {
    /// The term weights of a passage.
    #[must_use]
    pub fn weights(&mut self, text: &str) -> SparseVector {
        let mut frequencies = BTreeMap::<u32, f32>::new();
        let mut length = 0.0_f32;
        self.for_each(text, |stem| {
            *frequencies.entry(stem.id).or_default() += 1.0;
            length += 1.0;
        });
        let norm = K1 * (1.0 - B + B * length / TERMS_AVERAGE);
        frequencies.into_iter().map(|(term, tf)| (term, tf * (K1 + 1.0) / (tf + norm))).collect()
    }

    /// The stems of a passage and their places, in the text form of PostgreSQL's `tsvector`, such as `lamp:3,7 tall:5`. Stems have
    /// letters and digits only, so none needs quotes.
    #[must_use]
    pub fn tsvector(&mut self, text: &str) -> String {
        let mut stems = Vec::new();
        self.for_each(text, |stem| stems.push(stem.text.clone()));
        let mut places = BTreeMap::<&str, Vec<usize>>::new();
        for (stem, place) in stems.iter().zip(1..=PLACES_MAX).filter(|(stem, _)| is_lexeme(stem)) {
            places.entry(stem).or_default().push(place);
        }
        let mut vector = String::with_capacity(text.len());
        for (stem, places) in places {
            let mut separator = if vector.is_empty() { "" } else { " " };
            let _ = write!(vector, "{separator}{stem}");
            separator = ":";
            for place in places {
                let _ = write!(vector, "{separator}{place}");
                separator = ",";
            }
        }
        vector
    }

    fn for_each(&mut self, text: &str, mut what: impl FnMut(&Stem)) {
        if self.stems.len() > STEMS_MAX {
            self.stems.clear();
        }
        for (_, word) in words(text) {
            if let Some(known) = self.stems.get(word) {
                known.iter().for_each(&mut what);
            } else {
                let stem = stem(&self.stemmer, word).map(|text| Stem { id: term_id(&text), text });
                stem.iter().for_each(&mut what);
                self.stems.insert(word.to_owned(), stem);
            }
        }
    }
}

/// The term weights of one passage.
#[must_use]
pub fn passage(text: &str) -> SparseVector {
    Passages::default().weights(text)
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
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
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
    use super::*;

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
        let first = passages.weights("The leases of a lamp");
        assert_eq!(passages.weights("The leases of a lamp"), first);
        assert_eq!(passages.tsvector("The leases of a lamp"), "lamp:2 leas:1");
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
        let tsvector = |text: &str| Passages::default().tsvector(text);
        assert_eq!(tsvector("The lamps, a lamp: it's 'Tall' \\ tall:A & (tall)!"), "lamp:1,2 s:3 tall:4,5,6");
        assert_eq!(tsquery("What's a tall lamp | !tower:* <-> \\ ''?"), "lamp | s | tall | tower");
        assert_eq!((tsvector("what is the"), tsquery("of the")), (String::new(), String::new()));
        assert_eq!(tsvector(&"長".repeat(2_000)), "");
        let many = tsvector(&"lamp ".repeat(20_000));
        assert!(many.ends_with(",16383"));
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
