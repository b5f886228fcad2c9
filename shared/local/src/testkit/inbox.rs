//! A real S3 with an inbox for one object, so that a function's process can be told of it.

use std::{fmt::Write, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use shared::{
    config::ObjectsConfig,
    domain::KnowledgeBaseId,
    objects::{ObjectId, ObjectStore, s3::S3},
};

use crate::{folder::TempFolder, queue::Queue, s3};

/// The S3. It ends with the runtime it was started in, and its files with this value.
#[derive(Debug)]
pub struct Inbox {
    /// Where it is, and its access key.
    pub config: ObjectsConfig,
    store: S3,
    client: Client,
    _folder: TempFolder,
}

impl Inbox {
    /// Starts one.
    pub async fn start() -> Self {
        let folder = TempFolder::new().expect("a folder");
        let bucket = s3::open(folder.path(), Queue::default()).expect("an S3");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let config = ObjectsConfig {
            endpoint: Some(format!("http://{}", listener.local_addr().expect("an address"))),
            credentials: Some((s3::ACCESS_KEY.to_owned(), bucket.secret_key.into())),
            ..ObjectsConfig::default()
        };
        tokio::spawn(axum::serve(listener, bucket.router).into_future());
        Self { store: S3::new(&config), config, client: Client::new(), _folder: folder }
    }

    fn object(knowledge_base: KnowledgeBaseId) -> ObjectId {
        ObjectId { bucket: s3::INBOX.to_owned(), key: format!("{knowledge_base}/long.txt"), version: None }
    }

    /// Puts the object there, as an upload does.
    pub async fn put(&self, knowledge_base: KnowledgeBaseId, text: String) {
        let (object, size) = (Self::object(knowledge_base), text.len() as u64);
        let put = self.store.presign_put(&object, "text/plain", size, Duration::from_mins(5)).await;
        let put = put.expect("it can be signed");
        let mut request = self.client.put(put.url).body(text);
        for (name, value) in put.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.expect("S3 takes the object");
    }

    /// What a queue hands over of the object's change number `n`.
    #[must_use]
    pub fn event(knowledge_base: KnowledgeBaseId, n: u32) -> Value {
        let object = Self::object(knowledge_base);
        let body = json!({ "Records": [{
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": { "name": object.bucket },
                "object": { "key": object.key, "sequencer": format!("{n:016X}") },
            },
        }]});
        json!({ "Records": [{ "messageId": "1", "eventSource": "aws:sqs", "body": body.to_string() }] })
    }
}

/// A text of so many paragraphs, of about 350 bytes and in words of their own each.
#[must_use]
pub fn long_text(paragraphs: usize) -> String {
    let mut text = String::new();
    for n in 0..paragraphs {
        let line =
            writeln!(text, "Paragraph {n} tells of lamp {n}. {}\n", "It is tall, lit, and made of brass. ".repeat(9));
        line.expect("memory takes it");
    }
    text
}
