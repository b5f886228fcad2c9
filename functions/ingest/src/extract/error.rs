//! Why a document can not be read.

use serde::{Deserialize, Serialize};

/// Why a document cannot be read. None of these goes away by trying again.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum ExtractError {
    /// The bytes are not UTF-8, as they were said to be.
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
    /// There is nothing in it.
    #[error("the document has no text")]
    Empty,
    /// It has pages, and nothing on them that is text: pictures of a text, most likely.
    #[error("none of the {pages} pages has text: a scan, most likely")]
    NoText {
        /// How many.
        pages: usize,
    },
    /// It is encrypted.
    #[error("the document is protected by a password")]
    PasswordProtected,
    /// It is something that is not read.
    #[error("it is {found}{}, which is not supported", .declared.as_ref().map(|declared| format!(", and not {declared}")).unwrap_or_default())]
    Unsupported {
        /// What it is, as a media type.
        found: String,
        /// What it was said to be, if that is something else.
        declared: Option<String>,
    },
    /// It is not what it says, or it is damaged beyond reading.
    #[error("the document is damaged: {reason}")]
    Malformed {
        /// What is wrong with it, for people.
        reason: String,
    },
    /// It holds more of something than is read.
    #[error("the document has more than {limit} {what}")]
    TooComplex {
        /// Of what, in plural.
        what: String,
        /// The most that is read.
        limit: u64,
    },
    /// Its parts are nested deeper than any stack reaches.
    #[error("the document's parts are nested too deep inside one another")]
    TooDeep,
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
    /// It has more bytes than are read.
    #[error("the document has more than {limit} bytes")]
    InputTooLarge {
        /// The most that is read.
        limit: usize,
    },
    /// It has more text than is kept.
    #[error("the document's text has more than {limit} bytes")]
    TextTooLarge {
        /// The most that is kept.
        limit: usize,
    },
    /// Reading it took too long.
    #[error("reading took longer than {limit_ms} ms")]
    TimedOut {
        /// The longest that it may take of the processor.
        limit_ms: u64,
    },
    /// Reading it took too much memory.
    #[error("reading took more than {limit} bytes of memory")]
    OutOfMemory {
        /// The most that it may take.
        limit: u64,
    },
    /// The parser broke down over it.
    #[error("the parser broke down over the document")]
    Crashed,
}

impl ExtractError {
    /// Whether it is the end of the process that read the document, and not a finding about it.
    pub(super) fn ended_the_reader(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::OutOfMemory { .. } | Self::TooDeep | Self::Crashed)
    }

    pub(super) fn malformed(reason: impl std::fmt::Display) -> Self {
        // A parser's message may quote the document.
        Self::Malformed { reason: super::short_line(&reason.to_string(), super::TITLE_CHARS_MAX) }
    }

    pub(super) fn too_many(what: &str, limit: u64) -> Self {
        Self::TooComplex { what: what.to_owned(), limit }
    }
}
