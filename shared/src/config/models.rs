//! The models: what makes vectors of text, what reads candidates once more, and what makes answers.

use std::{num::NonZero, path::PathBuf, str::FromStr, sync::Arc};

use super::variables::{ConfigError, credential, parsed, required, text};
use crate::secrets::{Credential, SecretSource};

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
        api_key: Option<Credential>,
    },
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
                api_key: credential("EMBEDDING_API_KEY", secrets).await?,
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
                api_key: credential("EMBEDDING_NEXT_API_KEY", secrets).await?,
            }));
        }
        let dir = parsed("EMBEDDING_NEXT_MODEL_DIR")?;
        dir.map(|dir| Ok(Self::MiniLm { dir, threads: threads()? })).transpose()
    }
}

fn threads() -> Result<NonZero<usize>, ConfigError> {
    let all = || std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    Ok(parsed("EMBEDDING_THREADS")?.unwrap_or_else(all))
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
                api_key: credential("LLM_API_KEY", secrets).await?,
            }),
            (None, Some(model)) => Some(LlmConfig::Bedrock { model }),
            (None, None) => None,
        };
        let rerank = match text("RERANK_URL")? {
            Some(base_url) => Some(RerankConfig {
                base_url,
                form: parsed("RERANK_FORM")?.unwrap_or_default(),
                model: text("RERANK_MODEL")?,
                api_key: credential("RERANK_API_KEY", secrets).await?,
            }),
            None => None,
        };
        let context_tokens_max = parsed("LLM_CONTEXT_TOKENS")?.unwrap_or(defaults.context_tokens_max);
        Ok(Self { llm, context_tokens_max, rerank })
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
        api_key: Option<Credential>,
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
    pub api_key: Option<Credential>,
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
