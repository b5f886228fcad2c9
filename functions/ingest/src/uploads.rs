//! `POST /uploads`: a place in the bucket for one document that is too large for a request, and the right to put it there.
//! What is put there comes back as an event.

use std::{str::FromStr, time::Duration};

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    App,
    config::ObjectsConfig,
    domain::{KnowledgeBaseId, Role, SourceUri},
    http::{Invocation, Json, Routes, Writer},
    knowledge_bases,
    objects::{ObjectId, PresignedPut},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    error::{IngestError, unsupported},
    events::{place::KeyPattern, source_uri},
    extract::Format,
};

/// How long the right lasts.
const VALID: Duration = Duration::from_mins(15);

/// Bytes of a path: S3's limit on keys, less what stands before it.
const PATH_BYTES_MAX: usize = 900;

/// What is to be uploaded.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"path": "handbooks/2026.pdf", "media_type": "application/pdf", "size_bytes": 31_457_280})))]
struct UploadRequest {
    /// The caller's personal one unless told.
    knowledge_base: Option<KnowledgeBaseId>,
    /// Names the document within its knowledge base: 1 to 900 bytes of UTF-8, of which no part between slashes is empty, `.` or `..`.
    #[schema(min_length = 1, max_length = 900)]
    path: String,
    /// One of those that are read; docs/formats.md lists them.
    #[schema(pattern = r"^[ -~]+$")]
    media_type: String,
    /// Bytes: exactly so many must be put. At most 128 MiB, unless the installation was told otherwise.
    #[schema(minimum = 1, maximum = 134_217_728)]
    size_bytes: u64,
}

/// Where it goes.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Upload {
    /// `PUT`, always.
    method: &'static str,
    /// Where to.
    url: String,
    /// Headers that the request must have, exactly so.
    #[schema(value_type = HashMap<String, String>)]
    headers: serde_json::Map<String, serde_json::Value>,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// The knowledge base it goes to.
    knowledge_base: KnowledgeBaseId,
    /// The document's name: `GET /documents?source_uri=...` finds it once it has arrived.
    source_uri: SourceUri,
}

/// The route.
pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(create))
}

/// Makes place for a document that is too large for a request.
///
/// What is put at `url` within 15 minutes comes back as an event and is ingested.
#[utoipa::path(
    post,
    path = "/uploads",
    tag = "documents",
    operation_id = "create_upload",
    security(("access_token" = []), ("api_key" = ["write"])),
    request_body = UploadRequest,
    responses((status = 201, description = "Where to put it, and how.", body = Upload)),
    extensions(("x-codes" = json!([Code::NotFound, Code::Forbidden]))),
)]
async fn create(
    State(app): State<App>,
    caller: Writer,
    _: Invocation,
    Json(request): Json<UploadRequest>,
) -> Result<(StatusCode, Json<Upload>), Problem> {
    let config = &app.config.objects;
    let bucket = config.upload_bucket.as_deref().ok_or_else(no_bucket)?;
    let pattern = KeyPattern::from_str(&config.key_pattern).map_err(Problem::internal)?;
    check(&request, config)?;
    let knowledge_base = writable(&app, &caller, request.knowledge_base).await?;
    let key = pattern.write(knowledge_base, &request.path);
    let source_uri = source_uri(bucket, &key)
        .ok_or_else(|| Problem::invalid_field("path", "has a control character, or white space around it"))?;
    let object = ObjectId { bucket: bucket.to_owned(), key, version: None };
    let expires_at = OffsetDateTime::now_utc() + VALID;
    let put = app.objects.presign_put(&object, &request.media_type, request.size_bytes, VALID).await?;
    let PresignedPut { url, headers } = put;
    let headers = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    Ok((StatusCode::CREATED, Json(Upload { method: "PUT", url, headers, expires_at, knowledge_base, source_uri })))
}

fn no_bucket() -> Problem {
    Problem::new(Code::NotFound, "This installation has no bucket for uploads; send the document to POST /documents.")
}

fn check(request: &UploadRequest, config: &ObjectsConfig) -> Result<(), Problem> {
    let path = request.path.as_str();
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return Err(Problem::invalid_field("path", format!("must have 1 to {PATH_BYTES_MAX} bytes")));
    }
    // Some clients and stores resolve these, and then it is another object than the one that was signed.
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Problem::invalid_field("path", "has a part that is empty, `.` or `..`"));
    }
    let essence = request.media_type.split(';').next().unwrap_or_default();
    if Format::from_media_type(essence.trim()).is_none() {
        return Err(unsupported(Some(&request.media_type)));
    }
    if !request.media_type.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Problem::invalid_field("media_type", "has characters outside printable ASCII"));
    }
    if request.size_bytes == 0 {
        return Err(Problem::invalid_field("size_bytes", "is 0"));
    }
    if request.size_bytes > config.bytes_max {
        let limit = config.bytes_max;
        return Err(Problem::invalid_field("size_bytes", format!("is more than {limit}")).with("limit_bytes", limit));
    }
    Ok(())
}

async fn writable(app: &App, caller: &Writer, wanted: Option<KnowledgeBaseId>) -> Result<KnowledgeBaseId, IngestError> {
    let user = caller.user;
    app.db
        .transaction("check upload", async move |tx| {
            match knowledge_bases::hold(tx, user, wanted).await?.ok_or(IngestError::NoKnowledgeBase)? {
                m if m.role >= Role::Editor => Ok(m.id),
                _ => Err(IngestError::ReadOnly),
            }
        })
        .await
}
