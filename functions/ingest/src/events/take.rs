//! What one event of a bucket asks for, from the look at the object to the work on its document.
//!
//! | step | why repeating it is harmless |
//! |---|---|
//! | look whether a newer event was acted on | reads |
//! | look at the object, read and hash it | reads; the version of the event, not the newest |
//! | claim, fail or delete, and move the ledger's mark | one transaction; a second time the mark stands there already |
//! | work on the claimed revision | as any ingestion; from the claim on, the sweeper can do it as well |
//!
//! So an event comes again from its queue only if it was not acted on: once there is a revision, it is the saga's.

use std::{str::FromStr, sync::Arc};

use shared::{
    App,
    deadline::Deadline,
    domain::{ContentHash, KnowledgeBaseId, SourceUri},
    objects::{ObjectError, ObjectHead, ObjectId},
    problem::{Causes, Code, Problem},
};

use super::{
    ledger,
    notice::{Kind, Notice},
    place::KeyPattern,
};
use crate::{
    erasures,
    error::IngestError,
    extract::{Charset, ExtractError, Format},
    objects::{StoredObject, WHOLE_BYTES_MAX},
    request::Source,
    saga::{self, ClaimedObject, DeletedObject, Outcome, Refusal},
};

/// What became of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// The document is active.
    Ingested,
    /// It is on its way; the sweeper goes on.
    UnderWay,
    /// The document stands already as it is in the bucket.
    Unchanged,
    /// It can not become a document; that is written down.
    Failed,
    /// The document is deleted.
    Deleted,
    /// There was nothing to delete.
    Absent,
    /// A newer event was acted on, or this one.
    Stale,
    /// The version is gone: an event that says so is on its way, or was here.
    Gone,
    /// The key names no knowledge base that exists, or no document.
    Nowhere,
}

/// Does what the event asks for.
///
/// # Errors
/// When it could not be acted on yet, and must come again.
pub(super) async fn take(app: &App, notice: &Notice, deadline: Deadline) -> Result<Taken, IngestError> {
    // Checked when the function starts.
    let pattern = KeyPattern::from_str(&app.config.objects.key_pattern).map_err(|_| IngestError::NoKnowledgeBase)?;
    let place = pattern.read(&notice.key).map(|(knowledge_base, _)| knowledge_base);
    let source_uri = source_uri(&notice.bucket, &notice.key);
    let (Some(knowledge_base), Some(source_uri)) = (place, source_uri) else { return Ok(nowhere(notice)) };
    if ledger::is_stale(app, notice).await? {
        return Ok(Taken::Stale);
    }
    let event = Event { app, notice, knowledge_base, source_uri, deadline };
    let newest = ObjectId { bucket: notice.bucket.clone(), key: notice.key.clone(), version: None };
    match (notice.kind, &notice.version) {
        (Kind::Created, version) => event.created(ObjectId { version: version.clone(), ..newest }).await,
        // Of a bucket with versions, one is gone. Another may be the newest now, as when a delete marker was removed.
        (Kind::Removed, Some(_)) => match event.created(newest).await? {
            Taken::Gone => event.removed().await,
            taken => Ok(taken),
        },
        (Kind::Removed, None) | (Kind::Hidden, _) => event.removed().await,
    }
}

/// The name of an object's document; `None` when the key has characters that no name has, or is too long.
pub(crate) fn source_uri(bucket: &str, key: &str) -> Option<SourceUri> {
    format!("s3://{bucket}/{key}").parse().ok()
}

/// Counted by this line: an operator alone can put an object where it belongs, and no repetition can.
fn nowhere(notice: &Notice) -> Taken {
    tracing::warn!(
        s3.bucket = notice.bucket,
        s3.key = notice.key,
        objects_nowhere = 1,
        "an object's key names no knowledge base"
    );
    Taken::Nowhere
}

struct Event<'a> {
    app: &'a App,
    notice: &'a Notice,
    knowledge_base: KnowledgeBaseId,
    source_uri: SourceUri,
    deadline: Deadline,
}

