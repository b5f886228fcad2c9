//! Reading documents: bytes in, cited text and its structure out.
//!
//! No I/O and no shared state; equal bytes give equal results.

mod containers;
mod html;
mod html_attributes;
mod html_parse;
mod html_tidy;
mod markdown;
mod plain;

use std::borrow::Cow;

/// Characters of a heading that go into heading paths; the text keeps the whole heading.
pub const HEADING_CHARS_MAX: usize = 120;

/// Characters of a title.
pub const TITLE_CHARS_MAX: usize = 200;

/// What kind of document the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain`
    Plain,
    /// `text/markdown`
    Markdown,
    /// `text/html`
    Html,
}

impl Format {
    /// Every format, for lists of what is supported.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Markdown, Self::Html];

    /// The format of a media type without parameters; `None` when it is not supported.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.media_type().eq_ignore_ascii_case(media_type.trim()))
    }

    /// The media type, lower case, without parameters.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain",
            Self::Markdown => "text/markdown",
            Self::Html => "text/html",
        }
    }
}

/// The text of a document and where its parts begin.
///
/// Sections and blocks are given by their first byte and reach to the next one's, the last to the end of
/// the text, so that they leave nothing out. Both begin at the same byte: 0, or 3 after a byte order mark.
/// Every section's start is a block's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// What byte ranges of citations refer to: the input itself, or for HTML the main content as Markdown.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// First byte, that of the heading.
    pub start: usize,
    /// Its heading; `None` for what stands before the first heading.
    pub heading: Option<Heading>,
}

/// A heading's place in the outline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Plain text on one line, at most [`HEADING_CHARS_MAX`] characters.
    pub text: String,
    /// 1 to 6.
    pub level: u8,
    /// Index of the enclosing section: the nearest before it with a lower level.
    pub parent: Option<usize>,
}

/// A stretch of text that belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First byte.
    pub start: usize,
    /// What it is.
    pub kind: BlockKind,
}

/// What a block is, as far as it matters to where it may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// Why a document cannot be read. None of these goes away by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8: invalid from byte {byte_offset}")]
    NotUtf8 {
        /// The first byte that is not part of a character.
        byte_offset: usize,
    },
    /// A control character that no text contains: the bytes are something else.
    #[error("control character U+{code:04X} at byte {byte_offset}: not a text")]
    ControlCharacter {
        /// Where it stands.
        byte_offset: usize,
        /// Its code point.
        code: u32,
    },
    /// There is no text in it.
    #[error("the document has no text")]
    Empty,
    /// HTML elements stand too deep inside one another.
    #[error("HTML elements are nested more than {limit} deep")]
    HtmlTooDeep {
        /// The most that is read.
        limit: usize,
    },
    /// An HTML tag has too many attributes.
    #[error("an HTML tag has more than {limit} attributes")]
    HtmlTooManyAttributes {
        /// The most that is read.
        limit: usize,
    },
    /// An HTML page has, or by its unclosed tags stands for, too many elements.
    #[error("the HTML page has more than {limit} elements")]
    HtmlTooManyElements {
        /// The most that is read.
        limit: usize,
    },
}

/// Reads a document.
///
/// # Errors
/// [`ExtractError`] says what is wrong with it.
pub fn extract(bytes: &[u8], format: Format) -> Result<Extracted, ExtractError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ExtractError::NotUtf8 { byte_offset: error.valid_up_to() })?;
    if let Some((byte_offset, control)) = text.char_indices().find(|(_, character)| is_refused_control(*character)) {
        return Err(ExtractError::ControlCharacter { byte_offset, code: u32::from(control) });
    }
    // A byte order mark is no text; ranges begin after it.
    let content = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_blank(content) {
        return Err(ExtractError::Empty);
    }
    let start = text.len() - content.len();
    match format {
        Format::Plain => Ok(plain::extract(text.to_owned(), start)),
        Format::Markdown => markdown::extract(text.to_owned(), start),
        Format::Html => html::extract(content),
    }
}

/// C0 controls other than tab, line feed, form feed and carriage return, and DEL.
///
/// C1 controls (U+0080 to U+009F) are let through: texts converted from Windows-1252 by the wrong
/// table are full of them, and they are readable all the same.
fn is_refused_control(character: char) -> bool {
    character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\x0C' | '\r')
}

/// Whether nothing would be seen of the text.
fn is_blank(text: &str) -> bool {
    text.chars().all(|character| {
        character.is_whitespace() || matches!(character, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
    })
}

/// The words with one space between them.
fn one_line(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.contains(|c: char| c.is_whitespace() && c != ' ') || text.contains("  ") {
        Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text on one line, cut after `chars_max` characters.
fn short_line(text: &str, chars_max: usize) -> String {
    // A control character may have come in as a reference (`&#31;`), past the check of the bytes.
    let line: String = one_line(text).chars().filter(|c| !c.is_control()).take(chars_max).collect();
    line.trim_end().to_owned()
}
