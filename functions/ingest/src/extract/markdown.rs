//! Markdown: the text as it is, with the outline that `CommonMark` gives it.

use pulldown_cmark::{Event, HeadingLevel, MetadataBlockKind, Options, Parser, Tag, TagEnd};

use super::{
    Block, BlockKind, ExtractError, Extracted, HEADING_CHARS_MAX, Heading, Section, TITLE_CHARS_MAX, containers,
    extracted::parent_of, is_blank, short_line,
};

pub(super) fn extract(text: String, start: usize) -> Result<Extracted, ExtractError> {
    if is_blank(&text) {
        return Err(ExtractError::Empty);
    }
    let mut outline = Outline::new(&text, start);
    outline.read();
    let Outline { sections, blocks, front_title, .. } = outline;
    let title = front_title.or_else(|| title_of(&text, &sections));
    Ok(Extracted { text, title, sections, blocks, pages: Vec::new() })
}

/// The first heading of level 1, or else the heading with which the document begins.
fn title_of(text: &str, sections: &[Section]) -> Option<String> {
    let mut headings = sections.iter().filter_map(|section| Some((section.start, section.heading.as_ref()?)));
    let (first_start, first) = headings.next()?;
    let begins = text.get(..first_start).is_some_and(is_blank);
    let top = std::iter::once(first).chain(headings.map(|(_, heading)| heading)).find(|heading| heading.level == 1);
    top.or(begins.then_some(first)).map(|heading| heading.text.clone()).filter(|title| !title.is_empty())
}

struct Outline<'a> {
    text: &'a str,
    start: usize,
    sections: Vec<Section>,
    blocks: Vec<Block>,
    front_title: Option<String>,
    /// Lists, quotes and footnotes that are open: a heading in one is no section's.
    containers: usize,
    /// The text of the heading that is being read.
    heading: Option<String>,
    in_front_matter: bool,
}

impl<'a> Outline<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        let mut outline = Self {
            text,
            start,
            sections: Vec::new(),
            blocks: Vec::new(),
            front_title: None,
            containers: 0,
            heading: None,
            in_front_matter: false,
        };
        outline.sections.push(Section { start, heading: None });
        outline.blocks.push(Block { start, kind: BlockKind::Paragraph });
        outline
    }

    fn read(&mut self) {
        let content = self.text.get(self.start..).unwrap_or_default();
        let options = Options::ENABLE_TABLES
            | Options::ENABLE_FOOTNOTES
            | Options::ENABLE_HEADING_ATTRIBUTES
            | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
        let content = containers::shallow(content);
        for (event, range) in Parser::new_ext(&content, options).into_offset_iter() {
            let start = self.start + range.start;
            match event {
                Event::Start(tag) => self.open(&tag, start),
                Event::End(tag) => self.close(tag),
                Event::Text(text) if self.in_front_matter => {
                    self.front_title = front_title(&text);
                }
                Event::Text(text) | Event::Code(text) => self.add_to_heading(&text),
                Event::SoftBreak | Event::HardBreak => self.add_to_heading(" "),
                Event::Rule => self.begin(start, BlockKind::Paragraph),
                _ => {}
            }
        }
    }

    fn open(&mut self, tag: &Tag, start: usize) {
        match tag {
            Tag::Heading { level, .. } if self.containers == 0 => {
                self.begin_section(start, *level);
                self.heading = Some(String::new());
            }
            Tag::BlockQuote(_) | Tag::FootnoteDefinition(_) => {
                self.containers += 1;
                self.begin(start, BlockKind::Paragraph);
            }
            Tag::List(_) => self.containers += 1,
            Tag::Item => self.begin(start, BlockKind::ListItem),
            Tag::Paragraph | Tag::Heading { .. } | Tag::HtmlBlock => {
                self.begin(start, BlockKind::Paragraph);
            }
            Tag::MetadataBlock(MetadataBlockKind::YamlStyle) => {
                // Only at the top is it front matter.
                let before = self.text.get(self.start..start).unwrap_or_default();
                self.in_front_matter = before.trim().is_empty();
                self.begin(start, BlockKind::Paragraph);
            }
            Tag::CodeBlock(_) => self.begin(start, BlockKind::Code),
            Tag::TableHead => self.begin(start, BlockKind::TableHead),
            Tag::TableRow => self.begin(start, BlockKind::TableRow),
            _ => {}
        }
    }

    fn close(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                let text = self.heading.take();
                let section = self.sections.last_mut();
                if let (Some(text), Some(section)) = (text, section)
                    && let Some(heading) = section.heading.as_mut()
                {
                    heading.text = short_line(&text, HEADING_CHARS_MAX);
                }
            }
            TagEnd::BlockQuote(_) | TagEnd::FootnoteDefinition | TagEnd::List(_) => {
                self.containers = self.containers.saturating_sub(1);
            }
            TagEnd::MetadataBlock(_) => self.in_front_matter = false,
            _ => {}
        }
    }

    fn add_to_heading(&mut self, text: &str) {
        if let Some(heading) = self.heading.as_mut() {
            // Whatever is longer is cut at the end of the heading.
            if heading.len() < HEADING_CHARS_MAX * 8 {
                heading.push_str(text);
            }
        }
    }

    /// Begins a block at the start of the line of `at`: markers and indentation belong to it.
    fn begin(&mut self, at: usize, kind: BlockKind) {
        let last = self.blocks.last().map_or(self.start, |block| block.start);
        let line =
            self.text.get(last..at).and_then(|before| before.rfind('\n')).map_or(last, |newline| last + newline + 1);
        if line > last {
            self.blocks.push(Block { start: line, kind });
        } else if let Some(block) = self.blocks.last_mut()
            && block.kind == BlockKind::Paragraph
        {
            // A paragraph's first line turns out to be something more definite.
            block.kind = kind;
        }
    }

    fn begin_section(&mut self, at: usize, level: HeadingLevel) {
        self.begin(at, BlockKind::Heading);
        let start = self.blocks.last().map_or(self.start, |block| block.start);
        let level = level as u8;
        let heading = Some(Heading { text: String::new(), level, parent: parent_of(&self.sections, level) });
        match self.sections.last_mut() {
            // The document begins with it.
            Some(section) if section.start == start => section.heading = heading,
            _ => self.sections.push(Section { start, heading }),
        }
    }
}

/// The value of a plain `title:` line; anything that needs a YAML parser is left alone.
fn front_title(yaml: &str) -> Option<String> {
    let value = yaml.lines().find_map(|line| line.strip_prefix("title:"))?.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let inner = value.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains(*quote) && !inner.contains('\\')).then_some(inner)
    });
    let plain = (!value.starts_with(|c: char| "\"'[]{}|>&*!%@`#".contains(c))
        && !value.contains(" #")
        && !value.contains(": "))
    .then_some(value);
    let title = short_line(quoted.or(plain)?, TITLE_CHARS_MAX);
    (!title.is_empty()).then_some(title)
}
