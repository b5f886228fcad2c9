//! One question, from the request to the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    App,
    config::ConfigError,
    deadline::Deadline,
    domain::UserId,
    embed::EmbedError,
    metrics,
    problem::Causes,
    sparse::{self, SparseVector},
    telemetry,
};
use tracing::Instrument;

use crate::{
    answer::Answerer,
    embed,
    error::QueryError,
    llm::{LlmError, Usage},
    request::{GroupBy, Query},
    rerank::{self, Reranker},
    response::{Answer, AnswerKind, ByteRange, Debug, Hit, QueryResponse, Timings},
    retrieve::{Page, Question, Retrieval, retrieve},
    scope::{self, Plan, View},
    warm::Warm,
};

/// What is kept of the time for an answer without the model, or none, when the model takes too long.
const AFTER_MODEL_MARGIN: Duration = Duration::from_millis(500);

/// What answers questions, beside the app: the models, each of which is optional, and what outlives a question.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) answerer: Answerer,
    reranker: Option<Arc<dyn Reranker>>,
    warm: Warm,
}

impl Engine {
    pub(crate) fn new(app: &App) -> Result<Self, ConfigError> {
        let reranker = rerank::from_config(app.config.answers.rerank.as_ref())?;
        Ok(Self { answerer: Answerer::new(app)?, reranker, warm: Warm::default() })
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
    engine: &Engine,
    user: UserId,
    query: Query,
    deadline: Deadline,
) -> Result<QueryResponse, QueryError> {
    let wanted = query.answer;
    let mut searched = search(app, engine, user, query, deadline).await?;
    if wanted {
        ((), searched.timings.answer) = timed("answer", answer(app, engine, &mut searched, deadline)).await;
    }
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
    engine: &Engine,
    user: UserId,
    mut query: Query,
    deadline: Deadline,
) -> Result<Searched, QueryError> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let mut degraded = Vec::new();

    let rewritten =
        timed("rewrite", engine.answerer.rewrite(&query.text, &query.conversation, deadline.minus(AFTER_MODEL_MARGIN)));
    let (rewritten, took_ms) = rewritten.await;
    if rewritten.llm_failed {
        note(&mut degraded, LLM);
    }
    if let Some(question) = &rewritten.question {
        timings.rewrite = took_ms;
        query.text.clone_from(question);
    }
    let view = View {
        user,
        knowledge_bases: query.knowledge_bases.clone(),
        documents: query.documents.clone().map(|ids| ids.into_iter().collect()),
        filter: query.filter.clone(),
    };

    // Side by side: neither needs the other.
    let (scope, embedded) = tokio::join!(
        timed("authorise", scope::begin(&app.db, &engine.warm, &view)),
        timed("embed", embed::question(app, &engine.warm, &query, deadline))
    );
    (timings.authorise, timings.embed) = (scope.1, embedded.1);
    let (scope, embedded) = (scope.0?, embedded.0);
    if embedded.failed {
        note(&mut degraded, EMBEDDER);
    }
    let vector = embedded.vector;

    let dense = vector.clone().filter(|_| query.mode.dense());
    // A question of nothing but stop words has no terms.
    let terms = sparse::query(&query.text);
    let by_words = query.mode.sparse() || (query.mode.dense() && dense.is_none());
    let sparse = by_words.then(|| terms.clone()).filter(|terms| !terms.indices.is_empty());
    let nothing_passes = matches!(&scope.plan, Plan::DocumentsFirst(documents) if documents.is_empty());
    let nothing_named = view.documents.as_ref().is_some_and(Vec::is_empty);
    let mut retrieval = Retrieval { complete: true, ..Retrieval::default() };
    // A page of what is ordered anew would begin in the middle of another order.
    let reranker = engine.reranker.as_deref().filter(|_| query.rerank && query.after.is_none());
    // An empty list of knowledge bases is sure; what is remembered is never empty.
    if !(scope.knowledge_bases.is_empty() || nothing_passes || (nothing_named && view.knowledge_bases.is_none())) {
        let question = Question { text: &query.text, dense, sparse };
        let candidates_max = if reranker.is_some() { rerank::CANDIDATES_MAX } else { 0 };
        let page = Page {
            hits_max: query.hits_max.max(candidates_max),
            by_document: query.group_by == Some(GroupBy::Document),
            context: query.context,
            after: query.after,
        };
        retrieval = retrieve(app, &engine.warm, &view, scope, &question, page, deadline).await?;
        (timings.search, timings.hydrate) = (ms(retrieval.search), ms(retrieval.hydrate));
    }
    if retrieval.without_index {
        note(&mut degraded, QDRANT);
    }
    let mut next_cursor = trim(&mut retrieval, &query);
    if let Some(reranker) = reranker {
        let (reordered, took_ms) = timed("rerank", reorder(reranker, &query.text, &mut retrieval.hits, deadline)).await;
        if !reordered {
            note(&mut degraded, RERANKER);
        }
        (timings.rerank, next_cursor) = (took_ms, None);
        retrieval.hits.truncate(query.hits_max);
    }
    for hit in &mut retrieval.hits {
        hit.extras.legs = hit.extras.legs.filter(|_| query.debug);
        hit.extras.highlights = query.highlights.then(|| highlights(&terms, hit));
        if query.context > 0 {
            hit.extras.context.get_or_insert_default();
        }
    }
    timings.total = ms(started.elapsed());
    let debug = query.debug.then_some(Debug {
        plan: retrieval.plan,
        documents_passing: retrieval.documents_passing,
        legs: retrieval.legs,
        rounds: retrieval.rounds,
        joins: retrieval.joins,
        dead: retrieval.dead,
        complete: retrieval.complete,
        timings_ms: timings,
    });
    let response = QueryResponse {
        hits: retrieval.hits,
        next_cursor,
        degraded,
        rewritten_query: rewritten.question,
        answer: None,
        usage: (rewritten.usage != Usage::default()).then_some(rewritten.usage),
        debug,
    };
    Ok(Searched { response, question: query.text, vector, timings, started })
}

