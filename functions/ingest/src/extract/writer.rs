//! Writes the reading of a document whose parts are known: Markdown for people and models to read, and beside it the
//! outline, taken from the parts themselves. What looks like markup in a paragraph stays what it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{
    Block, BlockKind, ExtractError, Extracted, HEADING_CHARS_MAX, Heading, Limits, Page, Section, extracted::parent_of,
    is_blank, is_refused_control, one_line, short_line,
};

/// Headings have no more levels.
const LEVEL_MAX: u8 = 6;

/// Cells of one row. More are no table that anybody reads; of a sheet that claims 16,384 columns, all but a few are empty.
const CELLS_PER_ROW_MAX: usize = 1_024;

/// The reading so far.
#[derive(Debug)]
pub(super) struct Writer {
    read: Extracted,
    text_bytes_max: usize,
    /// A section or block is begun by the next text, not before: where there is none, there is nothing to begin.
    pages: Vec<u32>,
    /// What comes next stands under no heading.
    unheaded: bool,
    limit: Option<ExtractError>,
}

impl Writer {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            read: Extracted::default(),
            text_bytes_max: limits.text_bytes_max,
            pages: Vec::new(),
            unheaded: false,
            limit: None,
        }
    }

    /// What follows stands on this page, slide or sheet.
    pub(super) fn page(&mut self, number: u32) {
        // One without text begins nowhere.
        self.pages.clear();
        self.pages.push(number);
    }

    /// What follows does not stand under the headings before it.
    pub(super) fn unheaded(&mut self) {
        self.unheaded = true;
    }

    pub(super) fn heading(&mut self, level: u8, text: &str) {
        let line = one_line(text);
        if is_blank(&line) {
            return;
        }
        let level = level.clamp(1, LEVEL_MAX);
        let start = self.begin(BlockKind::Heading, "\n\n");
        let parent = parent_of(&self.read.sections, level);
        let heading = Some(Heading { text: short_line(&line, HEADING_CHARS_MAX), level, parent });
        match self.read.sections.last_mut() {
            Some(section) if section.start == start => section.heading = heading,
            _ => self.read.sections.push(Section { start, heading }),
        }
        for _ in 0..level {
            self.read.text.push('#');
        }
        self.read.text.push(' ');
        self.push(&line);
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.block(BlockKind::Paragraph, text, "\n\n");
    }

    /// An item of a list, `depth` lists deep (0 is the outermost), with its marker (`-`, `3.`).
    pub(super) fn item(&mut self, depth: usize, marker: &str, text: &str) {
        if is_blank(text) {
            return;
        }
        let separator = match self.read.blocks.last() {
            Some(Block { kind: BlockKind::ListItem, .. }) => "\n",
            _ => "\n\n",
        };
        self.begin(BlockKind::ListItem, separator);
        for _ in 0..depth.min(usize::from(LEVEL_MAX)) {
            self.read.text.push_str("  ");
        }
        self.push(marker);
        self.read.text.push(' ');
        self.push(text.trim());
    }

    /// Code, or what else has lines that are not to be joined.
    pub(super) fn code(&mut self, text: &str) {
        if is_blank(text) {
            return;
        }
        self.begin(BlockKind::Code, "\n\n");
        self.read.text.push_str("```\n");
        self.push(text.trim_end());
        self.read.text.push_str("\n```");
    }

    /// A table, the first of whose rows is its header.
    pub(super) fn table(&mut self, rows: impl IntoIterator<Item = Vec<String>>) {
        let mut columns = 0;
        for mut row in rows {
            // Of a sheet, many columns are formatted and empty.
            let filled = row.iter().rposition(|cell| !is_blank(cell)).map_or(0, |last| last + 1);
            row.truncate(filled.min(CELLS_PER_ROW_MAX));
            if row.is_empty() || self.limit.is_some() {
                continue;
            }
            if columns == 0 {
                columns = row.len();
                self.begin(BlockKind::TableHead, "\n\n");
                self.row(&row, columns);
                self.read.text.push_str("\n|");
                self.read.text.push_str(&"---|".repeat(columns));
            } else {
                self.begin(BlockKind::TableRow, "\n");
                self.row(&row, columns);
            }
        }
    }

    fn row(&mut self, cells: &[String], columns: usize) {
        self.read.text.push('|');
        for cell in cells {
            let line = one_line(cell);
            let cell: Cow<'_, str> = if line.contains('|') { line.replace('|', "\\|").into() } else { line };
            self.read.text.push(' ');
            self.push(&cell);
            self.read.text.push_str(" |");
        }
        for _ in cells.len()..columns {
            self.read.text.push_str("  |");
        }
    }

    /// Another document's reading, its headings `levels` deeper.
    pub(super) fn append(&mut self, other: &Extracted, levels: u8) {
        let text = other.text.trim_start_matches('\u{feff}');
        if is_blank(text) {
            return;
        }
        let cut = other.text.len() - text.len();
        self.begin(BlockKind::Paragraph, "\n\n");
        let base = self.read.text.len();
        // It begins with a block of its own, in place of the one that was just begun.
        self.read.blocks.pop();
        self.read.blocks.extend(other.blocks.iter().map(|block| Block { start: base + block.start - cut, ..*block }));
        for section in &other.sections {
            let start = base + section.start - cut;
            let Some(heading) = &section.heading else { continue };
            let level = (heading.level + levels).min(LEVEL_MAX);
            let heading = Heading { text: heading.text.clone(), level, parent: parent_of(&self.read.sections, level) };
            match self.read.sections.last_mut() {
                Some(section) if section.start == start => section.heading = Some(heading),
                _ => self.read.sections.push(Section { start, heading: Some(heading) }),
            }
        }
        self.push(text);
    }

    fn block(&mut self, kind: BlockKind, text: &str, separator: &str) {
        if is_blank(text) {
            return;
        }
        self.begin(kind, separator);
        self.push(text.trim());
    }

    /// Begins a block, and with it the page that was announced. The first block begins the first section.
    fn begin(&mut self, kind: BlockKind, separator: &str) -> usize {
        if !self.read.text.is_empty() && self.limit.is_none() {
            self.read.text.push_str(separator);
        }
        let start = self.read.text.len();
        if self.read.sections.is_empty() || std::mem::take(&mut self.unheaded) {
            self.read.sections.push(Section { start, heading: None });
        }
        self.read.blocks.push(Block { start, kind });
        let numbers = self.pages.drain(..);
        self.read.pages.extend(numbers.map(|number| Page { start, number }));
        start
    }

    /// Adds text, as long as there is room.
    fn push(&mut self, text: &str) {
        if self.read.text.len() + text.len() > self.text_bytes_max {
            self.limit = Some(ExtractError::TextTooLarge { limit: self.text_bytes_max });
        }
        if self.limit.is_none() {
            self.read.text.extend(text.chars().filter(|character| !is_refused_control(*character)));
        }
    }

    /// Whether there is no room for more: writing on is in vain.
    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some()
    }

    /// A line for each of these, in one paragraph.
    pub(super) fn fields<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, String)>) {
        let mut lines = String::new();
        for (name, value) in fields {
            if !is_blank(&value) {
                let separator = if lines.is_empty() { "" } else { "\n" };
                // Writing to a string does not fail.
                let _ = write!(lines, "{separator}{name}: {}", one_line(&value));
            }
        }
        self.paragraph(&lines);
    }

    /// The reading, under its title.
    ///
    /// # Errors
    /// `Empty` or `TextTooLarge`.
    pub(super) fn finish(mut self, title: Option<&str>) -> Result<Extracted, ExtractError> {
        if let Some(limit) = self.limit {
            return Err(limit);
        }
        if self.read.blocks.is_empty() {
            return Err(ExtractError::Empty);
        }
        let title = title.map(|title| short_line(title, super::TITLE_CHARS_MAX)).filter(|title| !title.is_empty());
        self.read.title = title;
        Ok(self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_markup_stays_what_it_is() {
        let mut writer = Writer::new(&Limits::default());
        writer.page(1);
        writer.heading(1, "One");
        writer.paragraph("# no heading\n| no | table |");
        writer.page(2);
        writer.page(3);
        writer.heading(3, "Two\nlines");
        writer.table([vec!["a|b".to_owned(), "c".to_owned(), String::new()], vec!["1".to_owned()]]);
        let read = writer.finish(Some(" T ")).unwrap();
        let text = "# One\n\n# no heading\n| no | table |\n\n### Two lines\n\n| a\\|b | c |\n|---|---|\n| 1 |  |";
        assert_eq!(read.text, text);
        assert_eq!(read.heading_path(1), ["One", "Two lines"]);
        assert_eq!(read.pages, [Page { start: 0, number: 1 }, Page { start: 36, number: 3 }]);
        assert_eq!(read.title.as_deref(), Some("T"));
    }

    #[test]
    fn text_past_the_limit_is_an_error_and_takes_no_room() {
        let limits = Limits { text_bytes_max: 10, ..Limits::default() };
        let mut writer = Writer::new(&limits);
        for _ in 0..1_000 {
            writer.paragraph("12345678");
        }
        assert!(writer.is_full());
        assert_eq!(writer.finish(None), Err(ExtractError::TextTooLarge { limit: 10 }));
    }
}
