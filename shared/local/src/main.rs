//! The local stack.

use std::process::ExitCode;

use local::{
    args::{self, Command, USAGE},
    reindex, up,
};

fn main() -> ExitCode {
    let result = args::parse(std::env::args_os().skip(1)).and_then(|command| match command {
        Command::Up(options) => up::run(options),
        Command::Reindex(command) => reindex::run(command),
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lockstep: {failure}");
            ExitCode::FAILURE
        }
    }
}
