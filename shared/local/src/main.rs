//! The local stack.

use std::process::ExitCode;

use local::{
    args::{self, Command, USAGE},
    eval, reindex, soak, up,
};

fn main() -> ExitCode {
    if let Some(code) = ingest::extract::sandbox::run_if_asked() {
        return code;
    }
    let result = args::parse(std::env::args_os().skip(1)).and_then(|command| match command {
        Command::Up(options) => up::run(options),
        Command::Reindex(command) => reindex::run(command),
        Command::Eval(options) => eval::run(&options),
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
