//! Quotas, counted in PostgreSQL: the containers of a function share nothing else.
//!
//! The generic cell rate algorithm: a quota of n requests in a window fills again at an even pace, and one moment, when it
//! will be full, is all that must be kept. Taking from it is one statement, so that two who come at once can not both take
//! the last.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue};
use shared::{
    config::Quota,
    db::{Db, DbError},
    http::Client,
    problem::{Code, Problem},
};
use tokio_postgres::{Row, Transaction, types::Type};

/// draft-ietf-httpapi-ratelimit-headers-10, section 4.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Likewise, section 3.
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How a quota stands after a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Whether the request was within it.
    pub admitted: bool,
    /// Requests left.
    pub remaining: u32,
    /// When all of it is there again.
    pub full_in: Duration,
    /// When the next request is within it.
    pub next_in: Duration,
}

/// `$1`: whose quota, `$2`: what a request costs of the window, `$3`: the window, both in seconds. With each row that is used, two that say
/// nothing any more are removed: the table stays as small as what is going on.
const TAKE: &str = "-- rate_limits::take
    WITH swept AS (
        DELETE FROM rate_limits WHERE key IN (
            SELECT key FROM rate_limits WHERE full_at <= now() AND key <> $1
            ORDER BY full_at LIMIT 2 FOR UPDATE SKIP LOCKED)
    ), taken AS (
        INSERT INTO rate_limits AS held (key, full_at) VALUES ($1, now() + make_interval(secs => $2))
        ON CONFLICT (key) DO UPDATE SET full_at = GREATEST(held.full_at, now()) + make_interval(secs => $2)
        WHERE GREATEST(held.full_at, now()) + make_interval(secs => $2) <= now() + make_interval(secs => $3)
        RETURNING full_at
    )
    SELECT true AS admitted, extract(epoch FROM full_at - now())::float8 AS full_in_s FROM taken
    UNION ALL
    SELECT false, extract(epoch FROM full_at - now())::float8 FROM rate_limits
    WHERE key = $1 AND NOT EXISTS (SELECT FROM taken)";

/// Takes one request from the quota of `key`.
///
/// # Errors
/// When PostgreSQL does not answer.
pub async fn take(tx: &Transaction<'_>, key: &str, quota: Quota) -> Result<Standing, DbError> {
    let (step_s, window_s) = seconds(quota);
    let parameters = [(&key as _, Type::TEXT), (&step_s as _, Type::FLOAT8), (&window_s as _, Type::FLOAT8)];
    standing(tx.query_typed(TAKE, &parameters).await?.first(), quota)
}

/// The same, on its own: a request that is counted twice because a connection broke does no harm.
async fn take_alone(db: &Db, key: &str, quota: Quota) -> Result<Standing, DbError> {
    let (step_s, window_s) = seconds(quota);
    let parameters = [(&key as _, Type::TEXT), (&step_s as _, Type::FLOAT8), (&window_s as _, Type::FLOAT8)];
    standing(db.query("take from quota", TAKE, &parameters).await?.first(), quota)
}

/// What a request costs of the window, and the window.
fn seconds(quota: Quota) -> (f64, f64) {
    let window_s = quota.window.as_secs_f64();
    (window_s / f64::from(quota.requests.max(1)), window_s)
}

/// What [`TAKE`] has answered.
fn standing(row: Option<&Row>, quota: Quota) -> Result<Standing, DbError> {
    let (step_s, window_s) = seconds(quota);
    // Refused, and the others' rows are younger than our snapshot: they took all of it this moment.
    let (admitted, full_in_s) = match row {
        Some(row) => (row.try_get("admitted")?, row.try_get("full_in_s")?),
        None => (false, window_s),
    };
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, window_s));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and the quota")]
    let remaining = (((window_s - full_in_s) / step_s + 1e-6).floor().max(0.0) as u32).min(quota.requests);
    Ok(Standing { admitted, remaining, full_in: seconds(full_in_s), next_in: seconds(full_in_s + step_s - window_s) })
}

/// What each client's quota is, where credentials are tried and mail is sent.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    pub(crate) db: Db,
    pub(crate) quota: Quota,
}

/// The middleware: takes from the client's quota, and tells how it stands, also when the answer is a problem.
pub(crate) async fn admit(State(limiter): State<Limiter>, client: Client, request: Request, next: Next) -> Response {
    let quota = limiter.quota;
    let key = format!("address {}", client.address.counted_as());
    let standing = match take_alone(&limiter.db, &key, quota).await {
        Ok(standing) => standing,
        Err(error) => return Problem::from(error).into_response(),
    };
    let mut response = if standing.admitted {
        next.run(request).await
    } else {
        Problem::new(Code::RateLimited, "Too many requests came from your address.")
            .retry_after(standing.next_in)
            .into_response()
    };
    let policy = format!(r#""address";q={};w={}"#, quota.requests, quota.window.as_secs());
    let state = format!(r#""address";r={};t={}"#, standing.remaining, standing.full_in.as_secs_f64().ceil());
    for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
