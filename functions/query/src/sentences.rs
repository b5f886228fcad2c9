//! The sentences of a passage, as byte ranges.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Fewer words are a heading, a list's entry or a remainder.
const WORDS_MIN: usize = 3;

/// More bytes are a table or a listing.
const BYTES_MAX: usize = 1_000;

/// A line at least this long was probably broken by its width, not by its meaning.
const WRAPPED_LINE_BYTES_MIN: usize = 40;

/// Words after which a full stop does not end a sentence.
const ABBREVIATIONS: &[&str] =
    &["approx.", "cf.", "Dr.", "e.g.", "etc.", "Fig.", "i.e.", "Mr.", "Mrs.", "Ms.", "No.", "Prof.", "St.", "vs."];

/// The statements among the sentences of `text`, in order: no headings, no questions, nothing very short or long.
/// Ranges fall on character boundaries, do not overlap, and hold neither outer white space nor a list's marker.
///
/// Sentences end where Unicode says (UAX #29), except after common abbreviations and initials, and at line breaks
/// within a paragraph.
pub(crate) fn statements(text: &str) -> Vec<Range<usize>> {
    let unwrapped = unwrap_lines(text);
    let mut sentences = Vec::<Range<usize>>::new();
    let mut open = false;
    for (start, sentence) in unwrapped.split_sentence_bound_indices() {
        let end = start + sentence.len();
        match sentences.last_mut() {
            Some(last) if open => last.end = end,
            _ => sentences.push(start..end),
        }
        open = ends_in_abbreviation(sentence);
    }
    sentences.into_iter().map(|range| trim(&unwrapped, range)).filter(|range| is_statement(text, range)).collect()
}

/// `text` with spaces in place of the line breaks within paragraphs. As many bytes, so that ranges hold in both.
fn unwrap_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let content = line.trim_end_matches(['\r', '\n']);
        let wrapped = lines.peek().is_some_and(|next| {
            let next = next.trim();
            let goes_on = content.len() >= WRAPPED_LINE_BYTES_MIN || next.starts_with(char::is_lowercase);
            goes_on && !content.trim().is_empty() && !is_heading(content) && !next.is_empty() && !begins_block(next)
        });
        out.push_str(content);
        let line_break = line.get(content.len()..).unwrap_or_default();
        if wrapped {
            out.extend(line_break.chars().map(|_| ' '));
        } else {
            out.push_str(line_break);
        }
    }
    out
}

/// Whether a line begins a heading, list entry, table row, quotation or code block of Markdown.
fn begins_block(line: &str) -> bool {
    line.starts_with(['#', '|', '>']) || line.starts_with("```") || line.starts_with("~~~") || marker_bytes(line) > 0
}

fn is_heading(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The bytes of a list's or quotation's marker and the space after it at the beginning of `text`.
fn marker_bytes(text: &str) -> usize {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let after = |marker: usize| match text.get(marker..) {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.len() - rest.trim_start().len() + marker,
        _ => 0,
    };
    match text.as_bytes().get(digits) {
        Some(b'.' | b')') if (1..=3).contains(&digits) => after(digits + 1),
        Some(b'-' | b'*' | b'+' | b'>') if digits == 0 => after(1),
        _ => 0,
    }
}

fn ends_in_abbreviation(sentence: &str) -> bool {
    // A line break that is left here ends a paragraph.
    if sentence.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        return false;
    }
    let word = sentence.split_whitespace().next_back().unwrap_or_default().trim_start_matches(['(', '[', '"', '“']);
    let mut chars = word.chars();
    let initial = chars.next().is_some_and(char::is_uppercase) && chars.as_str() == ".";
    // "1." begins an entry of a list.
    let number =
        sentence.trim().strip_suffix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    initial || number || ABBREVIATIONS.contains(&word)
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let sentence = text.get(range.clone()).unwrap_or_default();
    let mut rest = sentence.trim_start();
    loop {
        let marker = marker_bytes(rest);
        match rest.get(marker..) {
            Some(after) if marker > 0 => rest = after,
            _ => break,
        }
    }
    let start = range.end - rest.len();
    start..start + rest.trim_end().len()
}

fn is_statement(text: &str, range: &Range<usize>) -> bool {
    let sentence = text.get(range.clone()).unwrap_or_default();
    sentence.len() <= BYTES_MAX
        && !is_heading(sentence)
        && !sentence.ends_with('?')
        && sentence.unicode_words().nth(WORDS_MIN - 1).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        statements(text).into_iter().map(|range| text.get(range).unwrap()).collect()
    }

    #[test]
    fn sentences_are_split_and_trimmed() {
        assert_eq!(
            texts("  One is here.  Two is here! Was it so? Ünï is here.\n"),
            ["One is here.", "Two is here!", "Ünï is here."]
        );
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(
            texts("東京は日本の首都です。大阪は大きい都市です。"),
            ["東京は日本の首都です。", "大阪は大きい都市です。"]
        );
    }

    #[test]
    fn a_wrapped_line_goes_on_and_a_paragraph_ends() {
        let text = "The tower, which was built for the fair of 1889,\r\nis 330 metres tall. It\nis made of iron.\n\nA new paragraph follows\n\nand another one here";
        assert_eq!(
            texts(text),
            [
                "The tower, which was built for the fair of 1889,\r\nis 330 metres tall.",
                "It\nis made of iron.",
                "A new paragraph follows",
                "and another one here"
            ]
        );
    }

    #[test]
    fn markdown_is_read_by_its_blocks() {
        let text = "# A heading of many words\nThe body is here.\n- first entry of list\n- second entry of list\n1. third entry of list\n> a quoted line here\n";
        assert_eq!(
            texts(text),
            [
                "The body is here.",
                "first entry of list",
                "second entry of list",
                "third entry of list",
                "a quoted line here"
            ]
        );
    }

    #[test]
    fn abbreviations_and_initials_do_not_end_a_sentence() {
        let text = "It was Dr. Smith and J. R. Jones (cf. Table 2) who paid. They left soon.";
        assert_eq!(texts(text), ["It was Dr. Smith and J. R. Jones (cf. Table 2) who paid.", "They left soon."]);
    }

    #[test]
    fn what_is_too_short_or_too_long_is_no_statement() {
        assert_eq!(texts("Yes. No way. This one counts."), ["This one counts."]);
        assert_eq!(texts(&format!("{}.", "word ".repeat(300))), [""; 0]);
    }

    proptest! {
        #[test]
        fn ranges_are_ordered_and_hold_no_outer_white_space(text in "([a-zA-ZÜß東 .?!#>*\r\n-]|Dr\\. |1\\. |\n\n){0,60}") {
            let mut end = 0;
            for range in statements(&text) {
                prop_assert!(end <= range.start && range.start < range.end);
                let sentence = text.get(range.clone()).unwrap();
                prop_assert_eq!(sentence, sentence.trim());
                end = range.end;
            }
        }
    }
}
