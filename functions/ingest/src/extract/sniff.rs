//! What the bytes are. A signature counts more than what they are called; text has none, and is what it is said to be.

use super::encoding::utf_16;
use super::zip::Directory;
use super::{ExtractError, Format, is_refused_control};

/// Bytes in which a control character tells that they are no text.
const HEAD_BYTES: usize = 8 * 1024;

/// Bytes before a PDF's header that readers put up with.
/// <https://opensource.adobe.com/dc-acrobat-sdk-docs/pdfstandards/PDF32000_2008.pdf>, annex H
const PDF_JUNK_BYTES_MAX: usize = 1024;

/// Media types that say nothing.
const GENERIC: [&str; 5] = [
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-download",
    "application/zip",
    "application/x-zip-compressed",
];

/// Header fields of which a message has two among its first lines.
const MAIL_FIELDS: [&str; 12] = [
    "received:",
    "return-path:",
    "from:",
    "to:",
    "date:",
    "subject:",
    "message-id:",
    "mime-version:",
    "delivered-to:",
    "dkim-signature:",
    "reply-to:",
    "content-type:",
];

impl Format {
    /// What the bytes are, sent as `declared` under `name`.
    ///
    /// A PDF that is sent as text is a PDF. Where the bytes have no signature, the declared type decides; if that says
    /// nothing, the name's ending does, and then the look of the text.
    ///
    /// # Errors
    /// `Unsupported` or `Malformed`.
    pub fn detect(declared: Option<&str>, name: &str, bytes: &[u8]) -> Result<Self, ExtractError> {
        let essence = declared.and_then(|declared| declared.split(';').next()).map(str::trim);
        let said = essence.filter(|essence| !GENERIC.iter().any(|generic| generic.eq_ignore_ascii_case(essence)));
        let known = said.map(Self::from_media_type);
        let hint = known.flatten().or_else(|| Self::from_name(name));
        if let Some(found) = signature(bytes, hint) {
            return Ok(found);
        }
        if let Some(found) = foreign(bytes) {
            let declared = said.filter(|said| !said.eq_ignore_ascii_case(found)).map(str::to_owned);
            return Err(ExtractError::Unsupported { found: found.to_owned(), declared });
        }
        match (said, known.flatten(), hint) {
            (_, Some(format), _) | (None, None, Some(format)) if format.is_text() => Ok(format),
            (_, Some(format), _) | (None, None, Some(format)) => {
                Err(ExtractError::malformed(format!("it is not {}, as it is said to be", format.media_type())))
            }
            (Some(said), None, _) => Err(ExtractError::Unsupported { found: said.to_owned(), declared: None }),
            (None, None, None) => Ok(text_format(bytes)),
        }
    }
}

/// The format that the bytes' own marks tell. `hint` decides where they leave a choice.
fn signature(bytes: &[u8], hint: Option<Format>) -> Option<Format> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let junk_max = if hint == Some(Format::Pdf) { PDF_JUNK_BYTES_MAX } else { 0 };
    let head = text.get(..junk_max + 5).unwrap_or(text);
    if head.windows(5).any(|window| window == b"%PDF-") {
        return Some(Format::Pdf);
    }
    if text.starts_with(b"{\\rtf") {
        return Some(Format::Rtf);
    }
    if bytes.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        return compound(bytes, hint);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return archive(bytes, hint);
    }
    None
}

fn archive(bytes: &[u8], hint: Option<Format>) -> Option<Format> {
    let packed = [Format::Docx, Format::Pptx, Format::Xlsx, Format::Epub];
    let Some(directory) = Directory::read(bytes) else {
        // Cut off: what it was is only known from what it is called.
        return hint.filter(|hint| packed.contains(hint));
    };
    if directory.has("META-INF/container.xml") {
        return Some(Format::Epub);
    }
    let folders = [("word/", Format::Docx), ("ppt/", Format::Pptx), ("xl/", Format::Xlsx)];
    folders.into_iter().find(|(folder, _)| directory.has_folder(folder)).map(|(_, format)| format)
}

