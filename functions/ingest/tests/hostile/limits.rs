//! The limits themselves: each is met, and says its name.

use std::time::Duration;

use ingest::extract::{ExtractError, Format, sandbox::SandboxError};
use shared::{config::ExtractionConfig, deadline::Deadline};

use crate::{config, fixture, read_with};

async fn refused(config: ExtractionConfig, bytes: Vec<u8>, format: Format) -> ExtractError {
    match read_with(config, bytes, format).await {
        Err(SandboxError::Document(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn too_many_bytes_or_pages_or_too_much_text_is_refused_by_name() {
    let small = ExtractionConfig { input_bytes_max: 10, ..config() };
    let refusal = refused(small, b"<p>more than ten".to_vec(), Format::Html).await;
    assert_eq!(refusal, ExtractError::InputTooLarge { limit: 10 });
    let short = ExtractionConfig { text_bytes_max: 100, ..config() };
    let refusal = refused(short, fixture("docx/lorem_ipsum.docx"), Format::Docx).await;
    assert_eq!(refusal, ExtractError::TextTooLarge { limit: 100 });
    let thin = ExtractionConfig { pages_max: 1, ..config() };
    let refusal = refused(thin, fixture("pptx/powerpoint_sample.pptx"), Format::Pptx).await;
    assert_eq!(refusal, ExtractError::TooComplex { what: "slides or sheets".to_owned(), limit: 1 });
}

#[tokio::test]
async fn a_reader_that_takes_too_much_memory_is_ended() {
    let config = ExtractionConfig { memory_bytes_max: 1 << 20, ..config() };
    let rows: String = (0..4_000_000).map(|row| format!("{row},\n")).collect();
    let refusal = refused(config, rows.into_bytes(), Format::Csv).await;
    assert_eq!(refusal, ExtractError::OutOfMemory { limit: 1 << 20 });
}

#[tokio::test]
async fn a_reader_that_takes_too_long_is_ended_whatever_it_does() {
    // The clock's time and the caller's own are no fault of the document.
    let config = ExtractionConfig { timeout: Duration::from_millis(1), ..config() };
    let hurried = read_with(config, fixture("pdf/lorem-ipsum.pdf"), Format::Pdf).await;
    assert!(matches!(hurried, Err(SandboxError::OutOfTime)), "{hurried:?}");
    let sandbox = ingest::extract::sandbox::Sandbox::new(crate::config());
    let job = ingest::extract::Job::new(Format::Pdf);
    let late = sandbox.extract(fixture("pdf/lorem-ipsum.pdf").into(), job, Deadline::after(Duration::ZERO)).await;
    assert!(matches!(late, Err(SandboxError::OutOfTime)), "{late:?}");
}

#[tokio::test]
async fn a_reader_that_is_busy_for_too_long_is_ended_by_the_kernel() {
    let busy = ExtractionConfig { cpu_s_max: 1, timeout: Duration::from_mins(4), ..config() };
    // Values that leave nothing to be read, so that no other limit is met first.
    let nothing: Vec<u8> = [b"[".to_vec(), b"null,".repeat(16 << 20), b"null]".to_vec()].concat();
    assert_eq!(refused(busy, nothing, Format::Json).await, ExtractError::TimedOut { limit_ms: 1_000 });
}

#[tokio::test]
async fn what_is_no_reader_is_not_believed() {
    let with = |program: &str| ExtractionConfig { program: Some(program.into()), text_bytes_max: 1 << 20, ..config() };
    // Ends at once; says something else; talks without end.
    assert_eq!(refused(with("/bin/false"), b"<p>x".to_vec(), Format::Html).await, ExtractError::Crashed);
    assert_eq!(refused(with("/bin/echo"), b"<p>x".to_vec(), Format::Html).await, ExtractError::Crashed);
    let endless = refused(with("/usr/bin/yes"), b"<p>x".to_vec(), Format::Html).await;
    assert_eq!(endless, ExtractError::TextTooLarge { limit: 1 << 20 });
    let missing = read_with(with("/nowhere"), b"<p>x".to_vec(), Format::Html).await;
    assert!(matches!(missing, Err(SandboxError::Process(_))), "{missing:?}");
}
