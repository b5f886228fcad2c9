//! Samples of every format, read by the process that functions start for it: the right words on the right page, under the
//! right heading.

use std::time::Duration;

use ingest::chunk::{self, Chunk};
use ingest::extract::{
    Charset, ExtractError, Extracted, Format, Job,
    sandbox::{Sandbox, SandboxError},
};
use shared::{config::ExtractionConfig, deadline::Deadline};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Reads a fixture as if it had come without a type, by its name and its bytes.
async fn read(name: &str) -> Result<Extracted, ExtractError> {
    let bytes = fixture(name);
    let format = Format::detect(None, name, &bytes)?;
    // A busy machine is no reason to fail: the processor's time is limited as usual.
    let (program, timeout) = (Some(env!("CARGO_BIN_EXE_ingest").into()), Duration::from_mins(2));
    let config = ExtractionConfig { program, timeout, ..ExtractionConfig::default() };
    let job = Job { charset: Charset::Unknown, ..Job::new(format) };
    let deadline = Deadline::after(Duration::from_mins(5));
    Sandbox::new(config).extract(bytes.into(), job, deadline).await.map_err(|error| match error {
        SandboxError::Document(error) => error,
        other => panic!("{name}: {other:?}"),
    })
}

fn chunks(extracted: &Extracted) -> Vec<Chunk> {
    let limits = chunk::Limits { chunk_tokens_max: 60, ..chunk::Limits::default() };
    let count = |text: &str| Ok::<_, ()>(text.split_whitespace().count());
    chunk::chunk(extracted, limits, &count).unwrap()
}

fn headings_at(extracted: &Extracted, byte: usize) -> String {
    let section = extracted.sections.partition_point(|section| section.start <= byte) - 1;
    extracted.heading_path(section).join(" > ")
}

/// The words, the page of the chunk in which they stand, and its headings.
type Expected = (&'static str, &'static [(&'static str, Option<u32>, &'static str)]);