/// A compound file, by the streams whose names stand in it.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-cfb>
fn compound(bytes: &[u8], hint: Option<Format>) -> Option<Format> {
    let has = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        bytes.windows(wide.len()).any(|window| window == wide)
    };
    let streams = [
        (Format::Doc, "WordDocument"),
        (Format::Ppt, "PowerPoint Document"),
        (Format::Xls, "Workbook"),
        (Format::Xls, "Book"),
    ];
    // Any of them may have another embedded: then what it is called decides.
    let hinted = streams.iter().find(|(format, name)| hint == Some(*format) && has(name));
    let found = hinted.or_else(|| streams.iter().find(|(_, name)| has(name))).map(|(format, _)| *format);
    // What Office encrypts is put into a compound file, whatever it was.
    found.or_else(|| has("EncryptedPackage").then(|| hint.filter(|hint| !hint.is_text()).unwrap_or(Format::Docx)))
}

/// What else is known of bytes that are no text, as a media type.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    let is_text =
        !head.iter().any(|byte| is_refused_control(char::from(*byte)) && *byte != 0x1b) || utf_16(head).is_some();
    if is_text || head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return None;
    }
    infer::get(bytes).map(|found| found.mime_type())
}

/// A text's format by its look.
fn text_format(bytes: &[u8]) -> Format {
    let head = String::from_utf8_lossy(bytes.get(..HEAD_BYTES).unwrap_or(bytes));
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &str| head.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if begins("<!doctype html") || begins("<html") {
        return Format::Html;
    }
    if head.starts_with(['{', '[']) && serde_json::from_slice::<serde::de::IgnoredAny>(bytes.trim_ascii()).is_ok() {
        return Format::Json;
    }
    let fields = head.lines().take_while(|line| !line.is_empty()).filter(|line| {
        MAIL_FIELDS.iter().any(|field| line.get(..field.len()).is_some_and(|start| start.eq_ignore_ascii_case(field)))
    });
    let begins_with_field = head.lines().next().is_some_and(|line| {
        line.split_once(':').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
    });
    if begins_with_field && fields.count() > 1 { Format::Mail } else { Format::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

    fn detect(declared: &str, name: &str, bytes: &[u8]) -> Result<Format, ExtractError> {
        Format::detect((!declared.is_empty()).then_some(declared), name, bytes)
    }

    #[test]
    fn a_signature_counts_more_than_what_the_bytes_are_called() {
        assert_eq!(detect("text/plain", "note.txt", b"%PDF-1.7\n..."), Ok(Format::Pdf));
        assert_eq!(detect("application/pdf", "x", b"junk\n%PDF-1.7\n"), Ok(Format::Pdf));
        assert_eq!(detect("application/pdf", "x", b"{\\rtf1 text}"), Ok(Format::Rtf));
        let unsupported = |declared: Option<&str>| ExtractError::Unsupported {
            found: "image/png".into(),
            declared: declared.map(Into::into),
        };
        assert_eq!(detect("application/pdf", "x.pdf", PNG), Err(unsupported(Some("application/pdf"))));
        assert_eq!(detect("image/png", "x.png", PNG), Err(unsupported(None)));
    }

    #[test]
    fn text_is_what_it_is_said_to_be() {
        assert_eq!(detect("text/markdown", "x.csv", b"BM is no picture"), Ok(Format::Markdown));
        assert_eq!(detect("text/plain", "x", b"<html>as it is</html>"), Ok(Format::Plain));
        assert_eq!(detect("text/tab-separated-values; charset=utf-8", "x", b"a\tb"), Ok(Format::Csv));
        assert!(matches!(detect("application/pdf", "x", b"text"), Err(ExtractError::Malformed { .. })));
        assert!(matches!(detect("image/png", "x", b"text"), Err(ExtractError::Unsupported { .. })));
    }

    #[test]
    fn what_is_called_nothing_is_known_by_its_ending_and_then_its_look() {
        let look = |name, bytes: &str| detect("binary/octet-stream", name, bytes.as_bytes());
        assert_eq!(look("a/b.MD", "# x"), Ok(Format::Markdown));
        assert_eq!(look("a.b/c", " <!DOCTYPE html><p>x"), Ok(Format::Html));
        assert_eq!(look("c", "[{\"a\": 1}]\n"), Ok(Format::Json));
        assert_eq!(look("c", "[a] is no JSON"), Ok(Format::Plain));
        assert_eq!(look("c", "From: a@example.com\nSubject: x\n\nbody"), Ok(Format::Mail));
        assert_eq!(look("c", "Dear all: hello\nFrom: me\n"), Ok(Format::Plain));
        assert!(matches!(look("c.docx", "text"), Err(ExtractError::Malformed { .. })));
        assert_eq!(
            detect("", "c", "\u{feff}wide".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice()),
            Ok(Format::Plain)
        );
    }
}
