//! The Lambda function `auth`.

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

/// One thread for all that waits: a function has one event at a time, and a part of a processor. What computes has threads of its
/// own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    let signer = auth::Signer::starting(config.tokens.clone());
    lambda_http::run(auth::router(App::without_model(config)?, signer)?).await
}
