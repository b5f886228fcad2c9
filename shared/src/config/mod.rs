//! Everything that the environment decides, read once at the start.

mod accounts;
mod documents;
mod models;
mod stores;
mod variables;

use std::{sync::Arc, time::Duration};

pub use accounts::{AccountsConfig, MailConfig, Quota, Registration, TokenConfig};
pub use documents::{ExtractionConfig, ObjectsConfig};
pub use models::{AnswersConfig, EmbeddingConfig, LlmConfig, RerankConfig, RerankForm};
pub use stores::{DatabaseConfig, QdrantConfig};
pub use variables::ConfigError;

use crate::secrets::SecretSource;
use variables::{credential, parsed, required, text};

/// The largest request body that arrives: Lambda refuses synchronous payloads above 6 MiB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Within API Gateway's 30 s, with room to answer.
const REQUEST_TIMEOUT_MS: u64 = 28_000;

/// Everything that the environment decides. Secrets are resolved, and can not be printed.
#[derive(Clone, Debug)]
pub struct Config {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Qdrant.
    pub qdrant: QdrantConfig,
    /// What turns text into vectors.
    pub embedding: EmbeddingConfig,
    /// The same of the other model, while one takes the other's place.
    pub embedding_next: Option<EmbeddingConfig>,
    /// Access tokens.
    pub tokens: TokenConfig,
    /// What makes answers of passages. Only `query` reads it.
    pub answers: AnswersConfig,
    /// Limits on requests.
    pub limits: Limits,
    /// Documents that arrive as objects in buckets.
    pub objects: ObjectsConfig,
    /// How documents are read.
    pub extraction: ExtractionConfig,
    /// Accounts. Only `auth` looks at it.
    pub accounts: AccountsConfig,
}

impl Config {
    /// Reads the environment; secrets come from it, from files, or from `secrets`.
    ///
    /// A secret `NAME` is given as `NAME` (the value itself), `NAME_FILE` (a file that holds it) or `NAME_ARN`
    /// (an entry of Secrets Manager), in this order.
    ///
    /// # Errors
    /// When a variable that is needed is missing, or one has a value that it does not take.
    pub async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let mut qdrant = QdrantConfig::at(required("QDRANT_URL", text("QDRANT_URL")?)?);
        qdrant.api_key = credential("QDRANT_API_KEY", secrets).await?;
        qdrant.prefix = text("QDRANT_PREFIX")?.unwrap_or(qdrant.prefix);
        let defaults = Limits::default();
        Ok(Self {
            database: DatabaseConfig::from_env(secrets).await?,
            qdrant,
            embedding: EmbeddingConfig::from_env(secrets).await?,
            embedding_next: EmbeddingConfig::next_from_env(secrets).await?,
            tokens: TokenConfig::from_env(secrets).await?,
            answers: AnswersConfig::from_env(secrets).await?,
            accounts: AccountsConfig::from_env()?,
            limits: Limits {
                body_bytes_max: parsed("BODY_BYTES_MAX")?.unwrap_or(defaults.body_bytes_max),
                request_timeout: parsed("REQUEST_TIMEOUT_MS")?.map_or(defaults.request_timeout, Duration::from_millis),
            },
            extraction: ExtractionConfig::from_env()?,
            objects: ObjectsConfig::from_env(secrets).await?,
        })
    }
}

impl TracesConfig {
    /// Reads the variables that OpenTelemetry has for it. What `OTEL_EXPORTER_OTLP_HEADERS` says is sent along.
    /// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
    fn from_env() -> Option<Self> {
        let set = |name| text(name).ok().flatten();
        let base = || set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| format!("{}/v1/traces", url.trim_end_matches('/')));
        let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(base)?;
        let service = set("OTEL_SERVICE_NAME").or_else(|| set("AWS_LAMBDA_FUNCTION_NAME"));
        Some(Self { endpoint, service: service.unwrap_or_else(|| "lockstep".to_owned()) })
    }
}

/// Limits on requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a request may take where the runtime gives no deadline of its own.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes_max: BODY_BYTES_MAX, request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS) }
    }
}

/// What is logged, and in which form: for [`crate::telemetry::init`], before anything else is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// In the form of `RUST_LOG`.
    pub filter: String,
    /// One JSON object a line, as `CloudWatch` Logs Insights reads it, instead of text for people.
    pub json: bool,
    /// The Lambda function that this is, if it is one.
    pub function: Option<String>,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<TracesConfig>,
}

/// Where traces go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TracesConfig {
    /// The collector's URL for traces: OTLP over HTTP.
    pub endpoint: String,
    /// What the service is called there.
    pub service: String,
}

impl LogConfig {
    /// Reads the environment: `RUST_LOG`, else the level that is set on the Lambda function, else `info`; JSON on
    /// Lambda. Never fails: who could be told?
    /// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime>
    #[must_use]
    pub fn from_env() -> Self {
        let set = |name| text(name).ok().flatten();
        Self {
            filter: set("RUST_LOG").or_else(|| set("AWS_LAMBDA_LOG_LEVEL")).unwrap_or_else(|| "info".to_owned()),
            json: set("AWS_LAMBDA_FUNCTION_NAME").is_some(),
            function: set("AWS_LAMBDA_FUNCTION_NAME"),
            traces: TracesConfig::from_env(),
        }
    }
}
