//! Traces, sent by OTLP to the collector that the operator names. Off unless one is.
//!
//! A request's spans join the trace that it came with: X-Ray's, which Lambda hands over, or W3C's `traceparent`. They are kept
//! until the request has its answer and sent before it leaves, since a container that is frozen sends nothing. A
//! collector that does not answer costs a request no more than [`EXPORT_MAX`], and then nothing for a while.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use opentelemetry::{Context, propagation::TextMapPropagator, trace::TraceContextExt, trace::TracerProvider};
use opentelemetry_aws::trace::XrayPropagator;
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Span as OpenSpan, SpanData, SpanExporter as _, SpanProcessor},
};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter, registry::LookupSpan};

use crate::{breaker::Breaker, config::TracesConfig};

/// What an export may cost a request: the collector is near, an extension of the function or a process of the machine.
pub const EXPORT_MAX: Duration = Duration::from_millis(250);

/// Spans that are kept, at most: a request has some ten.
const SPANS_MAX: usize = 2_048;

/// Whose spans are sent: libraries' own tell of their insides.
const OURS: [&str; 4] = ["shared", "auth", "ingest", "query"];

static TRACES: OnceLock<Traces> = OnceLock::new();

#[derive(Debug)]
struct Traces {
    ended: Arc<Ended>,
    exporter: SpanExporter,
    breaker: Breaker,
}

/// Spans that have ended and are not sent.
#[derive(Debug, Default)]
struct Ended(Mutex<Vec<SpanData>>);

impl Ended {
    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps what ends.
#[derive(Debug)]
struct Keep(Arc<Ended>);

impl SpanProcessor for Keep {
    fn on_start(&self, _: &mut OpenSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut ended = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if span.span_context.is_sampled() && ended.len() < SPANS_MAX {
            ended.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The HTTP client that is in the program anyway.
#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.0.execute(request.try_into()?).await?;
        let mut answer = Response::new(Bytes::new());
        (*answer.status_mut(), *answer.headers_mut()) = (response.status(), response.headers().clone());
        *answer.body_mut() = response.bytes().await?;
        Ok(answer)
    }
}

/// What turns spans into traces from now on.
pub(super) fn layer<S>(config: &TracesConfig) -> Result<impl Layer<S>, ExporterBuildError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let resource = Resource::builder().with_service_name(config.service.clone()).build();
    let exporter = SpanExporter::builder().with_http().with_http_client(Client(reqwest::Client::new()));
    let mut exporter = exporter.with_endpoint(config.endpoint.clone()).build()?;
    exporter.set_resource(&resource);
    let ended = Arc::<Ended>::default();
    let provider =
        SdkTracerProvider::builder().with_span_processor(Keep(ended.clone())).with_resource(resource).build();
    let tracer = provider.tracer("lockstep");
    // A second one would be of a test binary, whose first subscriber stays.
    drop(TRACES.set(Traces { ended, exporter, breaker: Breaker::new("traces") }));
    let ours = filter::Targets::new().with_targets(OURS.map(|target| (target, LevelFilter::INFO)));
    #[allow(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime, the filter of any")]
    let spans = filter::filter_fn(|metadata| metadata.is_span());
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    Ok(layer.with_tracked_inactivity(false).with_target(false).with_filter(ours).with_filter(spans))
}

/// Makes `span` part of the trace that the request came with: `xray` is what Lambda says of it, before any header.
pub(crate) fn join(span: &Span, headers: &HeaderMap, xray: Option<&str>) {
    if TRACES.get().is_none() {
        return;
    }
    let lambda: HeaderMap = xray.and_then(|value| value.parse().ok()).map(|value| (XRAY, value)).into_iter().collect();
    let found = [&lambda, headers].into_iter().flat_map(|headers| {
        let headers = HeaderExtractor(headers);
        [XrayPropagator::default().extract(&headers), TraceContextPropagator::new().extract(&headers)]
    });
    if let Some(parent) = found.into_iter().find(|context| context.span().span_context().is_valid()) {
        // Only a span that nobody listens to has none.
        drop(span.set_parent(parent));
    }
}

const XRAY: http::HeaderName = http::HeaderName::from_static("x-amzn-trace-id");

/// Sends what has ended. Never fails a request: what can not be sent is gone, and the log says so.
pub async fn flush() {
    let Some(traces) = TRACES.get() else { return };
    let spans = traces.ended.take();
    if spans.is_empty() {
        return;
    }
    let Some(permit) = traces.breaker.admit() else { return };
    match tokio::time::timeout(EXPORT_MAX, traces.exporter.export(spans)).await {
        Ok(Ok(())) => permit.succeeded(),
        Ok(Err(error)) => {
            permit.failed();
            tracing::warn!(%error, "spans are not sent");
        }
        Err(_) => {
            permit.failed();
            tracing::warn!(error = "the collector does not answer", "spans are not sent");
        }
    }
}
