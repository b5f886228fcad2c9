//! A second look at the best candidates, by a model that reads question and passage together. None by default.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use shared::{
    config::{ConfigError, RerankConfig, RerankForm},
    deadline::Deadline,
    endpoint::Endpoint,
};

/// Candidates that are read again, at most: what stands further down seldom deserves the top, and a cross-encoder's time
/// grows with each.
pub const CANDIDATES_MAX: usize = 50;

/// How long the whole call may take. It is a refinement: better no rerank than a late answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a new connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A reranker.
#[async_trait]
pub trait Reranker: Send + Sync + std::fmt::Debug {
    /// How well each of `texts` fits `question`, in the order of the texts. Higher is better; nothing else is said of the
    /// scale.
    ///
    /// # Errors
    /// See [`RerankError`].
    async fn score(&self, question: &str, texts: &[&str], deadline: Deadline) -> Result<Vec<f32>, RerankError>;
}

/// The reranker that the configuration names; `None` when it names none.
///
/// # Errors
/// When the configuration does not hold.
pub fn from_config(config: Option<&RerankConfig>) -> Result<Option<Arc<dyn Reranker>>, ConfigError> {
    let http = config.map(HttpReranker::new).transpose()?;
    Ok(http.map(|http| Arc::new(http) as Arc<dyn Reranker>))
}

/// Why there are no scores. No variant's text holds a key or a passage.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    /// The time was over.
    #[error("the reranker did not answer in time")]
    Timeout,
    /// It could not be reached, broke off, or answered with a server's error.
    #[error("the reranker is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refused the request: a wrong key, an unknown model.
    #[error("the reranker refused the request with status {status}: {detail}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The start of the answer's body, the key cut out.
        detail: String,
    },
    /// It answered, but not with the scores that were asked for.
    #[error("the reranker's answer is unusable: {0}")]
    BadAnswer(String),
}

/// A reranker behind HTTP, in the form of Cohere (<https://docs.cohere.com/reference/rerank>; Jina, vLLM and others speak it
/// too) or of Hugging Face's Text Embeddings Inference (<https://huggingface.github.io/text-embeddings-inference/>).
#[derive(Debug)]
pub struct HttpReranker {
    endpoint: Endpoint,
    form: RerankForm,
    model: Option<String>,
}

impl HttpReranker {
    /// The reranker at `{base_url}/rerank`. Connects when first used.
    ///
    /// # Errors
    /// When the URL is none, or carries credentials.
    pub fn new(config: &RerankConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(&config.base_url, "rerank", config.api_key.clone(), CONNECT_TIMEOUT)
            .map_err(|error| ConfigError::invalid("RERANK_URL", error))?;
        Ok(Self { endpoint, form: config.form, model: config.model.clone() })
    }

    async fn ask(&self, question: &str, texts: &[&str]) -> Result<Vec<Score>, RerankError> {
        let request = self.endpoint.post();
        let request = match self.form {
            RerankForm::Cohere => request.json(&CohereQuestion {
                model: self.model.as_deref(),
                query: question,
                documents: texts,
                top_n: texts.len(),
            }),
            RerankForm::Tei => request.json(&TeiQuestion { query: question, texts, truncate: true }),
        };
        let response = self.endpoint.send(request).await.map_err(unavailable)?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = response.bytes().await.map_err(unavailable)?;
        let scores = match self.form {
            RerankForm::Cohere => serde_json::from_slice::<CohereAnswer>(&body).map(|answer| answer.results),
            RerankForm::Tei => serde_json::from_slice(&body),
        };
        scores.map_err(|error| RerankError::BadAnswer(error.to_string()))
    }

    async fn refusal(&self, response: Response) -> RerankError {
        let status = response.status();
        let detail = self.endpoint.detail(response).await;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            RerankError::Unavailable(format!("status {status}: {detail}").into())
        } else {
            RerankError::Rejected { status: status.as_u16(), detail }
        }
    }
}

#[async_trait]
impl Reranker for HttpReranker {
    async fn score(&self, question: &str, texts: &[&str], deadline: Deadline) -> Result<Vec<f32>, RerankError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let asked = tokio::time::timeout_at(deadline.at_most(TIMEOUT).instant(), self.ask(question, texts)).await;
        in_order(asked.map_err(|_| RerankError::Timeout)??, texts.len())
    }
}

/// The scores in the order of the texts: they come in the order of their height.
fn in_order(scores: Vec<Score>, count: usize) -> Result<Vec<f32>, RerankError> {
    let mut ordered = vec![None; count];
    for Score { index, score } in scores {
        let place = ordered.get_mut(index).ok_or_else(|| RerankError::BadAnswer(format!("no text {index}")))?;
        *place = Some(score).filter(|score| score.is_finite());
    }
    ordered.into_iter().collect::<Option<_>>().ok_or_else(|| RerankError::BadAnswer("a text has no score".to_owned()))
}

/// The URL is left out: it may be private, and it is known.
fn unavailable(error: reqwest::Error) -> RerankError {
    RerankError::Unavailable(error.without_url().into())
}

#[derive(Serialize)]
struct CohereQuestion<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    query: &'a str,
    documents: &'a [&'a str],
    top_n: usize,
}

#[derive(Serialize)]
struct TeiQuestion<'a> {
    query: &'a str,
    texts: &'a [&'a str],
    truncate: bool,
}

#[derive(Deserialize)]
struct CohereAnswer {
    results: Vec<Score>,
}

#[derive(Deserialize)]
struct Score {
    index: usize,
    #[serde(alias = "relevance_score")]
    score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back_in_the_order_of_the_texts() {
        let cohere: CohereAnswer = serde_json::from_str(
            r#"{"id":"x","results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}"#,
        )
        .unwrap();
        assert_eq!(in_order(cohere.results, 2).unwrap(), [0.1, 0.9]);
        let tei: Vec<Score> = serde_json::from_str(r#"[{"index":0,"score":-3.5},{"index":1,"score":2.0}]"#).unwrap();
        assert_eq!(in_order(tei, 2).unwrap(), [-3.5, 2.0]);
    }

    #[test]
    fn an_answer_that_leaves_a_text_out_or_names_another_is_refused() {
        let score = |index| Score { index, score: 1.0 };
        assert!(in_order(vec![score(0)], 2).is_err());
        assert!(in_order(vec![score(0), score(2)], 2).is_err());
        assert!(in_order(vec![score(0), Score { index: 1, score: f32::NAN }], 2).is_err());
    }
}
