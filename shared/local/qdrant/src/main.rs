//! A Qdrant server for one machine: Qdrant's own engine ([`qdrant_edge`]) behind Qdrant's own gRPC
//! protocol. Code that talks to a Qdrant server through `qdrant-client` cannot tell the difference,
//! except that what is not implemented is refused by name.

mod aliases;
mod args;
mod collection;
mod convert;
mod errors;
mod files;
mod rpc;
mod server;
mod store;
mod upkeep;

use std::process::ExitCode;

use args::Args;

fn main() -> ExitCode {
    let result = Args::parse(std::env::args().skip(1)).and_then(|args| server::run(&args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("local-qdrant: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
