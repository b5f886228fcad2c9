//! Amazon Bedrock's Converse API: one form for all models that it hosts.
//!
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_bedrockruntime::{
    Client,
    config::{BehaviorVersion, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        ContentBlock, ContentBlockDelta, ConversationRole, ConverseOutput, ConverseStreamOutput,
        InferenceConfiguration, Message, SystemContentBlock, TokenUsage,
    },
};
use futures::{StreamExt, stream, stream::BoxStream};
use shared::deadline::Deadline;
use tokio::sync::OnceCell;

use super::{Completion, Llm, LlmError, Piece, Prompt, Usage};

/// Attempts of one request, the first included: as for other endpoints, see `open_ai`. The SDK has a retry quota of its own.
const ATTEMPTS_MAX: u32 = 2;

/// A model on Bedrock, by its id or the ARN of an inference profile. The client is made when first used: a query without an
/// answer pays nothing.
#[derive(Debug)]
pub struct Bedrock {
    model: String,
    client: OnceCell<Client>,
}

impl Bedrock {
    /// The model of this id, with the credentials and in the region of the function.
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self { model: model.to_owned(), client: OnceCell::new() }
    }

    /// The model of this id through `client`.
    #[must_use]
    pub fn through(client: Client, model: &str) -> Self {
        Self { model: model.to_owned(), client: OnceCell::new_with(Some(client)) }
    }

    async fn client(&self) -> &Client {
        let make = async || {
            let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX);
            Client::new(&aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).load().await)
        };
        self.client.get_or_init(make).await
    }
}

#[async_trait]
impl Llm for Bedrock {
    async fn complete(&self, prompt: Prompt, deadline: Deadline) -> Result<Completion, LlmError> {
        let request = self
            .client()
            .await
            .converse()
            .model_id(&self.model)
            .system(SystemContentBlock::Text(prompt.instructions))
            .messages(message(prompt.input)?)
            .inference_config(limits(prompt.tokens_max)?);
        let sent = tokio::time::timeout_at(deadline.instant(), request.send()).await;
        let answer = sent.map_err(|_| LlmError::Timeout)?.map_err(refused)?;
        let usage = answer.usage.as_ref().map(usage).unwrap_or_default();
        let Some(ConverseOutput::Message(message)) = answer.output else {
            return Err(LlmError::BadAnswer("no message".to_owned()));
        };
        let text: String =
            message.content.iter().filter_map(|block| block.as_text().ok()).map(String::as_str).collect();
        Ok(Completion { text, usage })
    }

    async fn stream(
        &self,
        prompt: Prompt,
        deadline: Deadline,
    ) -> Result<BoxStream<'static, Result<Piece, LlmError>>, LlmError> {
        let request = self
            .client()
            .await
            .converse_stream()
            .model_id(&self.model)
            .system(SystemContentBlock::Text(prompt.instructions))
            .messages(message(prompt.input)?)
            .inference_config(limits(prompt.tokens_max)?);
        let sent = tokio::time::timeout_at(deadline.instant(), request.send()).await;
        let answer = sent.map_err(|_| LlmError::Timeout)?.map_err(refused)?;
        let events = stream::unfold(Some(answer.stream), move |events| async move {
            let mut events = events?;
            match tokio::time::timeout_at(deadline.instant(), events.recv()).await {
                Err(_) => Some((Some(Err(LlmError::Timeout)), None)),
                Ok(Err(error)) => Some((Some(Err(refused(error))), None)),
                Ok(Ok(None)) => None,
                Ok(Ok(Some(event))) => Some((piece(event).map(Ok), Some(events))),
            }
        });
        Ok(events.filter_map(std::future::ready).boxed())
    }
}

/// What one event of a stream says; most say nothing that matters here.
fn piece(event: ConverseStreamOutput) -> Option<Piece> {
    match event {
        ConverseStreamOutput::ContentBlockDelta(event) => match event.delta? {
            ContentBlockDelta::Text(text) => Some(Piece::Text(text)),
            _ => None,
        },
        ConverseStreamOutput::Metadata(event) => event.usage.as_ref().map(|tokens| Piece::Usage(usage(tokens))),
        _ => None,
    }
}

fn message(text: String) -> Result<Message, LlmError> {
    Message::builder()
        .role(ConversationRole::User)
        .content(ContentBlock::Text(text))
        .build()
        .map_err(|error| LlmError::Rejected(error.to_string()))
}

fn limits(tokens_max: u32) -> Result<InferenceConfiguration, LlmError> {
    let tokens = i32::try_from(tokens_max).map_err(|error| LlmError::Rejected(error.to_string()))?;
    Ok(InferenceConfiguration::builder().max_tokens(tokens).temperature(0.0).build())
}

