//! What was read: a text and its outline.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::HEADING_CHARS_MAX;
use super::{TITLE_CHARS_MAX, is_refused_control, short_line};

/// The text of a document and where its parts begin.
///
/// Sections and blocks are given by their first byte and reach to the next one's, the last to the end of
/// the text, so that they leave nothing out. Both begin at the same byte: 0, or 3 after a byte order mark.
/// Every section's start is a block's start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Extracted {
    /// What byte ranges of citations refer to: the input itself for text and Markdown in UTF-8, else its reading as
    /// Markdown.
    pub text: String,
    /// The document's title, on one line, if it tells one.
    pub title: Option<String>,
    /// In the order of the text; never empty.
    pub sections: Vec<Section>,
    /// In the order of the text; never empty.
    pub blocks: Vec<Block>,
    /// Where pages begin, in the order of the text; empty for formats without pages.
    pub pages: Vec<Page>,
}

/// A heading and what stands below it, up to the next heading of any level.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Section {
    /// First byte, that of the heading.
    pub start: usize,
    /// Its heading; `None` for what stands before the first heading, or on a slide without one.
    pub heading: Option<Heading>,
}

/// A heading's place in the outline.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Heading {
    /// Plain text on one line, at most [`HEADING_CHARS_MAX`] characters.
    pub text: String,
    /// 1 to 6.
    pub level: u8,
    /// Index of the enclosing section: the nearest before it with a lower level.
    pub parent: Option<usize>,
}

/// A stretch of text that belongs together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Block {
    /// First byte.
    pub start: usize,
    /// What it is.
    pub kind: BlockKind,
}

/// What a block is, as far as it matters to where it may be cut.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum BlockKind {
    /// A section's heading.
    Heading,
    /// Running text, and whatever is not one of the others.
    Paragraph,
    /// A list's item.
    ListItem,
    /// A table's header with the line below it.
    TableHead,
    /// A table's row.
    TableRow,
    /// Code, fences included; its lines are its parts.
    Code,
}

/// Where a page, a slide or a sheet begins.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Page {
    /// First byte.
    pub start: usize,
    /// Counted from 1.
    pub number: u32,
}

impl Extracted {
    /// The headings above and including the section's own, outermost first.
    #[must_use]
    pub fn heading_path(&self, section: usize) -> Vec<&str> {
        let mut path = Vec::new();
        let mut at = Some(section);
        while let Some(heading) =
            at.and_then(|section| self.sections.get(section)).and_then(|section| section.heading.as_ref())
        {
            path.push(heading.text.as_str());
            at = heading.parent;
        }
        path.reverse();
        path
    }

    /// The same under this title, or under the first of its highest headings where there is none.
    pub(super) fn titled(mut self, title: Option<&str>) -> Self {
        let headings = || self.sections.iter().filter_map(|section| section.heading.as_ref());
        let level = headings().map(|heading| heading.level).min();
        let first = headings().find(|heading| Some(heading.level) == level).map(|heading| heading.text.as_str());
        let title = title.map(|title| short_line(title, TITLE_CHARS_MAX)).filter(|title| !title.is_empty());
        self.title = title.or_else(|| first.map(str::to_owned));
        self
    }

    /// Whether it keeps the promises above: what comes from another process is not believed.
    pub(super) fn is_sound(&self) -> bool {
        let in_order = |starts: &[usize]| {
            let within = |start: &usize| *start < self.text.len() && self.text.is_char_boundary(*start);
            starts.is_sorted_by(|a, b| a < b) && starts.iter().all(within)
        };
        let blocks: Vec<usize> = self.blocks.iter().map(|block| block.start).collect();
        let sections: Vec<usize> = self.sections.iter().map(|section| section.start).collect();
        let pages: Vec<usize> = self.pages.iter().map(|page| page.start).collect();
        let parents = self.sections.iter().enumerate().all(|(index, section)| {
            section.heading.as_ref().and_then(|heading| heading.parent).is_none_or(|parent| parent < index)
        });
        let lines = self.sections.iter().filter_map(|section| section.heading.as_ref()).map(|heading| &heading.text);
        !blocks.is_empty()
            && blocks.first() == sections.first()
            && parents
            && [&blocks, &sections, &pages].into_iter().all(|starts| in_order(starts))
            && lines.chain(&self.title).all(|line| !line.contains(char::is_control))
            && !self.text.contains(is_refused_control)
    }
}

/// The section under which a heading of `level` comes next: the nearest with a lower level, following parents so that
/// it stays cheap.
pub(super) fn parent_of(sections: &[Section], level: u8) -> Option<usize> {
    let mut at = sections.len().checked_sub(1);
    while let Some(section) = at {
        let heading = sections.get(section)?.heading.as_ref()?;
        if heading.level < level {
            return Some(section);
        }
        at = heading.parent;
    }
    None
}
