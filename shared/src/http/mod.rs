//! What all routers share: the request's id and deadline, problems, strict extractors, the caller.

mod callers;
mod client;
mod extract;
mod routes;

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, header};
use lambda_http::{RequestExt, request::RequestContext};
use tracing::Instrument;

pub use self::callers::{Admin, Reader, Writer};
pub use self::client::{Address, Client};
pub use self::extract::{
    Body, Invocation, Json, Params, PathId, PathIds, Principal, media_type, params, unsupported_media_type,
};
pub use self::routes::{Route, Routes};
use crate::{
    App,
    deadline::Deadline,
    metrics,
    problem::{Code, Problem},
    telemetry::traces,
};
// For what `routes!` expands to.
#[doc(hidden)]
pub use utoipa_axum;

/// Carries the request's id, in every answer.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a problem's answer keeps of the headers that were set before it was written: the methods that a route has, which
/// axum knows (RFC 9110, section 15.5.6: a 405 lists them), and how the client's quota stands.
const PROBLEM_HEADERS: [HeaderName; 3] =
    [header::ALLOW, HeaderName::from_static("ratelimit"), HeaderName::from_static("ratelimit-policy")];

/// What is kept of an invocation's time to write the answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// What is kept of a request's time to say which of its calls took too long: their deadline is earlier by this much.
const BLAME_MARGIN: Duration = Duration::from_millis(100);

/// Makes a function's routes a service: adds what all functions share. Only routes that the API's contract describes can
/// be made one.
pub fn finish(routes: Routes, app: App) -> Router {
    routes
        .into_router()
        .fallback(async || Problem::not_found("route"))
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "See the API's contract for the methods of this route.")
        })
        .layer(middleware::from_fn_with_state(app.clone(), invocation))
        .with_state(app)
}

/// Gives each request its id and deadline, turns problems and panics into answers, and logs one line.
async fn invocation(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let end = Deadline::after(time_left(&request).unwrap_or(app.config.limits.request_timeout));
    request.extensions_mut().insert(Invocation { request_id: id.clone(), deadline: end.minus(BLAME_MARGIN) });
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());

    let span = tracing::info_span!(
        "request",
        otel.name = route.as_deref().map_or_else(|| method.to_string(), |route| format!("{method} {route}")),
        otel.kind = "server",
        request.id = id,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        user.hash = tracing::field::Empty,
        document.id = tracing::field::Empty,
    );
    let xray = request.lambda_context_ref().and_then(|context| context.xray_trace_id.clone());
    traces::join(&span, request.headers(), xray.as_deref());
    let answer = next.run(request).instrument(span.clone());
    let answer = AssertUnwindSafe(end.minus(BLAME_MARGIN).cover(answer)).catch_unwind();
    let mut response = match tokio::time::timeout_at(end.instant(), answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::internal(Panicked).into_response(),
        Err(_) => Problem::new(Code::DeadlineExceeded, "The request did not end within its time.")
            .retry_after(Duration::from_secs(1))
            .into_response(),
    };
    let mut code = None;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        code = Some(problem.code().as_str());
        let mut before = std::mem::take(response.headers_mut());
        response = span.in_scope(|| problem.respond(&id));
        for name in PROBLEM_HEADERS {
            if let Some(value) = before.remove(&name) {
                response.headers_mut().insert(name, value);
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let duration = started.elapsed();
    metrics::request(route.as_deref(), code, duration);
    metrics::flush();
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    span.in_scope(|| {
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(request.id = id, http.method = %method, http.route = route, http.status = status, duration_ms, "request");
    });
    drop(span);
    traces::flush().await;
    response
}

/// A handler panicked. What it said is on standard error already, by the panic hook.
#[derive(Debug, thiserror::Error)]
#[error("the handler panicked")]
struct Panicked;

/// The gateway's id for the request, or one of our own.
fn request_id(request: &Request) -> String {
    let gateway = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        Some(RequestContext::ApiGatewayV1(context)) => context.request_id.clone(),
        _ => None,
    };
    gateway.unwrap_or_else(|| uuid::Uuid::now_v7().to_string())
}

/// The invocation's remaining time, where Lambda says it.
fn time_left(request: &Request) -> Option<Duration> {
    let ends = UNIX_EPOCH + Duration::from_millis(request.lambda_context_ref()?.deadline);
    Some(ends.duration_since(SystemTime::now()).unwrap_or_default().saturating_sub(ANSWER_MARGIN))
}