impl Event<'_> {
    async fn created(&self, id: ObjectId) -> Result<Taken, IngestError> {
        let head = match self.app.objects.head(&id, self.deadline).await {
            Err(ObjectError::Missing) => return Ok(Taken::Gone),
            head => head?,
        };
        // Where versions are kept, it is read by its version, also when the newest was asked for.
        let id = ObjectId { version: id.version.or_else(|| head.version.clone()), ..id };
        let object = StoredObject { id, etag: head.etag.clone(), size_bytes: head.size_bytes };
        match self.read(&object, &head).await {
            Ok(source) => self.ingest(source, object).await,
            Err(IngestError::Object(ObjectError::Missing | ObjectError::Changed)) => Ok(Taken::Gone),
            Err(IngestError::Answer(problem)) => self.fail(&head, &problem).await,
            Err(IngestError::Object(ObjectError::Archived)) => {
                let detail = "The object is archived. Restore it, and it is read then.";
                self.fail(&head, &Problem::new(Code::NotResumable, detail)).await
            }
            Err(error @ IngestError::Extract(_)) => self.fail(&head, &error.into()).await,
            Err(error) => Err(error),
        }
    }

    /// The document, with its bytes unless it is read part by part.
    async fn read(&self, object: &StoredObject, head: &ObjectHead) -> Result<Source, IngestError> {
        let limit = self.app.config.objects.bytes_max;
        if object.size_bytes > limit {
            return Err(IngestError::Answer(too_large(limit)));
        }
        if object.size_bytes == 0 {
            return Err(ExtractError::Empty.into());
        }
        let (declared, name) = (head.media_type.as_deref(), self.notice.key.as_str());
        // A long text is known by what is said of it: reading it whole to look is what parts are there to avoid.
        let said = Format::detect(declared, name, b"").ok();
        if let Some(format) = said.filter(|format| object.in_parts(*format)) {
            let content_hash = object.hash(self.app, self.deadline).await?;
            return Ok(self.source(format, bytes::Bytes::new(), content_hash));
        }
        if object.size_bytes > WHOLE_BYTES_MAX {
            return Err(IngestError::Answer(too_large(WHOLE_BYTES_MAX)));
        }
        let bytes = object.whole(self.app, self.deadline).await?;
        let format = Format::detect(declared, name, &bytes)?;
        let content_hash = ContentHash::of(&bytes);
        Ok(self.source(format, bytes, content_hash))
    }

    fn source(&self, format: Format, bytes: bytes::Bytes, content_hash: ContentHash) -> Source {
        Source {
            knowledge_base: Some(self.knowledge_base),
            source_uri: self.source_uri.clone(),
            title: None,
            format,
            charset: Charset::Unknown,
            attributes: None,
            bytes,
            content_hash,
        }
    }

    async fn ingest(&self, source: Source, object: StoredObject) -> Result<Taken, IngestError> {
        let parted = object.in_parts(source.format);
        let source = Arc::new(source);
        let claimed =
            saga::claim_object(self.app, self.notice, self.knowledge_base, source.clone(), object, self.deadline);
        let (lease, opened) = match claimed.await? {
            ClaimedObject::Begun(lease) => (lease, (!parted).then(|| saga::Opened::new(source))),
            ClaimedObject::Resumed(lease) => (lease, None),
            ClaimedObject::UnderWay => return Ok(Taken::UnderWay),
            ClaimedObject::Unchanged => return Ok(Taken::Unchanged),
            ClaimedObject::Stale => return Ok(Taken::Stale),
            ClaimedObject::NoKnowledgeBase => return Ok(nowhere(self.notice)),
        };
        let work = saga::run_detached(self.app.clone(), lease, opened, "event".to_owned(), self.deadline);
        Ok(match work.await {
            Ok(Outcome::Active(_)) => Taken::Ingested,
            Ok(Outcome::Paused(_)) => Taken::UnderWay,
            Err(IngestError::Extract(_)) => Taken::Failed,
            Err(error) => {
                tracing::warn!(document.id = %lease.document, error = %Causes(&error), "ingestion left for later");
                Taken::UnderWay
            }
        })
    }

    async fn fail(&self, head: &ObjectHead, problem: &Problem) -> Result<Taken, IngestError> {
        let media_type = head.media_type.as_deref().unwrap_or("application/octet-stream");
        // Only its name is of use.
        let source = Arc::new(self.source(Format::Plain, bytes::Bytes::new(), ContentHash([0; 32])));
        let refusal = Refusal {
            size_bytes: head.size_bytes,
            media_type: media_type.to_owned(),
            code: problem.code().as_str(),
            detail: problem.detail().to_owned(),
        };
        let failed = saga::fail_object(self.app, self.notice, self.knowledge_base, source, refusal);
        tracing::warn!(
            s3.bucket = self.notice.bucket,
            problem.code = problem.code().as_str(),
            "an object is no document"
        );
        Ok(if failed.await? { Taken::Failed } else { Taken::Stale })
    }

    async fn removed(&self) -> Result<Taken, IngestError> {
        let deleted = saga::delete_object(self.app, self.notice, self.knowledge_base, &self.source_uri);
        let id = match deleted.await? {
            DeletedObject::Deleted(id) => id,
            DeletedObject::Absent => return Ok(Taken::Absent),
            DeletedObject::Stale => return Ok(Taken::Stale),
        };
        if let Err(error) = saga::clean_document(self.app, id, self.deadline).await {
            tracing::warn!(document.id = %id, error = %Causes(&error), "retired points are left to the sweeper");
        } else if let Err(error) = erasures::complete_if_gone(self.app, id, self.deadline).await {
            tracing::warn!(document.id = %id, error = %Causes(&error), "the proof of erasure is left to the sweeper");
        }
        Ok(Taken::Deleted)
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(Code::TooLarge, format!("The object has more than {limit} bytes.")).with("limit", limit)
}
