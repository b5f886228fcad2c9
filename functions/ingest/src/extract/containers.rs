//! Quotes and lists that are opened by the hundred on one line.

use std::borrow::Cow;

/// Containers that one line may open. `pulldown-cmark` takes quadratic time in their number; people use two.
const CONTAINERS_PER_LINE_MAX: usize = 32;

/// The same text, byte for byte as long, in which no line opens more than
/// [`CONTAINERS_PER_LINE_MAX`] containers: the marker after the last is made a letter.
///
/// Only the parser sees it; ranges taken from it are cut out of the original.
pub(super) fn shallow(text: &str) -> Cow<'_, str> {
    let mut shallow = String::new();
    let mut copied = 0;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(marker) = marker_too_many(line.as_bytes()) {
            let at = line_start + marker;
            // Markers are ASCII, so that one letter takes the place of one character.
            shallow.push_str(text.get(copied..at).unwrap_or_default());
            shallow.push('x');
            copied = at + 1;
        }
        line_start += line.len();
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    shallow.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(shallow)
}

/// Where the first marker past the limit stands.
fn marker_too_many(line: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..CONTAINERS_PER_LINE_MAX {
        at = skip_blanks(line, at);
        at += marker_bytes(line.get(at..)?)?;
    }
    at = skip_blanks(line, at);
    marker_bytes(line.get(at..)?).map(|_| at)
}

fn skip_blanks(line: &[u8], from: usize) -> usize {
    let rest = line.get(from..).unwrap_or_default();
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    from + blanks.count()
}

/// Length of the quote, list or footnote marker with which `rest` begins, if any.
fn marker_bytes(rest: &[u8]) -> Option<usize> {
    let ends = |at: usize| matches!(rest.get(at), None | Some(b' ' | b'\t' | b'\n' | b'\r'));
    match rest.first()? {
        b'>' => Some(1),
        b'-' | b'+' | b'*' => ends(1).then_some(1),
        b'0'..=b'9' => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let marked = matches!(rest.get(digits), Some(b'.' | b')')) && ends(digits + 1);
            marked.then_some(digits + 1)
        }
        b'[' if rest.get(1) == Some(&b'^') => {
            let label = rest.iter().position(|byte| *byte == b']')?;
            (rest.get(label + 1) == Some(&b':')).then_some(label + 2)
        }
        _ => None,
    }
}
