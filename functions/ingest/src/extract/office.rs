//! Word, `PowerPoint` and Excel, in both of their generations.
//!
//! Slides and sheets are pages with a heading of their own; Word's pages are made when it prints, and are not in the file.

use std::collections::HashSet;
use std::io::Cursor;

use office_oxide::ir::{Element, List, ListItem, Section, Table, inline_to_text};
use office_oxide::options::{OnIncomplete, ParseOptions};
use office_oxide::{Document, DocumentFormat, OfficeError};

use super::{ExtractError, Extracted, Format, Job, is_blank, writer::Writer, zip};

/// How many times smaller than its part a part of the package may be. Sheets of equal rows reach some hundred.
const INFLATE_RATIO_MAX: u64 = 400;

/// Columns that a cell can span. A sheet's title spans all 16,384.
const SPAN_MAX: u32 = 64;

/// Parts of the document in one another, as far as they are followed: a table in a cell in a table, and some more.
const DEPTH_MAX: usize = 64;

pub(super) fn extract(bytes: Vec<u8>, job: &Job) -> Result<Extracted, ExtractError> {
    let Some(format) = office_format(job.format) else {
        return Err(ExtractError::malformed("it is no office document"));
    };
    if let Some(directory) = zip::Directory::read(&bytes) {
        directory.check()?;
    }
    let mut options = ParseOptions::strict();
    // A chart that can not be read is no reason to lose the text.
    options.on_incomplete = OnIncomplete::Report;
    options.limits.inflate_ratio = INFLATE_RATIO_MAX;
    options.limits.text_chars = job.limits.text_bytes_max;
    let document = Document::from_reader_with(Cursor::new(bytes), format, &options).map_err(|error| refusal(&error))?;
    let read = document.to_ir();
    let mut reading = Reading { writer: Writer::new(&job.limits), said: HashSet::new(), below_title: 0 };
    reading.sections(&read.sections, job)?;
    // Where a paragraph is the title, the properties are not asked: the library puts the first heading there.
    let title = read.metadata.title.as_deref().filter(|title| super::is_title(title) && reading.below_title == 0);
    let found = reading.writer.finish(None)?;
    Ok(found.titled(title))
}

fn office_format(format: Format) -> Option<DocumentFormat> {
    Some(match format {
        Format::Docx => DocumentFormat::Docx,
        Format::Pptx => DocumentFormat::Pptx,
        Format::Xlsx => DocumentFormat::Xlsx,
        Format::Doc => DocumentFormat::Doc,
        Format::Ppt => DocumentFormat::Ppt,
        Format::Xls => DocumentFormat::Xls,
        _ => return None,
    })
}

fn refusal(error: &OfficeError) -> ExtractError {
    let message = error.to_string();
    let says = |words: &str| message.contains(words);
    if says("password-protected") || says("encrypted") {
        ExtractError::PasswordProtected
    } else if says("limit exceeded") {
        ExtractError::too_many("times its size when it is unpacked", INFLATE_RATIO_MAX)
    } else {
        match error {
            OfficeError::Panic(_) => ExtractError::Crashed,
            _ => ExtractError::malformed(message),
        }
    }
}

struct Reading {
    writer: Writer,
    /// Headers and footers that were written: most pages have the same.
    said: HashSet<String>,
    /// Levels by which headings stand below the document's title, if it has one.
    below_title: u8,
}

impl Reading {
    fn sections(&mut self, sections: &[Section], job: &Job) -> Result<(), ExtractError> {
        let paged = !matches!(job.format, Format::Docx | Format::Doc);
        if paged && sections.len() > job.limits.pages_max {
            return Err(ExtractError::too_many("slides or sheets", job.limits.pages_max as u64));
        }
        let mut number = 0;
        for section in sections {
            if paged {
                number += 1;
                self.writer.page(number);
                let title = section.title.as_deref().unwrap_or_default();
                let heading = first_heading(section);
                if heading.is_none() && is_blank(title) {
                    self.writer.unheaded();
                }
                if heading.is_none_or(|heading| heading.trim() != title.trim()) {
                    self.writer.heading(1, title);
                }
            }
            self.elements(&section.elements, 0)?;
            if let Some(notes) = &section.speaker_notes {
                self.elements(notes, 0)?;
            }
        }
        for section in sections {
            let parts = [
                &section.first_page_header,
                &section.header,
                &section.even_page_header,
                &section.first_page_footer,
                &section.footer,
                &section.even_page_footer,
            ];
            for part in parts.into_iter().flatten() {
                let text = text_of(&part.content, 0);
                if !is_blank(&text) && self.said.insert(text.clone()) {
                    self.writer.paragraph(&text);
                }
            }
        }
        Ok(())
    }

