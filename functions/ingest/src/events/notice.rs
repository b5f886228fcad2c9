//! What S3 says happened to an object, in the three shapes in which it arrives. Only what is used is read: stand-ins leave
//! out much of the rest.
//!
//! - <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
//! - <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use super::NotDone;

/// Characters that sequencers are padded to; AWS's have 16 to 18.
const SEQUENCER_CHARS: usize = 64;

/// One thing that happened to one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version that it happened to; `None` in a bucket that keeps none.
    pub version: Option<String>,
    /// Its place among the events of the same object; creations and removals have one.
    pub sequencer: Option<Sequencer>,
    /// What happened.
    pub kind: Kind,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It has new content, or can be read again after it was archived.
    Created,
    /// The version is gone; which one is the newest now, if any, only the bucket knows.
    Removed,
    /// A delete marker hides all versions.
    Hidden,
}

/// The order of the events of one object. Ordered, and of one length: the shorter is padded on the right with zeros.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Sequencer(String);

impl Sequencer {
    /// `None` for what is empty or longer than any.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=SEQUENCER_CHARS).contains(&text.len()) && text.is_ascii();
        // Hexadecimal, and nothing says in which case.
        fits.then(|| Self(format!("{:0<SEQUENCER_CHARS$}", text.to_ascii_uppercase())))
    }

    /// As it stands in the ledger.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    name: String,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    #[serde(rename = "versionId", alias = "version-id")]
    version: Option<String>,
    sequencer: Option<String>,
}

#[derive(Deserialize)]
struct BridgeEvent {
    #[serde(rename = "detail-type")]
    kind: String,
    detail: BridgeDetail,
}

#[derive(Deserialize)]
struct BridgeDetail {
    bucket: Bucket,
    object: Object,
    #[serde(rename = "deletion-type")]
    deletion: Option<String>,
}

/// Reads a notification, an event of `EventBridge`, or either in an envelope of SNS. Kinds of events that change no content
/// (tags, access lists, tests) give nothing.
///
/// # Errors
/// When it is none of these.
pub fn read(event: &Value) -> Result<Vec<Notice>, NotDone> {
    let wrong = |error: serde_json::Error| NotDone(format!("an event that can not be read: {error}"));
    if event.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
        return Ok(Vec::new());
    }
    if let (Some("Notification"), Some(message)) =
        (event.get("Type").and_then(Value::as_str), event.get("Message").and_then(Value::as_str))
    {
        return read(&serde_json::from_str(message).map_err(wrong)?);
    }
    if event.get("source").and_then(Value::as_str) == Some("aws.s3") {
        let event = BridgeEvent::deserialize(event).map_err(wrong)?;
        return Ok(bridge(event).into_iter().collect());
    }
    let records = Notification::deserialize(event).map_err(wrong)?.records;
    records.into_iter().filter_map(|record| notification(record).transpose()).collect()
}

fn notification(record: Record) -> Result<Option<Notice>, NotDone> {
    // Some say `s3:ObjectCreated:Put`.
    let name = record.name.strip_prefix("s3:").unwrap_or(&record.name);
    let kind = match name.split_once(':').unwrap_or((name, "")) {
        ("ObjectCreated", _) | ("ObjectRestore", "Completed") => Kind::Created,
        ("ObjectRemoved" | "LifecycleExpiration", "DeleteMarkerCreated") => Kind::Hidden,
        ("ObjectRemoved" | "LifecycleExpiration", _) => Kind::Removed,
        _ => return Ok(None),
    };
    // Encoded as a form is: a space has become `+`.
    let key = record.s3.object.key.replace('+', " ");
    let key = percent_decode_str(&key).decode_utf8();
    let key = key.map_err(|_| NotDone("an object whose key is not UTF-8".to_owned()))?.into_owned();
    Ok(Some(Notice::new(record.s3.bucket, Object { key, ..record.s3.object }, kind)))
}

fn bridge(event: BridgeEvent) -> Option<Notice> {
    let kind = match (event.kind.as_str(), event.detail.deletion.as_deref()) {
        ("Object Created" | "Object Restore Completed", _) => Kind::Created,
        ("Object Deleted", Some("Delete Marker Created")) => Kind::Hidden,
        ("Object Deleted", _) => Kind::Removed,
        _ => return None,
    };
    // Here keys are not encoded.
    Some(Notice::new(event.detail.bucket, event.detail.object, kind))
}

impl Notice {
    fn new(bucket: Bucket, object: Object, kind: Kind) -> Self {
        // What was there before a bucket began to keep versions.
        let version = object.version.filter(|version| !version.is_empty() && version != "null");
        let sequencer = object.sequencer.as_deref().and_then(Sequencer::new);
        Self { bucket: bucket.name, key: object.key, version, sequencer, kind }
    }
}

#[cfg(test)]
#[path = "notice_tests.rs"]
mod tests;
