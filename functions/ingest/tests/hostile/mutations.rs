//! Samples with a few bytes changed, in the file or in what is packed in it: always the same ones.

use std::collections::BTreeMap;

use fastrand::Rng;
use futures_like::in_parallel;
use ingest::extract::{ExtractError, Format};

use crate::{bombs::replaced, fixture, read};

/// `make test` tries so many, `make fuzz` ten thousand.
const MUTATIONS: usize = 300;

const SAMPLES: [(&str, Format); 32] = [
    ("pdf/lorem-ipsum.pdf", Format::Pdf),
    ("pdf/text_only_pdfa1b.pdf", Format::Pdf),
    ("pdf/T03_001_no-cross-reference-table.pdf", Format::Pdf),
    ("pdf/encryption_nocopy.pdf", Format::Pdf),
    ("pdf/fileAttachment.pdf", Format::Pdf),
    ("docx/lorem_ipsum.docx", Format::Docx),
    ("docx/unit_test_headers.docx", Format::Docx),
    ("docx/word_tables.docx", Format::Docx),
    ("docx/equations.docx", Format::Docx),
    ("docx/textbox.docx", Format::Docx),
    ("pptx/powerpoint_sample.pptx", Format::Pptx),
    ("pptx/pptx_chart.pptx", Format::Pptx),
    ("xlsx/xlsx_05_table_with_title.xlsx", Format::Xlsx),
    ("xlsx/xlsx_06_edge_cases_.xlsx", Format::Xlsx),
    ("doc/word_tables.doc", Format::Doc),
    ("doc/unit_test_headers.doc", Format::Doc),
    ("ppt/powerpoint_sample.ppt", Format::Ppt),
    ("xls/xlsx_05_table_with_title.xls", Format::Xls),
    ("rtf/word_tables.rtf", Format::Rtf),
    ("epub/lorem-ipsum.epub", Format::Epub),
    ("eml/eml_with_attachment.eml", Format::Mail),
    ("eml/family-day.eml", Format::Mail),
    ("eml/email-no-utf8-2008-07-16.062410.eml", Format::Mail),
    ("csv/csv-comma.csv", Format::Csv),
    ("csv/quotes_and_newlines.csv", Format::Csv),
    ("csv/json.csv", Format::Csv),
    ("events/s3-put.json", Format::Json),
    ("eml/mime-multipart-digest.eml", Format::Mail),
    ("html/example_08.html", Format::Html),
    ("html/kvp_data_example.html", Format::Html),
    ("html/html_rich_table_cells.html", Format::Html),
    ("html/formatting.html", Format::Html),
];

/// What a parser trips over.
const TOKENS: [&[u8]; 12] = [
    b"<<",
    b">>",
    b"[",
    b"stream\n",
    b"endobj",
    b"4294967295",
    b"-1",
    b"<w:tbl>",
    b"</w:p>",
    b"&#0;",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
];

fn mutated(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.usize(1..8) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.usize(..bytes.len());
        let end = (at + rng.usize(1..200)).min(bytes.len());
        match rng.u8(..7) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at.max(1)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(..bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => bytes[at..end].fill(0),
            _ => {
                let token = rng.choice(TOKENS).expect("a token");
                bytes.splice(at..at, token.repeat(rng.usize(1..50)));
            }
        }
    }
    bytes
}

/// The mutation of this number, of one of the samples.
fn mutation(number: usize) -> (Vec<u8>, Format) {
    let (name, format) = SAMPLES[number % SAMPLES.len()];
    let mut rng = Rng::with_seed(number as u64);
    let bytes = fixture(name);
    let is_packed = matches!(format, Format::Docx | Format::Pptx | Format::Xlsx | Format::Epub);
    // Packed files are mostly told by their checksums; inside of them is where the parsers are.
    let bytes = if is_packed && rng.u8(..10) > 0 {
        let target = rng.usize(..6);
        let mut index = 0;
        replaced(&bytes, |name, bytes| {
            let is_text =
                [".xml", ".rels", ".xhtml", ".html", ".opf", ".ncx"].iter().any(|ending| name.ends_with(ending));
            index += usize::from(is_text);
            if is_text && index % 6 == target { mutated(&mut rng, bytes) } else { bytes }
        })
    } else {
        mutated(&mut rng, bytes)
    };
    (bytes, format)
}

fn outcome(result: &Result<ingest::extract::Extracted, ExtractError>) -> &'static str {
    match result {
        Ok(_) => "read",
        Err(error) => error.code().as_str(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_samples_end_as_typed_results() {
    let count = std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    let outcomes = in_parallel(count, |number| async move {
        let (bytes, format) = mutation(number);
        let result = read(bytes, format).await;
        if matches!(
            result,
            Err(ExtractError::TimedOut { .. }
                | ExtractError::OutOfMemory { .. }
                | ExtractError::TooDeep
                | ExtractError::Crashed)
        ) {
            println!("mutation {number} of {}: {result:?}", SAMPLES[number % SAMPLES.len()].0);
        }
        outcome(&result)
    })
    .await;
    let mut table = BTreeMap::<&str, usize>::new();
    for outcome in outcomes {
        *table.entry(outcome).or_default() += 1;
    }
    println!("{count} mutations: {table:?}");
    assert!(table["read"] > count / 10, "most harm is survived: {table:?}");
    // A parser's own limits are met first; what ends in the sandbox is the exception.
    let ended = ["extraction_timed_out", "extraction_out_of_memory", "extraction_crashed"];
    let ended: usize = ended.iter().filter_map(|code| table.get(code)).sum();
    assert!(ended * 20 <= count, "{table:?}");
}

mod futures_like {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    /// Does `work` for all numbers below `count`, some at a time.
    pub(super) async fn in_parallel<F, T>(count: usize, work: impl Fn(usize) -> F + Clone + Send + 'static) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let next = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (next, work) = (next.clone(), work.clone());
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return done;
                        }
                        done.push(work(number).await);
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.expect("no panic"));
        }
        all
    }
}
