//! Any endpoint that speaks OpenAI's `POST {base_url}/embeddings`.
//!
//! <https://platform.openai.com/docs/api-reference/embeddings/create>

use std::{
    fmt,
    num::NonZero,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Response, StatusCode};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use super::{EmbedError, Embedder, Space};
use crate::{
    endpoint::{Endpoint, retry_after},
    retry::{self, RetryBudget},
    secrets::Credential,
};

/// First and longest wait between two attempts, of which [`retry::pause`] takes a part.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where the endpoint is and how to treat it.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// What stands before `/embeddings`, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<Credential>,
    /// The model, by the endpoint's name.
    pub model: String,
    /// Components of the model's vectors; an answer with another number is refused.
    pub dimension: usize,
    /// Whether to ask for that dimension (`dimensions`), which few models understand.
    pub send_dimension: bool,
    /// Most tokens of one input that the model takes.
    pub tokens_max: usize,
    /// Most inputs in one request.
    pub inputs_max: NonZero<usize>,
    /// Most bytes of text in one request; an input that is larger by itself goes alone.
    pub bytes_max: usize,
    /// Most requests for passages under way at a time.
    pub requests_max: NonZero<usize>,
    /// Most attempts of one request.
    pub attempts_max: u32,
    /// Bound of making a connection.
    pub connect_timeout: Duration,
    /// Bound of one attempt.
    pub request_timeout: Duration,
}

impl HttpConfig {
    /// A configuration for `model` with limits that OpenAI's own endpoint accepts (2,048 inputs,
    /// 8,192 tokens each, 300,000 in all).
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>, dimension: usize) -> Self {
        const fn many(n: usize) -> NonZero<usize> {
            match NonZero::new(n) {
                Some(n) => n,
                None => NonZero::<usize>::MIN,
            }
        }
        Self {
            base_url: base_url.into(),
            api_key: None,
            model: model.into(),
            dimension,
            send_dimension: false,
            tokens_max: 8_191,
            inputs_max: many(128),
            bytes_max: 256 * 1024,
            requests_max: many(4),
            attempts_max: 4,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// Embeddings over HTTP.
#[derive(Debug)]
pub struct HttpEmbedder {
    config: HttpConfig,
    space: Space,
    endpoint: Endpoint,
    retries: RetryBudget,
    requests: Semaphore,
    /// It has refused to write vectors in base64, as a few endpoints do.
    writes_numbers: AtomicBool,
}

impl HttpEmbedder {
    /// An embedder that has not yet sent anything.
    ///
    /// # Errors
    /// [`EmbedError::Config`] when the base URL is none, or carries a user name or password (it
    /// would be logged; a key belongs into `api_key`).
    pub fn new(config: HttpConfig) -> Result<Self, EmbedError> {
        let endpoint = Endpoint::new(&config.base_url, "embeddings", config.api_key.clone(), config.connect_timeout)
            .map_err(|error| EmbedError::Config { source: error.into() })?;
        let space = Space { model: config.model.clone(), dimension: config.dimension };
        let requests = Semaphore::new(config.requests_max.get());
        let (retries, writes_numbers) = (RetryBudget::new("embedder"), AtomicBool::new(false));
        Ok(Self { config, space, endpoint, retries, requests, writes_numbers })
    }

    /// One request, again and again until it succeeds or nothing is to be hoped for in time.
    async fn request(&self, inputs: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.retries.note_call();
        let mut attempt = 1;
        loop {
            let numbers = self.writes_numbers.load(Ordering::Relaxed);
            let outcome = timeout_at(deadline, self.attempt(&inputs, numbers)).await;
            let error = match outcome.unwrap_or(Err(EmbedError::Timeout)) {
                Ok(vectors) => return Ok(vectors),
                Err(error) if !numbers && is_about_encoding(&error) => {
                    self.writes_numbers.store(true, Ordering::Relaxed);
                    continue;
                }
                Err(error) => error,
            };
            let wait = match &error {
                EmbedError::Throttled { retry_after: Some(wait) } => *wait,
                _ => retry::pause(BACKOFF_FIRST, BACKOFF_MAX, attempt),
            };
            let in_time = Instant::now().checked_add(wait).is_some_and(|next| next < deadline);
            if !error.retryable() || attempt >= self.config.attempts_max || !in_time || !self.retries.take() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, wait_ms = wait.as_millis(), "embedding again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, inputs: &[String], numbers: bool) -> Result<Vec<Vec<f32>>, EmbedError> {
        let question = Question {
            model: &self.config.model,
            input: inputs,
            // A quarter of the bytes, and next to nothing to parse.
            encoding_format: if numbers { "float" } else { "base64" },
            dimensions: self.config.send_dimension.then_some(self.config.dimension),
        };
        let request = self.endpoint.post().timeout(self.config.request_timeout).json(&question);
        let response = self.endpoint.send(request).await.map_err(unavailable)?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = response.bytes().await.map_err(unavailable)?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| EmbedError::BadAnswer(error.to_string()))?;
        answer.vectors(inputs.len(), self.config.dimension)
    }

    async fn refusal(&self, response: Response) -> EmbedError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let again = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
        if status == StatusCode::TOO_MANY_REQUESTS || again && retry_after.is_some() {
            return EmbedError::Throttled { retry_after };
        }
        let detail = self.endpoint.detail(response).await;
        if again {
            return EmbedError::Unavailable { source: format!("status {status}: {detail}").into() };
        }
        EmbedError::Rejected { status: status.as_u16(), detail }
    }

    /// Cuts `texts` into requests, in order.
    fn batches(&self, texts: Vec<String>) -> Vec<Vec<String>> {
        let mut batches: Vec<Vec<String>> = Vec::new();
        let mut bytes = 0;
        for text in texts {
            bytes += text.len();
            match batches.last_mut() {
                Some(batch) if batch.len() < self.config.inputs_max.get() && bytes <= self.config.bytes_max => {
                    batch.push(text);
                }
                _ => {
                    bytes = text.len();
                    batches.push(vec![text]);
                }
            }
        }
        batches
    }
}

#[async_trait]
impl Embedder for HttpEmbedder {
    fn space(&self) -> &Space {
        &self.space
    }

    fn passages_at_once(&self) -> usize {
        self.config.inputs_max.get() * self.config.requests_max.get()
    }

    fn passages_in_call(&self) -> usize {
        self.config.inputs_max.get()
    }

    async fn embed_passages(&self, texts: Vec<String>, deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        let batches: Vec<_> = stream::iter(self.batches(texts))
            .map(|inputs| async move {
                // Several calls at a time share the endpoint. The semaphore is never closed.
                let turn = timeout_at(deadline, self.requests.acquire()).await;
                let _turn = turn.map_err(|_| EmbedError::Timeout)?;
                self.request(inputs, deadline).await
            })
            .buffered(self.config.requests_max.get())
            .try_collect()
            .await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn embed_query(&self, text: String, deadline: Instant) -> Result<Vec<f32>, EmbedError> {
        let vectors = self.request(vec![text], deadline).await?;
        let vector = vectors.into_iter().next();
        vector.ok_or_else(|| EmbedError::BadAnswer("no vector".to_owned()))
    }

    /// An estimate, since the endpoint's tokenizer is not here: four ASCII bytes or one other
    /// character to a token. English comes out about right, the rest too high, so that a chunk
    /// sized by it fits.
    fn count_tokens(&self, text: &str) -> Result<usize, EmbedError> {
        let ascii = text.bytes().filter(u8::is_ascii).count();
        let others = text.chars().count() - ascii;
        Ok(ascii.div_ceil(4) + others)
    }

    fn tokens_max(&self) -> usize {
        self.config.tokens_max
    }
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    #[serde(deserialize_with = "components")]
    embedding: Vec<f32>,
}

/// Whatever was asked for: some endpoints know one form alone.
fn components<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    deserializer.deserialize_any(Components)
}

struct Components;

impl<'de> Visitor<'de> for Components {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, or base64 of them")
    }

    /// Each is 32 bits wide, and little-endian.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<f32>, E> {
        let bytes = STANDARD.decode(text).map_err(E::custom)?;
        let (numbers, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(E::invalid_length(bytes.len(), &"four bytes for each number"));
        }
        Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<f32>, A::Error> {
        let mut vector = Vec::new();
        while let Some(number) = numbers.next_element()? {
            vector.push(number);
        }
        Ok(vector)
    }
}

