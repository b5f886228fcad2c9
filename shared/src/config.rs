//! The one file that reads the environment.

use std::{env, error::Error, num::NonZero, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use crate::secrets::{Entry, SecretError, SecretSource};

/// The largest request body that arrives: Lambda refuses synchronous payloads above 6 MiB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The largest object that is read: some hundred novels.
const OBJECT_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Within API Gateway's 30 s, with room to answer.
const REQUEST_TIMEOUT_MS: u64 = 28_000;

/// The memory of a process of which nobody says it, in MiB.
const MEMORY_MIB_DEFAULT: u32 = 512;

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

/// How accounts are opened and guarded.
#[derive(Clone, Debug)]
pub struct AccountsConfig {
    /// What a registration needs.
    pub registration: Registration,
    /// How mail leaves; without it, what needs mail answers 503.
    pub mail: Option<MailConfig>,
    /// The memory of the whole process, in MiB: Lambda says it.
    pub memory_mib: u32,
    /// Requests of one client address to the routes that take credentials or send mail.
    pub address_quota: Quota,
    /// Login attempts at one account from addresses that are new to it, all together.
    pub account_quota: Quota,
    /// Mails to one address.
    pub mail_quota: Quota,
}

/// What a registration needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registration {
    /// Nothing: it signs in at once. So it must tell when an address is taken.
    Open,
    /// A code that is sent to the address: the answer is the same whether or not it is taken.
    Verified,
}

/// How mail leaves.
#[derive(Clone, Debug)]
pub enum MailConfig {
    /// By Amazon SES, from this address.
    Ses {
        /// The sender: an identity that SES has verified.
        from: String,
    },
    /// Into files in this folder: local runs and tests.
    Folder(PathBuf),
}

/// So many requests in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// The most that come at once.
    pub requests: u32,
    /// The time in which they are all there again.
    pub window: Duration,
}

impl AccountsConfig {
    /// On one machine: a registration signs in at once, mail lands in `mail`.
    #[must_use]
    pub fn local(mail: PathBuf) -> Self {
        Self {
            registration: Registration::Open,
            mail: Some(MailConfig::Folder(mail)),
            memory_mib: MEMORY_MIB_DEFAULT,
            // A person's errors, and an office behind one address; a guesser gets nowhere with it.
            address_quota: Quota { requests: 60, window: Duration::from_mins(1) },
            account_quota: Quota { requests: 30, window: Duration::from_mins(15) },
            // A mailbox that is written to more often is being flooded.
            mail_quota: Quota { requests: 5, window: Duration::from_hours(1) },
        }
    }

    fn from_env() -> Result<Self, ConfigError> {
        let mut config = Self::local(PathBuf::new());
        config.registration = match text("AUTH_REGISTRATION")?.as_deref() {
            None | Some("verified") => Registration::Verified,
            Some("open") => Registration::Open,
            Some(_) => return Err(ConfigError::invalid("AUTH_REGISTRATION", "it is neither `open` nor `verified`")),
        };
        config.mail = match (text("MAIL_FROM")?, parsed("MAIL_DIR")?) {
            (Some(from), _) => Some(MailConfig::Ses { from }),
            (None, Some(folder)) => Some(MailConfig::Folder(folder)),
            (None, None) => None,
        };
        config.memory_mib = parsed("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")?.unwrap_or(config.memory_mib);
        let quota = |name, quota: &mut Quota| -> Result<(), ConfigError> {
            quota.requests = parsed(name)?.unwrap_or(quota.requests);
            if quota.requests == 0 {
                return Err(ConfigError::invalid(name, "it is zero"));
            }
            Ok(())
        };
        quota("AUTH_REQUESTS_PER_MINUTE", &mut config.address_quota)?;
        quota("AUTH_ATTEMPTS_PER_QUARTER_HOUR", &mut config.account_quota)?;
        quota("AUTH_MAILS_PER_HOUR", &mut config.mail_quota)?;
        Ok(config)
    }
}

