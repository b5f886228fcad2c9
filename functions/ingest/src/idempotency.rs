//! Idempotency keys: a retried request gets the first one's answer.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use shared::{
    App,
    db::{DbError, constraint},
    deadline::Deadline,
    domain::{DocumentId, IdempotencyKey, UserId},
    problem::{Code, Problem},
};
use tokio_postgres::{Row, Transaction, types::Type};

use crate::error::IngestError;

/// When to look again whether a running request has ended: most end long before their lease does.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a key is kept. Clients retry within hours; three days cover a weekend.
const KEPT_HOURS: i32 = 72;

/// The operation that a key belongs to: the same key on another route is another key.
const CREATE_DOCUMENT: &str = "POST /documents";

/// A key with the request that it came with.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// Who sent it.
    pub principal: UserId,
    /// The client's key.
    pub key: IdempotencyKey,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// What to do with a request that came with a key.
#[derive(Debug)]
pub enum Claim {
    /// The key is new, or its work had not begun a document: do the work.
    Fresh,
    /// The work was begun on this document, as this revision, and its lease has run out: go on with it.
    TakenOver(DocumentId, i32),
    /// The work is done: answer the same.
    Replay(StoredResponse),
}

/// An answer as it is kept under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers that belong to the answer, by name.
    pub headers: Map<String, Value>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl KeyedRequest {
    /// Claims the key until the lease ends, in the transaction that begins the work.
    ///
    /// # Errors
    /// [`IngestError::KeyReused`], [`IngestError::KeyInFlight`], [`IngestError::NoKnowledgeBase`] when the account does
    /// not exist, or PostgreSQL's.
    pub async fn claim(&self, tx: &Transaction<'_>, fence: i64, lease: Duration) -> Result<Claim, IngestError> {
        // A row whose time has run out is as good as none.
        let inserted = tx
            .execute_typed(
                "-- idempotency::claim
                INSERT INTO idempotency_keys AS k
                    (principal_id, operation, key, fingerprint, fence, lease_expires_at, expires_at)
                VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(hours => $7))
                ON CONFLICT ON CONSTRAINT idempotency_keys_pk DO UPDATE SET
                    fingerprint = EXCLUDED.fingerprint, fence = EXCLUDED.fence,
                    lease_expires_at = EXCLUDED.lease_expires_at, expires_at = EXCLUDED.expires_at,
                    created_at = now(), document_id = NULL, revision = NULL,
                    response_status = NULL, response_headers = NULL, response_body = NULL
                WHERE k.expires_at < now()",
                &[
                    (&self.principal.0, Type::UUID),
                    (&CREATE_DOCUMENT, Type::TEXT),
                    (&self.key.as_str(), Type::TEXT),
                    (&self.fingerprint.as_slice(), Type::BYTEA),
                    (&fence, Type::INT8),
                    (&lease.as_secs_f64(), Type::FLOAT8),
                    (&KEPT_HOURS, Type::INT4),
                ],
            )
            .await
            .map_err(|error| match constraint(&error) {
                // Its token outlives an account by minutes. It has no knowledge base either, which is what it hears
                // without a key.
                Some("idempotency_keys_principal_fk") => IngestError::NoKnowledgeBase,
                _ => DbError::from(error).into(),
            })?;
        if inserted == 1 {
            return Ok(Claim::Fresh);
        }
        let row = tx
            .query_typed_one(
                "-- idempotency::lock
                SELECT fingerprint, response_status, response_headers, response_body, document_id, revision,
                    extract(epoch FROM lease_expires_at - now())::float8 AS lease_s
                FROM idempotency_keys WHERE principal_id = $1 AND operation = $2 AND key = $3 FOR UPDATE",
                &[(&self.principal.0, Type::UUID), (&CREATE_DOCUMENT, Type::TEXT), (&self.key.as_str(), Type::TEXT)],
            )
            .await
            .map_err(DbError::from)?;
        if row.try_get::<_, &[u8]>("fingerprint").map_err(DbError::from)? != self.fingerprint {
            return Err(IngestError::KeyReused);
        }
        if let Some(stored) = StoredResponse::from_row(&row)? {
            return Ok(Claim::Replay(stored));
        }
        let left: f64 = row.try_get("lease_s").map_err(DbError::from)?;
        if left > 0.0 {
            return Err(IngestError::KeyInFlight { retry_after: Duration::from_secs_f64(left).min(LOOK_AGAIN) });
        }
        tx.execute_typed(
            "-- idempotency::take_over
            UPDATE idempotency_keys SET fence = $4, lease_expires_at = now() + make_interval(secs => $5)
            WHERE principal_id = $1 AND operation = $2 AND key = $3",
            &[
                (&self.principal.0, Type::UUID),
                (&CREATE_DOCUMENT, Type::TEXT),
                (&self.key.as_str(), Type::TEXT),
                (&fence, Type::INT8),
                (&lease.as_secs_f64(), Type::FLOAT8),
            ],
        )
        .await
        .map_err(DbError::from)?;
        let document: Option<uuid::Uuid> = row.try_get("document_id").map_err(DbError::from)?;
        let revision: Option<i32> = row.try_get("revision").map_err(DbError::from)?;
        let began = document.zip(revision);
        Ok(began.map_or(Claim::Fresh, |(id, revision)| Claim::TakenOver(DocumentId(id), revision)))
    }

    /// Notes the ingestion that the key began, so that its activation finds the key, whoever completes it.
    ///
    /// # Errors
    /// When PostgreSQL does not take it.
    pub async fn began(&self, tx: &Transaction<'_>, document: DocumentId, revision: i32) -> Result<(), DbError> {
        tx.execute_typed(
            "-- idempotency::began
            UPDATE idempotency_keys SET document_id = $4, revision = $5
            WHERE principal_id = $1 AND operation = $2 AND key = $3",
            &[
                (&self.principal.0, Type::UUID),
                (&CREATE_DOCUMENT, Type::TEXT),
                (&self.key.as_str(), Type::TEXT),
                (&document.0, Type::UUID),
                (&revision, Type::INT4),
            ],
        )
        .await?;
        Ok(())
    }

    /// Keeps the answer. Changes nothing when the key was taken over (another fence) or has its answer.
    ///
    /// # Errors
    /// When PostgreSQL does not take it.
    pub async fn finish(&self, tx: &Transaction<'_>, fence: i64, response: &StoredResponse) -> Result<(), DbError> {
        tx.execute_typed(
            "-- idempotency::finish
            UPDATE idempotency_keys SET response_status = $5, response_headers = $6, response_body = $7
            WHERE principal_id = $1 AND operation = $2 AND key = $3 AND fence = $4 AND response_status IS NULL",
            &[
                (&self.principal.0, Type::UUID),
                (&CREATE_DOCUMENT, Type::TEXT),
                (&self.key.as_str(), Type::TEXT),
                (&fence, Type::INT8),
                (&response.status_code(), Type::INT2),
                (&response.headers_json(), Type::JSONB),
                (&response.body, Type::BYTEA),
            ],
        )
        .await?;
        Ok(())
    }
}

