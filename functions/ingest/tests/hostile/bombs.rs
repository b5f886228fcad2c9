//! Documents that are small and stand for something large, deep or endless.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use ingest::extract::{Engines, ExtractError, Format, Job, sandbox::SandboxError};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{fixture, read, sandboxed};

const DOCUMENT: &str = "word/document.xml";

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A Word document whose main part is this.
pub(crate) fn docx(document: &[u8]) -> Vec<u8> {
    let types = br#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#;
    let relations = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#;
    archive(&[("[Content_Types].xml", types), ("_rels/.rels", relations), (DOCUMENT, document)])
}

fn body(inner: &str) -> Vec<u8> {
    format!(
        r#"<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{inner}</w:body></w:document>"#
    )
    .into_bytes()
}

pub(crate) fn find(bytes: &[u8], what: &[u8], from: usize) -> usize {
    from + bytes[from..].windows(what.len()).position(|window| window == what).expect("it is there")
}

/// Where the table of contents has its entry for the main part.
fn entry(docx: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at = find(docx, b"PK\x01\x02", at);
        if docx[at + 46..].starts_with(DOCUMENT.as_bytes()) {
            return at;
        }
        at += 4;
    }
}

fn is_typed(result: &Result<ingest::extract::Extracted, ExtractError>) -> bool {
    !matches!(result, Err(ExtractError::Crashed | ExtractError::TimedOut { .. }))
}

#[tokio::test]
async fn the_harmless_ones_are_read() {
    let read = read(docx(&body("<w:p><w:r><w:t>harmless</w:t></w:r></w:p>")), Format::Docx).await;
    assert_eq!(read.unwrap().text, "harmless");
}

#[tokio::test]
async fn an_archive_that_unpacks_to_too_much_is_refused_whatever_it_says_of_itself() {
    let mut bomb = docx(&vec![b' '; 48 << 20]);
    let refusal = read(bomb.clone(), Format::Docx).await;
    assert!(matches!(refusal, Err(ExtractError::TooComplex { .. })), "{refusal:?}");
    // The same, with a table of contents that tells of a kilobyte.
    let at = entry(&bomb) + 24;
    bomb[at..at + 4].copy_from_slice(&1_000_u32.to_le_bytes());
    let refusal = read(bomb, Format::Docx).await;
    assert!(refusal.is_err() && is_typed(&refusal), "{refusal:?}");
}

#[tokio::test]
async fn files_that_share_their_bytes_are_refused() {
    let mut bomb = docx(&body("<w:p/>"));
    let at = entry(&bomb) + 42;
    bomb[at..at + 4].copy_from_slice(&0_u32.to_le_bytes());
    let refusal = read(bomb, Format::Docx).await;
    assert!(matches!(refusal, Err(ExtractError::Malformed { .. })), "{refusal:?}");
}

#[tokio::test]
async fn an_archive_of_archives_is_not_unpacked_further() {
    let mut inner = docx(&vec![b' '; 4 << 20]);
    for _ in 0..5 {
        inner = archive(&[("word/embedded.docx", &inner), ("again.zip", &inner)]);
    }
    let refusal = read(inner, Format::Docx).await;
    assert!(refusal.is_err() && is_typed(&refusal), "{refusal:?}");
}

