//! The Lambda function `sweeper`: what a schedule starts, and where an operator approves withheld removals.

use std::process::ExitCode;

use ingest::extract::sandbox;
use lambda_http::{Error, LambdaEvent, lambda_runtime, service_fn};
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
    let app = &App::new(Config::from_env(&SecretsManager::shared()).await?)?;
    let handle = |event: LambdaEvent<ingest::SweeperEvent>| async move {
        let deadline = Deadline::at(event.context.deadline());
        let span = telemetry::invocation("sweeper", &event.context);
        let done = ingest::sweeper(app, event.payload, deadline).instrument(span).await.map_err(Error::from);
        metrics::flush();
        telemetry::traces::flush().await;
        done
    };
    lambda_runtime::run(service_fn(handle)).await
}