/// Locks the keys that wait for this ingestion's answer, before anything else: a claim locks its key first, then the
/// document, then the revision, and whoever locked them in another order would wait for it in a circle.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn lock_ingestion(tx: &Transaction<'_>, document: DocumentId, revision: i32) -> Result<(), DbError> {
    tx.query_typed(
        "-- idempotency::lock_ingestion
        SELECT FROM idempotency_keys WHERE document_id = $1 AND revision = $2 AND response_status IS NULL
        ORDER BY principal_id, operation, key FOR UPDATE",
        &[(&document.0, Type::UUID), (&revision, Type::INT4)],
    )
    .await?;
    Ok(())
}

/// Keeps the answer under every key that began this ingestion.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn finish_ingestion(
    tx: &Transaction<'_>,
    document: DocumentId,
    revision: i32,
    response: &StoredResponse,
) -> Result<(), DbError> {
    tx.execute_typed(
        "-- idempotency::finish_ingestion
        UPDATE idempotency_keys SET response_status = $3, response_headers = $4, response_body = $5
        WHERE document_id = $1 AND revision = $2 AND response_status IS NULL",
        &[
            (&document.0, Type::UUID),
            (&revision, Type::INT4),
            (&response.status_code(), Type::INT2),
            (&response.headers_json(), Type::JSONB),
            (&response.body, Type::BYTEA),
        ],
    )
    .await?;
    Ok(())
}

