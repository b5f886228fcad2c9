//! PDF: the text of its pages.
//!
//! Two engines that fail on different files. `unpdf` finds paragraphs, headings and tables; `hayro` follows the drawing of
//! the page, and reads what the first one does not: it is asked when the first finds little or breaks off.

use std::panic::{self, AssertUnwindSafe};

use unpdf::model::{Block, InlineContent, ListStyle, Paragraph, Table};
use unpdf::{ErrorKind, ParseOptions, PdfParser};

use super::pdf_glyphs::{self, Glyphs};
use super::{Engines, ExtractError, Extracted, Job, is_blank, writer::Writer};

/// Of the second engine's characters the first must have found so many, in percent, to be believed without it.
const ENOUGH_PERCENT: usize = 60;

/// Glyphs without a character, in percent of all, from which on the second engine's reading is none.
const UNKNOWN_PERCENT_MAX: usize = 10;

/// A page with fewer visible characters than this is one that may be a scan.
const CHARS_PER_PAGE_MIN: usize = 40;

pub(super) fn extract(bytes: &[u8], job: &Job) -> Result<Extracted, ExtractError> {
    match job.engines {
        Engines::Both => {}
        Engines::First => return laid_out(bytes, job)?.found,
        Engines::Second => {
            let glyphs = pdf_glyphs::read(bytes, job.limits.pages_max)?;
            return if is_readable(&glyphs) {
                drawn(&glyphs, job)
            } else {
                Err(ExtractError::NoText { pages: glyphs.pages.len() })
            };
        }
    }
    // A panic of the one is where the other comes in; what ends the process comes back with one engine alone.
    let first = panic::catch_unwind(AssertUnwindSafe(|| laid_out(bytes, job))).unwrap_or(Err(ExtractError::Crashed));
    let pages = match &first {
        Err(
            error @ (ExtractError::PasswordProtected
            | ExtractError::TooComplex { .. }
            | ExtractError::TextTooLarge { .. }),
        ) => {
            return Err(error.clone());
        }
        Ok(read) if read.found.as_ref().is_ok_and(|found| visible(&found.text) >= read.pages * CHARS_PER_PAGE_MIN) => {
            return first.and_then(|read| read.found);
        }
        Ok(read) => read.pages,
        Err(_) => 0,
    };
    let second = panic::catch_unwind(AssertUnwindSafe(|| pdf_glyphs::read(bytes, job.limits.pages_max)));
    let second = second.unwrap_or(Err(ExtractError::Crashed));
    match (first.and_then(|read| read.found), second) {
        (Ok(first), Ok(second)) => {
            let enough = visible(&first.text) * 100 >= second.chars * ENOUGH_PERCENT;
            if enough || !is_readable(&second) { Ok(first) } else { drawn(&second, job).or(Ok(first)) }
        }
        (Ok(first), Err(_)) => Ok(first),
        (Err(_), Ok(second)) if is_readable(&second) => drawn(&second, job),
        (Err(ExtractError::Empty), Ok(second)) if pages + second.pages.len() == 0 => {
            Err(ExtractError::malformed("it has no pages"))
        }
        (Err(ExtractError::Empty), Ok(second)) => Err(ExtractError::NoText { pages: second.pages.len() }),
        (Err(ExtractError::Empty), Err(_)) => Err(ExtractError::NoText { pages }),
        (Err(_), Err(ExtractError::PasswordProtected)) => Err(ExtractError::PasswordProtected),
        (Err(first), _) => Err(first),
    }
}

fn visible(text: &str) -> usize {
    text.chars().filter(|character| character.is_alphanumeric()).count()
}

fn is_readable(glyphs: &Glyphs) -> bool {
    glyphs.chars > 0 && glyphs.unknown * 100 <= (glyphs.chars + glyphs.unknown) * UNKNOWN_PERCENT_MAX
}

/// What the second engine read: paragraphs, without an outline.
fn drawn(glyphs: &Glyphs, job: &Job) -> Result<Extracted, ExtractError> {
    let mut writer = Writer::new(&job.limits);
    for (text, number) in glyphs.pages.iter().zip(1..) {
        writer.page(number);
        for paragraph in text.split("\n\n") {
            writer.paragraph(paragraph);
        }
    }
    writer.finish(None)
}

struct LaidOut {
    pages: usize,
    found: Result<Extracted, ExtractError>,
}

fn laid_out(bytes: &[u8], job: &Job) -> Result<LaidOut, ExtractError> {
    // One thread: the process has a limit for its memory, and the processor's time is counted over all.
    let options = ParseOptions::new().lenient().sequential();
    let parser = PdfParser::from_bytes_with_options(bytes, options).map_err(|error| refusal(&error))?;
    let pages = parser.page_count() as usize;
    if pages > job.limits.pages_max {
        return Err(ExtractError::too_many("pages", job.limits.pages_max as u64));
    }
    let document = parser.parse().map_err(|error| refusal(&error))?;
    let mut writer = Writer::new(&job.limits);
    for page in &document.pages {
        writer.page(page.number);
        page.elements.iter().for_each(|block| write(&mut writer, block));
    }
    let title = document.metadata.title.filter(|title| super::is_title(title));
    let found = writer.finish(None).map(|found| found.titled(title.as_deref()));
    Ok(LaidOut { pages, found })
}

fn refusal(error: &unpdf::Error) -> ExtractError {
    match error.kind() {
        ErrorKind::Encrypted | ErrorKind::InvalidPassword => ExtractError::PasswordProtected,
        _ => ExtractError::malformed(error),
    }
}

fn write(writer: &mut Writer, block: &Block) {
    match block {
        Block::Paragraph(paragraph) => {
            let text = text_of(paragraph);
            match (paragraph.style.heading_level, &paragraph.style.list_info) {
                (Some(level), _) => writer.heading(level, &text),
                (None, Some(list)) => {
                    let marker = match (&list.style, list.item_number) {
                        (ListStyle::Ordered { .. }, Some(number)) => format!("{number}."),
                        _ => "-".to_owned(),
                    };
                    writer.item(list.level.into(), &marker, &text);
                }
                (None, None) => writer.paragraph(&text),
            }
        }
        Block::Table(table) => write_table(writer, table),
        Block::Code { content } => writer.code(content),
        Block::Raw { content } => writer.paragraph(content),
        Block::Image { alt_text, .. } => writer.paragraph(alt_text.as_deref().unwrap_or_default()),
        Block::HorizontalRule | Block::PageBreak | Block::SectionBreak => {}
    }
}

fn write_table(writer: &mut Writer, table: &Table) {
    writer.paragraph(table.caption.as_deref().unwrap_or_default());
    let rows = table.rows.iter().map(|row| row.cells.iter().map(unpdf::TableCell::plain_text).collect::<Vec<_>>());
    writer.table(rows);
}

/// Without emphasis: it is often a part of a word, and then stands in the way of finding it.
fn text_of(paragraph: &Paragraph) -> String {
    let mut text = String::new();
    for part in &paragraph.content {
        match part {
            InlineContent::Text(run) => text.push_str(&run.text),
            InlineContent::LineBreak => text.push('\n'),
            InlineContent::Link { text: label, .. } => text.push_str(label),
            InlineContent::Image { alt_text, .. } => text.push_str(alt_text.as_deref().unwrap_or_default()),
        }
    }
    if is_blank(&text) { String::new() } else { text }
}