impl Answer {
    /// The vectors in the inputs' order, each of length 1.
    fn vectors(mut self, count: usize, dimension: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
        if self.data.len() != count {
            let found = self.data.len();
            return Err(EmbedError::BadAnswer(format!("{found} vectors for {count} inputs")));
        }
        self.data.sort_by_key(|item| item.index);
        self.data
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                let found = item.embedding.len();
                if item.index != index {
                    Err(format!("no vector for input {index}"))
                } else if found != dimension {
                    Err(format!("{found} components instead of {dimension}"))
                } else {
                    unit(item.embedding).ok_or_else(|| format!("vector {index} has no direction"))
                }
            })
            .collect::<Result<_, _>>()
            .map_err(EmbedError::BadAnswer)
    }
}

/// The vector at length 1; `None` for one of zeroes or with a component that is no number.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !length.is_normal() {
        return None;
    }
    for x in &mut vector {
        *x /= length;
    }
    Some(vector)
}

/// Whether an endpoint refuses the form in which it was asked to write vectors.
fn is_about_encoding(error: &EmbedError) -> bool {
    let EmbedError::Rejected { status: 400 | 422, detail } = error else { return false };
    ["encoding_format", "base64"].iter().any(|word| detail.contains(word))
}

/// The URL is left out: it may be private, and it is known.
fn unavailable(error: reqwest::Error) -> EmbedError {
    EmbedError::Unavailable { source: error.without_url().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_without_a_direction_is_refused() {
        assert_eq!(unit(vec![3.0, 4.0]), Some(vec![0.6, 0.8]));
        assert_eq!(unit(vec![0.0, 0.0]), None);
        assert_eq!(unit(vec![f32::NAN, 1.0]), None);
        assert_eq!(unit(vec![f32::MAX, f32::MAX]), None);
    }

    #[test]
    fn batches_keep_order_and_both_limits() {
        let embedder = HttpEmbedder::new(HttpConfig {
            inputs_max: NonZero::new(3).unwrap(),
            bytes_max: 10,
            ..HttpConfig::new("http://localhost", "m", 2)
        })
        .unwrap();
        let texts = ["a", "b", "c", "d", "a text too long", "e", "123456789", "f"];
        let batches = embedder.batches(texts.map(str::to_owned).to_vec());
        assert_eq!(
            batches,
            [vec!["a", "b", "c"], vec!["d"], vec!["a text too long"], vec!["e", "123456789"], vec!["f"]]
        );
    }
}