/// Where PostgreSQL is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database?sslmode=...`
    pub url: SecretString,
    /// Certificate authorities beside the public ones, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Connections of one container.
    pub pool_max: usize,
    /// How long a request waits for a free connection.
    pub wait_timeout: Duration,
    /// How long a new connection may take.
    pub connect_timeout: Duration,
    /// How long a whole transaction may take.
    pub transaction_timeout: Duration,
}

/// Where Qdrant is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct QdrantConfig {
    /// The gRPC endpoint: `http://host:6334`.
    pub url: String,
    /// Sent with every request.
    pub api_key: Option<SecretString>,
    /// Begins the names of all collections and aliases, so that installations can share a server.
    pub prefix: String,
    /// How long one request may take.
    pub timeout: Duration,
}

/// What turns text into vectors.
#[derive(Clone, Debug)]
pub enum EmbeddingConfig {
    /// all-MiniLM-L6-v2 in this process.
    MiniLm {
        /// The folder that holds the model and its vocabulary.
        dir: PathBuf,
        /// Inferences at the same time.
        threads: NonZero<usize>,
    },
    /// An OpenAI-compatible HTTP endpoint.
    Http {
        /// `POST {base_url}/embeddings`.
        base_url: String,
        /// The model's name, as the endpoint knows it.
        model: String,
        /// The dimension of its vectors.
        dimension: usize,
        /// Sent as bearer token.
        api_key: Option<SecretString>,
    },
}

/// What makes answers of passages. Without a model, the answer is made of the passages' own sentences.
#[derive(Clone, Debug)]
pub struct AnswersConfig {
    /// The language model.
    pub llm: Option<LlmConfig>,
    /// Tokens of the passages that it is given.
    pub context_tokens_max: usize,
    /// What reads the best candidates once more.
    pub rerank: Option<RerankConfig>,
}

impl Default for AnswersConfig {
    fn default() -> Self {
        // A dozen passages: fewer miss what stands in the eighth, more cost and are read less well.
        Self { llm: None, context_tokens_max: 6_000, rerank: None }
    }
}

/// A language model.
#[derive(Clone, Debug)]
pub enum LlmConfig {
    /// An OpenAI-compatible HTTP endpoint.
    OpenAi {
        /// `POST {base_url}/chat/completions`.
        base_url: String,
        /// The model's name, as the endpoint knows it.
        model: String,
        /// Sent as bearer token.
        api_key: Option<SecretString>,
    },
    /// Amazon Bedrock, with the function's own credentials.
    Bedrock {
        /// The model's id, or the ARN of an inference profile.
        model: String,
    },
}

/// A reranker behind HTTP.
#[derive(Clone, Debug)]
pub struct RerankConfig {
    /// `POST {base_url}/rerank`.
    pub base_url: String,
    /// Which form requests and answers have.
    pub form: RerankForm,
    /// The model's name, as the endpoint knows it.
    pub model: Option<String>,
    /// Sent as bearer token.
    pub api_key: Option<SecretString>,
}

/// The forms of rerankers' requests and answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RerankForm {
    /// Cohere's, which Jina, vLLM and others speak too.
    #[default]
    Cohere,
    /// That of Hugging Face's Text Embeddings Inference.
    Tei,
}

impl FromStr for RerankForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cohere" => Ok(Self::Cohere),
            "tei" => Ok(Self::Tei),
            _ => Err("it is neither cohere nor tei".to_owned()),
        }
    }
}

/// How access tokens are issued and checked.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// `iss`: the URL under which `/.well-known/` is found.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// The public keys, as a JSON Web Key Set (RFC 7517). All functions need them.
    pub jwks: String,
    /// The entry that the key set was read from, if it was one: then it is read again when it may have changed.
    pub jwks_entry: Option<Entry>,
    /// The private signing keys: one as PEM, or several with the time from which each signs (see `auth::signer`). Only
    /// `auth` may have them.
    pub signing_key: Option<SecretString>,
    /// The entry that these were read from, likewise.
    pub signing_key_entry: Option<Entry>,
}

