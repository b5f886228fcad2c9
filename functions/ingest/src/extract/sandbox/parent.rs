//! The parent's side: starts the child, feeds it, and tells from its end what happened.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::LazyLock,
};

use bytes::Bytes;
use shared::{config::ExtractionConfig, deadline::Deadline};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{ARGUMENT, Answer, Order};
use crate::extract::{Engines, ExtractError, Extracted, Format, Job};

/// Bytes of an answer beside its text: the outline of a table has a block for each short row.
const OUTLINE_BYTES_PER_TEXT_BYTE: usize = 3;

/// Bytes of an answer that tells an error.
const ERROR_BYTES_MAX: usize = 4_096;

/// What is kept of a child's last words.
const COMPLAINT_BYTES_MAX: usize = 2_048;

/// Signals, as all Unix systems number them.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// Documents that are read at the same time: more only wait for the same processors, each with its memory.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)));

/// Reads documents, each in a process of its own.
#[derive(Clone, Debug)]
pub struct Sandbox {
    config: ExtractionConfig,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The document can not be read.
    #[error("the document can not be read")]
    Document(#[from] ExtractError),
    /// The caller's time was over first, or the clock's without the processor's: that is not the document's fault.
    #[error("the time was over before the document was read")]
    OutOfTime,
    /// The process could not be started, or not be talked to.
    #[error("the process that reads documents could not be started")]
    Process(#[from] io::Error),
}

impl Sandbox {
    /// One with these limits.
    #[must_use]
    pub fn new(config: ExtractionConfig) -> Self {
        Self { config }
    }

    /// Reads a document. Where a format can be read in another way and the process ends over it, that is tried: what one
    /// engine dies of, the other may read.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub async fn extract(&self, bytes: Bytes, job: Job, deadline: Deadline) -> Result<Extracted, SandboxError> {
        if bytes.len() > self.config.input_bytes_max {
            return Err(ExtractError::InputTooLarge { limit: self.config.input_bytes_max }.into());
        }
        let alone = match (job.format, job.engines) {
            (Format::Pdf, Engines::Both) => &[Engines::Second, Engines::First][..],
            (Format::Mail, Engines::Both) => &[Engines::First],
            _ => &[],
        };
        let mut read = self.read(&bytes, job.clone(), deadline).await;
        for engines in alone {
            match &read {
                Err(SandboxError::Document(error)) if error.ended_the_reader() => {}
                _ => break,
            }
            match self.read(&bytes, Job { engines: *engines, ..job.clone() }, deadline).await {
                // The reason to tell is the first one. Time that is over now would be over at the next attempt as well.
                Err(SandboxError::Document(_) | SandboxError::OutOfTime) => {}
                other => read = other,
            }
        }
        read
    }

    async fn read(&self, bytes: &[u8], job: Job, deadline: Deadline) -> Result<Extracted, SandboxError> {
        let place = timeout_at(deadline.instant(), PLACES.acquire()).await.map_err(|_| SandboxError::OutOfTime)?;
        let end = Instant::now() + self.config.timeout;
        let text_bytes_max = job.limits.text_bytes_max;
        let order = Order { job, memory_bytes_max: self.config.memory_bytes_max, cpu_s_max: self.config.cpu_s_max };
        let mut child = self.start()?;
        let talk = talk(&mut child, &order, bytes, text_bytes_max);
        let talked = timeout_at(end.min(deadline.instant()), talk).await;
        // Whatever it still does is of no use to anybody.
        child.start_kill().ok();
        let Ok(talked) = talked else {
            child.wait().await?;
            // Not a finding about the document, which had less of the processor than it is given.
            return Err(SandboxError::OutOfTime);
        };
        drop(place);
        let talked = talked?;
        self.judge(talked, text_bytes_max)
    }

    fn start(&self) -> io::Result<Child> {
        let program = match &self.config.program {
            Some(program) => program.clone(),
            // By this name it is found also when its file was replaced meanwhile.
            None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            None => std::env::current_exe()?,
        };
        Command::new(program)
            .arg(ARGUMENT)
            .env_clear()
            // Memory that glibc reserves for threads counts as used.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    fn judge(&self, talked: Talked, text_bytes_max: usize) -> Result<Extracted, SandboxError> {
        if talked.is_answer_cut {
            return Err(ExtractError::TextTooLarge { limit: text_bytes_max }.into());
        }
        if talked.status.success()
            && let Ok(answer) = postcard::from_bytes::<Answer>(&talked.answer)
        {
            drop(talked);
            return match answer {
                Ok(extracted) if extracted.is_sound() => Ok(extracted),
                Ok(_) => Err(ExtractError::Crashed.into()),
                Err(error) => Err(error.into()),
            };
        }
        let complaint = String::from_utf8_lossy(&talked.complaint);
        let error = self.cause(talked.status, &complaint);
        tracing::warn!(process.status = %talked.status, process.complaint = %complaint.trim(), error = %error, "a document broke its reader");
        Err(error.into())
    }

    /// What a child's end means.
    fn cause(&self, status: ExitStatus, complaint: &str) -> ExtractError {
        let out_of_memory = ExtractError::OutOfMemory { limit: self.config.memory_bytes_max };
        match status.signal() {
            Some(SIGXCPU) => ExtractError::TimedOut { limit_ms: self.config.cpu_s_max.saturating_mul(1_000) },
            // Not by us: by the kernel, for whom its memory was too much.
            Some(SIGKILL) => out_of_memory,
            _ if complaint.contains("memory allocation of") || complaint.contains("annot allocate memory") => {
                out_of_memory
            }
            _ if complaint.contains("has overflowed its stack") => ExtractError::TooDeep,
            _ => ExtractError::Crashed,
        }
    }
}

/// What was heard of a child.
struct Talked {
    status: ExitStatus,
    answer: Vec<u8>,
    is_answer_cut: bool,
    complaint: Vec<u8>,
}

async fn talk(child: &mut Child, order: &Order, bytes: &[u8], text_bytes_max: usize) -> io::Result<Talked> {
    let order = postcard::to_stdvec(order).map_err(io::Error::other)?;
    let length = u32::try_from(order.len()).map_err(io::Error::other)?.to_le_bytes();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async move {
        let Some(mut stdin) = stdin else { return };
        for part in [&length[..], &order, bytes] {
            // It may have ended already; why is heard from itself.
            if stdin.write_all(part).await.is_err() {
                return;
            }
        }
    };
    let answer_bytes_max = text_bytes_max.saturating_mul(1 + OUTLINE_BYTES_PER_TEXT_BYTE) + ERROR_BYTES_MAX;
    let read = async {
        let mut answer = Vec::new();
        read_up_to(stdout, answer_bytes_max + 1, &mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let complain = async {
        let mut complaint = Vec::new();
        read_up_to(stderr, COMPLAINT_BYTES_MAX, &mut complaint).await?;
        Ok::<_, io::Error>(complaint)
    };
    let ((), answer, complaint) = tokio::join!(write, read, complain);
    let (answer, complaint) = (answer?, complaint?);
    let is_answer_cut = answer.len() > answer_bytes_max;
    if is_answer_cut {
        child.start_kill()?;
    }
    Ok(Talked { status: child.wait().await?, answer, is_answer_cut, complaint })
}

async fn read_up_to(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    pipe.take(bytes_max as u64).read_to_end(into).await?;
    Ok(())
}
