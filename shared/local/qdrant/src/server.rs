//! From the command line to a serving process and back to silence.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::server::TcpIncoming;

use crate::args::{Args, Failure};
use crate::rpc;
use crate::store::Store;
use crate::upkeep::Upkeep;

/// How long requests in flight may finish after SIGTERM. With the two below, less than 2 s.
const DRAIN_MAX: Duration = Duration::from_millis(800);
/// How long to wait for an optimisation in progress after that.
const UPKEEP_MAX: Duration = Duration::from_millis(500);
/// How long to wait for engine calls that outlive their request.
const WORKERS_MAX: Duration = Duration::from_millis(300);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A [`Failure`] with the exit code to end with.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    // The port first: it is the cheaper thing to be refused.
    let listener = runtime.block_on(listen(args.port))?;
    let store = Arc::new(Store::open(&args.data)?);
    let upkeep =
        Upkeep::start(Arc::clone(&store)).map_err(|error| Failure::other(format!("cannot start a thread: {error}")))?;
    let served = runtime.block_on(serve(listener, &store));
    // Joined before anything is closed: an optimisation holds the write-ahead log's lock.
    upkeep.stop(UPKEEP_MAX);
    runtime.shutdown_timeout(WORKERS_MAX);
    for collection in store.collections() {
        collection.flush_if_changed();
    }
    served
}

async fn listen(port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::usage(format!("port {port} is already in use on 127.0.0.1")),
        _ => Failure::usage(format!("cannot listen on port {port}: {error}")),
    })
}

async fn serve(listener: TcpListener, store: &Arc<Store>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::other(format!("cannot serve: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    // Whoever started us waits for this line; losing it (a closed pipe) is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "local-qdrant ready on http://{address}");

    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = rpc::router(Arc::clone(store)).serve_with_incoming_shutdown(
        TcpIncoming::from(listener).with_nodelay(Some(true)),
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = stopping.send(());
        },
    );
    let drained = async {
        // An error means that serving ended by itself, which the other branch reports.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        result = serving => result.map_err(|error| failed(&error)),
        () = drained => Ok(()),
    }
}
