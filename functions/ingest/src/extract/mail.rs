//! E-mail: its head, its text, and what is attached to it.

use mail_parser::{Address, Message, MessageParser, MessagePart, MimeHeaders as _};

use super::{Engines, ExtractError, Extracted, Format, Job, extract_as, html, is_blank, writer::Writer};

/// Messages in one another: a forwarded message in a forwarded message.
const DEPTH_MAX: usize = 4;

/// Attachments of one message.
const ATTACHMENTS_MAX: usize = 500;

pub(super) fn extract(bytes: &[u8], job: &Job) -> Result<Extracted, ExtractError> {
    let message = MessageParser::default().parse(bytes);
    let message = message.ok_or_else(|| ExtractError::malformed("it is no e-mail"))?;
    let mut writer = Writer::new(&job.limits);
    write(&mut writer, &message, 0, job)?;
    writer.finish(message.subject())
}

fn write(writer: &mut Writer, message: &Message<'_>, depth: usize, job: &Job) -> Result<(), ExtractError> {
    let level = u8::try_from(2 * depth + 1).unwrap_or(u8::MAX);
    writer.heading(level, message.subject().unwrap_or_default());
    writer.fields([
        ("From", addresses(message.from())),
        ("To", addresses(message.to())),
        ("Cc", addresses(message.cc())),
        ("Date", message.date().map(mail_parser::DateTime::to_rfc822).unwrap_or_default()),
    ]);
    body(writer, message, level)?;
    if message.attachment_count() > ATTACHMENTS_MAX {
        return Err(ExtractError::too_many("attachments", ATTACHMENTS_MAX as u64));
    }
    for part in message.attachments() {
        if writer.is_full() {
            break;
        }
        attachment(writer, part, depth, job)?;
    }
    Ok(())
}

fn body(writer: &mut Writer, message: &Message<'_>, level: u8) -> Result<(), ExtractError> {
    // Each part once: where a part has two forms, the plain one is what its writer saw too.
    for part in message.text_bodies() {
        if part.is_text_html() {
            match html::whole(part.text_contents().unwrap_or_default()) {
                Ok(read) => writer.append(&read, level),
                Err(ExtractError::Empty) => {}
                Err(error) => return Err(error),
            }
        } else {
            for paragraph in paragraphs(part.text_contents().unwrap_or_default()) {
                writer.paragraph(&paragraph);
            }
        }
    }
    Ok(())
}

fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        match paragraphs.last_mut() {
            Some(paragraph) if !is_blank(line) => {
                if !paragraph.is_empty() {
                    paragraph.push('\n');
                }
                paragraph.push_str(line.trim_end());
            }
            Some(paragraph) if !paragraph.is_empty() => paragraphs.push(String::new()),
            _ => {}
        }
    }
    paragraphs
}

/// An attachment is named; if it is something that is read, its text follows under its name.
fn attachment(writer: &mut Writer, part: &MessagePart<'_>, depth: usize, job: &Job) -> Result<(), ExtractError> {
    let level = u8::try_from(2 * depth + 2).unwrap_or(u8::MAX);
    let kind = part.content_type().map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("*")));
    if let Some(message) = part.message() {
        if depth == DEPTH_MAX {
            return Err(ExtractError::TooDeep);
        }
        writer.heading(level, &format!("Attached: {}", message.subject().unwrap_or("a message")));
        return write(writer, message, depth + 1, job);
    }
    let name = part.attachment_name().or(kind.as_deref()).unwrap_or("a file");
    writer.heading(level, &format!("Attached: {name}"));
    let Ok(format) = Format::detect(kind.as_deref(), name, part.contents()) else { return Ok(()) };
    if format == Format::Mail && depth == DEPTH_MAX {
        return Err(ExtractError::TooDeep);
    }
    let text = if part.is_text() { super::Charset::Utf8 } else { super::Charset::Unknown };
    // One that can not be read is still attached, and a message is more than what hangs on it.
    if format != Format::Mail
        && job.engines == Engines::Both
        && let Ok(mut read) =
            extract_as(part.contents(), &Job { charset: text, limits: job.limits.clone(), ..Job::new(format) })
    {
        read.pages.clear();
        writer.append(&read, level);
    }
    Ok(())
}

fn addresses(addresses: Option<&Address<'_>>) -> String {
    let all = addresses.into_iter().flat_map(Address::iter).map(|address| match (address.name(), address.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    });
    all.collect::<Vec<_>>().join(", ")
}
