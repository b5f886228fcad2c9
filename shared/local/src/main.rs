//! The local stack.

use std::process::ExitCode;

use local::{
    args::{self, Command, USAGE},
    bench, contract, eval, ingest as bulk, keys, reindex, soak, up,
};

fn main() -> ExitCode {
    if let Some(code) = ingest::extract::sandbox::run_if_asked() {
        return code;
    }
    let result = args::parse(std::env::args_os().skip(1)).and_then(|command| match command {
        Command::Up(options) => up::run(options).map(|()| ExitCode::SUCCESS),
        Command::Reindex(command) => reindex::run(command).map(|()| ExitCode::SUCCESS),
        Command::Eval(options) => eval::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Soak { minutes, seed } => soak::run(minutes, seed).map(|()| ExitCode::SUCCESS),
        Command::BenchAudit { points } => soak::bench_audit(points).map(|()| ExitCode::SUCCESS),
        Command::BenchLarge { megabytes } => soak::bench_large(megabytes).map(|()| ExitCode::SUCCESS),
        Command::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Contract { root } => contract::write(&root).map(|()| ExitCode::SUCCESS),
        Command::SigningKey { folder } => keys::write(&folder).map(|()| ExitCode::SUCCESS),
        Command::Ingest(options) => Ok(if bulk::run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Command::Help => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
    });
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("lockstep: {failure}");
            ExitCode::FAILURE
        }
    }
}
