//! The kinds of documents that are read, and how they are called.

use serde::{Deserialize, Serialize};

/// What kind of document the bytes are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Format {
    /// Text without markup.
    Plain,
    /// `CommonMark` with tables and footnotes.
    Markdown,
    /// HTML: the main content of the page.
    Html,
    /// PDF: the text of its pages.
    Pdf,
    /// Word, since 2007.
    Docx,
    /// `PowerPoint`, since 2007: its slides.
    Pptx,
    /// Excel, since 2007: its sheets.
    Xlsx,
    /// Word, before 2007.
    Doc,
    /// `PowerPoint`, before 2007.
    Ppt,
    /// Excel, before 2007.
    Xls,
    /// A table with commas, semicolons, tabs or bars between its cells.
    Csv,
    /// JSON, also one value a line.
    Json,
    /// An e-mail with its attachments (RFC 5322).
    Mail,
    /// An electronic book.
    Epub,
    /// Rich Text Format.
    Rtf,
}

impl Format {
    /// Every format, for lists of what is supported.
    pub const ALL: [Self; 15] = [
        Self::Plain,
        Self::Markdown,
        Self::Html,
        Self::Pdf,
        Self::Docx,
        Self::Pptx,
        Self::Xlsx,
        Self::Doc,
        Self::Ppt,
        Self::Xls,
        Self::Csv,
        Self::Json,
        Self::Mail,
        Self::Epub,
        Self::Rtf,
    ];

    /// The format of a media type, with or without parameters; `None` when it is not supported.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let other = ALIASES.iter().find(|(alias, _)| *alias == essence).map(|(_, format)| *format);
        Self::ALL.into_iter().find(|format| format.media_type() == essence).or(other)
    }

    /// The format that a file of this name has by its ending, if that tells one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let (_, ending) = file.rsplit_once('.')?;
        let ending = ending.to_ascii_lowercase();
        Self::ALL.into_iter().find(|format| format.endings().contains(&ending.as_str()))
    }

    /// The media type, lower case, without parameters.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain",
            Self::Markdown => "text/markdown",
            Self::Html => "text/html",
            Self::Pdf => "application/pdf",
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Pptx => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Doc => "application/msword",
            Self::Ppt => "application/vnd.ms-powerpoint",
            Self::Xls => "application/vnd.ms-excel",
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::Mail => "message/rfc822",
            Self::Epub => "application/epub+zip",
            Self::Rtf => "application/rtf",
        }
    }

    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["txt", "text", "log"],
            Self::Markdown => &["md", "markdown", "mdown"],
            Self::Html => &["html", "htm", "xhtml"],
            Self::Pdf => &["pdf"],
            Self::Docx => &["docx", "docm", "dotx", "dotm"],
            Self::Pptx => &["pptx", "pptm", "ppsx", "ppsm", "potx"],
            Self::Xlsx => &["xlsx", "xlsm", "xltx"],
            Self::Doc => &["doc", "dot"],
            Self::Ppt => &["ppt", "pps", "pot"],
            Self::Xls => &["xls", "xlt"],
            Self::Csv => &["csv", "tsv", "tab"],
            Self::Json => &["json", "jsonl", "ndjson"],
            Self::Mail => &["eml"],
            Self::Epub => &["epub"],
            Self::Rtf => &["rtf"],
        }
    }

    /// Whether the bytes are text, which has no signature: what it is said to be decides how it is read.
    #[must_use]
    pub fn is_text(self) -> bool {
        match self {
            Self::Plain | Self::Markdown | Self::Html | Self::Csv | Self::Json | Self::Mail => true,
            Self::Pdf
            | Self::Docx
            | Self::Pptx
            | Self::Xlsx
            | Self::Doc
            | Self::Ppt
            | Self::Xls
            | Self::Epub
            | Self::Rtf => false,
        }
    }

    /// Whether reading needs a parser that hostile bytes could take down, and so a process of its own.
    #[must_use]
    pub fn is_contained(self) -> bool {
        !matches!(self, Self::Plain | Self::Markdown)
    }
}

/// Other names that are in use for the same.
const ALIASES: [(&str, Format); 16] = [
    ("text/x-markdown", Format::Markdown),
    ("application/xhtml+xml", Format::Html),
    ("application/x-pdf", Format::Pdf),
    ("application/vnd.ms-word.document.macroenabled.12", Format::Docx),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.template", Format::Docx),
    ("application/vnd.ms-powerpoint.presentation.macroenabled.12", Format::Pptx),
    ("application/vnd.openxmlformats-officedocument.presentationml.slideshow", Format::Pptx),
    ("application/vnd.ms-excel.sheet.macroenabled.12", Format::Xlsx),
    ("application/csv", Format::Csv),
    ("text/tab-separated-values", Format::Csv),
    ("text/json", Format::Json),
    ("application/x-ndjson", Format::Json),
    ("application/jsonl", Format::Json),
    ("application/eml", Format::Mail),
    ("text/rtf", Format::Rtf),
    ("text/richtext", Format::Rtf),
];
