//! A function's process, for the crash harness: see `local::testkit::function`.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = ingest::extract::sandbox::run_if_asked() {
        return code;
    }
    match local::testkit::function::run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("test-function: {failure}");
            ExitCode::FAILURE
        }
    }
}
