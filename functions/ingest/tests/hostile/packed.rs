//! Documents that unpack to more than any machine holds, by every packing that their formats know; and tables of contents
//! that lead nowhere.

use std::fmt::Write as _;

use ingest::extract::{ExtractError, Extracted, Format};

use crate::bombs::{archive, docx, find, pages, replaced, stream};
use crate::{fixture, read};

/// Read or refused for a reason: the reader did not break down.
fn is_told(result: &Result<Extracted, ExtractError>) -> bool {
    !matches!(result, Err(ExtractError::Crashed))
}

/// Packed as ZIP packs it, with what PDF wants around it.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    const NAME: &str = "x";
    let packed = archive(&[(NAME, bytes)]);
    let start = 30 + NAME.len();
    let end = find(&packed, b"PK\x01\x02", start);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    [&[0x78, 0x9c], &packed[start..end], &(b << 16 | a).to_be_bytes()].concat()
}

/// LZW's code for `runs` times seven megabytes of zeros.
fn lzw(runs: usize) -> Vec<u8> {
    let (mut packed, mut bits, mut held) = (Vec::new(), 0_u64, 0_u32);
    let mut put = |code: u64, width: u32| {
        bits = bits << width | code;
        held += width;
        while held >= 8 {
            held -= 8;
            packed.push((bits >> held & 0xff) as u8);
        }
        bits &= (1 << held) - 1;
    };
    for _ in 0..runs {
        put(256, 9);
        put(0, 9);
        for code in 258_u64..4_094 {
            let width = match code {
                0..=510 => 9,
                511..=1_022 => 10,
                1_023..=2_046 => 11,
                _ => 12,
            };
            put(code, width);
        }
    }
    packed
}

/// A page that draws these bytes, which are packed so.
fn packed_page(filters: &str, bytes: &[u8]) -> Vec<u8> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let content = stream(&format!("/Filter[/ASCIIHexDecode {filters}]"), &(hex + ">"));
    pages("[3 0 R]", "1", "/Contents 4 0 R", &[&content])
}

