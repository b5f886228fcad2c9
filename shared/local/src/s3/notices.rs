//! What a bucket with notifications would say: read off the requests that have succeeded.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{Method, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::INBOX;

/// What a request changes if it succeeds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// An object has new content.
    Put(String),
    /// An object is gone.
    Delete(String),
    /// Several are gone; the answer says which.
    DeleteMany,
}

impl Change {
    /// Of a request in path style; `None` when it changes no object of the inbox.
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let (bucket, key) = uri.path().trim_start_matches('/').split_once('/').unwrap_or((uri.path(), ""));
        if bucket.trim_start_matches('/') != INBOX {
            return None;
        }
        let key = percent_decode_str(key).decode_utf8().ok()?.into_owned();
        let asks = |name: &str| {
            let pairs = uri.query().unwrap_or_default().split('&');
            pairs.map(|pair| pair.split('=').next().unwrap_or_default()).any(|asked| asked == name)
        };
        match *method {
            Method::POST if key.is_empty() && asks("delete") => Some(Self::DeleteMany),
            _ if key.is_empty() || asks("tagging") || asks("acl") => None,
            Method::POST if asks("uploadId") => Some(Self::Put(key)),
            Method::PUT if !asks("uploadId") => Some(Self::Put(key)),
            Method::DELETE if !asks("uploadId") => Some(Self::Delete(key)),
            _ => None,
        }
    }

    /// The notifications; `answer` is the body of the request's answer.
    pub(super) fn notifications(self, answer: &str) -> Vec<Value> {
        match self {
            // This one can answer 200 and have failed.
            Self::Put(_) if answer.contains("<Error>") => Vec::new(),
            Self::Put(key) => vec![notification("ObjectCreated:Put", &key, sequencer())],
            Self::Delete(key) => vec![notification("ObjectRemoved:Delete", &key, sequencer())],
            Self::DeleteMany => {
                deleted(answer).map(|key| notification("ObjectRemoved:Delete", &key, sequencer())).collect()
            }
        }
    }
}

/// The keys of an answer to `DeleteObjects`.
fn deleted(answer: &str) -> impl Iterator<Item = String> {
    answer.split("<Deleted>").skip(1).filter_map(|part| {
        let (key, _) = part.split_once("<Key>")?.1.split_once("</Key>")?;
        let plain = key.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
        Some(plain.replace("&apos;", "'").replace("&amp;", "&"))
    })
}

/// One for each object that lies in the inbox: what was put there while nobody listened is not missed. Those that were
/// acted on are late by then, because an object is written before its event.
pub(super) fn of_what_is_there(inbox: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    let mut folders = vec![inbox.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if let (Some(key), Ok(written)) =
                (path.strip_prefix(inbox).ok().and_then(Path::to_str), meta.modified())
            {
                found.push(notification("ObjectCreated:Put", key, nanos(written)));
            }
        }
    }
    found
}

fn nanos(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Now, and later than the one before.
fn sequencer() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = nanos(SystemTime::now());
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1))).unwrap_or(now);
    now.max(last + 1)
}

fn notification(name: &str, key: &str, sequencer: u64) -> Value {
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": name,
        "s3": {"bucket": {"name": INBOX}, "object": {"key": key, "sequencer": format!("{sequencer:016X}")}},
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, uri: &'static str) -> Option<Change> {
        Change::of(method, &Uri::from_static(uri))
    }

    #[test]
    fn only_what_changes_an_object_of_the_inbox_is_told() {
        let put = |key: &str| Some(Change::Put(key.to_owned()));
        assert_eq!(of(&Method::PUT, "/lockstep-inbox/a/b%20c.txt?X-Amz-Date=1"), put("a/b c.txt"));
        assert_eq!(of(&Method::POST, "/lockstep-inbox/a?uploadId=7"), put("a"));
        assert_eq!(of(&Method::DELETE, "/lockstep-inbox/a"), Some(Change::Delete("a".to_owned())));
        assert_eq!(of(&Method::POST, "/lockstep-inbox/?delete"), Some(Change::DeleteMany));
        for (method, uri) in [
            (&Method::GET, "/lockstep-inbox/a"),
            (&Method::PUT, "/lockstep-inbox"),
            (&Method::PUT, "/other/a"),
            (&Method::PUT, "/lockstep-inbox/a?partNumber=1&uploadId=7"),
            (&Method::POST, "/lockstep-inbox/a?uploads"),
            (&Method::DELETE, "/lockstep-inbox/a?uploadId=7"),
        ] {
            assert_eq!(of(method, uri), None, "{uri}");
        }
    }

    #[test]
    fn each_of_several_deleted_objects_is_told() {
        let answer = "<DeleteResult><Deleted><Key>a&amp;b</Key></Deleted><Deleted><Key>c</Key></Deleted><Error><Key>d</Key></Error></DeleteResult>";
        assert_eq!(deleted(answer).collect::<Vec<_>>(), ["a&b", "c"]);
    }

    #[test]
    fn each_sequencer_is_later_than_the_one_before() {
        let many: Vec<u64> = (0..1_000).map(|_| sequencer()).collect();
        assert!(many.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
