//! The Lambda function `auth`.

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

/// One thread for all that waits: a function has one event at a time, and a part of a processor. What computes has threads of its
/// own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    let app = App::without_model(config)?;
    // It has begun to connect: on its way while the rest is made.
    tokio::task::yield_now().await;
    let signer = auth::Signer::starting(app.config.tokens.clone());
    lambda_http::run(auth::router(app, signer)?).await
}
