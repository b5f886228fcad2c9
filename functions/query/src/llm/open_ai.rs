//! Any endpoint that speaks OpenAI's `POST {base_url}/chat/completions`: OpenAI, vLLM, Ollama, llama.cpp, Bedrock's own.
//!
//! <https://platform.openai.com/docs/api-reference/chat/create>

use std::time::Duration;

use async_trait::async_trait;
use eventsource_stream::Eventsource;
use futures::{StreamExt, stream, stream::BoxStream};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use shared::{
    config::ConfigError,
    deadline::Deadline,
    endpoint::{Endpoint, retry_after},
    retry::{self, RetryBudget},
    secrets::Credential,
};

use super::{Completion, Llm, LlmError, Piece, Prompt, Usage};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Attempts of one request, the first included. A completion is dear: a second attempt helps against a connection that has
/// gone stale, a third one hardly ever.
const ATTEMPTS_MAX: u32 = 2;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The end of a stream of events.
const DONE: &str = "[DONE]";

/// A model behind an OpenAI-compatible endpoint. Connects when first used.
#[derive(Debug)]
pub struct OpenAi {
    endpoint: Endpoint,
    model: String,
    retries: RetryBudget,
}

impl OpenAi {
    /// The model of this name at `{base_url}/chat/completions`.
    ///
    /// # Errors
    /// When the URL is none, or carries credentials (it would be logged; a key belongs into `api_key`).
    pub fn new(base_url: &str, model: &str, api_key: Option<Credential>) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(base_url, "chat/completions", api_key, CONNECT_TIMEOUT)
            .map_err(|error| ConfigError::invalid("LLM_URL", error))?;
        Ok(Self { endpoint, model: model.to_owned(), retries: RetryBudget::new("llm") })
    }

    fn request(&self, prompt: &Prompt, stream: bool) -> RequestBuilder {
        let body = Question {
            model: &self.model,
            messages: [
                Message { role: "system", content: &prompt.instructions },
                Message { role: "user", content: &prompt.input },
            ],
            max_tokens: prompt.tokens_max,
            // The likeliest words: an answer from documents is no place for invention.
            temperature: 0.0,
            stream,
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        };
        self.endpoint.post().json(&body)
    }

    /// Sends until there is an answer with a status of success.
    async fn send(&self, prompt: &Prompt, stream: bool, deadline: Deadline) -> Result<Response, LlmError> {
        self.retries.note_call();
        let mut attempt = 1;
        loop {
            let sent =
                tokio::time::timeout_at(deadline.instant(), self.endpoint.send(self.request(prompt, stream))).await;
            let error = match sent {
                Err(_) => return Err(LlmError::Timeout),
                Ok(Err(error)) => unavailable(error),
                Ok(Ok(response)) if response.status().is_success() => return Ok(response),
                Ok(Ok(response)) => self.refusal(response, deadline).await,
            };
            let pause = match &error {
                LlmError::Throttled { retry_after: Some(pause) } => *pause,
                _ => retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempt),
            };
            let hopeless = !error.retryable() || attempt >= ATTEMPTS_MAX || pause >= deadline.remaining();
            if hopeless || !self.retries.take() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn refusal(&self, response: Response, deadline: Deadline) -> LlmError {
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return LlmError::Throttled { retry_after: retry_after(response.headers()) };
        }
        let detail = tokio::time::timeout_at(deadline.instant(), self.endpoint.detail(response)).await;
        let detail = format!("status {status}: {}", detail.unwrap_or_default());
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            LlmError::Unavailable(detail.into())
        } else {
            LlmError::Rejected(detail)
        }
    }
}

#[async_trait]
impl Llm for OpenAi {
    async fn complete(&self, prompt: Prompt, deadline: Deadline) -> Result<Completion, LlmError> {
        let response = self.send(&prompt, false, deadline).await?;
        let body = tokio::time::timeout_at(deadline.instant(), response.bytes()).await;
        let body = body.map_err(|_| LlmError::Timeout)?.map_err(unavailable)?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| LlmError::BadAnswer(error.to_string()))?;
        let usage = answer.usage.map(Usage::from).unwrap_or_default();
        let choice = answer.choices.into_iter().next();
        let text = choice.and_then(|choice| choice.message).and_then(|message| message.content);
        let text = text.ok_or_else(|| LlmError::BadAnswer("no choice".to_owned()))?;
        Ok(Completion { text, usage })
    }

    async fn stream(
        &self,
        prompt: Prompt,
        deadline: Deadline,
    ) -> Result<BoxStream<'static, Result<Piece, LlmError>>, LlmError> {
        let response = self.send(&prompt, true, deadline).await?;
        let events = response.bytes_stream().eventsource();
        let pieces = events
            .take_while(|event| {
                let end = event.as_ref().is_ok_and(|event| event.data.trim() == DONE);
                std::future::ready(!end)
            })
            .map(|event| match event {
                Ok(event) => pieces(&event.data),
                Err(error) => vec![Err(LlmError::Unavailable(error.to_string().into()))],
            })
            .flat_map(stream::iter);
        let end = Box::pin(tokio::time::sleep_until(deadline.instant()));
        Ok(pieces.take_until(end).chain(timeout_if(deadline)).boxed())
    }
}

/// A stream that was cut by the deadline ends with that error, and not as if it were complete.
fn timeout_if(deadline: Deadline) -> impl futures::Stream<Item = Result<Piece, LlmError>> {
    stream::once(async move { deadline.passed().then_some(Err(LlmError::Timeout)) }).filter_map(std::future::ready)
}

/// What one event of a stream says.
fn pieces(data: &str) -> Vec<Result<Piece, LlmError>> {
    let answer: Answer = match serde_json::from_str(data) {
        Ok(answer) => answer,
        Err(error) => return vec![Err(LlmError::BadAnswer(error.to_string()))],
    };
    let text = answer.choices.into_iter().filter_map(|choice| choice.delta?.content).filter(|text| !text.is_empty());
    let usage = answer.usage.map(|usage| Piece::Usage(usage.into()));
    text.map(Piece::Text).chain(usage).map(Ok).collect()
}

/// The URL is left out: it may be private, and it is known.
fn unavailable(error: reqwest::Error) -> LlmError {
    LlmError::Unavailable(error.without_url().into())
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: [Message<'a>; 2],
    max_tokens: u32,
    temperature: f32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Content>,
    delta: Option<Content>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self { input_tokens: tokens.prompt_tokens, output_tokens: tokens.completion_tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streams_events_are_text_and_at_the_end_the_cost() {
        let text = pieces(r#"{"choices":[{"delta":{"content":"Under "}}]}"#);
        assert!(matches!(&text[..], [Ok(Piece::Text(text))] if text == "Under "));
        assert!(pieces(r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#).is_empty());
        let usage = pieces(r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#);
        assert!(matches!(usage[..], [Ok(Piece::Usage(Usage { input_tokens: 7, output_tokens: 3 }))]));
        assert!(matches!(pieces("<html>")[..], [Err(LlmError::BadAnswer(_))]));
    }
}
