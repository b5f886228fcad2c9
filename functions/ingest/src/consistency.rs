//! What members of a knowledge base may ask of the two stores: whether they are in step, a proof of it, and proofs of
//! erasure.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    App,
    db::DbError,
    deadline::Deadline,
    domain::{ContentHash, DocumentId, KnowledgeBaseId, Role, UserId},
    http::{Body, Invocation, Json, Params, PathId, Reader, Routes, Writer, media_type, unsupported_media_type},
    knowledge_bases,
    problem::{Code, Problem},
    routes,
    vectors::Part,
};
use time::OffsetDateTime;
use tokio_postgres::{Row, Transaction, types::Type};
use utoipa::{IntoParams, ToSchema};

use crate::{
    audit::{self, Audit},
    erasures::{self, Erasure, PointCount},
    error::IngestError,
};

/// How soon a client may look again whether an audit has ended that did not fit into its request.
const POLL_S: u16 = 5;

/// The routes under `/consistency`.
pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(show)).routes(routes!(verify)).routes(routes!(erasure))
}

/// Which knowledge base; the personal one unless told.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(examples(json!({})))]
pub struct Target {
    /// The knowledge base.
    pub knowledge_base: Option<KnowledgeBaseId>,
}

/// How the two stores stand, for one knowledge base.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Consistency {
    /// The knowledge base.
    pub knowledge_base: KnowledgeBaseId,
    /// PostgreSQL, now.
    pub postgresql: ExpectedCounts,
    /// Qdrant, now.
    pub qdrant: PointCount,
    /// Points that the last audit found missing or wrongly linked and could not write again; null before the first.
    pub missing: Option<i64>,
    /// Points that PostgreSQL does not know, and that audits have found and not removed yet.
    pub orphaned: i64,
    /// Of these, those whose removal waits for an operator.
    pub withheld: i64,
    /// Points that are retired and wait for their removal.
    pub retired: i64,
    /// Since when the oldest unfinished ingestion or due removal waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest_unfinished_at: Option<OffsetDateTime>,
    /// The last audit that has ended; null before the first.
    pub last_audit: Option<LastAudit>,
    /// The stores that did not answer.
    pub degraded: Vec<&'static str>,
}

/// What PostgreSQL expects of Qdrant.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ExpectedCounts {
    /// Documents.
    pub documents: i64,
    /// Chunks of active revisions: each has its point.
    pub expected: i64,
    /// New chunks of revisions that are on their way: each may have its point.
    pub staged: i64,
}

/// What an audit found in a knowledge base.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LastAudit {
    /// Its id.
    pub id: i64,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// Chunks of active revisions.
    pub expected: i64,
    /// Points, without those in flight.
    pub found: i64,
    /// Expected, and not in Qdrant.
    pub missing: i64,
    /// In Qdrant with other link keys.
    pub mislinked: i64,
    /// In Qdrant, and unknown to PostgreSQL.
    pub orphaned: i64,
    /// Written again.
    pub repaired: i64,
}

/// Shows how the two stores stand, for one knowledge base.
///
/// Qdrant down is an answer too: its count is null, and `degraded` names it.
#[utoipa::path(
    get,
    path = "/consistency",
    tag = "consistency",
    operation_id = "get_consistency",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(Target),
    responses((status = 200, description = "Both stores, and the last audit.", body = Consistency)),
    extensions(("x-codes" = json!([Code::NotFound]))),
)]
async fn show(
    State(app): State<App>,
    caller: Reader,
    invocation: Invocation,
    Params(target): Params<Target>,
) -> Result<Json<Consistency>, Problem> {
    Ok(Json(of(&app, caller.user, target, invocation.deadline).await?))
}

/// How the two stores stand. Qdrant down is an answer too: its count is null, and `degraded` names it.
///
/// # Errors
/// [`IngestError::NoKnowledgeBase`], or PostgreSQL's.
pub async fn of(app: &App, caller: UserId, target: Target, deadline: Deadline) -> Result<Consistency, IngestError> {
    let mut consistency = app
        .db
        .transaction("read consistency", async move |tx| {
            let (id, _) = require(tx, caller, target).await?;
            Ok::<_, IngestError>(read(tx, id).await?)
        })
        .await?;
    let part = Part::KnowledgeBase(consistency.knowledge_base);
    let points = app.index.count_part(part, deadline).await;
    (consistency.qdrant, consistency.degraded) = PointCount::from(points.map_err(IngestError::from))?;
    Ok(consistency)
}

