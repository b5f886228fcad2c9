//! The Lambda function `query`.

use shared::{
    App,
    config::{Config, LogConfig},
    secrets::SecretsManager,
    telemetry,
};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let log = LogConfig::from_env();
    telemetry::init(&log.filter, log.json);
    let config = Config::from_env(&SecretsManager::default()).await?;
    lambda_http::run(query::router(App::new(config)?)?).await
}
