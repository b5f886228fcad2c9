//! Documents: where they come from, and how they are read.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;

use super::variables::{ConfigError, parsed, secret, text};
use crate::secrets::SecretSource;

/// The largest object that is read: some hundred novels.
const OBJECT_BYTES_MAX: u64 = 128 * 1024 * 1024;

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

impl ObjectsConfig {
    pub(super) async fn from_env(secrets: &Arc<dyn SecretSource>) -> Result<Self, ConfigError> {
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
            // Only for a reader that sleeps: one that works is ended by the processor's time, however little of a processor
            // the function has.
            timeout: Duration::from_mins(1),
        }
    }
}

impl ExtractionConfig {
    pub(super) fn from_env() -> Result<Self, ConfigError> {
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