/// Documents that arrive as objects in buckets.
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    /// Where S3 is, when it is another than AWS's: `http://host:port`, addressed by path.
    pub endpoint: Option<String>,
    /// The buckets' region.
    pub region: String,
    /// An access key, id and secret, where the platform gives none.
    pub credentials: Option<(String, SecretString)>,
    /// The bucket that uploads go to; `None`: there are none.
    pub upload_bucket: Option<String>,
    /// How a key names its knowledge base and its document: text with `{kb}` and, at its end, `{path}`.
    pub key_pattern: String,
    /// Bytes of an object.
    pub bytes_max: u64,
}

/// Limits on requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a request may take where the runtime gives no deadline of its own.
    pub request_timeout: Duration,
}

/// How documents are read: in a process of its own for each, with these limits.
#[derive(Clone, Debug)]
pub struct ExtractionConfig {
    /// The program that reads a document when it is told so; `None` stands for the running one.
    pub program: Option<PathBuf>,
    /// Bytes of a document.
    pub input_bytes_max: usize,
    /// Bytes of the text that is read from one.
    pub text_bytes_max: usize,
    /// Pages, slides or sheets of one.
    pub pages_max: usize,
    /// Address space of the process, in bytes. macOS does not enforce it.
    pub memory_bytes_max: u64,
    /// Time of the processor, in whole seconds.
    pub cpu_s_max: u64,
    /// Time by the clock.
    pub timeout: Duration,
}

impl Default for ExtractionConfig {
    fn default() -> Self {
        Self {
            program: None,
            input_bytes_max: 100 << 20,
            // Thirty novels.
            text_bytes_max: 32 << 20,
            pages_max: 10_000,
            // Parsers map fonts and images whole; a document that needs more is one in a great many.
            memory_bytes_max: 512 << 20,
            cpu_s_max: 10,
            // Where a function has a part of a processor, its time is longer by the clock.
            timeout: Duration::from_secs(20),
        }
    }
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            credentials: None,
            upload_bucket: None,
            key_pattern: "{kb}/{path}".to_owned(),
            bytes_max: OBJECT_BYTES_MAX,
        }
    }
}

impl ExtractionConfig {
    fn from_env() -> Result<Self, ConfigError> {
        let defaults = Self::default();
        Ok(Self {
            program: parsed("EXTRACT_BIN")?,
            input_bytes_max: parsed("EXTRACT_INPUT_BYTES_MAX")?.unwrap_or(defaults.input_bytes_max),
            text_bytes_max: parsed("EXTRACT_TEXT_BYTES_MAX")?.unwrap_or(defaults.text_bytes_max),
            pages_max: parsed("EXTRACT_PAGES_MAX")?.unwrap_or(defaults.pages_max),
            memory_bytes_max: parsed("EXTRACT_MEMORY_BYTES_MAX")?.unwrap_or(defaults.memory_bytes_max),
            cpu_s_max: parsed("EXTRACT_CPU_S_MAX")?.unwrap_or(defaults.cpu_s_max),
            timeout: parsed("EXTRACT_TIMEOUT_MS")?.map_or(defaults.timeout, Duration::from_millis),
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes_max: BODY_BYTES_MAX, request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS) }
    }
}

impl DatabaseConfig {
    /// The defaults for a database under `url`.
    #[must_use]
    pub fn at(url: SecretString) -> Self {
        Self {
            url,
            ca_file: None,
            pool_max: 8,
            // Longer than a transaction takes; who waits longer stands behind a crowd, and had better come back.
            wait_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(3),
            transaction_timeout: Duration::from_secs(20),
        }
    }
}

