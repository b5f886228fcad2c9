//! A proxy before a store, to take the network away from it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
};

/// What happens to bytes and new connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Forward,
    Refuse,
    Pause,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    // Connections of an earlier epoch are cut.
    epoch: u64,
}

/// A proxy on 127.0.0.1 before a server. It forwards, until it is told otherwise; it ends with this value.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl TcpProxy {
    /// A proxy before the server at this URL, which names a port of 127.0.0.1.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let state = Arc::new(watch::channel(State { mode: Mode::Forward, epoch: 0 }).0);
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, port_of(url), Arc::clone(&state), Arc::clone(&accepted)));
        Self { address, state, accepted, task }
    }

    /// The proxy's own port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `url` with the proxy instead of the server.
    #[must_use]
    pub fn redirect(&self, url: &str) -> String {
        redirect(url, self.address)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Forwards again; what was held goes on.
    pub fn forward(&self) {
        self.state.send_modify(|state| state.mode = Mode::Forward);
    }

    /// Closes new connections at once, and cuts those that are there.
    pub fn refuse(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Refuse, epoch: state.epoch + 1 });
    }

    /// Cuts the connections that are there; new ones are forwarded as before.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }

    /// Holds all bytes, and new connections too.
    pub fn pause(&self) {
        self.state.send_modify(|state| state.mode = Mode::Pause);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.refuse();
        self.task.abort();
    }
}

/// The port that a URL names.
#[must_use]
pub fn port_of(url: &str) -> u16 {
    let (_, rest) = url.split_once("://").expect("a URL");
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.expect("the URL names a port")
}

/// `url` with this address instead of its own.
pub(super) fn redirect(url: &str, address: SocketAddr) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    format!("{scheme}://{user}{address}{path}")
}

/// Small messages go on at once: else each would wait for the one before it to be acknowledged, 40 ms later.
pub(super) fn at_once(client: &TcpStream, server: &TcpStream) {
    for stream in [client, server] {
        stream.set_nodelay(true).expect("a socket takes the option");
    }
}

async fn accept(listener: TcpListener, port: u16, state: Arc<watch::Sender<State>>, accepted: Arc<AtomicUsize>) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        let now = *state.borrow();
        if now.mode == Mode::Refuse {
            continue;
        }
        let mut watch = state.subscribe();
        tokio::spawn(async move {
            let cut = {
                let mut watch = watch.clone();
                async move { drop(watch.wait_for(|state| state.epoch != now.epoch).await) }
            };
            let forward = async move {
                watch.wait_for(|state| state.mode != Mode::Pause).await.ok();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                at_once(&client, &server);
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::join!(pump(from_client, to_server, watch.clone()), pump(from_server, to_client, watch));
            };
            tokio::select! {
                () = cut => {}
                () = forward => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut watch: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        watch.wait_for(|state| state.mode != Mode::Pause).await.ok();
        if to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}
