//! The server as its users meet it: through `qdrant-client`, over a socket, against the real binary.

mod collections;
mod life;
mod points;
mod refusals;
mod searches;
mod server;
