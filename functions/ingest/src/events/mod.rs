//! What buckets tell: objects that came, changed and went become documents, revisions and deletions.
//!
//! A map: [`notice`] reads what S3 says, whichever way it came; [`place`] finds the knowledge base in a key; [`ledger`] knows
//! which event of an object is the newest; [`take`] does what one event asks for; this module answers for a batch.

pub mod ledger;
pub mod notice;
pub mod place;
mod take;

use std::fmt;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{App, deadline::Deadline, problem::Causes};

use self::notice::Notice;
pub use self::take::Taken;
pub(crate) use self::take::source_uri;
use crate::error::IngestError;

/// Messages of a batch that are worked on at the same time: each may hold a whole document in memory.
const PARALLEL: usize = 4;

/// What a function answers to an event.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To a batch from a queue: what of it must come again. An empty list says that nothing must.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
    Batch {
        /// The messages that were not dealt with.
        #[serde(rename = "batchItemFailures")]
        failures: Vec<ItemFailure>,
    },
    /// To S3 or to `EventBridge`, which listen only to whether there was an error.
    Done {
        /// How many notices were dealt with.
        notices: usize,
    },
}

/// One message that must come again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ItemFailure {
    /// Its `messageId`.
    #[serde(rename = "itemIdentifier")]
    pub message: String,
}

/// An event that was not dealt with; whoever sent it sends it again.
#[derive(Debug)]
pub struct NotDone(String);

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotDone {}

/// A batch from SQS, as far as it is used.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// Handles one invocation's event: a batch of messages from SQS, a notification of S3, or an event of `EventBridge`.
///
/// # Errors
/// When it is none of these, or came without a queue and must come again as a whole.
pub async fn events(app: &App, event: Value, deadline: Deadline) -> Result<Answer, NotDone> {
    let app = &app.until(deadline);
    if is_batch(&event) {
        let batch =
            Batch::deserialize(event).map_err(|error| NotDone(format!("a batch that can not be read: {error}")))?;
        let work = batch.records.into_iter().map(|message| one(app, message, deadline));
        let results: Vec<Option<ItemFailure>> = stream::iter(work).buffer_unordered(PARALLEL).collect().await;
        let failures = results.into_iter().flatten().collect();
        return Ok(Answer::Batch { failures });
    }
    let notices = notice::read(&event)?;
    Ok(Answer::Done { notices: all(app, notices, deadline).await? })
}

fn is_batch(event: &Value) -> bool {
    let source = event.pointer("/Records/0/eventSource").and_then(Value::as_str);
    source == Some("aws:sqs")
}

/// Deals with one message of a batch; what is returned must come again.
async fn one(app: &App, message: Message, deadline: Deadline) -> Option<ItemFailure> {
    let error = self::message(app, &message.body, deadline).await.err()?;
    tracing::warn!(sqs.message = message.id, error = %error, "a message is left to the queue");
    Some(ItemFailure { message: message.id })
}

async fn message(app: &App, body: &str, deadline: Deadline) -> Result<usize, NotDone> {
    let event = serde_json::from_str(body).map_err(|error| NotDone(format!("a message that is not JSON: {error}")))?;
    all(app, notice::read(&event)?, deadline).await
}

/// Deals with all of them, also when one fails: another may be of another object.
async fn all(app: &App, notices: Vec<Notice>, deadline: Deadline) -> Result<usize, NotDone> {
    let mut failed = None;
    let count = notices.len();
    for notice in notices {
        match take::take(app, &notice, deadline).await {
            // The key is the client's text; the hash in the ledger's row finds it again.
            Ok(taken) => {
                tracing::info!(s3.bucket = notice.bucket, event.kind = ?notice.kind, event.taken = ?taken, "event");
            }
            Err(error) => {
                failed.get_or_insert(NotDone(sentence(&error)));
            }
        }
    }
    failed.map_or(Ok(count), Err)
}

fn sentence(error: &IngestError) -> String {
    Causes(error).to_string()
}