#[tokio::test]
async fn a_billion_laughs_are_not_laughed() {
    let mut entities = r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "laugh">"#.to_owned();
    for level in 1..=10 {
        let before = level - 1;
        write!(entities, r#"<!ENTITY l{level} "{}">"#, format!("&l{before};").repeat(10)).unwrap();
    }
    let document = String::from_utf8(body("<w:p><w:r><w:t>&l10;</w:t></w:r></w:p>")).unwrap();
    let document = document.replacen(r#"<?xml version="1.0"?>"#, &(entities.clone() + "]>"), 1);
    let result = read(docx(document.as_bytes()), Format::Docx).await;
    assert!(is_typed(&result), "{result:?}");
    assert!(result.is_err() || result.is_ok_and(|read| read.text.len() < 1_000));
    let page = entities + "]><html><body><p>&l10;</p></body></html>";
    let read = read(page.into_bytes(), Format::Html).await.unwrap();
    assert!(read.text.len() < 10_000, "{}", read.text.len());
}

#[tokio::test]
async fn whatever_is_nested_without_end_ends() {
    let deep = |open: &str, close: &str, count: usize| format!("{}x{}", open.repeat(count), close.repeat(count));
    let paragraph = |inner: &str| body(&inner.replace('x', "<w:p><w:r><w:t>x</w:t></w:r></w:p>"));
    let tables = deep("<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>", 20_000);
    let cases: Vec<(Vec<u8>, Format)> = vec![
        (docx(&paragraph(&tables)), Format::Docx),
        (docx(&paragraph(&deep("<w:sdt><w:sdtContent>", "</w:sdtContent></w:sdt>", 50_000))), Format::Docx),
        (deep("<div>", "</div>", 200_000).into_bytes(), Format::Html),
        (deep("[", "]", 1_000_000).into_bytes(), Format::Json),
        (deep("{\"a\":", "}", 300_000).into_bytes(), Format::Json),
        (b"{\\rtf1 ".iter().copied().chain(b"{".repeat(1_000_000)).collect(), Format::Rtf),
        (pdf(&[&deep("[", "]", 300_000)]), Format::Pdf),
        (pdf(&[&deep("<</A ", ">>", 300_000)]), Format::Pdf),
    ];
    for (bytes, format) in cases {
        let result = read(bytes, format).await;
        assert!(is_typed(&result), "{format:?}: {result:?}");
    }
    let nested = (0..60).fold("Subject: innermost\n\ntext".to_owned(), |inner, _| {
        format!("Subject: x\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n{inner}")
    });
    let result = read(nested.into_bytes(), Format::Mail).await;
    assert!(is_typed(&result), "{result:?}");
}

#[tokio::test]
async fn a_sheet_that_claims_all_rows_and_columns_is_read_or_refused() {
    let sheet = r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells></worksheet>"#;
    let original = fixture("xlsx/xlsx_05_table_with_title.xlsx");
    let bomb =
        replaced(
            &original,
            |name, bytes| {
                if name.starts_with("xl/worksheets/sheet") { sheet.as_bytes().to_vec() } else { bytes }
            },
        );
    let result = read(bomb, Format::Xlsx).await;
    assert!(is_typed(&result), "{result:?}");
}

/// The archive with other files in it.
pub(crate) fn replaced(original: &[u8], mut replace: impl FnMut(&str, Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(original)).unwrap();
    let mut files = Vec::new();
    for index in 0..from.len() {
        let mut file = from.by_index(index).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        let name = file.name().unwrap().into_owned();
        let bytes = replace(&name, bytes);
        files.push((name, bytes));
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    archive(&files)
}

/// A PDF of these objects, numbered from 4, after a catalogue, its pages (object 2) and one page (object 3).
fn pdf(objects: &[&str]) -> Vec<u8> {
    pages("[3 0 R]", "1", "/Contents 4 0 R", objects)
}

pub(crate) fn pages(kids: &str, count: &str, page: &str, objects: &[&str]) -> Vec<u8> {
    let mut pdf = "%PDF-1.4\n".to_owned();
    let first = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        format!("<</Type/Pages/Kids {kids}/Count {count}>>"),
        format!("<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]{page}>>"),
    ];
    let all = first.iter().map(String::as_str).chain(objects.iter().copied());
    let mut offsets = Vec::new();
    for (object, number) in all.zip(1..) {
        offsets.push(pdf.len());
        write!(pdf, "{number} 0 obj\n{object}\nendobj\n").unwrap();
    }
    let start = pdf.len();
    write!(pdf, "xref\n0 {}\n0000000000 65535 f \n", offsets.len() + 1).unwrap();
    for offset in &offsets {
        writeln!(pdf, "{offset:010} 00000 n ").unwrap();
    }
    write!(pdf, "trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n", offsets.len() + 1).unwrap();
    pdf.into_bytes()
}

pub(crate) fn stream(entries: &str, content: &str) -> String {
    format!("<<{entries}/Length {}>>\nstream\n{content}\nendstream", content.len())
}

#[tokio::test]
async fn pdfs_that_go_in_circles_or_claim_endless_pages_end() {
    let font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>";
    let resources = "/Resources<</Font<</F 5 0 R>>/XObject<</X 6 0 R/Y 7 0 R>>>>";
    let form = |content: &str| stream(&format!("/Type/XObject/Subtype/Form/BBox[0 0 9 9]{resources}"), content);
    let text = stream("", "BT /F 12 Tf 72 720 Td (A plain page) Tj ET");
    let page = format!("/Contents 4 0 R{resources}");
    let plain = pages("[3 0 R]", "1", &page, &[&text, font]);
    assert_eq!(read(plain, Format::Pdf).await.unwrap().text, "A plain page");

    let draws = stream("", "/X Do /Y Do /X Do /Y Do");
    let circle = form("/Y Do /X Do /Y Do /X Do /Y Do /X Do /Y Do /X Do");
    let nothing = "[]".to_owned();
    let cases = [
        ("claims", pages("[3 0 R]", "2000000000", &page, &[&text, font])),
        ("the same page", pages(&format!("[{}]", "3 0 R ".repeat(200_000)), "200000", &page, &[&text, font])),
        ("its own parent", pages("[2 0 R 2 0 R 3 0 R]", "3", &page, &[&text, font])),
        ("forms", pages("[3 0 R]", "1", &page, &[&draws, font, &circle, &circle])),
        ("contents of itself", pages("[3 0 R]", "1", "/Contents [4 0 R 4 0 R]", &["[4 0 R 4 0 R 4 0 R]", font])),
        ("length of itself", pages("[3 0 R]", "1", &page, &["<</Length 4 0 R>>\nstream\nx\nendstream", font])),
        (
            "a font of itself",
            pages(
                "[3 0 R]",
                "1",
                &page,
                &[&text, "<</Type/Font/Subtype/Type0/BaseFont/X/DescendantFonts[5 0 R]/ToUnicode 5 0 R>>", &nothing],
            ),
        ),
        ("operators", pages("[3 0 R]", "1", &page, &[&stream("", &"q ".repeat(500_000)), font])),
    ];
    for (name, bytes) in cases {
        let result = read(bytes, Format::Pdf).await;
        // The clock may end one of them; nothing else may.
        assert!(!matches!(result, Err(ExtractError::Crashed)), "{name}: {result:?}");
        println!("{name}: {:?}", result.map(|read| read.text.len()));
    }
}

/// A page that is read, beside something that no engine may look at.
fn trapped(trap: &str) -> Vec<u8> {
    let text =
        stream("", "BT /F 12 Tf 72 720 Td (A page that is plain enough to be read by whoever gets this far) Tj ET");
    let font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>";
    pages("[3 0 R]", "1", "/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>", &[&text, font, trap])
}

#[tokio::test]
async fn what_one_engine_dies_of_the_other_reads() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(300_000), close.repeat(300_000));
    for trap in [deep("[", "]"), deep("<</A ", ">>")] {
        let pdf = trapped(&trap);
        let alone = sandboxed(pdf.clone(), Job { engines: Engines::First, ..Job::new(Format::Pdf) }).await;
        assert!(matches!(alone, Err(SandboxError::Document(ExtractError::TooDeep))), "{alone:?}");
        assert!(read(pdf, Format::Pdf).await.unwrap().text.contains("plain enough"));
    }
}

