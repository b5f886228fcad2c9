//! A private PostgreSQL server.

mod account;
mod binaries;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use secrecy::SecretString;

use self::account::Account;
use crate::{
    failure::Failure,
    folder,
    process::{self, Bound, Signal},
};

/// How long a start may take: after a crash the server replays its log first.
const START_MAX: Duration = Duration::from_mins(1);

/// How long a server of an earlier run may take to end on its own, before it is asked to.
const LEFTOVER_MAX: Duration = Duration::from_secs(10);

/// Starts that may fail before we give up: the port was taken meanwhile, or a crashed server's processes still end.
const ATTEMPTS_MAX: u32 = 10;

/// The server's only role.
const ROLE: &str = "lockstep";

/// What a server's data are worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Nothing that was committed is lost, even when the power fails.
    Full,
    /// Nobody will miss them: quicker.
    ThrowAway,
}

/// A PostgreSQL server of our own, on 127.0.0.1. Ends with this value, and with this process.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PathBuf,
    folder: PathBuf,
    account: Account,
    durability: Durability,
    password: String,
    port: u16,
    port_is_ours_to_choose: bool,
    process: Option<Bound>,
}

impl PostgresServer {
    /// Starts a server that keeps everything below `folder`, on `port` or, when that is 0, on any that is free. The
    /// first start makes its data folder.
    ///
    /// # Errors
    /// When there is no PostgreSQL on this machine, or it does not become ready; the sentence says what to do.
    pub fn start(folder: &Path, port: u16, durability: Durability) -> Result<Self, Failure> {
        let binaries = binaries::find()?;
        folder::make(folder)?;
        let account = Account::choose(&binaries, folder)?;
        account.give(folder)?;
        let password = folder.join("password");
        let password = folder::secret(&password, || Ok(uuid::Uuid::new_v4().simple().to_string()))?;
        account.give(&folder.join("password"))?;
        let mut server = Self {
            binaries,
            folder: folder.to_owned(),
            account,
            durability,
            password,
            port,
            port_is_ours_to_choose: port == 0,
            process: None,
        };
        server.end_leftover()?;
        server.initialise()?;
        server.resume()?;
        server.port_is_ours_to_choose = false;
        Ok(server)
    }

    /// Starts the server again on the port that it had.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn resume(&mut self) -> Result<(), Failure> {
        let log = self.folder.join("server.log");
        for attempt in 1..=ATTEMPTS_MAX {
            if self.port_is_ours_to_choose {
                self.port = process::free_port()?;
            }
            let command = self.account.command(&self.postgres_command());
            let mut process = Bound::start("PostgreSQL", &command, self.stop_signal(), &log)?;
            let pid = process.pid();
            let settled = process::wait_until(START_MAX, || self.says_ready(pid) || process.ended().is_some());
            if settled && process.ended().is_none() {
                self.process = Some(process);
                return Ok(());
            }
            tracing::debug!(attempt, "PostgreSQL did not start");
            drop(process);
            thread::sleep(Duration::from_millis(500));
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        let said: Vec<&str> = said.lines().rev().find(|line| line.contains("FATAL")).into_iter().collect();
        Err(Failure::new(format!("PostgreSQL did not start; see {} {}", log.display(), said.concat())))
    }

    /// The URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> SecretString {
        format!("postgres://{ROLE}:{}@127.0.0.1:{}/{database}?sslmode=disable", self.password, self.port).into()
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

    /// Stops the server: open transactions are rolled back.
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

    /// Stops the server and starts it again on the same port.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.stop();
        self.resume()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn stop_signal(&self) -> Signal {
        match self.durability {
            Durability::Full => Signal::Int,
            Durability::ThrowAway => Signal::Quit,
        }
    }

    fn program(&self, name: &str) -> String {
        self.binaries.join(name).display().to_string()
    }

    fn postgres_command(&self) -> Vec<String> {
        let mut command = vec![self.program("postgres"), "-D".to_owned(), self.data().display().to_string()];
        let mut set = |name: &str, value: &str| command.extend(["-c".to_owned(), format!("{name}={value}")]);
        set("listen_addresses", "127.0.0.1");
        set("port", &self.port.to_string());
        // A socket's path may have 107 bytes, which a data folder's path may pass; TCP is enough.
        set("unix_socket_directories", "");
        set("lc_messages", "C");
        set("log_line_prefix", "%m [%p] %a ");
        if self.durability == Durability::ThrowAway {
            for name in ["fsync", "full_page_writes", "autovacuum"] {
                set(name, "off");
            }
            // Tests run at once, each with a pool.
            set("max_connections", "300");
            set("shared_buffers", "64MB");
        }
        command
    }

    /// Makes the data folder, whole or not at all.
    fn initialise(&self) -> Result<(), Failure> {
        let data = self.data();
        if data.join("PG_VERSION").exists() {
            return Ok(());
        }
        let draft = self.folder.join("data.new");
        let mut failure = None;
        // Sorting by bytes is the same everywhere; the character type must know letters beyond ASCII, and not
        // every system has every name for that.
        for ctype in ["C.UTF-8", "en_US.UTF-8", "C"] {
            fs::remove_dir_all(&draft).ok();
            let mut command = vec![self.program("initdb")];
            let password_file = self.folder.join("password").display().to_string();
            let draft_path = draft.display().to_string();
            let options = [
                ("--pgdata", draft_path.as_str()),
                ("--username", ROLE),
                ("--pwfile", &password_file),
                ("--auth", "scram-sha-256"),
                ("--encoding", "UTF8"),
                ("--lc-collate", "C"),
                ("--lc-ctype", ctype),
            ];
            command.extend(options.iter().map(|(name, value)| format!("{name}={value}")));
            for name in ["messages", "monetary", "numeric", "time"] {
                command.push(format!("--lc-{name}=C"));
            }
            if self.durability == Durability::ThrowAway {
                command.push("--no-sync".to_owned());
            }
            match process::run(&self.account.command(&command)) {
                Ok(_) => {
                    return fs::rename(&draft, &data)
                        .map_err(Failure::because(format!("{} can not be made", data.display())));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::new("initdb failed")))
    }

    /// A server of an earlier run may still live in the folder: its watchdog is stopping it, or was killed too.
    fn end_leftover(&self) -> Result<(), Failure> {
        let file = self.data().join("postmaster.pid");
        let alive = || {
            let pid = fs::read_to_string(&file).ok()?.lines().next()?.trim().parse::<u32>().ok()?;
            process::program(pid).filter(|name| name.contains("postgres") || name.contains("postmaster")).map(|_| pid)
        };
        if process::wait_until(LEFTOVER_MAX, || alive().is_none()) {
            return Ok(());
        }
        for signal in [Signal::Int, Signal::Quit] {
            let Some(pid) = alive() else { return Ok(()) };
            process::signal(pid, signal);
            process::wait_until(LEFTOVER_MAX, || alive().is_none());
        }
        match alive() {
            None => Ok(()),
            Some(pid) => Err(Failure::new(format!("process {pid} uses {} and does not end", file.display()))),
        }
    }

    /// The server writes its state into the eighth line of its id file, as `pg_ctl` reads it.
    fn says_ready(&self, pid: u32) -> bool {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        lines.next().is_some_and(|first| first.trim() == pid.to_string())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }
}
