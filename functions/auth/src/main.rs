//! The Lambda function `auth`.

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    let signer = auth::Signer::starting(config.tokens.clone());
    lambda_http::run(auth::router(App::without_model(config)?, signer)?).await
}
