//! Tests of extraction and chunking; what needs the stores is tested in `local`.
#![allow(
    clippy::expect_used,
    clippy::format_collect,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unnecessary_wraps,
    clippy::unwrap_used,
    reason = "tests"
)]

mod chunk;
mod extract;
mod formats;
mod model;
