//! A proxy before PostgreSQL that understands enough of the protocol to cut a connection at a COMMIT (before it reached the
//! server, or after it was done and before the client knows), to count round trips, and to tell the statements.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::{
    collections::BTreeMap,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_postgres::{
    Row,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

/// The code of a request for TLS, which comes instead of a start-up message and is followed by one.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// When a connection is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// COMMIT does not reach the server.
    BeforeCommit,
    /// COMMIT is done; its answer does not reach the client.
    AfterCommit,
}

impl Cut {
    /// Both.
    pub const ALL: [Self; 2] = [Self::BeforeCommit, Self::AfterCommit];
}

/// What is waited for: the COMMIT of a transaction in which this statement was sent, or the statement's own when it is in none.
#[derive(Debug)]
struct Trap {
    statement: String,
    cut: Cut,
}

/// A statement that was sent, with the values that came with it last.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As it was sent.
    pub text: String,
    /// The types of its parameters: their object ids.
    pub types: Vec<u32>,
    /// Its parameters in PostgreSQL's binary form; `None` is NULL.
    pub values: Vec<Option<Vec<u8>>>,
}

/// A value as it was sent.
#[derive(Debug)]
struct Sent<'a>(&'a Option<Vec<u8>>);

impl ToSql for Sent<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(bytes) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Statement {
    /// Sends it again, with the same values.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn send(&self, pg: &tokio_postgres::Client) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.send_as(&self.text, pg).await
    }

    /// How PostgreSQL would run it with these values, as `EXPLAIN (FORMAT JSON)` says it.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn plan(&self, pg: &tokio_postgres::Client) -> Result<Value, tokio_postgres::Error> {
        let rows = self.send_as(&format!("EXPLAIN (FORMAT JSON) {}", self.text), pg).await?;
        rows.first().map_or(Ok(Value::Null), |row| row.try_get(0))
    }

    /// Runs it with these values, and tells how: `EXPLAIN (ANALYZE, FORMAT JSON)`.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn analysis(&self, pg: &tokio_postgres::Client) -> Result<Value, tokio_postgres::Error> {
        let rows = self.send_as(&format!("EXPLAIN (ANALYZE, FORMAT JSON) {}", self.text), pg).await?;
        rows.first().map_or(Ok(Value::Null), |row| row.try_get(0))
    }

    async fn send_as(&self, text: &str, pg: &tokio_postgres::Client) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sent: Vec<Sent<'_>> = self.values.iter().map(Sent).collect();
        let types = self.types.iter().map(|oid| Type::from_oid(*oid).unwrap_or(Type::UNKNOWN));
        let values = sent.iter().map(|value| value as &(dyn ToSql + Sync));
        pg.query_typed(text, &values.zip(types).collect::<Vec<_>>()).await
    }
}

/// What came by.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    statements: Mutex<BTreeMap<String, Statement>>,
}

/// A proxy on 127.0.0.1 before a PostgreSQL. It forwards, unless it is told otherwise; it ends with this value.
#[derive(Debug)]
pub struct PostgresProxy {
    address: SocketAddr,
    trap: Arc<Mutex<Option<Trap>>>,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl PostgresProxy {
    /// A proxy before the server in this URL, on this machine.
    pub async fn before(url: &str) -> Self {
        let server: tokio_postgres::Config = url.parse().expect("a URL");
        let port = server.get_ports().first().copied().unwrap_or(5432);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let trap = Arc::new(Mutex::new(None));
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn({
            let (trap, seen) = (Arc::clone(&trap), Arc::clone(&seen));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                    super::proxy::at_once(&client, &server);
                    tokio::spawn(connection(client, server, Arc::clone(&trap), Arc::clone(&seen)));
                }
            }
        });
        Self { address, trap, seen, task }
    }

    /// `url` with the proxy instead of the server.
    #[must_use]
    pub fn redirect(&self, url: &str) -> String {
        super::proxy::redirect(url, self.address)
    }

    /// Cuts the connection at the next COMMIT of a transaction in which the statement of this name was sent
    /// (`documents::activate`).
    pub fn cut(&self, statement: &str, cut: Cut) {
        *lock(&self.trap) = Some(Trap { statement: format!("-- {statement}\n"), cut });
    }

    /// Round trips so far: how often a client has waited for an answer, BEGIN and COMMIT included.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Forgets the statements so far.
    pub fn forget(&self) {
        lock(&self.seen.statements).clear();
    }

    /// All statements so far that were sent without a name, each once.
    #[must_use]
    pub fn statements(&self) -> Vec<Statement> {
        lock(&self.seen.statements).values().cloned().collect()
    }

    /// Forgets a cut that has not been made.
    pub fn heal(&self) {
        *lock(&self.trap) = None;
    }

    /// Whether the cut was made.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        lock(&self.trap).is_none()
    }
}

