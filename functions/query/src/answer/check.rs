//! What a model wrote, sentence by sentence, with the passages that it names. An invented number is removed; a sentence
//! that names no passage, or one that says nothing of the kind, is removed too: each is counted.

use std::sync::LazyLock;

use regex_lite::Regex;
use shared::sparse;

use super::prompt::NOT_FOUND;
use crate::{
    response::{Answer, AnswerKind, ByteRange, Citation, Hit, Statement},
    sentences,
};

/// The least share of a sentence's own words that must stand in the passages that it names. A model puts things in other
/// words; but one that shares hardly any with its source says something else.
const SUPPORT_MIN: f32 = 0.2;

/// A sentence with its marks behind it, or the rest of the text without any.
static SENTENCE: LazyLock<Regex> = LazyLock::new(|| {
    #[allow(clippy::unwrap_used, reason = "the test below compiles it")]
    Regex::new(r"(?s)(.+?)((?:\s*\[\s*\d+(?:\s*,\s*\d+)*\s*\])+)\s*[.!?]?|(.+)$").unwrap()
});

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    #[allow(clippy::unwrap_used, reason = "the test below compiles it")]
    Regex::new(r"\d+").unwrap()
});

/// Reads a model's answer. `hits` are the passages that it was given, in the order of their numbers.
pub(crate) fn check(text: &str, hits: &[&Hit]) -> Answer {
    let mut answer = Answer::none(AnswerKind::Generated);
    if text.trim().trim_matches(['.', '"', '`']) == NOT_FOUND {
        return answer;
    }
    for sentence in SENTENCE.captures_iter(text) {
        let words = sentence.get(1).or(sentence.get(3)).map_or("", |found| found.as_str());
        let words = words.trim().trim_start_matches(['.', '!', '?', ';', '-', '*']).trim();
        if words.is_empty() || words == NOT_FOUND {
            continue;
        }
        let mut cited: Vec<&Hit> = Vec::new();
        for number in sentence.get(2).map_or("", |marks| marks.as_str()).split('[').flat_map(numbers) {
            match number.and_then(|number| hits.get(number.checked_sub(1)?)) {
                Some(hit) if cited.iter().any(|other| other.chunk_id == hit.chunk_id) => {}
                Some(hit) => cited.push(hit),
                None => answer.removed.citations += 1,
            }
        }
        let support = support(words, &cited);
        if cited.is_empty() || support < SUPPORT_MIN {
            answer.removed.statements += 1;
            continue;
        }
        let citations = cited.into_iter().map(|hit| passage(hit, words)).collect();
        answer.statements.push(Statement { text: words.to_owned(), support, citations });
    }
    answer.found = !answer.statements.is_empty();
    answer
}

/// The numbers in one pair of brackets; `None` for one that is too large to be any.
fn numbers(bracket: &str) -> impl Iterator<Item = Option<usize>> {
    NUMBER.find_iter(bracket).map(|number| number.as_str().parse().ok())
}

/// The share of the sentence's words, stop words aside, that stand in the passages.
#[allow(clippy::cast_precision_loss, reason = "counts of words are small")]
fn support(sentence: &str, hits: &[&Hit]) -> f32 {
    let words = sparse::query(sentence).indices;
    let passages: Vec<Vec<u32>> = hits.iter().map(|hit| sparse::query(&hit.text).indices).collect();
    let stands = |word: &&u32| passages.iter().any(|passage| passage.binary_search(word).is_ok());
    words.iter().filter(stands).count() as f32 / words.len().max(1) as f32
}

/// The citation of a passage for a sentence: of that sentence of the passage which shares most words with it, or of the
/// whole passage.
fn passage(hit: &Hit, sentence: &str) -> Citation {
    let words = sparse::query(sentence).indices;
    let shared =
        |text: &str| sparse::query(text).indices.iter().filter(|word| words.binary_search(word).is_ok()).count();
    let best = sentences::statements(&hit.text)
        .into_iter()
        .filter_map(|range| Some((shared(hit.text.get(range.clone())?), range)))
        .max_by_key(|(shared, range)| (*shared, std::cmp::Reverse(range.start)));
    let ByteRange { start, end } = hit.byte_range;
    let exact = end.checked_sub(start) == Some(hit.text.len() as u64);
    let byte_range = match best {
        Some((1.., range)) if exact => ByteRange { start: start + range.start as u64, end: start + range.end as u64 },
        _ => hit.byte_range,
    };
    Citation::of(hit, byte_range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::extract::tests::hit;

    const PUMP: &str = "The pump starts at noon. It stops when the tank is full.";
    const TANK: &str = "The tank holds forty litres of rain water.";

    fn checked(text: &str) -> Answer {
        let hits = [hit(PUMP, 0..PUMP.len()), hit(TANK, 0..TANK.len())];
        check(text, &hits.iter().collect::<Vec<_>>())
    }

    fn texts(answer: &Answer) -> Vec<&str> {
        answer.statements.iter().map(|statement| statement.text.as_str()).collect()
    }

    #[test]
    fn each_sentence_is_cited_by_the_passages_that_it_names() {
        let answer = checked("The pump starts at noon [1]. The tank, which stops the pump, holds forty litres [1][2].");
        assert!(answer.found && answer.removed.is_nothing());
        assert_eq!(texts(&answer), ["The pump starts at noon", "The tank, which stops the pump, holds forty litres"]);
        assert_eq!(answer.statements[1].citations.len(), 2);
        let ByteRange { start, end } = answer.statements[0].citations[0].byte_range;
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        assert_eq!(PUMP.get(range), Some("The pump starts at noon."));
        assert_eq!(checked("It holds forty litres of rain water. [1, 2]").statements[0].citations.len(), 2);
    }

    #[test]
    fn an_invented_number_is_removed_and_counted() {
        let answer = checked("The pump starts at noon [1][7]. The tank holds forty litres [0][99999999999999999999].");
        assert_eq!(texts(&answer), ["The pump starts at noon"]);
        assert_eq!((answer.removed.citations, answer.removed.statements), (3, 1));
    }

    #[test]
    fn a_sentence_without_a_source_or_with_one_that_says_nothing_of_the_kind_is_removed_and_counted() {
        let answer =
            checked("Rome was founded by Romulus [1]. The tank holds forty litres [2]. Buy our product today!");
        assert_eq!(texts(&answer), ["The tank holds forty litres"]);
        assert_eq!((answer.removed.citations, answer.removed.statements), (0, 2));
    }

    #[test]
    fn what_is_not_in_the_documents_is_not_answered() {
        for text in ["NOT_IN_DOCUMENTS", " NOT_IN_DOCUMENTS.\n", "", "I do not know."] {
            let answer = checked(text);
            assert!(!answer.found && answer.statements.is_empty(), "{text}");
        }
    }

    #[test]
    fn any_text_can_be_read() {
        for text in ["[", "[1", "]", "[1]", "[][]", "\u{0}[1]", &"[1]".repeat(10_000), &"a ".repeat(100_000)] {
            assert!(checked(text).statements.len() < 2);
        }
    }
}
