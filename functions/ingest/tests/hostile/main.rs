//! Documents that were made to do harm, or were harmed: each ends within its limits, and as a typed result.
#![allow(
    clippy::expect_used,
    clippy::format_collect,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod bombs;
mod limits;
mod mutations;
mod packed;

use std::time::Duration;

use bytes::Bytes;
use ingest::extract::{
    Charset, ExtractError, Extracted, Format, Job, Limits,
    sandbox::{Sandbox, SandboxError},
};
use shared::{config::ExtractionConfig, deadline::Deadline};

/// What this process may have taken by the end of any test. It holds the documents and what is read from them.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Far more than any document is given.
const PATIENCE: Duration = Duration::from_mins(5);

/// The usual limits, but for the clock: on a busy machine it would decide instead of the processor's time.
fn config() -> ExtractionConfig {
    let program = Some(env!("CARGO_BIN_EXE_ingest").into());
    ExtractionConfig { program, timeout: PATIENCE / 2, ..ExtractionConfig::default() }
}

/// Reads as the job says, within the usual limits.
async fn sandboxed(bytes: Vec<u8>, job: Job) -> Result<Extracted, SandboxError> {
    Sandbox::new(config()).extract(Bytes::from(bytes), job, Deadline::after(PATIENCE)).await
}

async fn read_with(config: ExtractionConfig, bytes: Vec<u8>, format: Format) -> Result<Extracted, SandboxError> {
    let limits = Limits { text_bytes_max: config.text_bytes_max, pages_max: config.pages_max };
    let job = Job { charset: Charset::Unknown, limits, ..Job::new(format) };
    let read = Sandbox::new(config).extract(Bytes::from(bytes), job, Deadline::after(PATIENCE)).await;
    assert!(memory_peak() < MEMORY_BYTES_MAX, "this process took {} bytes", memory_peak());
    read
}

/// Reads within the usual limits. Whatever is no typed result of the document fails the test.
async fn read(bytes: Vec<u8>, format: Format) -> Result<Extracted, ExtractError> {
    read_with(config(), bytes, format).await.map_err(|error| match error {
        SandboxError::Document(error) => error,
        other => panic!("{other:?}"),
    })
}

/// The most memory that this process has taken. Only Linux tells.
fn memory_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
