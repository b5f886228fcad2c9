//! Plain text: paragraphs between blank lines, and no guesses at headings.

use super::{Block, BlockKind, Extracted, Section};

pub(super) fn extract(text: String, start: usize) -> Extracted {
    let blocks = paragraphs(&text, start).map(|start| Block { start, kind: BlockKind::Paragraph }).collect();
    Extracted { text, title: None, sections: vec![Section { start, heading: None }], blocks, pages: Vec::new() }
}

/// The first bytes of the paragraphs, beginning with `start`.
fn paragraphs(text: &str, start: usize) -> impl Iterator<Item = usize> {
    let content = text.get(start..).unwrap_or_default();
    let mut at = start;
    let mut after_blank = false;
    let starts = content.split_inclusive('\n').filter_map(move |line| {
        let line_start = at;
        at += line.len();
        let blank = line.trim().is_empty();
        let begins = after_blank && !blank && line_start > start;
        after_blank = blank;
        begins.then_some(line_start)
    });
    std::iter::once(start).chain(starts)
}