    fn elements(&mut self, elements: &[Element], depth: usize) -> Result<(), ExtractError> {
        if depth > DEPTH_MAX {
            return Err(ExtractError::TooDeep);
        }
        for element in elements {
            match element {
                Element::Heading(heading) => {
                    let level = heading.clamped_level() + self.below_title;
                    self.writer.heading(level, &inline_to_text(&heading.content));
                }
                Element::Paragraph(paragraph)
                    if is_title_style(paragraph.style.as_deref()) && self.below_title == 0 =>
                {
                    self.writer.heading(1, &inline_to_text(&paragraph.content));
                    self.below_title = 1;
                }
                Element::Paragraph(paragraph) => self.writer.paragraph(&inline_to_text(&paragraph.content)),
                Element::Table(table) => self.table(table, depth)?,
                Element::List(list) => self.list(list, 0, depth + 1)?,
                Element::Image(image) => self.writer.paragraph(image.alt_text.as_deref().unwrap_or_default()),
                Element::TextBox(text_box) => self.elements(&text_box.content, depth + 1)?,
                Element::Footnote(note) | Element::Endnote(note) => {
                    let marker = note.marker.as_deref().map(|marker| format!("{marker}: ")).unwrap_or_default();
                    self.writer.paragraph(&format!("{marker}{}", text_of(&note.content, depth + 1)));
                }
                Element::CodeBlock(code) => self.writer.code(&code.content),
                _ => {}
            }
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<(), ExtractError> {
        self.writer.paragraph(table.caption.as_deref().unwrap_or_default());
        // A frame around something, and no table.
        if let [row] = table.rows.as_slice()
            && let [cell] = row.cells.as_slice()
        {
            return self.elements(&cell.content, depth + 1);
        }
        let rows = table.rows.iter().map(|row| {
            let cells = row.cells.iter().flat_map(|cell| {
                // What it spans stays empty, so that the next one stands under its header.
                let spanned = cell.col_span.clamp(1, SPAN_MAX) - 1;
                std::iter::once(text_of(&cell.content, depth + 1)).chain((0..spanned).map(|_| String::new()))
            });
            cells.collect::<Vec<_>>()
        });
        self.writer.table(rows);
        Ok(())
    }

    fn list(&mut self, list: &List, list_depth: usize, depth: usize) -> Result<(), ExtractError> {
        if depth > DEPTH_MAX {
            return Err(ExtractError::TooDeep);
        }
        let first = list.start_number.unwrap_or(1);
        for (item, number) in list.items.iter().zip(first..) {
            let marker = if list.ordered { format!("{number}{}", list.ordered_delimiter()) } else { "-".to_owned() };
            self.writer.item(list_depth, &marker, &text_of(&item.content, depth + 1));
            if let Some(nested) = &item.nested {
                self.list(nested, list_depth + 1, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// All text of these elements, a line for each.
fn text_of(elements: &[Element], depth: usize) -> String {
    if depth > DEPTH_MAX {
        return String::new();
    }
    let mut lines = Vec::new();
    for element in elements {
        let line = match element {
            Element::Heading(heading) => inline_to_text(&heading.content),
            Element::Paragraph(paragraph) => inline_to_text(&paragraph.content),
            Element::Table(table) => {
                let cells = table.rows.iter().flat_map(|row| &row.cells);
                cells.map(|cell| text_of(&cell.content, depth + 1)).collect::<Vec<_>>().join("\n")
            }
            Element::List(list) => items_of(&list.items, depth + 1),
            Element::Image(image) => image.alt_text.clone().unwrap_or_default(),
            Element::TextBox(text_box) => text_of(&text_box.content, depth + 1),
            Element::Footnote(note) | Element::Endnote(note) => text_of(&note.content, depth + 1),
            Element::CodeBlock(code) => code.content.clone(),
            _ => String::new(),
        };
        if !is_blank(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn items_of(items: &[ListItem], depth: usize) -> String {
    if depth > DEPTH_MAX {
        return String::new();
    }
    let lines = items.iter().flat_map(|item| {
        let nested = item.nested.as_ref().map(|nested| items_of(&nested.items, depth + 1));
        [Some(text_of(&item.content, depth + 1)), nested]
    });
    lines.flatten().filter(|line| !is_blank(line)).collect::<Vec<_>>().join("\n")
}

fn is_title_style(style: Option<&str>) -> bool {
    style.is_some_and(|style| style.eq_ignore_ascii_case("title"))
}

fn first_heading(section: &Section) -> Option<String> {
    section.elements.iter().find_map(|element| match element {
        Element::Heading(heading) => Some(inline_to_text(&heading.content)),
        _ => None,
    })
}
