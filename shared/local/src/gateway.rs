//! All functions behind one port, as API Gateway has them in the cloud.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::{Value, json};
use shared::{
    App, config::ConfigError, db::DbError, deadline::Deadline, domain::ChunkId, http::Json, problem::Causes,
    vectors::IndexError,
};
use tower::ServiceExt;

use crate::metrics;

/// How long each store may take to answer `GET /ready`.
const READY_MAX: Duration = Duration::from_secs(2);

/// The functions' routers. Each is finished (request ids, problems, deadlines), so they are not merged but
/// chosen by the first part of the path, as API Gateway chooses functions.
#[derive(Clone, Debug)]
struct Functions {
    auth: Router,
    ingest: Router,
    query: Router,
    // Also answers what nobody serves: as a problem, with a request id.
    own: Router,
}

impl Functions {
    fn serving(&self, path: &str) -> &Router {
        match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
            "auth" | "knowledge-bases" | ".well-known" | "openapi.json" | "docs" => &self.auth,
            "consistency" | "documents" | "uploads" => &self.ingest,
            "citations" | "query" => &self.query,
            _ => &self.own,
        }
    }
}

/// All routes of all functions, and `GET /health`, `GET /ready` and `GET /metrics`.
///
/// # Errors
/// When a function can not start with this configuration.
pub fn router(app: &App) -> Result<Router, ConfigError> {
    let own =
        Router::new().route("/health", get(health)).route("/ready", get(ready)).route("/metrics", get(metrics::show));
    let functions = Functions {
        auth: auth::router(app.clone(), auth::Signer::new(&app.config.tokens)?)?,
        ingest: ingest::router(app.clone()),
        query: query::router(app.clone())?,
        own: shared::http::finish(shared::http::Routes::new().map(|router| router.merge(own)), app.clone()),
    };
    // A fallback and no route: a route's parameters would stay in the request and confuse the function's own.
    Ok(Router::new().fallback(async move |request: Request| -> Result<Response, Infallible> {
        functions.serving(request.uri().path()).clone().oneshot(request).await
    }))
}

/// The process is up.
async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether the stores answer: 200, or 503 with the names of those that do not.
async fn ready(State(app): State<App>) -> Response {
    let (postgresql, qdrant) = tokio::join!(postgresql(&app), qdrant(&app));
    let ready = postgresql.is_ok() && qdrant.is_ok();
    let word = |result: &Result<(), String>| if result.is_ok() { "ok" } else { "unavailable" };
    let body = json!({
        "status": if ready { "ok" } else { "unavailable" },
        "postgresql": word(&postgresql),
        "qdrant": word(&qdrant),
    });
    for (store, error) in [("postgresql", postgresql), ("qdrant", qdrant)] {
        if let Err(error) = error {
            tracing::warn!(store, error, "not ready");
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn postgresql(app: &App) -> Result<(), String> {
    let ask = app.db.transaction::<_, DbError, _>("gateway::ready", async |tx| {
        tx.execute_typed("-- gateway::ready\nSELECT 1", &[]).await?;
        Ok(())
    });
    match tokio::time::timeout(READY_MAX, ask).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Causes(&error).to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn qdrant(app: &App) -> Result<(), String> {
    match app.index.count(&[ChunkId::draw()], Deadline::after(READY_MAX)).await {
        // It answers; that nothing was ever written to this space is no fault.
        Ok(_) | Err(IndexError::Missing) => Ok(()),
        Err(error) => Err(Causes(&error).to_string()),
    }
}
