//! A claimed revision whose text lies in a bucket: whoever takes it over reads it there.

use std::{str::FromStr, sync::Arc};

use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ContentHash, InvalidValue, SourceUri},
    objects::ObjectId,
};
use tokio_postgres::{Row, types::Type};

use super::Lease;
use crate::{
    error::IngestError,
    extract::{Charset, ExtractError, Format},
    objects::StoredObject,
    request::Source,
};

/// What is still to be read.
pub(super) enum Unread {
    /// The chunks are stored.
    Nothing,
    /// The whole document.
    Whole(Arc<Source>),
    /// A long text, part by part.
    Parts(PartedObject),
}

/// A long text.
pub(super) struct PartedObject {
    pub(super) object: StoredObject,
    pub(super) format: Format,
}

struct Reading {
    parted: PartedObject,
    source_uri: SourceUri,
    content_hash: ContentHash,
}

/// Looks what of the revision is still to be read, and fetches it if it is read as a whole.
pub(super) async fn unread(app: &App, lease: Lease, deadline: Deadline) -> Result<Unread, IngestError> {
    let row = app
        .db
        .query_opt(
            "look for unread object",
            "-- saga::unread
            SELECT r.object_bucket, r.object_key, r.object_version, r.object_etag, r.size_bytes, r.media_type,
                r.content_hash, d.source_uri
            FROM document_revisions r JOIN documents d ON d.id = r.document_id
            WHERE r.document_id = $1 AND r.number = $2 AND r.fence = $3 AND r.state = 'claimed'
                AND r.object_key IS NOT NULL",
            &[(&lease.document.0, Type::UUID), (&lease.revision, Type::INT4), (&lease.fence, Type::INT8)],
        )
        .await?;
    let reading = row.as_ref().map(Reading::from_row).transpose()?;
    let Some(Reading { parted, source_uri, content_hash }) = reading else { return Ok(Unread::Nothing) };
    if parted.object.in_parts(parted.format) {
        return Ok(Unread::Parts(parted));
    }
    let bytes = parted.object.whole(app, deadline).await?;
    Ok(Unread::Whole(Arc::new(Source {
        knowledge_base: Some(lease.knowledge_base),
        source_uri,
        title: None,
        format: parted.format,
        charset: Charset::Unknown,
        attributes: None,
        bytes,
        content_hash,
    })))
}

impl Reading {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let media_type: &str = row.try_get("media_type")?;
        let unknown = || InvalidValue::new("is not the media type of a format");
        let id = ObjectId {
            bucket: row.try_get("object_bucket")?,
            key: row.try_get("object_key")?,
            version: row.try_get("object_version")?,
        };
        let size_bytes = u64::try_from(row.try_get::<_, i64>("size_bytes")?).unwrap_or_default();
        Ok(Self {
            parted: PartedObject {
                object: StoredObject { id, etag: row.try_get("object_etag")?, size_bytes },
                format: Format::from_media_type(media_type)
                    .ok_or_else(unknown)
                    .map_err(DbError::column("document_revisions.media_type"))?,
            },
            source_uri: SourceUri::from_str(row.try_get("source_uri")?)
                .map_err(DbError::column("documents.source_uri"))?,
            content_hash: row
                .try_get::<_, &[u8]>("content_hash")?
                .try_into()
                .map_err(DbError::column("document_revisions.content_hash"))?,
        })
    }
}

/// The error of a part, as one of the whole.
pub(super) fn shifted(error: ExtractError, start: usize) -> ExtractError {
    match error {
        ExtractError::NotUtf8 { byte_offset } => ExtractError::NotUtf8 { byte_offset: byte_offset + start },
        ExtractError::ControlCharacter { byte_offset, code } => {
            ExtractError::ControlCharacter { byte_offset: byte_offset + start, code }
        }
        other => other,
    }
}
