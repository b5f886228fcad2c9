//! The child's side: one document in, one answer out.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use rlimit::Resource;

use super::{ARGUMENT, Answer, ORDER_BYTES_MAX, Order};
use crate::extract::{ExtractError, extract_as};

/// For parsers that follow the nesting of a document on the stack. It is reserved, and only taken when it is used.
const STACK_BYTES: usize = 32 << 20;

/// Room in the address space for the program itself and what it keeps beside the document's data. A build for tests is
/// far larger than one that is shipped.
const PROGRAM_BYTES: u64 = 256 << 20;

/// Reads a document and says how that ended, if this program was started for it. For the first line of `main`: nothing
/// else may have been started yet.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let asked = arguments.next().is_some_and(|argument| argument == ARGUMENT) && arguments.next().is_none();
    asked.then(|| match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Seconds between the two limits of the processor's time.
const CPU_S_AFTER: u64 = 2;

fn run() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > ORDER_BYTES_MAX {
        return Err(io::Error::other("the order is too long"));
    }
    let mut order = vec![0; length];
    input.read_exact(&mut order)?;
    let order: Order = postcard::from_bytes(&order).map_err(io::Error::other)?;
    restrict(&order)?;
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let read = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || extract_as(&bytes, &order.job))?;
    // A panic was told on standard error.
    let answer: Answer = read.join().unwrap_or(Err(ExtractError::Crashed));
    let answer = postcard::to_stdvec(&answer).map_err(io::Error::other)?;
    io::stdout().lock().write_all(&answer)
}

fn restrict(order: &Order) -> io::Result<()> {
    // No copy of the document on a disk when it ends badly, and no files at all.
    set(Resource::CORE, 0, 0)?;
    set(Resource::FSIZE, 0, 0)?;
    // Past the first the kernel says why, past the second it does not: it kills as it does for want of memory.
    set(Resource::CPU, order.cpu_s_max, order.cpu_s_max.saturating_add(CPU_S_AFTER))?;
    #[cfg(target_os = "linux")]
    {
        set(Resource::NOFILE, 0, 0)?;
        let memory = order.memory_bytes_max.saturating_add(PROGRAM_BYTES);
        set(Resource::AS, memory, memory)?;
    }
    Ok(())
}

fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    // Never above what the process has been given.
    let (_, most) = resource.get()?;
    resource.set(soft.min(most), hard.min(most))
}