/// Ends the lease of the key that was claimed with this fence: the same request may come again at once.
///
/// # Errors
/// When PostgreSQL does not take it.
pub async fn release_ingestion(tx: &Transaction<'_>, document: DocumentId, fence: i64) -> Result<(), DbError> {
    tx.execute_typed(
        "-- idempotency::release_ingestion
        UPDATE idempotency_keys SET lease_expires_at = now()
        WHERE document_id = $1 AND fence = $2 AND response_status IS NULL",
        &[(&document.0, Type::UUID), (&fence, Type::INT8)],
    )
    .await?;
    Ok(())
}

/// Keys that are deleted in one statement.
const DELETE_BATCH: i64 = 1_000;

/// Deletes keys whose time has run out, batch by batch, until there are no more or the time is over.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn delete_expired(app: &App, deadline: Deadline) -> Result<(), DbError> {
    while !deadline.passed() {
        let rows = app
            .db
            .transaction("delete expired keys", async move |tx| {
                let rows = tx
                    .execute_typed(
                        "-- idempotency::delete_expired
                        DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
                            SELECT ctid FROM idempotency_keys WHERE expires_at < now()
                            LIMIT $1 FOR UPDATE SKIP LOCKED
                        ))",
                        &[(&DELETE_BATCH, Type::INT8)],
                    )
                    .await?;
                Ok::<_, DbError>(rows)
            })
            .await?;
        if i64::try_from(rows).is_ok_and(|rows| rows < DELETE_BATCH) {
            break;
        }
    }
    Ok(())
}

impl StoredResponse {
    /// The answer that carries this JSON.
    ///
    /// # Errors
    /// When the value can not be written as JSON.
    pub fn json(status: StatusCode, location: Option<String>, value: &impl serde::Serialize) -> Result<Self, Problem> {
        let mut headers = Map::new();
        headers.insert(header::CONTENT_TYPE.to_string(), "application/json".into());
        if let Some(location) = location {
            headers.insert(header::LOCATION.to_string(), location.into());
        }
        Ok(Self { status, headers, body: serde_json::to_vec(value).map_err(Problem::internal)? })
    }

    /// A refusal that the same request would meet again; `None` for what may be different next time.
    #[must_use]
    pub fn refusal(problem: &Problem, request_id: &str) -> Option<Self> {
        let lasting = problem.code().status().is_client_error()
            && !problem.code().retryable()
            // What a caller may see and do changes without the request changing.
            && !matches!(problem.code(), Code::Unauthenticated | Code::Forbidden | Code::NotFound | Code::IdempotencyKeyReused);
        lasting.then(|| {
            let mut headers = Map::new();
            headers.insert(header::CONTENT_TYPE.to_string(), shared::problem::CONTENT_TYPE.into());
            Self { status: problem.code().status(), headers, body: problem.body(request_id).into_bytes() }
        })
    }

    /// The response, for whoever asked first.
    #[must_use]
    pub fn respond(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        for (name, value) in &self.headers {
            let value = value.as_str().map(HeaderValue::from_str);
            if let (Ok(name), Some(Ok(value))) = (HeaderName::try_from(name.as_str()), value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// The response, for whoever asks again.
    #[must_use]
    pub fn replay(self) -> Response {
        let mut response = self.respond();
        response
            .headers_mut()
            .insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
        response
    }

    fn status_code(&self) -> i16 {
        // Three digits.
        i16::try_from(self.status.as_u16()).unwrap_or(i16::MAX)
    }

    fn headers_json(&self) -> Value {
        Value::Object(self.headers.clone())
    }

    fn from_row(row: &Row) -> Result<Option<Self>, DbError> {
        let Some(status) = row.try_get::<_, Option<i16>>("response_status")? else { return Ok(None) };
        let headers = match row.try_get("response_headers")? {
            Value::Object(headers) => headers,
            _ => Map::new(),
        };
        Ok(Some(Self {
            status: u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::OK),
            headers,
            body: row.try_get("response_body")?,
        }))
    }
}