#[tokio::test]
async fn a_mail_is_read_without_the_attachment_that_breaks_the_reader() {
    let deep = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
    let trap = pages("[3 0 R]", "1", "/Contents 4 0 R", &[&deep]);
    let mail = [
        b"Subject: Bees\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n".as_slice(),
        b"--x\nContent-Type: text/plain\n\nThe bees live behind the shed.\n",
        b"--x\nContent-Type: application/pdf; name=trap.pdf\n\n",
        &trap,
        b"\n--x--\n",
    ];
    let text = read(mail.concat(), Format::Mail).await.unwrap().text;
    assert!(text.contains("behind the shed") && text.contains("trap.pdf"), "{text}");
}

#[tokio::test]
async fn samples_that_were_broken_on_purpose_are_read_or_refused() {
    for name in [
        "T02-02_002_page-tree-kids-links-recursive",
        "T02-05-01_013_stream-keyword-missing",
        "T03_001_no-cross-reference-table",
        "corruptionOneByteMissing",
    ] {
        let result = read(fixture(&format!("pdf/{name}.pdf")), Format::Pdf).await;
        assert!(is_typed(&result), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn long_lines_without_a_place_to_break_are_read() {
    let cases = [
        (vec![b','; 4 << 20], Format::Csv),
        (vec![b'x'; 8 << 20], Format::Html),
        (vec![b'"'; 4 << 20], Format::Csv),
        (b"a:b\n".repeat(1 << 20), Format::Mail),
        (vec![b'\\'; 4 << 20], Format::Rtf),
    ];
    for (bytes, format) in cases {
        let result = read(bytes, format).await;
        assert!(is_typed(&result), "{format:?}: {:?}", result.map(|read| read.text.len()));
    }
}