const EXPECTED: [Expected; 40] = [
    (
        "pdf/lorem-ipsum.pdf",
        &[("Proin lacinia cursus congue.", Some(1), ""), ("Aenean at erat elit, non venenatis justo.", Some(2), "")],
    ),
    ("pdf/text_only_pdfa1b.pdf", &[("It only contains some text.", Some(1), "")]),
    ("pdf/encryption_nocopy.pdf", &[("has waived all copyright", Some(1), "")]),
    ("pdf/externalLink.pdf", &[("Link to external document", Some(1), "")]),
    ("pdf/fileAttachment.pdf", &[("It contains a file attachment.", Some(1), "")]),
    ("pdf/text_only_fontsEmbeddedAll.pdf", &[("It only contains some text.", Some(1), "")]),
    ("pdf/webCapture.pdf", &[("It uses the Web Capture feature.", Some(1), "")]),
    ("pdf/T03_001_no-cross-reference-table.pdf", &[("Hello PDF-world!", Some(1), "")]),
    ("pdf/corruptionOneByteMissing.pdf", &[("It only contains some text.", Some(1), "")]),
    (
        "docx/unit_test_headers.docx",
        &[
            ("Paragraph 1.1.1", None, "Test Document > Section 1 > Section 1.1"),
            ("Paragraph 1.2.3.1", None, "Test Document > Section 1 > Section 1.2 > Section 1.2.3"),
            ("Paragraph 2.1.2", None, "Test Document > Section 2 > Section 2.1"),
        ],
    ),
    ("docx/word_tables.docx", &[("| Cell 1.0 | Merged Cell 1.1 1.2 |  |", None, "Test with tables")]),
    ("docx/docx_lists.docx", &[("1. List item a", None, "Test Document > Test 2:")]),
    ("docx/docx_comments.docx", &[("This paragraph has an anonymous comment.", None, "Document with Comments")]),
    ("docx/docx_rich_cells.docx", &[("Simple cell upper left", None, "Table with nested table")]),
    ("docx/list_after_num_headers.docx", &[("Definition 5", None, "Glosario")]),
    ("docx/textbox.docx", &[("more than three students", None, "")]),
    (
        "docx/unit_test_headers_numbered.docx",
        &[("Paragraph 1.2.3.1", None, "Test Document > Section 1 > Section 1.2 > Section 1.2.3")],
    ),
    (
        "docx/word_sample.docx",
        &[
            ("Paddle about", None, "Swimming in the lake > Let’s swim!"),
            ("I like to eat leaves", None, "Swimming in the lake > Let’s swim! > Let’s eat"),
        ],
    ),
    ("docx/tablecell.docx", &[("| D | E | F |", None, ""), ("- Hello2", None, "")]),
    ("docx/lorem_ipsum.docx", &[("consectetur adipiscing elit", None, "")]),
    ("docx/equations.docx", &[("a2+b2=c2", None, "")]),
    (
        "pptx/powerpoint_sample.pptx",
        &[
            ("With footnote", Some(1), "Test Table Slide"),
            ("Let’s introduce a list", Some(2), "Second slide title"),
            ("Final notes on the third slide.", Some(3), ""),
        ],
    ),
    (
        "doc/unit_test_headers.doc",
        &[
            ("Paragraph 1.1.1", None, "Section 1 > Section 1.1"),
            ("Paragraph 1.2.3.1", None, "Section 1 > Section 1.2 > Section 1.2.3"),
            ("Paragraph 2.1.2", None, "Section 2 > Section 2.1"),
        ],
    ),
    ("doc/word_tables.doc", &[("| Cell 1.0 | Merged Cell 1.1 1.2 |  |", None, "Test with tables")]),
    (
        "ppt/powerpoint_sample.ppt",
        &[
            ("With footnote", Some(1), "Test Table Slide"),
            ("Let’s introduce a list", Some(2), "Second slide title"),
            ("Final notes on the third slide.", Some(3), "Slide 3"),
        ],
    ),
    ("xls/xlsx_05_table_with_title.xls", &[("| 2024 | 180 |", Some(1), "Duck Observations")]),
    ("rtf/word_tables.rtf", &[("| Cell 1.0 | Cell 1.1 | Cell 1.2 |", None, "")]),
    (
        "pptx/powerpoint_bad_text.pptx",
        &[(
            "exclusively for our customers",
            Some(1),
            "X-Library The fully customisable and copyright-free standard content template collection exclusively for our customers",
        )],
    ),
    ("pptx/powerpoint_issue_2663.pptx", &[("Strong global community", Some(1), "Open-Source Software")]),
    ("pptx/pptx_chart.pptx", &[("2026: 10, 20, 30", Some(2), "Quarterly revenue")]),
    ("pptx/powerpoint_comments.pptx", &[("favorite package manager", Some(2), "Start")]),
    ("xlsx/xlsx_05_table_with_title.xlsx", &[("| 2024 | 180 |", Some(1), "Duck Observations")]),
    ("xlsx/xlsx_01.xlsx", &[("| 6 | 0 | -6 |", Some(1), "Sheet1"), ("| 8 | 16 | 24 | 32 |", Some(2), "Sheet2")]),
    ("xlsx/xlsx_06_edge_cases_.xlsx", &[("Additional interviewers insights", Some(1), "missing_header_head")]),
    ("csv/csv-semicolon.csv", &[("| Sheryl | Baxter | Rasmussen Group |", None, "")]),
    ("csv/csv-tab.csv", &[("| Sheryl | Baxter | Rasmussen Group |", None, "")]),
    ("csv/quotes_and_newlines.csv", &[("ha \"ha\" ha", None, "")]),
    ("eml/email-no-utf8-2008-07-16.062410.eml", &[("אשמח לסייע", None, "RE: שלום")]),
    ("eml/eml_with_attachment.eml", &[("This email contains an attachment.", None, "Email with Attachment")]),
    ("epub/lorem-ipsum.epub", &[("Proin lacinia cursus congue.", None, "")]),
];

#[tokio::test]
async fn samples_give_their_words_on_their_page_and_under_their_headings() {
    for (name, expected) in EXPECTED {
        let read = read(name).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let chunks = chunks(&read);
        for (words, page, headings) in expected {
            let at = read.text.find(words).unwrap_or_else(|| panic!("{name}: {words:?} in {}", read.text));
            assert_eq!(headings_at(&read, at), *headings, "{name}: {words:?}");
            let found = chunks.iter().find(|chunk| chunk.byte_start <= at && at < chunk.byte_end).unwrap();
            assert_eq!(found.page, *page, "{name}: {words:?}");
            assert_eq!(found.text, read.text[found.byte_start..found.byte_end]);
        }
    }
}

#[tokio::test]
async fn every_fixture_is_read_or_refused_with_a_reason() {
    let refused = [
        ("doc/encrypted.doc", "password_protected"),
        ("docx/encrypted.docx", "password_protected"),
        ("pdf/encryption_openpassword.pdf", "password_protected"),
        ("xls/encrypted.xls", "password_protected"),
        ("xlsx/encrypted.xlsx", "password_protected"),
        ("pdf/T02-02_002_page-tree-kids-links-recursive.pdf", "malformed_document"),
        ("pdf/T02-05-01_013_stream-keyword-missing.pdf", "malformed_document"),
    ];
    for folder in ["csv", "doc", "docx", "eml", "epub", "html", "markdown", "pdf", "ppt", "pptx", "rtf", "xls", "xlsx"]
    {
        let path = format!("{}/tests/fixtures/{folder}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(path).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            let code = read(&name).await.err().map(|error| error.code().as_str());
            let expected = refused.iter().find(|(refused, _)| *refused == name).map(|(_, code)| *code);
            assert_eq!(code, expected, "{name}");
        }
    }
}