fn usage(tokens: &TokenUsage) -> Usage {
    let count = |tokens: i32| u64::try_from(tokens).unwrap_or_default();
    Usage { input_tokens: count(tokens.input_tokens), output_tokens: count(tokens.output_tokens) }
}

/// What the SDK's error means. It tells a service's refusals by their code.
fn refused<E, R>(error: SdkError<E, R>) -> LlmError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
    match (&error, code.as_str()) {
        (SdkError::TimeoutError(_), _) | (_, "ModelTimeoutException") => LlmError::Timeout,
        (_, "ThrottlingException") => LlmError::Throttled { retry_after: None },
        (_, "ModelNotReadyException") => LlmError::Throttled { retry_after: Some(Duration::from_secs(5)) },
        (
            _,
            "ValidationException"
            | "AccessDeniedException"
            | "ResourceNotFoundException"
            | "UnrecognizedClientException",
        ) => LlmError::Rejected(code),
        (SdkError::ConstructionFailure(_), _) => LlmError::Rejected("the request can not be built".to_owned()),
        _ => LlmError::Unavailable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_bedrockruntime::config::{Config, Credentials, Region};
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue};
    use axum::{Router, body::Bytes, response::IntoResponse, routing::post};
    use http::{StatusCode, header};
    use serde_json::{Value, json};

    use super::*;

    /// Bedrock as it answers, on 127.0.0.1.
    async fn bedrock(router: Router) -> Bedrock {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::for_tests())
            .endpoint_url(url)
            .retry_config(RetryConfig::disabled())
            .build();
        Bedrock::through(Client::from_conf(config), "some.model-v1")
    }

    fn prompt() -> Prompt {
        Prompt { instructions: "Answer.".to_owned(), input: "Where?".to_owned(), tokens_max: 10 }
    }

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn a_completion_is_the_messages_text_and_its_cost() {
        let route = post(async |body: Bytes| {
            let question: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(question["messages"][0], json!({ "role": "user", "content": [{ "text": "Where?" }] }));
            assert_eq!(
                (&question["system"][0]["text"], &question["inferenceConfig"]["maxTokens"]),
                (&json!("Answer."), &json!(10))
            );
            axum::Json(json!({
                "output": { "message": { "role": "assistant", "content": [{ "text": "Under the " }, { "text": "pot." }] } },
                "stopReason": "end_turn",
                "usage": { "inputTokens": 7, "outputTokens": 3, "totalTokens": 10 },
                "metrics": { "latencyMs": 1 },
            }))
        });
        let model = bedrock(Router::new().route("/model/{model}/converse", route)).await;
        let completion = model.complete(prompt(), deadline()).await.unwrap();
        assert_eq!(completion.text, "Under the pot.");
        assert_eq!(completion.usage, Usage { input_tokens: 7, output_tokens: 3 });
    }

    #[tokio::test]
    async fn refusals_and_patience_are_told_apart() {
        for (status, code, retryable) in [
            (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", true),
            (StatusCode::FORBIDDEN, "AccessDeniedException", false),
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", true),
        ] {
            let route = post(async move || (status, [("x-amzn-errortype", code)], "{}"));
            let model = bedrock(Router::new().route("/model/{model}/converse", route)).await;
            let error = model.complete(prompt(), deadline()).await.unwrap_err();
            assert_eq!(error.retryable(), retryable, "{code}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_is_pieces_of_text_and_at_the_end_the_cost() {
        fn event(kind: &'static str, payload: &Value) -> Vec<u8> {
            let header = |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
            let message = aws_smithy_types::event_stream::Message::new(payload.to_string().into_bytes())
                .add_header(header(":message-type", "event"))
                .add_header(header(":event-type", kind))
                .add_header(header(":content-type", "application/json"));
            let mut bytes = Vec::new();
            write_message_to(&message, &mut bytes).unwrap();
            bytes
        }
        let route = post(async || {
            let delta =
                |text| event("contentBlockDelta", &json!({ "contentBlockIndex": 0, "delta": { "text": text } }));
            let usage = json!({ "usage": { "inputTokens": 7, "outputTokens": 3, "totalTokens": 10 }, "metrics": { "latencyMs": 1 } });
            let events = [
                event("messageStart", &json!({ "role": "assistant" })),
                delta("Under "),
                delta("the pot."),
                event("messageStop", &json!({ "stopReason": "end_turn" })),
                event("metadata", &usage),
            ];
            ([(header::CONTENT_TYPE, "application/vnd.amazon.eventstream")], events.concat()).into_response()
        });
        let model = bedrock(Router::new().route("/model/{model}/converse-stream", route)).await;
        let stream = model.stream(prompt(), deadline()).await.unwrap();
        let pieces: Vec<Piece> = stream.map(Result::unwrap).collect().await;
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            pieces,
            [text("Under "), text("the pot."), Piece::Usage(Usage { input_tokens: 7, output_tokens: 3 })]
        );
    }
}
