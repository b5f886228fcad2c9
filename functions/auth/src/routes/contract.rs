//! The API's contract, of all functions: this one serves it, because it is the smallest and needs no store for that.
//! `make openapi` writes both files, and a test says when they have fallen behind.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use shared::{http::Routes, routes};

const CONTRACT: &str = include_str!("../../../../docs/contracts/openapi.json");

const PAGE: &str = include_str!("../../../../docs/contracts/index.html");

/// It changes with a deployment, and then soon enough.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The page brings its own style, and nothing else.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'");

pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(document)).routes(routes!(page))
}

/// Shows this contract.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "contract",
    operation_id = "get_contract",
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json", body = Object)),
)]
async fn document() -> Response {
    file(HeaderValue::from_static("application/json"), CONTRACT)
}

/// Shows this contract to people.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "contract",
    operation_id = "browse_contract",
    responses((status = 200, description = "A page that needs no other host.", content_type = "text/html", body = String)),
)]
async fn page() -> Response {
    file(HeaderValue::from_static("text/html; charset=utf-8"), PAGE)
}

fn file(media_type: HeaderValue, text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, CACHE_CONTROL),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text).into_response()
}
