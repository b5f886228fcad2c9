//! The Lambda function `query-stream`: the routes of `query`, with answers that are sent as they come. A function streams or
//! it does not; for whole answers `query` is the cheaper one.
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html>

use shared::{App, config::Config, secrets::SecretsManager, telemetry};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::start();
    let config = Config::from_env(&SecretsManager::shared()).await?;
    lambda_http::run_with_streaming_response(query::router(App::new(config)?)?).await
}
