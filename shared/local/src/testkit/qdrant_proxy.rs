//! A proxy before Qdrant that knows which call is which: it counts writes, and does to them what a network and a busy
//! server do.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderValue, request::Parts};
use http_body_util::{BodyExt, Full};
use tonic::{Status, transport::Channel};
use tower::ServiceExt;

use super::TcpProxy;

/// A write to Qdrant, or a search.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// Points are written.
    Upsert,
    /// Points are removed.
    Delete,
    /// Points are searched for.
    Search,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/qdrant.Points/Upsert" => Some(Self::Upsert),
            "/qdrant.Points/Delete" => Some(Self::Delete),
            "/qdrant.Points/QueryBatch" => Some(Self::Search),
            _ => None,
        }
    }
}

/// What happens to a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It does not arrive; the client gets an error.
    NotApplied,
    /// It is applied, and the client gets an error.
    AppliedThenError,
    /// It is applied, and the connection is cut before the answer.
    AppliedThenCut,
    /// It is applied twice, one after the other.
    AppliedTwice,
    /// The client gets an error at once; the write waits for [`QdrantProxy::deliver`].
    Late,
    /// It does not arrive; the client is asked to wait.
    Throttled {
        /// So many seconds.
        retry_after_s: u64,
    },
    /// It is applied, and the answer takes this long.
    Slow(Duration),
}

/// A proxy on 127.0.0.1 before a Qdrant. It forwards, unless it is told otherwise; it ends with this value.
#[derive(Debug)]
pub struct QdrantProxy {
    // Before the proxy itself, because connections are cut there.
    front: Arc<TcpProxy>,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    server: Channel,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    faults: VecDeque<(Call, Fault)>,
    calls: Vec<Call>,
    kept: Vec<(Parts, Bytes)>,
    /// Writes that name this collection do not arrive.
    away: Option<String>,
    /// Nothing arrives that does not show this API key.
    key: Option<String>,
}

impl QdrantProxy {
    /// A proxy before the server at this URL.
    pub async fn before(url: &str) -> Self {
        let server = Channel::from_shared(url.to_owned()).expect("a URL").connect_lazy();
        let state = Arc::new(State { server, memory: Mutex::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address: SocketAddr = listener.local_addr().expect("the listener has an address");
        let front = Arc::new(TcpProxy::before(&format!("http://{address}")).await);
        let router = Router::new().fallback({
            let (state, front) = (Arc::clone(&state), Arc::clone(&front));
            async move |request: Request| state.answer(request, &front).await
        });
        let task = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Self { front, state, task }
    }

    /// The proxy's own URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.front.port())
    }

    /// Does this to the next `times` writes of this kind.
    pub fn fault(&self, call: Call, fault: Fault, times: usize) {
        self.state.memory().faults.extend(std::iter::repeat_n((call, fault), times));
    }

    /// Lets no write to this collection arrive, until it is healed.
    pub fn take_away(&self, collection: &str) {
        self.state.memory().away = Some(collection.to_owned());
    }

    /// Lets nothing arrive that does not show this API key.
    pub fn require_key(&self, key: &str) {
        self.state.memory().key = Some(key.to_owned());
    }

    /// Forgets the faults that have not happened yet, and gives back what was taken away.
    pub fn heal(&self) {
        self.state.memory().away = None;
        self.state.memory().faults.clear();
    }

    /// How many writes of this kind have come, faulty or not.
    #[must_use]
    pub fn calls(&self, call: Call) -> usize {
        self.state.memory().calls.iter().filter(|came| **came == call).count()
    }

    /// Whether all faults have happened.
    #[must_use]
    pub fn faults_are_over(&self) -> bool {
        self.state.memory().faults.is_empty()
    }

    /// Lets the writes arrive that were kept, in their order; how many that are.
    pub async fn deliver(&self) -> usize {
        let count = self.state.memory().kept.len();
        assert_eq!(self.deliver_what_arrives().await, count, "a late write is refused");
        count
    }

    /// Like [`Self::deliver`], for a server that may be away: keeps what it does not take, and returns how many it took.
    pub async fn deliver_what_arrives(&self) -> usize {
        let kept = std::mem::take(&mut self.state.memory().kept);
        let mut delivered = 0;
        for (parts, body) in kept {
            let response = self.state.forward(parts.clone(), body.clone()).await;
            let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
            if matches!(code, None | Some("0")) {
                delivered += 1;
            } else {
                self.state.memory().kept.push((parts, body));
            }
        }
        delivered
    }
}

impl Drop for QdrantProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call, and what is to be done to it.
    fn fault(&self, path: &str) -> Option<Fault> {
        let call = Call::of(path)?;
        let mut memory = self.memory();
        memory.calls.push(call);
        let at = memory.faults.iter().position(|(of, _)| *of == call)?;
        memory.faults.remove(at).map(|(_, fault)| fault)
    }

    async fn answer(&self, request: Request, front: &TcpProxy) -> Response {
        let (parts, body) = request.into_parts();
        let required = self.memory().key.clone();
        if required.is_some_and(|key| parts.headers.get("api-key").is_none_or(|shown| shown != key.as_str())) {
            return refusal(Status::unauthenticated("Must provide an API key or an Authorization bearer token"));
        }
        let fault = self.fault(parts.uri.path());
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return refusal(Status::cancelled("the proxy could not read the request"));
        };
        let broken = || refusal(Status::unavailable("the proxy says so"));
        if Call::of(parts.uri.path()).is_some() && self.is_away(&body) {
            return broken();
        }
        match fault {
            None => self.forward(parts, body).await,
            Some(Fault::NotApplied) => broken(),
            Some(Fault::AppliedThenError) => {
                self.forward(parts, body).await;
                broken()
            }
            Some(Fault::AppliedThenCut) => {
                self.forward(parts, body).await;
                front.cut();
                // Nobody is left to read this.
                broken()
            }
            Some(Fault::AppliedTwice) => {
                self.forward(parts.clone(), body.clone()).await;
                self.forward(parts, body).await
            }
            Some(Fault::Late) => {
                self.memory().kept.push((parts, body));
                broken()
            }
            Some(Fault::Throttled { retry_after_s }) => {
                let mut response = refusal(Status::resource_exhausted("the proxy says so"));
                response.headers_mut().insert("retry-after", HeaderValue::from(retry_after_s));
                response
            }
            Some(Fault::Slow(pause)) => {
                let response = self.forward(parts, body).await;
                tokio::time::sleep(pause).await;
                response
            }
        }
    }

    /// Whether the call names the collection that was taken away: a request begins with the name.
    fn is_away(&self, body: &Bytes) -> bool {
        let memory = self.memory();
        memory.away.as_ref().is_some_and(|name| body.windows(name.len()).any(|part| part == name.as_bytes()))
    }

    /// Sends the call to Qdrant, and waits for the end of its answer: then it is applied.
    async fn forward(&self, parts: Parts, body: Bytes) -> Response {
        let request = Request::from_parts(parts, tonic::body::Body::new(Full::new(body)));
        let response = match self.server.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) => return refusal(Status::unavailable(error.to_string())),
        };
        let (parts, body) = response.into_parts();
        match body.collect().await {
            Ok(body) => Response::from_parts(parts, Body::new(body)),
            Err(status) => refusal(status),
        }
    }
}

fn refusal(status: Status) -> Response {
    status.into_http::<Body>()
}