impl QdrantConfig {
    /// The defaults for a server at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), api_key: None, prefix: "lockstep".to_owned(), timeout: Duration::from_secs(10) }
    }
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
        let mut database = DatabaseConfig::at(required("DATABASE_URL", secret("DATABASE_URL", secrets).await?)?);
        database.ca_file = parsed("DATABASE_CA_FILE")?;
        database.pool_max = parsed("DATABASE_POOL_MAX")?.unwrap_or(database.pool_max);
        let mut qdrant = QdrantConfig::at(required("QDRANT_URL", text("QDRANT_URL")?)?);
        qdrant.api_key = secret("QDRANT_API_KEY", secrets).await?;
        qdrant.prefix = text("QDRANT_PREFIX")?.unwrap_or(qdrant.prefix);
        let defaults = Limits::default();
        Ok(Self {
            database,
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

impl ObjectsConfig {
    async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        // On Lambda the platform names the function's region, and gives its role's credentials by itself.
        let region = text("S3_REGION")?.or(text("AWS_REGION")?);
        Ok(Self {
            endpoint: text("S3_ENDPOINT")?,
            region: region.unwrap_or(defaults.region),
            credentials: text("S3_ACCESS_KEY_ID")?.zip(secret("S3_SECRET_ACCESS_KEY", secrets).await?),
            upload_bucket: text("UPLOAD_BUCKET")?,
            key_pattern: text("OBJECT_KEY_PATTERN")?.unwrap_or(defaults.key_pattern),
            bytes_max: parsed("OBJECT_BYTES_MAX")?.unwrap_or(defaults.bytes_max),
        })
    }
}

impl EmbeddingConfig {
    /// Reads the environment: an endpoint if `EMBEDDING_URL` names one, else the model in this process.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        if let Some(base_url) = text("EMBEDDING_URL")? {
            return Ok(Self::Http {
                base_url,
                model: required("EMBEDDING_MODEL", text("EMBEDDING_MODEL")?)?,
                dimension: required("EMBEDDING_DIMENSION", parsed("EMBEDDING_DIMENSION")?)?,
                api_key: secret("EMBEDDING_API_KEY", secrets).await?,
            });
        }
        let dir = parsed("EMBEDDING_MODEL_DIR")?.unwrap_or_else(|| "model".into());
        Ok(Self::MiniLm { dir, threads: threads()? })
    }

    /// Reads the environment for the other model of a transition: `EMBEDDING_NEXT_URL` with the others as above, or
    /// `EMBEDDING_NEXT_MODEL_DIR`. `None`: there is no transition.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub async fn next_from_env(secrets: &Arc<dyn SecretSource>) -> Result<Option<Self>, ConfigError> {
        if let Some(base_url) = text("EMBEDDING_NEXT_URL")? {
            return Ok(Some(Self::Http {
                base_url,
                model: required("EMBEDDING_NEXT_MODEL", text("EMBEDDING_NEXT_MODEL")?)?,
                dimension: required("EMBEDDING_NEXT_DIMENSION", parsed("EMBEDDING_NEXT_DIMENSION")?)?,
                api_key: secret("EMBEDDING_NEXT_API_KEY", secrets).await?,
            }));
        }
        let dir = parsed("EMBEDDING_NEXT_MODEL_DIR")?;
        dir.map(|dir| Ok(Self::MiniLm { dir, threads: threads()? })).transpose()
    }
}

