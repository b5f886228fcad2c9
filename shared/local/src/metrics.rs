//! `GET /metrics`: what the functions measure, for Prometheus. In the cloud the same goes to `CloudWatch`.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Of latencies, in milliseconds.
const BUCKETS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 10_000.0, 30_000.0];

/// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Collects from now on, in this process. A second call changes nothing.
pub fn collect() {
    HANDLE.get_or_init(|| {
        match PrometheusBuilder::new().set_buckets(&BUCKETS).map(PrometheusBuilder::install_recorder) {
            Ok(Ok(handle)) => Some(handle),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "nothing is measured");
                None
            }
        }
    });
}

/// What was collected; 404 where nothing is.
pub async fn show() -> Response {
    match HANDLE.get().and_then(Option::as_ref) {
        Some(handle) => {
            // Old values are thrown away here and nowhere else.
            handle.run_upkeep();
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], handle.render()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
