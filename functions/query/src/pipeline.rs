//! One question, from the request to the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{App, config::ConfigError, deadline::Deadline, domain::UserId, metrics, problem::Causes, sparse};

use crate::{
    answer::Answerer,
    error::QueryError,
    hydrate::View,
    llm::{LlmError, Usage},
    request::Query,
    rerank::{self, Reranker},
    response::{Answer, AnswerKind, Debug, Hit, QueryResponse, Timings},
    retrieve::{Retrieval, retrieve},
    scope,
};

/// What is kept of the time for an answer without the model, or none, when the model takes too long.
const AFTER_MODEL_MARGIN: Duration = Duration::from_millis(500);

/// The models beside the embedder. Each is optional.
#[derive(Debug)]
pub(crate) struct Models {
    pub(crate) answerer: Answerer,
    reranker: Option<Arc<dyn Reranker>>,
}

impl Models {
    pub(crate) fn new(app: &App) -> Result<Self, ConfigError> {
        let reranker = rerank::from_config(app.config.answers.rerank.as_ref())?;
        Ok(Self { answerer: Answerer::new(app)?, reranker })
    }
}

/// What was found, before it is answered.
#[derive(Debug)]
pub(crate) struct Searched {
    /// Without an answer.
    pub(crate) response: QueryResponse,
    /// The question that stands alone.
    pub(crate) question: String,
    vector: Option<Vec<f32>>,
    timings: Timings,
    started: Instant,
}

/// Answers one query. Reads both stores, writes nothing.
pub(crate) async fn run(
    app: &App,
    models: &Models,
    user: UserId,
    query: Query,
    deadline: Deadline,
) -> Result<QueryResponse, QueryError> {
    let wanted = query.answer;
    let mut searched = search(app, models, user, query, deadline).await?;
    let mut lap = Lap(Instant::now());
    if wanted {
        answer(app, models, &mut searched, deadline).await?;
    }
    searched.timings.answer = lap.ms();
    searched.timings.total = ms(searched.started.elapsed());
    searched.measure();
    if let Some(debug) = &mut searched.response.debug {
        debug.timings_ms = searched.timings;
    }
    Ok(searched.response)
}

/// Finds the hits.
pub(crate) async fn search(
    app: &App,
    models: &Models,
    user: UserId,
    query: Query,
    deadline: Deadline,
) -> Result<Searched, QueryError> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let mut lap = Lap(started);
    let mut degraded = Vec::new();

    let knowledge_bases = scope::resolve(&app.db, user, query.knowledge_bases.as_ref()).await?;
    timings.authorise = lap.ms();

    let for_model = deadline.minus(AFTER_MODEL_MARGIN);
    let rewritten = models.answerer.rewrite(&query.text, &query.conversation, for_model).await;
    if rewritten.llm_failed {
        note(&mut degraded, LLM);
    }
    let question = rewritten.question.clone().unwrap_or_else(|| query.text.clone());
    timings.rewrite = lap.ms();

    let documents = query.documents.map(|ids| ids.into_iter().collect::<Vec<_>>());
    let nothing_to_read = knowledge_bases.is_empty() || documents.as_ref().is_some_and(Vec::is_empty);
    let (mut vector, mut retrieval) = (None, Retrieval { complete: true, ..Retrieval::default() });
    if !nothing_to_read {
        let extractive = query.answer && models.answerer.llm().is_none();
        if query.mode.dense() || extractive {
            vector = Some(app.embedder.embed_query(question.clone(), deadline.instant()).await?);
        }
        timings.embed = lap.ms();
        let dense = vector.clone().filter(|_| query.mode.dense());
        // A question of nothing but stop words has no terms.
        let sparse = query.mode.sparse().then(|| sparse::query(&question)).filter(|terms| !terms.indices.is_empty());
        let view = View { user, knowledge_bases, documents };
        let reranker = models.reranker.as_deref().filter(|_| query.rerank);
        let hits_max = if reranker.is_some() { query.hits_max.max(rerank::CANDIDATES_MAX) } else { query.hits_max };
        retrieval = retrieve(app, &view, dense, sparse, hits_max, deadline).await?;
        (timings.search, timings.hydrate) = (ms(retrieval.search), ms(retrieval.hydrate));
        lap.ms();
        if let Some(reranker) = reranker {
            if !reorder(reranker, &question, &mut retrieval.hits, deadline).await {
                note(&mut degraded, RERANKER);
            }
            retrieval.hits.truncate(query.hits_max);
            timings.rerank = lap.ms();
        }
    }
    timings.total = ms(started.elapsed());
    let debug = query.debug.then_some(Debug {
        legs: retrieval.legs,
        rounds: retrieval.rounds,
        dead: retrieval.dead,
        complete: retrieval.complete,
        timings_ms: timings,
    });
    let response = QueryResponse {
        hits: retrieval.hits,
        degraded,
        rewritten_query: rewritten.question,
        answer: None,
        usage: (rewritten.usage != Usage::default()).then_some(rewritten.usage),
        debug,
    };
    Ok(Searched { response, question, vector, timings, started })
}

