//! Child processes that never outlive us, however we end.
//!
//! Between us and the child stands a shell of a dozen lines. It holds the reading end of a pipe from us; the kernel
//! closes our end whenever we end, be it by `kill -9`, and then the shell stops the child with the signal that
//! the child likes best. (`PR_SET_PDEATHSIG` would need `unsafe`, exists on Linux only, and fires when the
//! *thread* that started the child ends.)

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::failure::Failure;

/// `$1`: the signal that stops the child; the rest: the child. First line on standard output: the child's id, which it says
/// itself before it becomes the program: said by the shell, it could come behind the program's own first line.
///
/// The subshell waits for the pipe's end, the shell for the child's; whoever is first ends the other. A child
/// that does not follow its signal within 10 s is killed.
const WATCHDOG: &str = r#"
exec 3<&0
signal=$1
shift
/bin/sh -c 'echo "$$"; exec "$@"' sh "$@" 3<&- </dev/null &
child=$!
exec >/dev/null
(
    read -r _ <&3
    kill -s "$signal" "$child"
    left=100
    while kill -0 "$child" && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
    kill -s KILL "$child"
) 2>/dev/null &
reader=$!
wait "$child"
status=$?
kill "$reader" 2>/dev/null
exit "$status"
"#;

/// How often something that has no event is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long the child may take to end before the watchdog's own limit must have struck.
const STOP_MAX: Duration = Duration::from_secs(15);

/// The signal that asks a process to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// PostgreSQL: fast shutdown.
    Int,
    /// PostgreSQL: at once, without a checkpoint.
    Quit,
    /// Qdrant: in order.
    Term,
    /// Nobody is asked.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Term => "TERM",
            Self::Kill => "KILL",
        }
    }
}

/// A child process that ends when this value or this process does.
#[derive(Debug)]
pub struct Bound {
    name: &'static str,
    watchdog: Child,
    pipe: Option<ChildStdin>,
    lines: Receiver<String>,
    pid: u32,
}

impl Bound {
    /// Starts `command`, a program and its arguments, with its error output at the end of `log`. `signal` stops it.
    ///
    /// # Errors
    /// When there is no `sh`, or the log can not be written.
    pub fn start(name: &'static str, command: &[String], signal: Signal, log: &Path) -> Result<Self, Failure> {
        let open = || File::options().create(true).append(true).open(log);
        let mut log_out = open().map_err(Failure::because(format!("{} can not be written", log.display())))?;
        let log_err = open().map_err(Failure::because(format!("{} can not be written", log.display())))?;
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sh", signal.name()])
            .args(command)
            // Some programs complain about a folder that their user may not read.
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_err)
            // Ctrl-C in a terminal goes to us alone, so that things end in order.
            .process_group(0)
            .spawn()
            .map_err(Failure::because(format!("{name} can not be started")))?;
        let pipe = watchdog.stdin.take();
        let (send, lines) = mpsc::channel();
        if let Some(out) = watchdog.stdout.take() {
            // Ends with the child's output. Nobody listens after the start; then the lines only go to the log.
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    writeln!(log_out, "{line}").ok();
                    send.send(line).ok();
                }
            });
        }
        let mut bound = Self { name, watchdog, pipe, lines, pid: 0 };
        bound.pid = bound
            .line(Duration::from_secs(10))
            .and_then(|line| line.parse().ok())
            .ok_or_else(|| Failure::new(format!("{name} could not be started; see {}", log.display())))?;
        Ok(bound)
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line of the child's standard output, if one comes in time.
    pub fn line(&mut self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }

    /// The exit code, when the child has ended; -1 when a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        match self.watchdog.try_wait() {
            Ok(Some(status)) => Some(status.code().unwrap_or(-1)),
            Ok(None) => None,
            Err(_) => Some(-1),
        }
    }

    /// Stops the child and waits for its end.
    pub fn stop(&mut self) {
        drop(self.pipe.take());
        if !wait_until(STOP_MAX, || self.ended().is_some()) {
            tracing::warn!(process = self.name, "did not end in time");
            self.watchdog.kill().ok();
            self.ended();
        }
    }

    /// Ends the child as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        signal(self.pid, Signal::Kill);
        self.stop();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.stop();
        }
    }
}

/// Sends a signal to a process that is ours or was left by an earlier run. Whether it arrives is not told.
pub fn signal(pid: u32, signal: Signal) {
    Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal.name(), &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .ok();
}

/// What runs under a process id, as `ps` names it: `None` when nothing does.
#[must_use]
pub fn program(pid: u32) -> Option<String> {
    let output = Command::new("ps").args(["-o", "stat=", "-o", "comm=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (state, name) = text.trim().split_once(char::is_whitespace)?;
    // A zombie has ended; only its parent has not looked yet.
    (!state.starts_with('Z')).then(|| name.trim().to_owned())
}

/// Looks until `done` says so, and whether it did in time.
pub fn wait_until(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// A port that is free now. Somebody else may take it before it is used: whoever uses it must be ready to try again.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16, Failure> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Failure::because("no port is free on 127.0.0.1"))
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it can not be started or ends badly; then with what it said last.
pub fn run(command: &[String]) -> Result<String, Failure> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::new("an empty command"))?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::because(format!("{program} can not be started")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Failure::new(format!("{program} failed ({}): {}", output.status, last.join(" | "))))
}