/// Leaves out what scores too low, and says where the next page begins.
fn trim(retrieval: &mut Retrieval, query: &Query) -> Option<String> {
    let found = retrieval.hits.len();
    retrieval.hits.retain(|hit| hit.score >= query.min_score);
    // Scores only fall: what is behind the first that is too low is too low as well.
    let next = retrieval.next.filter(|_| retrieval.hits.len() == found);
    next.map(|cursor| cursor.encode(query.fingerprint))
}

fn highlights(terms: &SparseVector, hit: &Hit) -> Vec<ByteRange> {
    let ranges = sparse::matches(terms, &hit.text).into_iter();
    ranges.map(|range| ByteRange { start: range.start as u64, end: range.end as u64 }).collect()
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

/// Answers the question from the hits. When the model fails, or the embedder that chooses sentences, the hits stay without
/// an answer, and `degraded` says so.
async fn answer(app: &App, engine: &Engine, searched: &mut Searched, deadline: Deadline) {
    let Some(llm) = engine.answerer.llm() else {
        searched.response.answer = extractive(app, searched, deadline).await;
        return;
    };
    let hits = &searched.response.hits;
    if hits.is_empty() {
        searched.response.answer = Some(Answer::none(AnswerKind::Generated));
        return;
    }
    let sources = engine.answerer.ask(&*app.embedder, &searched.question, hits);
    match Answerer::generate(&**llm, sources, deadline.minus(AFTER_MODEL_MARGIN)).await {
        Ok((answer, usage)) => {
            searched.response.answer = Some(answer);
            *searched.response.usage.get_or_insert_default() += usage;
        }
        Err(error) => searched.llm_failed(&error),
    }
}

/// The answer that needs no language model; `None` when the embedder is away.
pub(crate) async fn extractive(app: &App, searched: &mut Searched, deadline: Deadline) -> Option<Answer> {
    let Searched { response, question, vector, .. } = searched;
    if response.hits.is_empty() {
        return Some(Answer::none(AnswerKind::Extractive));
    }
    let made = match vector {
        Some(vector) => Answerer::extract(&*app.embedder, question, vector, &response.hits, deadline).await,
        None => Err(EmbedError::Timeout),
    };
    made.map_err(|error| {
        tracing::warn!(error = %Causes(&error), "hits without an answer");
        note(&mut response.degraded, EMBEDDER);
    })
    .ok()
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
const EMBEDDER: &str = "embedder";
const LLM: &str = "llm";
const QDRANT: &str = "qdrant";
const RERANKER: &str = "reranker";

fn note(degraded: &mut Vec<&'static str>, name: &'static str) {
    if !degraded.contains(&name) {
        degraded.push(name);
    }
}

/// What `work` gives, which is this stage, and the milliseconds that it took.
async fn timed<T>(stage: &'static str, work: impl Future<Output = T>) -> (T, f64) {
    let started = Instant::now();
    let value = work.instrument(telemetry::stage(stage)).await;
    (value, ms(started.elapsed()))
}

/// Milliseconds, to a hundredth.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
