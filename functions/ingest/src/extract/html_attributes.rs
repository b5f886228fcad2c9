//! An upper bound of the attributes in an unfinished HTML tag.

/// Where a reader that began at some `<` may stand, by the tokenizer states of the
/// [HTML standard](https://html.spec.whatwg.org/multipage/parsing.html#tag-name-state).
#[derive(Clone, Copy)]
enum At {
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    DoubleQuoted,
    SingleQuoted,
    Unquoted,
}

const STATES: [At; 8] = [
    At::TagName,
    At::BeforeName,
    At::Name,
    At::AfterName,
    At::BeforeValue,
    At::DoubleQuoted,
    At::SingleQuoted,
    At::Unquoted,
];

/// Reads from every `<` at once, because which of them opens a tag depends on what the page did before.
///
/// For each state it keeps the largest count with which any of these readings stands there, so the true
/// reading never counts more than the result.
#[derive(Default)]
pub(super) struct AttributeCount {
    counts: [Option<usize>; STATES.len()],
    /// `<` or `</` was just read.
    opening: bool,
}

impl AttributeCount {
    /// Whether no reading is inside a tag.
    pub(super) fn is_idle(&self) -> bool {
        self.counts.iter().all(Option::is_none)
    }

    /// Reads on, and returns the largest count of attributes of a tag that is still open.
    pub(super) fn feed(&mut self, piece: &str) -> usize {
        for byte in piece.bytes() {
            let mut next = [None; STATES.len()];
            for (state, count) in STATES.into_iter().zip(self.counts) {
                let Some(count) = count else { continue };
                if let Some((state, more)) = step(state, byte) {
                    raise(&mut next, state, count + more);
                }
            }
            if self.opening && byte.is_ascii_alphabetic() {
                raise(&mut next, At::TagName, 0);
            }
            self.opening = byte == b'<' || (self.opening && byte == b'/');
            self.counts = next;
        }
        self.counts.iter().flatten().copied().max().unwrap_or(0)
    }
}

fn raise(counts: &mut [Option<usize>; STATES.len()], state: At, count: usize) {
    if let Some(best) = counts.get_mut(state as usize) {
        *best = (*best).max(Some(count));
    }
}

/// The state after `byte` and the attributes begun by it; `None` when the tag is over.
fn step(state: At, byte: u8) -> Option<(At, usize)> {
    let white = matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0C');
    Some(match (state, byte) {
        (At::DoubleQuoted, b'"')
        | (At::SingleQuoted, b'\'')
        | (At::TagName | At::Name | At::AfterName | At::BeforeName, b'/') => (At::BeforeName, 0),
        (At::DoubleQuoted | At::SingleQuoted, _) => (state, 0),
        (_, b'>') => return None,
        (At::TagName | At::Unquoted, _) if white => (At::BeforeName, 0),
        (At::TagName | At::Unquoted, _) => (state, 0),
        (At::Name, _) if white => (At::AfterName, 0),
        (At::Name | At::AfterName, b'=') => (At::BeforeValue, 0),
        (At::Name, _) => (At::Name, 0),
        (At::BeforeName | At::AfterName | At::BeforeValue, _) if white => (state, 0),
        (At::BeforeName | At::AfterName, _) => (At::Name, 1),
        (At::BeforeValue, b'"') => (At::DoubleQuoted, 0),
        (At::BeforeValue, b'\'') => (At::SingleQuoted, 0),
        (At::BeforeValue, _) => (At::Unquoted, 0),
    })
}
