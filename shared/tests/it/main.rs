//! Tests of the common crate that need files or sockets; what needs the stores is tested in `local`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod embed;
