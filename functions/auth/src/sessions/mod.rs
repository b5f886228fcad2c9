//! Sessions: what a login begins, refresh tokens go on with, and a logout ends.
//!
//! A refresh token is good once: refreshing replaces it (RFC 9700, section 4.14.2). When one comes back that was replaced,
//! two hold copies, and nobody can say who the thief is: the session ends. Except within [`GRACE_S`] of its replacement,
//! when it is far more likely that the answer was lost or that a client's requests refreshed side by side: then the
//! answer is the same successor again, see [`token`]. A token that was issued within the grace stays as it is, so that
//! side-by-side refreshes end in one token, in whichever order they come.

mod rows;
pub mod token;

use serde_json::json;
use shared::{
    App,
    db::Db,
    domain::{SessionId, UserId},
    http::{Client, Invocation},
};
use tokio_postgres::Transaction;

pub use self::rows::{SessionView, delete_all};
use self::{rows::Rotation, token::RefreshToken};
use crate::{
    audit::{self, Event},
    error::AuthError,
    signer::{AccessToken, Signer},
};

/// How long a replaced token still gets its successor: requests that were sent together arrive within it, and so does
/// a client's retry after a connection broke. A thief who is as quick as that gains nothing over one who is first.
pub const GRACE_S: f64 = 10.0;

/// A session ends when it was not used for so long: a device that was given away forgets its owner.
pub const IDLE_MAX_S: f64 = 14.0 * 86_400.0;

/// It ends after so long at the latest: NIST SP 800-63B-4, section 2.1.3, has 30 days for this assurance.
pub const ABSOLUTE_MAX_S: f64 = 30.0 * 86_400.0;

/// Sessions of one account; a further one ends the least used. More than anyone has devices, and a bound on what a
/// client leaves behind that logs in for each request.
pub const SESSIONS_MAX: i64 = 100;

/// What a login or a refresh gives.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The proof for the next requests.
    pub access: AccessToken,
    /// Gets the next access token.
    pub refresh: RefreshToken,
}

/// What can be done with sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    db: Db,
    signer: Signer,
}

/// Begins a session of `user`, in the transaction that lets them in; gives its first token.
///
/// # Errors
/// [`AuthError::AccountGone`], or those of what it needs.
pub async fn begin(
    tx: &Transaction<'_>,
    user: UserId,
    client: &Client,
) -> Result<(SessionId, RefreshToken), AuthError> {
    let (id, token) = (SessionId::draw(), RefreshToken::draw().map_err(AuthError::Random)?);
    rows::insert(tx, id, user, &token, client).await?;
    rows::prune(tx, user).await?;
    Ok((id, token))
}

impl Sessions {
    /// The sessions in the database of `app`, whose tokens `signer` signs.
    #[must_use]
    pub fn new(app: &App, signer: Signer) -> Self {
        Self { db: app.db.clone(), signer }
    }

    /// Gives the holder of a session's token a new access token, and the refresh token for the next time.
    ///
    /// # Errors
    /// [`AuthError::SessionEnded`], which a reused token also makes of a living session; or those of what it needs.
    pub async fn refresh(
        &self,
        call: &Invocation,
        client: Client,
        token: RefreshToken,
    ) -> Result<(UserId, Tokens), AuthError> {
        let link = RefreshToken::draw_link().map_err(AuthError::Random)?;
        let (presented, request_id) = (token.clone(), call.request_id.clone());
        let rotation = self
            .db
            .transaction("refresh session", async move |tx| {
                let rotation = rows::rotate(tx, &presented, &link, &client).await?;
                if let Rotation::Reused(session, user) = rotation {
                    rows::delete(tx, user, session).await?;
                    let detail = json!({ "session": session });
                    audit::insert_with(tx, Event::SessionTokenReused, Some(user), &request_id, &detail).await?;
                }
                Ok::<_, AuthError>(rotation)
            })
            .await?;
        let (session, user, refresh) = match rotation {
            Rotation::Kept(session, user) => (session, user, token),
            Rotation::Linked(session, user, link) => (session, user, token.successor(&link)),
            Rotation::Unknown | Rotation::Reused(..) => return Err(AuthError::SessionEnded),
        };
        Ok((user, Tokens { access: self.signer.session_token(user, session)?, refresh }))
    }

    /// Ends the session of a refresh token. That there is none is no error: it is what was asked for (RFC 7009,
    /// section 2.2).
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn log_out(&self, call: &Invocation, token: RefreshToken) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("log out", async move |tx| {
                if let Some((session, user)) = rows::delete_family(tx, &token).await? {
                    let detail = json!({ "session": session });
                    audit::insert_with(tx, Event::SessionEnded, Some(user), &request_id, &detail).await?;
                }
                Ok(())
            })
            .await
    }

    /// Ends all sessions of `user`.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn log_out_all(&self, call: &Invocation, user: UserId) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("log out everywhere", async move |tx| {
                let detail = json!({ "sessions": delete_all(tx, user, None).await? });
                audit::insert_with(tx, Event::SessionsEnded, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }

    /// The living sessions of `user`, the last used first.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn list(&self, user: UserId) -> Result<Vec<SessionView>, AuthError> {
        self.db.transaction("list sessions", async move |tx| Ok(rows::list(tx, user).await?)).await
    }

    /// Ends one session of `user`.
    ///
    /// # Errors
    /// [`AuthError::NoSession`], or PostgreSQL's.
    pub async fn end(&self, call: &Invocation, user: UserId, session: SessionId) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("end session", async move |tx| {
                if !rows::delete(tx, user, session).await? {
                    return Err(AuthError::NoSession);
                }
                let detail = json!({ "session": session });
                audit::insert_with(tx, Event::SessionEnded, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}