/// A PDF of one page that draws this; object 4 is a picture.
fn page_that_draws(content: &str) -> Vec<u8> {
    let length = content.len();
    format!(
        "%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n\
         3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 5 0 R/Resources<</XObject<</P 4 0 R>>>>>>\nendobj\n\
         4 0 obj\n<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>\n\
         stream\n0\nendstream\nendobj\n5 0 obj\n<</Length {length}>>\nstream\n{content}\nendstream\nendobj\n\
         trailer\n<</Size 6/Root 1 0 R>>\n"
    )
    .into_bytes()
}

#[test]
fn what_has_no_text_is_told_apart() {
    let scan = page_that_draws("600 0 0 800 0 0 cm /P Do");
    assert_eq!(ingest::extract::extract(&scan, Format::Pdf), Err(ExtractError::NoText { pages: 1 }));
    assert_eq!(ingest::extract::extract(b"", Format::Pdf), Err(ExtractError::Empty));
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    let refusal = Format::detect(Some("application/pdf"), "scan.pdf", picture).unwrap_err();
    assert_eq!(refusal.code().as_str(), "unsupported_media_type");
}

#[tokio::test]
async fn titles_come_from_properties_or_headings() {
    for (name, title) in [
        ("pdf/text_only_pdfa1b.pdf", Some("This is a test document")),
        ("docx/unit_test_headers.docx", Some("Test Document")),
        ("eml/family-day.eml", Some("Family Day")),
        ("csv/simple.csv", None),
    ] {
        assert_eq!(read(name).await.unwrap().title.as_deref(), title, "{name}");
    }
}

#[test]
fn json_is_read_as_lines_with_paths_in_the_order_of_the_text() {
    let json = br#"{"z": {"b": [1, "x y"]}, "a": true, "empty": null, "deep": [[{"k": 2.5}]]}"#;
    let read = ingest::extract::extract(json, Format::Json).unwrap();
    assert_eq!(read.text, "z.b[0]: 1\nz.b[1]: x y\n\na: true\n\ndeep[0][0].k: 2.5");
    let lines = ingest::extract::extract(b"{\"a\": 1}\n{\"a\": 2}\n", Format::Json).unwrap();
    assert_eq!(lines.text, "a: 1\n\na: 2");
    let broken = ingest::extract::extract(b"{\"a\": ", Format::Json);
    assert!(matches!(broken, Err(ExtractError::Malformed { .. })), "{broken:?}");
}

#[test]
fn a_message_with_what_is_attached_is_read_as_one() {
    let mail = b"From: Ada <ada@example.com>\nSubject: Numbers\nMIME-Version: 1.0\n\
        Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>See <b>below</b>.</p>\n\
        --b\nContent-Type: text/csv; name=figures.csv\nContent-Disposition: attachment; filename=figures.csv\n\n\
        year,ducks\n2024,180\n\n--b\nContent-Type: image/png\nContent-Disposition: attachment; filename=duck.png\n\
        Content-Transfer-Encoding: base64\n\niVBORw0KGgoAAAANSUhEUg==\n--b--\n";
    let read = ingest::extract::extract(mail, Format::Mail).unwrap();
    for words in ["From: Ada <ada@example.com>", "See **below**.", "| 2024 | 180 |", "Attached: duck.png"] {
        assert!(read.text.contains(words), "{words}: {}", read.text);
    }
    let row = read.text.find("180").unwrap();
    assert_eq!(headings_at(&read, row), "Numbers > Attached: figures.csv");
}

#[test]
fn chunks_do_not_reach_over_pages() {
    let mut extracted = ingest::extract::extract(b"One.\n\nTwo.\n\nThree.\n\nFour.", Format::Plain).unwrap();
    assert_eq!(chunks(&extracted).len(), 1);
    extracted.pages =
        vec![ingest::extract::Page { start: 0, number: 1 }, ingest::extract::Page { start: 12, number: 2 }];
    let pages: Vec<_> = chunks(&extracted).into_iter().map(|chunk| (chunk.text, chunk.page)).collect();
    assert_eq!(pages, [("One.\n\nTwo.".to_owned(), Some(1)), ("Three.\n\nFour.".to_owned(), Some(2))]);
}

#[test]
fn large_texts_are_cut_in_linear_time() {
    let wide = format!("|{}\n|{}\n", " column |".repeat(4_000), "---|".repeat(4_000))
        + &format!("|{}\n", " 1 |".repeat(4_000)).repeat(20);
    for (text, format) in [
        ("x".repeat(2 << 20), Format::Plain),
        ("Some words of a sentence, and then another. ".repeat(230_000), Format::Plain),
        (wide, Format::Markdown),
    ] {
        let extracted = ingest::extract::extract(text.as_bytes(), format).unwrap();
        let chunks = chunks(&extracted);
        assert!(chunks.len() > 100);
        let kept: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
        assert!(kept > text.len() * 9 / 10);
    }
}
