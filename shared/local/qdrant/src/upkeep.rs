//! What runs by itself: flushing to disk and optimising, in one thread for all collections. The
//! engine does neither on its own.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::store::Store;

/// How often changed collections are looked at for optimising.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The server's default `flush_interval_sec`. Not needed against `kill -9`, only against power loss.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// The running thread.
#[derive(Debug)]
pub struct Upkeep {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl Upkeep {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(store: Arc<Store>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            let mut flushed = Instant::now();
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let flush = flushed.elapsed() >= FLUSH_EVERY;
                if flush {
                    flushed = Instant::now();
                }
                // One at a time, and none is held longer than needed: deleting a collection waits
                // for its last user.
                for name in store.list() {
                    let Some(collection) = store.get(&name) else { continue };
                    collection.optimize_if_changed();
                    if flush {
                        collection.flush_if_changed();
                    }
                }
            }
        })?;
        Ok(Self { thread, stop })
    }

    /// Stops the thread, waiting no longer than `patience`. An optimisation cannot be interrupted;
    /// one that lasts longer is abandoned, which is as harmless as a crash: its result is put in
    /// place in one step, and the write-ahead log is whole. Returns whether the thread ended.
    pub fn stop(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        drop(self.stop);
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().is_ok()
    }
}
