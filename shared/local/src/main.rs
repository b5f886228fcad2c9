//! The local stack.

use std::process::ExitCode;

use local::{
    args::{self, Command, USAGE},
    soak, up,
};

fn main() -> ExitCode {
    let result = args::parse(std::env::args_os().skip(1)).and_then(|command| match command {
        Command::Up(options) => up::run(options),
        Command::Soak { minutes, seed } => soak::run(minutes, seed),
        Command::BenchAudit { points } => soak::bench_audit(points),
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