async fn require(tx: &Transaction<'_>, caller: UserId, target: Target) -> Result<(KnowledgeBaseId, Role), IngestError> {
    let memberships = knowledge_bases::list_memberships(tx, caller).await?;
    let found = memberships.iter().find(|m| target.knowledge_base.map_or(m.personal, |wanted| m.id == wanted));
    found.map(|membership| (membership.id, membership.role)).ok_or(IngestError::NoKnowledgeBase)
}

async fn read(tx: &Transaction<'_>, id: KnowledgeBaseId) -> Result<Consistency, DbError> {
    let row = tx
        .query_typed_one(
            "-- consistency::read
            WITH mine AS (SELECT id, active_revision FROM documents WHERE knowledge_base_id = $1),
            staged AS (
                SELECT r.document_id, r.number
                FROM mine JOIN document_revisions r ON r.document_id = mine.id AND r.state = 'staged'
            )
            SELECT (SELECT count(*) FROM mine) AS documents,
                (SELECT count(*) FROM mine JOIN chunk_positions p
                    ON p.document_id = mine.id AND p.revision = mine.active_revision) AS expected,
                (SELECT count(*) FROM staged s JOIN chunk_metadata c
                    ON c.document_id = s.document_id AND c.first_revision = s.number) AS staged,
                (SELECT count(*) FROM orphaned_points WHERE knowledge_base_id = $1) AS orphaned,
                (SELECT count(*) FROM orphaned_points WHERE knowledge_base_id = $1
                    AND withheld_by IS NOT NULL AND condemned_by IS NULL) AS withheld,
                (SELECT count(*) FROM retired_points WHERE knowledge_base_id = $1)
                    + (SELECT count(*) FROM erasures e JOIN chunk_metadata c ON c.document_id = e.document_id
                        WHERE e.knowledge_base_id = $1 AND e.remains) AS retired,
                LEAST((SELECT min(r.created_at) FROM mine JOIN document_revisions r ON r.document_id = mine.id
                        AND r.state IN ('claimed', 'staged')),
                    (SELECT min(due_at) FROM retired_points WHERE knowledge_base_id = $1 AND due_at <= now()),
                    (SELECT min(deleted_at) FROM erasures WHERE knowledge_base_id = $1 AND remains)
                ) AS oldest_unfinished_at",
            &[(&id.0, Type::UUID)],
        )
        .await?;
    let last_audit = audit::last_of(tx, id).await?.as_ref().map(last_audit).transpose()?;
    Ok(Consistency {
        knowledge_base: id,
        postgresql: ExpectedCounts {
            documents: row.try_get("documents")?,
            expected: row.try_get("expected")?,
            staged: row.try_get("staged")?,
        },
        qdrant: PointCount { points: None },
        missing: last_audit.as_ref().map(|last| last.missing + last.mislinked - last.repaired),
        orphaned: row.try_get("orphaned")?,
        withheld: row.try_get("withheld")?,
        retired: row.try_get("retired")?,
        oldest_unfinished_at: row.try_get("oldest_unfinished_at")?,
        last_audit,
        degraded: Vec::new(),
    })
}

fn last_audit(row: &Row) -> Result<LastAudit, DbError> {
    Ok(LastAudit {
        id: row.try_get("id")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        expected: row.try_get("expected")?,
        found: row.try_get("found")?,
        missing: row.try_get("missing")?,
        mislinked: row.try_get("mislinked")?,
        orphaned: row.try_get("orphaned")?,
        repaired: row.try_get("repaired")?,
    })
}