#[tokio::test]
async fn pdf_streams_that_unpack_to_gigabytes_end() {
    // A run of 128 in two bytes, eight million times.
    let runs = [129, b' '].repeat(8 << 20);
    let cases = [
        ("runs in deflate", packed_page("/FlateDecode/RunLengthDecode", &deflated(&runs))),
        ("deflate in deflate", packed_page("/FlateDecode/FlateDecode", &deflated(&deflated(&vec![b' '; 64 << 20])))),
        ("LZW", packed_page("/LZWDecode", &lzw(150))),
        ("runs of runs", packed_page("/RunLengthDecode/RunLengthDecode/RunLengthDecode", &[129, 129].repeat(100_000))),
        ("a hundred filters", packed_page(&"/RunLengthDecode".repeat(100), &[129, 129].repeat(1_000))),
    ];
    for (name, bytes) in cases {
        let result = read(bytes, Format::Pdf).await;
        println!("{name}: {:?}", result.as_ref().map(|read| read.text.len()));
        assert!(is_told(&result), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn pdf_tables_of_contents_without_an_end_end() {
    let text = stream("", "BT /F 12 Tf 72 720 Td (A plain page) Tj ET");
    let font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>";
    let plain = pages("[3 0 R]", "1", "/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>", &[&text, font]);
    let body = String::from_utf8(plain).unwrap();
    let table = body.rfind("xref\n0 ").unwrap();
    let ends_at = |at: usize| format!("startxref\n{at}\n%%EOF\n");

    let circle = body.replacen("/Root 1 0 R", &format!("/Root 1 0 R/Prev {table}"), 1);
    let mut chain = body.clone();
    let mut before = table;
    for _ in 0..50_000 {
        let at = chain.len();
        write!(chain, "xref\n0 0\ntrailer\n<</Size 6/Root 1 0 R/Prev {before}>>\n").unwrap();
        before = at;
    }
    chain.push_str(&ends_at(before));
    let with = |object: &str| {
        let at = body.len();
        format!("{body}9 0 obj\n{object}\nendobj\n{}", ends_at(at))
    };
    let wide = with(&stream("/Type/XRef/Size 4000000000/Root 1 0 R/W[8 8 8]/Index[0 4000000000]", "00000000"));
    let empty = with(&stream("/Type/XRef/Size 4000000000/Root 1 0 R/W[0 0 0]/Index[0 4000000000]", ""));
    let objects = stream("/Type/ObjStm/N 2000000000/First 4000000000/Extends 6 0 R", &"1 0 ".repeat(200_000));
    let packed = pages("[3 0 R]", "1", "/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>", &[&text, font, &objects]);
    let cases = [
        ("its own predecessor", circle.into_bytes()),
        ("fifty thousand predecessors", chain.into_bytes()),
        ("four billion wide entries", wide.into_bytes()),
        ("four billion empty entries", empty.into_bytes()),
        ("two billion objects in one", packed),
    ];
    for (name, bytes) in cases {
        let result = read(bytes, Format::Pdf).await;
        println!("{name}: {:?}", result.as_ref().map(|read| read.text.len()));
        assert!(is_told(&result), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn archives_of_very_many_files_or_of_one_file_very_often_are_refused() {
    let names: Vec<String> = (0..20_000).map(|number| format!("word/{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let refusal = read(archive(&files), Format::Docx).await;
    assert!(matches!(refusal, Err(ExtractError::TooComplex { limit: 10_000, .. })), "{refusal:?}");

    // One kernel of megabytes, which its table of contents names a thousand times.
    let mut bomb = docx(&vec![b' '; 1 << 20]);
    let (start, end) = (find(&bomb, b"PK\x01\x02", 0), find(&bomb, b"PK\x05\x06", 0));
    let entries = bomb[start..end].repeat(1_000);
    let size = u32::try_from(entries.len()).unwrap().to_le_bytes();
    bomb.splice(start..end, entries);
    let end = bomb.len() - 22;
    bomb[end + 8..end + 12].copy_from_slice(&[0xb8, 0x0b, 0xb8, 0x0b]);
    bomb[end + 12..end + 16].copy_from_slice(&size);
    let refusal = read(bomb, Format::Docx).await;
    assert!(matches!(refusal, Err(ExtractError::TooComplex { .. } | ExtractError::Malformed { .. })), "{refusal:?}");
}

#[tokio::test]
async fn a_billion_laughs_are_laughed_in_no_format() {
    let mut laughs = r#"<!DOCTYPE x [<!ENTITY l0 "laugh">"#.to_owned();
    for level in 1..=10 {
        write!(laughs, r#"<!ENTITY l{level} "{}">"#, format!("&l{};", level - 1).repeat(10)).unwrap();
    }
    laughs.push_str("]>");
    // Not nested, but long and often.
    let often = format!(r#"<!DOCTYPE x [<!ENTITY l10 "{}">]>"#, "laugh".repeat(20_000));
    for (entities, count) in [(laughs, 1), (often, 10_000)] {
        for (name, format) in [
            ("docx/lorem_ipsum.docx", Format::Docx),
            ("xlsx/xlsx_06_edge_cases_.xlsx", Format::Xlsx),
            ("pptx/powerpoint_sample.pptx", Format::Pptx),
            ("epub/lorem-ipsum.epub", Format::Epub),
        ] {
            let laugh = "&l10;".repeat(count);
            let bomb = replaced(&fixture(name), |_, bytes| match String::from_utf8(bytes) {
                Ok(part) if part.starts_with("<?xml") => {
                    let part = part.replacen("?>", &format!("?>{entities}"), 1);
                    let text = ["<w:t>", "<t>", "<a:t>", "<p>", "<dc:title>"].into_iter();
                    text.fold(part, |part, tag| part.replacen(tag, &format!("{tag}{laugh}"), 1)).into_bytes()
                }
                Ok(part) => part.into_bytes(),
                Err(other) => other.into_bytes(),
            });
            let result = read(bomb, format).await;
            println!("{name}: {:?}", result.as_ref().map(|read| read.text.len()));
            assert!(is_told(&result), "{name}: {result:?}");
            assert!(result.is_err() || result.is_ok_and(|read| read.text.len() < 4 << 20), "{name}");
        }
    }
}

#[tokio::test]
async fn text_formats_without_measure_end() {
    let mut multiparts = "Subject: x\nMIME-Version: 1.0\n".to_owned();
    for level in 0..10_000 {
        write!(multiparts, "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n").unwrap();
    }
    multiparts.push_str("Content-Type: text/plain\n\ninnermost\n");
    let mut attributes = "<p>before</p><div".to_owned();
    for number in 0..200_000 {
        write!(attributes, " a{number}=x").unwrap();
    }
    let siblings = format!(
        "Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{}--b--\n",
        "--b\nContent-Type: text/plain\n\nx\n".repeat(200_000)
    );
    let cases = [
        ("multiparts", multiparts.into_bytes(), Format::Mail),
        ("siblings", siblings.into_bytes(), Format::Mail),
        ("attributes", (attributes + ">x").into_bytes(), Format::Html),
        ("elements", "<div>".repeat(500_000).into_bytes(), Format::Html),
        ("picture", format!("<svg>{}", "<g>".repeat(500_000)).into_bytes(), Format::Html),
        ("groups", [&b"{\\rtf1 "[..], &b"{\\b x}".repeat(1_000_000), b"}"].concat(), Format::Rtf),
        ("one line", b"a,b;c\td|".repeat(2 << 20), Format::Csv),
        ("one number", [&b"["[..], &b"9".repeat(8 << 20), b"]"].concat(), Format::Json),
    ];
    for (name, bytes, format) in cases {
        let result = read(bytes, format).await;
        println!("{name}: {:?}", result.as_ref().map(|read| read.text.len()));
        assert!(is_told(&result), "{name}: {result:?}");
    }
}
