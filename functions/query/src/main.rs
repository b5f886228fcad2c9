//! The Lambda function `query`.

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    lambda_http::run(query::router(App::new(config)?)?).await
}
