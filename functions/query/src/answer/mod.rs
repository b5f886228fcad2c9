//! Answers to questions, each statement with its citations: by a language model, or of the passages' own sentences.

pub(crate) mod check;
pub(crate) mod extract;
pub(crate) mod prompt;

use std::sync::Arc;

use shared::{
    App,
    config::ConfigError,
    deadline::Deadline,
    embed::{EmbedError, Embedder},
};

use self::prompt::Sources;
use crate::{
    llm::{self, Llm, LlmError, Usage},
    request::{Role, Turn},
    response::{Answer, Hit},
};

/// Earlier questions that a question is searched with where no model can rewrite it.
const EARLIER_QUESTIONS: usize = 2;

/// What answers.
#[derive(Clone, Debug)]
pub(crate) struct Answerer {
    llm: Option<Arc<dyn Llm>>,
    context_tokens_max: usize,
}

/// A question that stands alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewritten {
    /// `None`: it stood alone before.
    pub(crate) question: Option<String>,
    pub(crate) usage: Usage,
    /// The model was asked and did not answer.
    pub(crate) llm_failed: bool,
}

impl Answerer {
    pub(crate) fn new(app: &App) -> Result<Self, ConfigError> {
        let config = &app.config.answers;
        Ok(Self { llm: llm::from_config(config.llm.as_ref())?, context_tokens_max: config.context_tokens_max })
    }

    pub(crate) fn llm(&self) -> Option<&Arc<dyn Llm>> {
        self.llm.as_ref()
    }

    /// The passages for a model, and what it is asked.
    pub(crate) fn ask<'a>(&self, embedder: &dyn Embedder, question: &str, hits: &'a [Hit]) -> Sources<'a> {
        // A text that can not be counted is counted by its bytes: too much.
        let count = |text: &str| embedder.count_tokens(text).unwrap_or(text.len());
        prompt::ask(question, hits, self.context_tokens_max, &count)
    }

    /// Answers by the model.
    ///
    /// # Errors
    /// The model's.
    pub(crate) async fn generate(
        llm: &dyn Llm,
        sources: Sources<'_>,
        deadline: Deadline,
    ) -> Result<(Answer, Usage), LlmError> {
        let completion = llm.complete(sources.prompt, deadline).await?;
        Ok((check::check(&completion.text, &sources.hits), completion.usage))
    }

    /// Answers without a model. `vector` is the question's embedding.
    ///
    /// # Errors
    /// The embedder's.
    pub(crate) async fn extract(
        embedder: &dyn Embedder,
        question: &str,
        vector: &[f32],
        hits: &[Hit],
        deadline: Deadline,
    ) -> Result<Answer, EmbedError> {
        extract::extract(embedder, question, vector, hits, deadline).await
    }

    /// Makes a question stand alone that is asked in a conversation. Without a model, or when it fails, the last questions
    /// are put before it: their words find what "it" was.
    pub(crate) async fn rewrite(&self, question: &str, conversation: &[Turn], deadline: Deadline) -> Rewritten {
        if conversation.is_empty() {
            return Rewritten::default();
        }
        let mut rewritten = Rewritten { question: Some(with_earlier(question, conversation)), ..Rewritten::default() };
        if let Some(llm) = &self.llm {
            match llm.complete(prompt::rewrite(question, conversation), deadline).await {
                Ok(completion) => {
                    rewritten.usage = completion.usage;
                    let line = prompt::visible(completion.text.trim()).replace(['\n', '\t'], " ");
                    if !line.is_empty() && line.len() <= crate::request::QUERY_BYTES_MAX {
                        rewritten.question = Some(line);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %shared::problem::Causes(&error), "the question is not rewritten");
                    rewritten.llm_failed = true;
                }
            }
        }
        rewritten
    }
}

fn with_earlier(question: &str, conversation: &[Turn]) -> String {
    let earlier = conversation.iter().rev().filter(|turn| turn.role == Role::User).take(EARLIER_QUESTIONS);
    let mut parts: Vec<String> =
        earlier.map(|turn| prompt::visible(&turn.content).replace(['\n', '\t'], " ")).collect();
    parts.reverse();
    parts.push(question.to_owned());
    parts.join(" ")
}
