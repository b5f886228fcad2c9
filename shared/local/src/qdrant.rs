//! A private Qdrant server: the local build of Qdrant's own engine (`shared/local/qdrant`).

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    failure::Failure,
    folder, model,
    process::{Bound, Signal},
};

/// How long a start may take: it loads what the folder holds.
const START_MAX: Duration = Duration::from_mins(1);

/// Attempts while another process still holds the folder: an earlier run's, which its watchdog is just stopping.
const ATTEMPTS_MAX: u32 = 50;

/// The server's exit codes.
const PORT_TAKEN: i32 = 2;
const DATA_IN_USE: i32 = 3;

/// A Qdrant server of our own, on 127.0.0.1. Ends with this value, and with this process.
#[derive(Debug)]
pub struct QdrantServer {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Bound>,
}

/// The server's binary: `LOCAL_QDRANT_BIN`, or what `shared/local/qdrant/build` makes.
///
/// # Errors
/// When the script fails.
pub fn binary() -> Result<PathBuf, Failure> {
    model::built("LOCAL_QDRANT_BIN", "shared/local/qdrant/build")
}

impl QdrantServer {
    /// Starts a server that keeps its data below `folder`, on `port` or, when that is 0, on any that is free.
    ///
    /// # Errors
    /// When the binary is missing, the port is taken, or the server does not become ready.
    pub fn start(folder: &Path, port: u16) -> Result<Self, Failure> {
        let mut server = Self { binary: binary()?, folder: folder.to_owned(), port, process: None };
        server.resume()?;
        Ok(server)
    }

    /// Starts the server again on the port that it had.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(&mut self) -> Result<(), Failure> {
        folder::make(&self.folder)?;
        let log = self.folder.join("server.log");
        let command = [
            self.binary.display().to_string(),
            "--data".to_owned(),
            self.folder.join("data").display().to_string(),
            "--port".to_owned(),
            self.port.to_string(),
        ];
        for _ in 0..ATTEMPTS_MAX {
            let mut process = Bound::start("Qdrant", &command, Signal::Term, &log)?;
            while let Some(line) = process.line(START_MAX) {
                if let Some(port) = line.strip_prefix("local-qdrant ready on http://127.0.0.1:") {
                    self.port = port.trim().parse().map_err(Failure::because("Qdrant's first line names no port"))?;
                    self.process = Some(process);
                    return Ok(());
                }
            }
            process.stop();
            match process.ended() {
                Some(DATA_IN_USE) => thread::sleep(Duration::from_millis(200)),
                Some(PORT_TAKEN) => {
                    return Err(Failure::new(format!("the port {} is taken; Qdrant can not use it", self.port)));
                }
                _ => return Err(Failure::new(format!("Qdrant did not start; see {}", log.display()))),
            }
        }
        Err(Failure::new(format!("another process uses {}", self.folder.display())))
    }

    /// The gRPC endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, while it runs.
    pub fn pid(&mut self) -> Option<u32> {
        let process = self.process.as_mut()?;
        if process.ended().is_some() { None } else { Some(process.pid()) }
    }

    /// Stops the server in order.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Ends the server as a crash would (`kill -9`).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}
