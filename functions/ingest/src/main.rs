//! The Lambda function `ingest`.

use std::process::ExitCode;

use ingest::extract::sandbox;
use shared::{App, config::Config, secrets::SecretsManager, telemetry};

fn main() -> Result<ExitCode, lambda_http::Error> {
    if let Some(code) = sandbox::run_if_asked() {
        return Ok(code);
    }
    serve().map(|()| ExitCode::SUCCESS)
}

#[tokio::main]
async fn serve() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    lambda_http::run(ingest::router(App::new(config)?)).await
}