/// Orders the best hits by the reranker's scores, which take the place of the others. False when it failed: then the hits
/// stay as they are.
async fn reorder(reranker: &dyn Reranker, question: &str, hits: &mut [Hit], deadline: Deadline) -> bool {
    let count = hits.len().min(rerank::CANDIDATES_MAX);
    let Some(best) = hits.get_mut(..count) else { return true };
    let texts: Vec<&str> = best.iter().map(|hit| hit.text.as_str()).collect();
    match reranker.score(question, &texts, deadline.minus(AFTER_MODEL_MARGIN)).await {
        Ok(scores) => {
            for (hit, score) in best.iter_mut().zip(scores) {
                hit.rerank_score = Some(score);
            }
            // Stable: of equals, the one that was better before comes first.
            best.sort_by(|a, b| b.rerank_score.unwrap_or_default().total_cmp(&a.rerank_score.unwrap_or_default()));
            true
        }
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "hits are not reranked");
            false
        }
    }
}

/// Answers the question from the hits. When the model fails, the hits stay without an answer, and `degraded` says so.
async fn answer(app: &App, models: &Models, searched: &mut Searched, deadline: Deadline) -> Result<(), QueryError> {
    let hits = &searched.response.hits;
    let Some(llm) = models.answerer.llm() else {
        searched.response.answer = Some(extractive(app, searched, deadline).await?);
        return Ok(());
    };
    if hits.is_empty() {
        searched.response.answer = Some(Answer::none(AnswerKind::Generated));
        return Ok(());
    }
    let sources = models.answerer.ask(&*app.embedder, &searched.question, hits);
    match Answerer::generate(&**llm, sources, deadline.minus(AFTER_MODEL_MARGIN)).await {
        Ok((answer, usage)) => {
            searched.response.answer = Some(answer);
            *searched.response.usage.get_or_insert_default() += usage;
        }
        Err(error) => searched.llm_failed(&error),
    }
    Ok(())
}

/// The answer that needs no model.
pub(crate) async fn extractive(app: &App, searched: &Searched, deadline: Deadline) -> Result<Answer, QueryError> {
    let Searched { response, question, vector, .. } = searched;
    match vector {
        Some(vector) => Ok(Answerer::extract(&*app.embedder, question, vector, &response.hits, deadline).await?),
        None => Ok(Answer::none(AnswerKind::Extractive)),
    }
}

impl Searched {
    /// Counts what it took.
    pub(crate) fn measure(&self) {
        let Timings { authorise, rewrite, embed, search, hydrate, rerank, answer, total: _ } = self.timings;
        let stages = [
            ("authorise", authorise),
            ("rewrite", rewrite),
            ("embed", embed),
            ("qdrant", search),
            ("postgresql", hydrate),
            ("rerank", rerank),
            ("answer", answer),
        ];
        // What was not done takes no time; counting it would make it seem quick.
        stages.into_iter().filter(|(_, ms)| *ms > 0.0).for_each(|(stage, ms)| metrics::stage(stage, ms));
        self.response.degraded.iter().for_each(|dependency| metrics::degraded(dependency));
        if let Some(usage) = self.response.usage {
            metrics::llm_tokens(usage.input_tokens, usage.output_tokens);
        }
    }

    pub(crate) fn llm_failed(&mut self, error: &LlmError) {
        tracing::warn!(error = %Causes(error), "the question is not answered");
        note(&mut self.response.degraded, LLM);
    }
}

/// The dependencies by their names in `degraded`.
const LLM: &str = "llm";
const RERANKER: &str = "reranker";

fn note(degraded: &mut Vec<&'static str>, name: &'static str) {
    if !degraded.contains(&name) {
        degraded.push(name);
    }
}

/// The time since the last lap.
struct Lap(Instant);

impl Lap {
    fn ms(&mut self) -> f64 {
        let now = Instant::now();
        ms(now - std::mem::replace(&mut self.0, now))
    }
}

/// Milliseconds, to a hundredth.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