impl AnswersConfig {
    /// Reads the environment: an endpoint if `LLM_URL` names one, Bedrock if `LLM_BEDROCK_MODEL` does, else no model; a
    /// reranker if `RERANK_URL` names one.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        let llm = match (text("LLM_URL")?, text("LLM_BEDROCK_MODEL")?) {
            (Some(base_url), _) => Some(LlmConfig::OpenAi {
                base_url,
                model: required("LLM_MODEL", text("LLM_MODEL")?)?,
                api_key: secret("LLM_API_KEY", secrets).await?,
            }),
            (None, Some(model)) => Some(LlmConfig::Bedrock { model }),
            (None, None) => None,
        };
        let rerank = match text("RERANK_URL")? {
            Some(base_url) => Some(RerankConfig {
                base_url,
                form: parsed("RERANK_FORM")?.unwrap_or_default(),
                model: text("RERANK_MODEL")?,
                api_key: secret("RERANK_API_KEY", secrets).await?,
            }),
            None => None,
        };
        let context_tokens_max = parsed("LLM_CONTEXT_TOKENS")?.unwrap_or(defaults.context_tokens_max);
        Ok(Self { llm, context_tokens_max, rerank })
    }
}

impl TokenConfig {
    async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
        let jwks = required("TOKEN_JWKS", secret("TOKEN_JWKS", secrets).await?)?;
        Ok(Self {
            issuer: required("TOKEN_ISSUER", text("TOKEN_ISSUER")?)?,
            audience: text("TOKEN_AUDIENCE")?.unwrap_or_else(|| "lockstep".to_owned()),
            // Short, because an access token can not be called back.
            access_ttl: Duration::from_secs(parsed("TOKEN_ACCESS_TTL_S")?.unwrap_or(15 * 60)),
            jwks: jwks.expose_secret().to_owned(),
            jwks_entry: entry("TOKEN_JWKS", secrets)?,
            signing_key: secret("TOKEN_SIGNING_KEY", secrets).await?,
            signing_key_entry: entry("TOKEN_SIGNING_KEY", secrets)?,
        })
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
        }
    }
}

/// A configuration that does not hold; names the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is needed and not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// It has a value that it does not take. The value itself is not shown: it may be secret.
    #[error("{name} has a value that it does not take")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The secret could not be read.
    #[error("the secret {name} could not be read")]
    Secret {
        /// The variable.
        name: &'static str,
        /// Why not.
        #[source]
        source: SecretError,
    },
}

impl ConfigError {
    /// `name` has a value that it does not take.
    pub fn invalid(name: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Invalid { name, source: source.into() }
    }
}

fn threads() -> Result<NonZero<usize>, ConfigError> {
    let all = || std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    Ok(parsed("EMBEDDING_THREADS")?.unwrap_or_else(all))
}

fn required<T>(name: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing(name))
}

/// A variable that is set to nothing counts as not set: templates can not leave one out.
fn text(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error @ env::VarError::NotUnicode(_)) => Err(ConfigError::invalid(name, error.to_string())),
    }
}

fn parsed<T>(name: &'static str) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>,
{
    text(name)?.map(|value| value.parse().map_err(|error: T::Err| ConfigError::invalid(name, error))).transpose()
}

async fn secret(name: &'static str, secrets: &Arc<dyn SecretSource>) -> Result<Option<SecretString>, ConfigError> {
    if let Some(value) = text(name)? {
        return Ok(Some(value.into()));
    }
    if let Some(file) = variable(name, "_FILE") {
        let value = std::fs::read_to_string(file).map_err(|error| ConfigError::invalid(name, error))?;
        return Ok(Some(value.trim_end().into()));
    }
    match entry(name, secrets)? {
        Some(entry) => {
            entry.secrets.get(&entry.id).await.map(Some).map_err(|source| ConfigError::Secret { name, source })
        }
        None => Ok(None),
    }
}

/// The entry that the secret `name` is read from; `None` when it is given in another way.
fn entry(name: &'static str, secrets: &Arc<dyn SecretSource>) -> Result<Option<Entry>, ConfigError> {
    if text(name)?.is_some() || variable(name, "_FILE").is_some() {
        return Ok(None);
    }
    Ok(variable(name, "_ARN").map(|id| Entry { secrets: Arc::clone(secrets), id }))
}

fn variable(name: &'static str, suffix: &str) -> Option<String> {
    env::var(format!("{name}{suffix}")).ok().filter(|value| !value.is_empty())
}
