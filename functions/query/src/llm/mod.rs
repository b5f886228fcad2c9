//! Language models, as far as an answer needs one: instructions and turns in, text out, all at once or piece by piece.

mod bedrock;
mod open_ai;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use shared::{
    config::{ConfigError, LlmConfig},
    deadline::Deadline,
};
use utoipa::ToSchema;

pub use self::{bedrock::Bedrock, open_ai::OpenAi};

/// Tokens of an answer, at most: a few paragraphs. What is longer is an essay, and seldom all supported.
pub const ANSWER_TOKENS_MAX: u32 = 800;

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What it shall do, from us alone.
    pub instructions: String,
    /// What it shall do that with: the question, and what others wrote.
    pub input: String,
    /// Tokens of the answer, at most.
    pub tokens_max: u32,
}

/// What came back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// What it cost.
    pub usage: Usage,
}

/// Tokens, as the model's provider counts them; zero where it does not tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
pub struct Usage {
    /// Read.
    pub input_tokens: u64,
    /// Written.
    pub output_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }
}

/// A part of a completion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Text, to be appended.
    Text(String),
    /// The cost, once, towards the end.
    Usage(Usage),
}

/// A language model. Nothing that it says is trusted: who may read what was decided before it is asked.
#[async_trait]
pub trait Llm: Send + Sync + std::fmt::Debug {
    /// The whole completion.
    ///
    /// # Errors
    /// See [`LlmError`].
    async fn complete(&self, prompt: Prompt, deadline: Deadline) -> Result<Completion, LlmError>;

    /// The completion as it comes. Dropping the stream ends the request. Nothing is sent again once a piece has come.
    ///
    /// # Errors
    /// See [`LlmError`]; the pieces can fail likewise.
    async fn stream(
        &self,
        prompt: Prompt,
        deadline: Deadline,
    ) -> Result<BoxStream<'static, Result<Piece, LlmError>>, LlmError>;
}

/// The model that the configuration names; `None` when it names none.
///
/// # Errors
/// When the configuration does not hold.
pub fn from_config(config: Option<&LlmConfig>) -> Result<Option<Arc<dyn Llm>>, ConfigError> {
    Ok(match config {
        None => None,
        Some(LlmConfig::OpenAi { base_url, model, api_key }) => {
            Some(Arc::new(OpenAi::new(base_url, model, api_key.clone())?) as Arc<dyn Llm>)
        }
        Some(LlmConfig::Bedrock { model }) => Some(Arc::new(Bedrock::new(model))),
    })
}

/// Why there is no completion. No variant's text holds a key or what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The caller's deadline passed.
    #[error("the model did not answer in time")]
    Timeout,
    /// It could not be reached, broke off, or answered with a server's error.
    #[error("the model is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It wants fewer requests.
    #[error("the model throttles")]
    Throttled {
        /// How long it asked to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// It refused the request: a wrong key, an unknown model, an input that it will not take.
    #[error("the model refused the request: {0}")]
    Rejected(String),
    /// It answered, but not with a completion.
    #[error("the model's answer is unusable: {0}")]
    BadAnswer(String),
}

impl LlmError {
    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable(_) | Self::Throttled { .. } => true,
            Self::Rejected(_) | Self::BadAnswer(_) => false,
        }
    }
}
