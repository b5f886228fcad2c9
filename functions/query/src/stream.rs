//! `POST /query/stream`: the same as `POST /query`, as server-sent events, so that hits can be read while the answer is
//! written.
//!
//! | event | data | when |
//! |---|---|---|
//! | `hits` | the answer of `POST /query`, without `answer` | first |
//! | `token` | `{"text": "..."}`: a piece of the answer, as the model writes it, not checked yet | any number |
//! | `citations` | `answer` as `POST /query` has it: checked statements with their citations | once, if `answer` was asked for and could be made |
//! | `degraded` | `["llm"]` or `["embedder"]`: the answer broke off or never came | instead of `citations` |
//! | `usage` | `{"input_tokens", "output_tokens"}` | when a model was asked |
//! | `done` | `{}` | last: an answer without it is not complete |
//!
//! What is wrong with the request itself, and what fails before the hits are found, is an ordinary problem. Nothing runs on
//! its own here: when the client goes away, the stream is dropped, and with it the request to the model.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::json;
use shared::{
    App,
    deadline::Deadline,
    http::{Invocation, Json, Reader, Route},
    problem::{Code, Problem},
    routes,
};

use crate::{
    answer::check,
    llm::Piece,
    pipeline::{self, Engine, Searched},
    request::{Query, QueryRequest},
    response::{Answer, AnswerKind},
};

/// Proxies cut connections that are silent for long; a comment keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(crate) fn route() -> Route {
    routes!(query)
}

/// Answers as `POST /query` does, as server-sent events: hits first, then the answer as it is written.
///
/// The events: `hits` (the answer of `/query` without `answer`), `token` (`{"text"}`, any number), `citations` (`answer` as `/query`
/// has it, checked) or `degraded` instead, `usage`, and `done`, without which an answer is not complete.
#[utoipa::path(
    post,
    path = "/query/stream",
    tag = "query",
    operation_id = "stream_query",
    security(("access_token" = []), ("api_key" = ["read"])),
    request_body = QueryRequest,
    responses((status = 200, description = "The events.", content_type = "text/event-stream", body = String)),
    extensions(("x-codes" = json!([Code::NotFound, Code::RateLimited]))),
)]
async fn query(
    State(app): State<App>,
    Extension(engine): Extension<Arc<Engine>>,
    invocation: Invocation,
    principal: Reader,
    Json(request): Json<QueryRequest>,
) -> Result<Response, Problem> {
    let query = Query::try_from(request)?;
    let wanted = query.answer;
    let searched = pipeline::search(&app, &engine, principal.user, query, invocation.deadline).await?;
    let events = events(app, engine, searched, wanted, invocation.deadline);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn events(
    app: App,
    engine: Arc<Engine>,
    mut searched: Searched,
    wanted: bool,
    deadline: Deadline,
) -> impl Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        yield Ok(event("hits", &searched.response));
        if wanted {
            let mut answering = std::pin::pin!(answer(&app, &engine, &mut searched, deadline));
            while let Some(event) = answering.next().await {
                yield Ok(event);
            }
        }
        if let Some(usage) = &searched.response.usage {
            yield Ok(event("usage", usage));
        }
        searched.measure();
        yield Ok(event("done", &json!({})));
    }
}

/// The events of the answer itself.
fn answer<'a>(
    app: &'a App,
    engine: &'a Engine,
    searched: &'a mut Searched,
    deadline: Deadline,
) -> impl Stream<Item = Event> + 'a {
    async_stream::stream! {
        let Some(llm) = engine.answerer.llm() else {
            match pipeline::extractive(app, searched, deadline).await {
                Some(answer) => {
                    for statement in &answer.statements {
                        yield token(&format!("{} ", statement.text));
                    }
                    yield event("citations", &answer);
                }
                None => yield event("degraded", &searched.response.degraded),
            }
            return;
        };
        if searched.response.hits.is_empty() {
            yield event("citations", &Answer::none(AnswerKind::Generated));
            return;
        }
        let hits = searched.response.hits.clone();
        let sources = engine.answerer.ask(&*app.embedder, &searched.question, &hits);
        let mut text = String::new();
        let mut failed = None;
        match llm.stream(sources.prompt, deadline).await {
            Err(error) => failed = Some(error),
            Ok(mut pieces) => while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(Piece::Text(piece)) => {
                        text.push_str(&piece);
                        yield token(&piece);
                    }
                    Ok(Piece::Usage(usage)) => *searched.response.usage.get_or_insert_default() += usage,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            },
        }
        match failed {
            None => yield event("citations", &check::check(&text, &sources.hits)),
            Some(error) => {
                searched.llm_failed(&error);
                yield event("degraded", &searched.response.degraded);
            }
        }
    }
}

fn token(text: &str) -> Event {
    event("token", &json!({ "text": text }))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    // Our types are plain JSON: it can not fail, and has no line break.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
