//! Reading a document in a process of its own.
//!
//! Parsers of foreign formats overflow stacks, run out of memory and loop, and a panic is the least of it: an overflow or
//! a failed allocation ends the process, whatever was caught. So the running program starts itself again for one document:
//! `main` asks [`run_if_asked`] first thing, and a program that was started with [`ARGUMENT`] reads one document from its
//! standard input, under limits of memory and time that the kernel holds it to, writes what it read, and ends. One file is
//! shipped, both sides are of one build, and a start takes some milliseconds.
//!
//! The child inherits nothing: no environment (there are the secrets), no open files; it can open none and write none. Its
//! answer is limited in length while it is read, and checked before it is believed. On macOS the limit of memory is not
//! enforced; those of time are.

mod child;
mod parent;

use serde::{Deserialize, Serialize};

pub use self::{
    child::run_if_asked,
    parent::{Sandbox, SandboxError},
};
use super::{ExtractError, Extracted, Job};

/// The one argument of a program that is to read a document.
pub const ARGUMENT: &str = "read-one-document";

/// What the parent writes first, with its length before it; then come the document's bytes, to the end.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    job: Job,
    memory_bytes_max: u64,
    cpu_s_max: u64,
}

/// What the child writes.
type Answer = Result<Extracted, ExtractError>;

/// Bytes of an order, at most.
const ORDER_BYTES_MAX: usize = 4_096;
