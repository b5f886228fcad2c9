//! The server as its users meet it: through `qdrant-client`, over a socket, against the real binary.
// A test that fails should say where.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod collections;
mod life;
mod points;
mod refusals;
mod searches;
mod server;
