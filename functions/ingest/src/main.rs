//! The Lambda function `ingest`.

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::default()).await?;
    lambda_http::run(ingest::router(App::new(config)?)).await
}