/// What an audit proves. Whoever has the ids can compute the digests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Proof {
    /// The audit's id.
    pub audit: i64,
    /// The knowledge base.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended; null: the time was too short, and the sweeper, or the same request again, goes on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// Whether both stores held the same ids with the same link keys. What was repaired shows in the next proof.
    pub in_step: bool,
    /// Chunks of active revisions.
    pub postgresql: Side,
    /// Points, without those in flight.
    pub qdrant: Side,
    /// Points of staged chunks, and retired ones still on the list.
    pub in_flight: i64,
    /// Expected, and not in Qdrant.
    pub missing: i64,
    /// In Qdrant with other link keys.
    pub mislinked: i64,
    /// In Qdrant, and unknown to PostgreSQL.
    pub orphaned: i64,
    /// Written again.
    pub repaired: i64,
    /// Orphans removed.
    pub removed: i64,
    /// Orphans whose removal waits for an operator.
    pub withheld: i64,
}

/// One store's side of a proof.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Side {
    /// Ids.
    pub points: i64,
    /// Of the ids in their order, each as 16 bytes: SHA-256 of the digest before and the id, from 32 zero bytes on.
    pub digest: ContentHash,
}

impl From<Audit> for Proof {
    fn from(audit: Audit) -> Self {
        Self {
            in_step: audit.in_step(),
            audit: audit.id,
            knowledge_base: audit.knowledge_base,
            started_at: audit.started_at,
            finished_at: audit.finished_at,
            postgresql: Side { points: audit.expected, digest: audit.expected_digest },
            qdrant: Side { points: audit.found, digest: audit.found_digest },
            in_flight: audit.in_flight,
            missing: audit.missing,
            mislinked: audit.mislinked,
            orphaned: audit.orphaned,
            repaired: audit.repaired,
            removed: audit.removed,
            withheld: audit.withheld,
        }
    }
}

/// Audits one knowledge base, repairs what it finds, and answers with what it found.
///
/// For its editors and owners. `202` when the time was too short: then the sweeper goes on with it, or the same request.
#[utoipa::path(
    post,
    path = "/consistency/verify",
    tag = "consistency",
    operation_id = "verify_consistency",
    security(("access_token" = []), ("api_key" = ["write"])),
    request_body = Option<Target>,
    responses(
        (status = 200, description = "What was found.", body = Proof),
        (status = 202, description = "What has been found so far.", body = Proof, headers(("retry-after" = u16, description = "Seconds."))),
    ),
    extensions(("x-codes" = json!([Code::NotFound, Code::Forbidden, Code::AuditRunning, Code::LeaseLost]))),
)]
async fn verify(
    State(app): State<App>,
    caller: Writer,
    invocation: Invocation,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let target = match media_type(&headers).as_deref() {
        _ if body.is_empty() => Target::default(),
        Some("application/json") => Json::parse(&body)?,
        other => return Err(unsupported_media_type(other, &["application/json"])),
    };
    let proof = Proof::from(run(&app, caller.user, target, invocation.deadline).await?);
    let ended = proof.finished_at.is_some();
    let mut response = Json(proof).into_response();
    if !ended {
        *response.status_mut() = StatusCode::ACCEPTED;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(POLL_S));
    }
    Ok(response)
}

async fn run(app: &App, caller: UserId, target: Target, deadline: Deadline) -> Result<Audit, IngestError> {
    let (id, role) = app.db.transaction("authorise audit", async move |tx| require(tx, caller, target).await).await?;
    if role < Role::Editor {
        return Err(IngestError::ReadOnly);
    }
    audit::run(app, Some(id), deadline).await
}

/// Proves that a deleted document is erased.
///
/// Both stores are asked, now.
#[utoipa::path(
    get,
    path = "/consistency/erasures/{id}",
    tag = "consistency",
    operation_id = "get_erasure",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(("id" = DocumentId, Path, description = "The document.")),
    responses((status = 200, description = "What both stores say of it.", body = Erasure)),
)]
async fn erasure(
    State(app): State<App>,
    caller: Reader,
    invocation: Invocation,
    PathId(id): PathId<DocumentId>,
) -> Result<Json<Erasure>, Problem> {
    Ok(Json(erasures::prove(&app, caller.user, id, invocation.deadline).await?))
}
