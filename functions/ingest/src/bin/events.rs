//! The Lambda function `ingest-events`: documents that arrive as objects in buckets.

use std::process::ExitCode;

use ingest::extract::sandbox;
use lambda_http::{Error, LambdaEvent, lambda_runtime, service_fn};
use serde_json::Value;
use shared::{App, config::Config, deadline::Deadline, metrics, secrets::SecretsManager, telemetry};
use tracing::Instrument;

fn main() -> Result<ExitCode, Error> {
    if let Some(code) = sandbox::run_if_asked() {
        return Ok(code);
    }
    serve().map(|()| ExitCode::SUCCESS)
}

#[tokio::main]
async fn serve() -> Result<(), Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    config.objects.key_pattern.parse::<ingest::events::place::KeyPattern>()?;
    let app = &App::new(config)?;
    let handle = |event: LambdaEvent<Value>| async move {
        let deadline = Deadline::at(event.context.deadline());
        let span = telemetry::invocation("ingest-events", &event.context);
        let answer = ingest::events::events(app, event.payload, deadline).instrument(span).await.map_err(Error::from);
        metrics::flush();
        telemetry::traces::flush().await;
        answer
    };
    lambda_runtime::run(service_fn(handle)).await
}
