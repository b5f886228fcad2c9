//! A queue between the local S3 and the function `ingest-events`, as SQS is one in the cloud: at least once, in batches, and
//! what failed comes again after a pause. It is not kept: what a crash loses is found in the bucket at the next start.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ingest::events::{Answer, events};
use serde_json::{Value, json};
use shared::{App, deadline::Deadline};
use tokio::{sync::Notify, time::Instant};

/// Messages of one batch.
const BATCH: usize = 10;

/// The function's time for one batch.
const TIME: Duration = Duration::from_mins(1);

/// The pause before a message comes again, doubled each time, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A message that has failed so often is set aside: in the cloud the redrive policy's `maxReceiveCount`.
const RECEIVES_MAX: u32 = 10;

#[derive(Debug)]
struct Message {
    id: String,
    body: Value,
    receives: u32,
    visible_at: Instant,
}

/// The queue. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    messages: Arc<Mutex<VecDeque<Message>>>,
    sent: Arc<Notify>,
}

impl Queue {
    /// Adds a message.
    pub fn send(&self, body: Value) {
        let message = Message { id: uuid::Uuid::new_v4().to_string(), body, receives: 0, visible_at: Instant::now() };
        self.put([message]);
    }

    fn put(&self, messages: impl IntoIterator<Item = Message>) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
        self.sent.notify_one();
    }

    /// Up to a batch of those that may be seen, and when the next one may.
    fn take(&self) -> (Vec<Message>, Option<Instant>) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut batch = Vec::new();
        let mut left = VecDeque::with_capacity(messages.len());
        while let Some(message) = messages.pop_front() {
            if batch.len() < BATCH && message.visible_at <= now { batch.push(message) } else { left.push_back(message) }
        }
        *messages = left;
        (batch, messages.iter().map(|message| message.visible_at).min())
    }

    /// Hands batches to the function, for as long as it is polled.
    pub async fn serve(&self, app: &App) {
        loop {
            let (batch, next) = self.take();
            if !batch.is_empty() {
                self.hand_over(app, batch).await;
                continue;
            }
            let sent = self.sent.notified();
            match next {
                Some(next) => drop(tokio::time::timeout_at(next, sent).await),
                None => sent.await,
            }
        }
    }

    async fn hand_over(&self, app: &App, batch: Vec<Message>) {
        let record = |message: &Message| json!({"messageId": message.id, "eventSource": "aws:sqs", "body": message.body.to_string()});
        let event = json!({"Records": batch.iter().map(record).collect::<Vec<_>>()});
        let answer = events(app, event, Deadline::after(TIME)).await;
        let failed = |message: &Message| match &answer {
            Ok(Answer::Batch { failures }) => failures.iter().any(|failure| failure.message == message.id),
            // As with SQS: an answer that is none returns the whole batch.
            Ok(Answer::Done { .. }) | Err(_) => true,
        };
        let (again, aside): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .filter(failed)
            .map(|message| Message { receives: message.receives + 1, ..message })
            .partition(|message| message.receives < RECEIVES_MAX);
        for message in aside {
            tracing::error!(sqs.message = message.id, body = %message.body, "a message was set aside: it failed each time");
        }
        self.put(again.into_iter().map(|message| {
            let pause = PAUSE.saturating_mul(2_u32.saturating_pow(message.receives - 1)).min(PAUSE_MAX);
            Message { visible_at: Instant::now() + pause, ..message }
        }));
    }
}
