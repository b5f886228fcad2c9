//! Migrations as a step of a deployment: a custom resource of `CloudFormation`, which waits for the answer before it replaces any
//! function that needs the new schema.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html>

use lambda_http::Error;
use serde::{Deserialize, Serialize};
use shared::{
    config::{ConfigError, DatabaseConfig},
    db::migrations,
    problem::Causes,
};

/// What asks for it: `CloudFormation`, or an operator with `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    request_type: Option<RequestType>,
    /// Where `CloudFormation` waits for the answer. It needs no other right, so it is a secret.
    #[serde(rename = "ResponseURL")]
    response_url: Option<String>,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
enum RequestType {
    Create,
    Update,
    Delete,
}

/// What was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Done {
    /// Migrations that were missing and are applied now.
    pub applied: usize,
}

/// The answer that `CloudFormation` waits for.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The same for ever: an update replaces nothing.
    physical_resource_id: &'static str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
}

/// Applies what is missing, and tells `CloudFormation` if it has asked. A stack that is deleted leaves the schema and all that is in
/// it as they are.
///
/// # Errors
/// When the schema could not be brought up to date and nobody but the caller was told so, or `CloudFormation` can not be told.
pub async fn handle(config: Result<DatabaseConfig, ConfigError>, event: Event) -> Result<Done, Error> {
    let done =
        if event.request_type == Some(RequestType::Delete) { Ok(Done { applied: 0 }) } else { migrate(config).await };
    match &done {
        Ok(done) => tracing::info!(migrations.applied = done.applied, "the schema is up to date"),
        Err(reason) => tracing::error!(error = reason, "the schema is not up to date"),
    }
    let Some(url) = &event.response_url else { return done.map_err(Error::from) };
    let answer = Answer {
        status: if done.is_ok() { "SUCCESS" } else { "FAILED" },
        reason: done.as_ref().err().map(String::as_str),
        physical_resource_id: "schema",
        stack_id: &event.stack_id,
        request_id: &event.request_id,
        logical_resource_id: &event.logical_resource_id,
    };
    // Without a media type: the URL is signed for none.
    let put = reqwest::Client::new().put(url).body(serde_json::to_vec(&answer)?).send().await;
    put.and_then(reqwest::Response::error_for_status).map_err(reqwest::Error::without_url)?;
    Ok(done.unwrap_or(Done { applied: 0 }))
}

/// The reason is `CloudFormation`'s to show: causes, and no URL among them.
async fn migrate(config: Result<DatabaseConfig, ConfigError>) -> Result<Done, String> {
    let config = config.map_err(|error| Causes(&error).to_string())?;
    let applied = migrations::run(&config).await.map_err(|error| Causes(&error).to_string())?;
    Ok(Done { applied })
}