impl Drop for PostgresProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, until it ends or is cut. Bytes go to the server message by message, so that one can be held back.
async fn connection(mut client: TcpStream, mut server: TcpStream, trap: Arc<Mutex<Option<Trap>>>, seen: Arc<Seen>) {
    let mut pending = Vec::new();
    let mut transaction = Transaction::default();
    let mut prepared = None;
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                pending.extend_from_slice(from_client.get(..read).unwrap_or_default());
                while let Some(message) = transaction.next(&mut pending) {
                    let cut = transaction.see(&message, &trap);
                    // Sync, and Query.
                    if matches!(message.first(), Some(b'S' | b'Q')) {
                        seen.requests.fetch_add(1, Ordering::Relaxed);
                    }
                    prepared = parsed(&message).or(prepared);
                    if let (Some(statement), Some(values)) = (&prepared, bound(&message)) {
                        let statement = Statement { values, ..statement.clone() };
                        lock(&seen.statements).insert(statement.text.clone(), statement);
                    }
                    if cut == Some(Cut::BeforeCommit) || server.write_all(&message).await.is_err() {
                        return;
                    }
                    if cut == Some(Cut::AfterCommit) {
                        done(&mut server).await;
                        return;
                    }
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(from_server.get(..read).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The statement of a Parse message without a name.
fn parsed(message: &[u8]) -> Option<Statement> {
    let body = message.strip_prefix(b"P")?.get(4..)?;
    let (name, rest) = split_at_nul(body)?;
    let (text, rest) = split_at_nul(rest)?;
    let types = rest.get(2..)?.chunks_exact(4).filter_map(|oid| oid.try_into().ok().map(u32::from_be_bytes)).collect();
    let text = String::from_utf8_lossy(text).into_owned();
    name.is_empty().then_some(Statement { text, types, values: Vec::new() })
}

/// The values of a Bind message to the statement without a name.
fn bound(message: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let body = message.strip_prefix(b"B")?.get(4..)?;
    let (_, rest) = split_at_nul(body)?;
    let (name, mut rest) = split_at_nul(rest)?;
    let formats = number(rest.split_off(..2)?);
    rest.split_off(..2 * formats)?;
    let count = number(rest.split_off(..2)?);
    let mut values = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
        let value =
            usize::try_from(length).ok().map(|length| rest.split_off(..length)).map(|value| value.map(<[u8]>::to_vec));
        values.push(value.unwrap_or_default());
    }
    name.is_empty().then_some(values)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Returns when the server has told that it is in no transaction any more.
async fn done(server: &mut TcpStream) {
    // ReadyForQuery, idle.
    let idle = b"Z\0\0\0\x05I";
    let mut said = Vec::new();
    while server.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
        if said.windows(idle.len()).any(|part| part == idle) {
            return;
        }
    }
}

/// What a connection's client has said.
#[derive(Debug, Default)]
struct Transaction {
    started: bool,
    /// Between START TRANSACTION and its end.
    open: bool,
    marked: bool,
}

impl Transaction {
    /// Takes the next whole message off.
    fn next(&mut self, pending: &mut Vec<u8>) -> Option<Vec<u8>> {
        // Messages begin with their type, except those before the connection is made.
        let kind = usize::from(self.started);
        let length: [u8; 4] = pending.get(kind..kind + 4)?.try_into().ok()?;
        let end = kind + usize::try_from(u32::from_be_bytes(length)).ok()?;
        if pending.len() < end {
            return None;
        }
        let message: Vec<u8> = pending.drain(..end).collect();
        if !self.started && message.get(4..8) != Some(SSL_REQUEST.as_slice()) {
            self.started = true;
        }
        Some(message)
    }

    /// Looks at a message that the client sends: a statement, or a COMMIT at which the connection is to be cut.
    fn see(&mut self, message: &[u8], trap: &Mutex<Option<Trap>>) -> Option<Cut> {
        let (kind, body) = message.split_first()?;
        let body = String::from_utf8_lossy(body);
        let mut trap = lock(trap);
        match kind {
            // Parse
            b'P' if trap.as_ref().is_some_and(|trap| body.contains(&trap.statement)) => self.marked = true,
            // Query
            b'Q' if body.contains("START TRANSACTION") => (self.open, self.marked) = (true, false),
            b'Q' if body.contains("ROLLBACK") => (self.open, self.marked) = (false, false),
            b'Q' if body.contains("COMMIT") => {
                self.open = false;
                if std::mem::take(&mut self.marked) {
                    return trap.take().map(|trap| trap.cut);
                }
            }
            // Sync, which commits a statement that is by itself.
            b'S' if !self.open && std::mem::take(&mut self.marked) => return trap.take().map(|trap| trap.cut),
            _ => {}
        }
        None
    }
}
