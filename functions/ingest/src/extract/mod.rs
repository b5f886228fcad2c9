//! Reading documents: bytes in, cited text and its structure out.
//!
//! No I/O and no shared state, but for [`sandbox`]; equal bytes give equal results. Whatever needs a parser that a hostile
//! document could take down is read in a process of its own, see there.

mod containers;
mod csv;
mod encoding;
mod epub;
mod error;
mod extracted;
mod format;
mod html;
mod html_attributes;
mod html_parse;
mod html_tidy;
mod json;
mod mail;
mod markdown;
mod office;
mod pdf;
mod pdf_glyphs;
mod plain;
mod rtf;
pub mod sandbox;
mod sniff;
mod writer;
mod zip;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use self::{
    encoding::Charset,
    error::ExtractError,
    extracted::{Block, BlockKind, Extracted, Heading, Page, Section},
    format::Format,
};

/// Characters of a heading that go into heading paths; the text keeps the whole heading.
pub const HEADING_CHARS_MAX: usize = 120;

/// Characters of a title.
pub const TITLE_CHARS_MAX: usize = 200;

/// How a document is to be read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Job {
    /// What it is.
    pub format: Format,
    /// Its encoding, for formats that are text.
    pub charset: Charset,
    /// How much of it.
    pub limits: Limits,
    /// With which engines, where a format has two.
    pub engines: Engines,
}

/// What reads a document: PDF has two engines, and a mail has those of its attachments.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Engines {
    /// PDF: the better one, and the other where that finds little. Mail: with its attachments.
    #[default]
    Both,
    /// PDF: the better one alone. Mail: without its attachments.
    First,
    /// PDF: the other one alone.
    Second,
}

/// How much is read of one document. What it takes is limited by the [`sandbox`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of the reading.
    pub text_bytes_max: usize,
    /// Pages, slides, sheets, chapters.
    pub pages_max: usize,
}

impl Default for Limits {
    /// Thirty novels, and the longest manuals.
    fn default() -> Self {
        Self { text_bytes_max: 32 << 20, pages_max: 10_000 }
    }
}

impl Job {
    /// For a document in UTF-8, if it is text, within the usual limits.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, charset: Charset::Utf8, limits: Limits::default(), engines: Engines::Both }
    }
}

/// Reads a document in UTF-8, or one that is no text, within the usual limits.
///
/// # Errors
/// [`ExtractError`] says what is wrong with it.
pub fn extract(bytes: &[u8], format: Format) -> Result<Extracted, ExtractError> {
    extract_as(bytes, &Job::new(format))
}

/// Reads a document, in this process.
///
/// # Errors
/// [`ExtractError`] says what is wrong with it.
pub fn extract_as(bytes: &[u8], job: &Job) -> Result<Extracted, ExtractError> {
    match job.format {
        _ if bytes.is_empty() => Err(ExtractError::Empty),
        Format::Plain | Format::Markdown | Format::Html | Format::Csv | Format::Json => text(bytes, job),
        Format::Pdf => pdf::extract(bytes, job),
        Format::Docx | Format::Pptx | Format::Xlsx | Format::Doc | Format::Ppt | Format::Xls => {
            office::extract(bytes.to_vec(), job)
        }
        Format::Mail => mail::extract(bytes, job),
        Format::Epub => epub::extract(bytes.to_vec(), job),
        Format::Rtf => rtf::extract(bytes, job),
    }
}

fn text(bytes: &[u8], job: &Job) -> Result<Extracted, ExtractError> {
    let text = encoding::decode(bytes, &job.charset, job.format == Format::Html)?;
    if let Some((byte_offset, control)) = refused_control(text.as_bytes()) {
        return Err(ExtractError::ControlCharacter { byte_offset, code: u32::from(control) });
    }
    // A byte order mark is no text; ranges begin after it.
    let content = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if is_blank(content) {
        return Err(ExtractError::Empty);
    }
    let start = text.len() - content.len();
    match job.format {
        Format::Markdown => markdown::extract(text.into_owned(), start),
        Format::Html => html::extract(content),
        Format::Csv => csv::extract(content, &job.limits),
        Format::Json => json::extract(content, &job.limits),
        _ => Ok(plain::extract(text.into_owned(), start)),
    }
}

/// Whether a title from a document's properties is one: programs put the name of the file there.
fn is_title(title: &str) -> bool {
    let lower = title.trim().to_ascii_lowercase();
    let file = Format::from_name(&lower).is_some() && !lower.contains(' ');
    !is_blank(title) && !file && !lower.starts_with("microsoft ") && lower != "untitled"
}

/// C0 controls other than tab, line feed, form feed and carriage return, and DEL.
///
/// C1 controls (U+0080 to U+009F) are let through: texts converted from Windows-1252 by the wrong
/// table are full of them, and they are readable all the same.
fn is_refused_control(character: char) -> bool {
    character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\x0C' | '\r')
}

/// The first of them in a text. They are ASCII, and so bytes.
fn refused_control(text: &[u8]) -> Option<(usize, u8)> {
    let refused = |byte: &u8| is_refused_control(char::from(*byte));
    // Block by block, and each to its end: without a branch for each byte, many are looked at at once.
    let mut blocks = text.chunks(64).enumerate();
    let (nth, block) = blocks.find(|(_, block)| block.iter().fold(false, |found, byte| found | refused(byte)))?;
    let (at, byte) = block.iter().enumerate().find(|(_, byte)| refused(byte))?;
    Some((nth * 64 + at, *byte))
}

/// Whether nothing would be seen of the text. Controls that no text contains are left out of it.
fn is_blank(text: &str) -> bool {
    text.chars().all(|character| {
        character.is_whitespace()
            || is_refused_control(character)
            || matches!(character, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
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
