//! The Lambda function `migrate`: brings the schema up to date while a stack is deployed, or when an operator invokes it.

use lambda_http::{Error, LambdaEvent, lambda_runtime, service_fn};
use shared::{config::DatabaseConfig, secrets::SecretsManager, telemetry};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::start();
    // Read with each event: a deployment must hear why, and who can not start says nothing.
    let handle = |event: LambdaEvent<auth::migrate::Event>| async move {
        auth::migrate::handle(DatabaseConfig::from_env(&SecretsManager::shared()).await, event.payload).await
    };
    lambda_runtime::run(service_fn(handle)).await
}
