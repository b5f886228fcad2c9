//! Tests of extraction and chunking; what needs the stores is tested in `local`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

mod chunk;
mod extract;
