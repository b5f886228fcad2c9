//! What is proved by mail: that an address is somebody's, and that somebody may set a new password.
//!
//! None of these answers tells whether an address has an account, in words or in time: each asks PostgreSQL once and sends
//! exactly one mail, whoever the address belongs to. Only the mail says what there is, and only its reader learns it. So
//! nothing has to be sent after the answer, when a Lambda function stands still, and no code waits in a table to be sent.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use shared::{
    config::Config,
    db::Db,
    domain::{DisplayName, UserId},
    http::{Client, Invocation},
    knowledge_bases::insert_personal,
};
use tokio_postgres::Transaction;

use crate::{
    audit::{self, Event},
    backoff::{self, Attempt},
    codes::{self, CodeHash, EmailCode, Purpose, Sent},
    email::Email,
    error::AuthError,
    hashing::{Hasher, StoredHash},
    letters::Letter,
    mail::Mailer,
    password::{Password, RawPassword},
    sessions,
    users::{self, Standing},
};

/// What is proved by mail. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    pub(crate) db: Db,
    pub(crate) config: Arc<Config>,
    pub(crate) hasher: Hasher,
    pub(crate) mailer: Arc<dyn Mailer>,
}

impl Mailboxes {
    /// Registers an account that holds when its address is confirmed; an address that has one gets a mail that says so.
    ///
    /// Registering an address again before it is confirmed makes a second code. Each code brings its own registration's
    /// password: somebody who registers a stranger's address first has no part in what the stranger confirms.
    ///
    /// # Errors
    /// [`AuthError::TooManyAttempts`] when too much mail was sent there, and failures of what it needs.
    pub async fn register(
        &self,
        call: &Invocation,
        email: Email,
        password: Password,
        display_name: Option<DisplayName>,
    ) -> Result<(), AuthError> {
        // First the hash, then the look: a taken address takes as long as a free one.
        let hash = self.hasher.hash(password, call.deadline).await?;
        loop {
            let made = self.register_once(call, email.clone(), hash.clone(), display_name.clone()).await;
            match made {
                // Somebody else registered it this moment; the next look finds their account.
                Err(AuthError::EmailTaken) => {}
                Err(error) => return Err(error),
                Ok(letter) => return self.send(call, &letter, email.as_str()).await,
            }
        }
    }

    async fn register_once(
        &self,
        call: &Invocation,
        email: Email,
        hash: StoredHash,
        display_name: Option<DisplayName>,
    ) -> Result<Letter, AuthError> {
        let (quota, request_id) = (self.config.accounts.mail_quota, call.request_id.clone());
        let code = EmailCode::draw().map_err(AuthError::Random)?;
        let id = UserId::draw();
        self.in_quota("register unverified account", async move |tx| {
            if let Attempt::Wait(wait) = backoff::mail(tx, &email, quota).await? {
                return Ok(Err(wait));
            }
            let user = match users::get_standing(tx, &email).await? {
                Some(Standing { id, verified: true }) => {
                    audit::insert(tx, Event::RegistrationRepeated, Some(id), &request_id).await?;
                    return Ok(Ok(Letter::AlreadyRegistered));
                }
                Some(Standing { id, verified: false }) => {
                    audit::insert(tx, Event::RegistrationRepeated, Some(id), &request_id).await?;
                    id
                }
                None => {
                    users::insert(tx, id, &email, display_name.as_ref(), &hash).await?;
                    insert_personal(tx, id).await?;
                    audit::insert(tx, Event::AccountRegistered, Some(id), &request_id).await?;
                    id
                }
            };
            let sent = Sent {
                user,
                email: email.to_string(),
                password_hash: Some(hash.clone()),
                display_name: display_name.as_ref().map(ToString::to_string),
            };
            codes::insert(tx, &code.hash(), Purpose::Verify, &sent).await?;
            Ok(Ok(Letter::Verify(code.clone())))
        })
        .await
    }

    /// Sends a code that confirms the address of an account that has just been made and is signed in. The account is of
    /// use without it: that no mail leaves is only logged.
    pub async fn welcome(&self, call: &Invocation, user: UserId, email: String) {
        let made = async {
            let code = EmailCode::draw().map_err(AuthError::Random)?;
            let (hash, to) = (code.hash(), email.clone());
            self.db
                .transaction("make verification code", async move |tx| {
                    let sent = Sent { user, email: to.clone(), password_hash: None, display_name: None };
                    Ok::<_, AuthError>(codes::insert(tx, &hash, Purpose::Verify, &sent).await?)
                })
                .await?;
            self.send(call, &Letter::Verify(code), &email).await
        };
        if let Err(error) = made.await {
            warn(call, &error);
        }
    }

    /// Sends the code of an unconfirmed registration again.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn resend(&self, call: &Invocation, email: Email) -> Result<(), AuthError> {
        let quota = self.config.accounts.mail_quota;
        let code = EmailCode::draw().map_err(AuthError::Random)?;
        let to = email.to_string();
        let letter = self
            .in_quota("send verification code again", async move |tx| {
                if let Attempt::Wait(wait) = backoff::mail(tx, &email, quota).await? {
                    return Ok(Err(wait));
                }
                let letter = match users::get_standing(tx, &email).await? {
                    None => Letter::NoAccount,
                    Some(Standing { verified: true, .. }) => Letter::AlreadyVerified,
                    Some(Standing { id, .. }) => {
                        let earlier = codes::latest_registration(tx, id).await?;
                        let bare = Sent { user: id, email: email.to_string(), password_hash: None, display_name: None };
                        codes::insert(tx, &code.hash(), Purpose::Verify, &earlier.unwrap_or(bare)).await?;
                        Letter::Verify(code.clone())
                    }
                };
                Ok(Ok(letter))
            })
            .await?;
        self.send(call, &letter, &to).await
    }

    /// Confirms an address: of a new account, or the one to which an account moves.
    ///
    /// # Errors
    /// [`AuthError::InvalidCode`]; [`AuthError::EmailTaken`] when somebody else has the address by now; and failures of
    /// what it needs.
    pub async fn verify(&self, call: &Invocation, code: CodeHash) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        let moved_from = self
            .db
            .transaction("verify address", async move |tx| {
                if let Some(sent) = codes::take(tx, &code, Purpose::Verify).await? {
                    if !users::verify(tx, &sent).await? {
                        return Err(AuthError::InvalidCode);
                    }
                    if sent.password_hash.is_some() {
                        users::end_access(tx, sent.user).await?;
                    }
                    codes::delete_all(tx, sent.user).await?;
                    audit::insert(tx, Event::EmailVerified, Some(sent.user), &request_id).await?;
                    return Ok(None);
                }
                let sent = codes::take(tx, &code, Purpose::Change).await?.ok_or(AuthError::InvalidCode)?;
                let before = users::get(tx, sent.user).await?.ok_or(AuthError::InvalidCode)?.email;
                users::change_email(tx, sent.user, &sent.email).await?;
                codes::delete_all(tx, sent.user).await?;
                audit::insert(tx, Event::EmailChanged, Some(sent.user), &request_id).await?;
                Ok(Some(before))
            })
            .await?;
        if let Some(before) = moved_from {
            self.tell(call, &Letter::Changed, &before).await;
        }
        Ok(())
    }

    /// Sends a code by which a new password can be set.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn reset_password(&self, call: &Invocation, email: Email) -> Result<(), AuthError> {
        let (quota, request_id) = (self.config.accounts.mail_quota, call.request_id.clone());
        let code = EmailCode::draw().map_err(AuthError::Random)?;
        let to = email.to_string();
        let letter = self
            .in_quota("reset password", async move |tx| {
                if let Attempt::Wait(wait) = backoff::mail(tx, &email, quota).await? {
                    return Ok(Err(wait));
                }
                let user = users::get_standing(tx, &email).await?.map(|standing| standing.id);
                audit::insert(tx, Event::PasswordResetRequested, user, &request_id).await?;
                let Some(user) = user else { return Ok(Ok(Letter::NoAccount)) };
                let sent = Sent { user, email: email.to_string(), password_hash: None, display_name: None };
                codes::insert(tx, &code.hash(), Purpose::Reset, &sent).await?;
                Ok(Ok(Letter::Reset(code.clone())))
            })
            .await?;
        self.send(call, &letter, &to).await
    }

    /// Sets a new password by a code, and ends all sessions: whoever else was in is out. The address it comes from is a
    /// known one from then on, so that no attack keeps the owner out.
    ///
    /// # Errors
    /// [`AuthError::InvalidCode`], [`AuthError::InvalidPassword`], and failures of what it needs.
    pub async fn confirm_reset(
        &self,
        call: &Invocation,
        client: Client,
        code: CodeHash,
        password: RawPassword,
    ) -> Result<(), AuthError> {
        let looked_up = code.clone();
        let sent = self
            .db
            .transaction("find reset code", async move |tx| {
                Ok::<_, AuthError>(codes::get(tx, &looked_up, Purpose::Reset).await?)
            })
            .await?
            .ok_or(AuthError::InvalidCode)?;
        let email: Email = sent.email.parse().map_err(AuthError::InvalidPassword)?;
        let password = password.parse_new(&email).map_err(AuthError::InvalidPassword)?;
        let hash = self.hasher.hash(password, call.deadline).await?;
        let request_id = call.request_id.clone();
        self.db
            .transaction("set new password", async move |tx| {
                let sent = codes::take(tx, &code, Purpose::Reset).await?.ok_or(AuthError::InvalidCode)?;
                let before = users::get(tx, sent.user).await?.ok_or(AuthError::InvalidCode)?;
                if !before.email_verified {
                    // Whoever made the account may not have been the owner of its address.
                    users::end_access(tx, sent.user).await?;
                }
                if !users::reset_password(tx, &sent, &hash).await? {
                    return Err(AuthError::InvalidCode);
                }
                codes::delete_all(tx, sent.user).await?;
                let ended = sessions::delete_all(tx, sent.user, None).await?;
                backoff::succeed(tx, &sent.email, &client).await?;
                let detail = json!({ "sessions": ended });
                audit::insert_with(tx, Event::PasswordReset, Some(sent.user), &request_id, &detail).await?;
                Ok(())
            })
            .await?;
        self.tell(call, &Letter::PasswordChanged, email.as_str()).await;
        Ok(())
    }

    /// Tells an address what has happened. It has, whether or not they can be told: that no mail leaves is only logged.
    pub(crate) async fn tell(&self, call: &Invocation, letter: &Letter, to: &str) {
        if let Err(error) = self.send(call, letter, to).await {
            warn(call, &error);
        }
    }

    pub(crate) async fn send(&self, call: &Invocation, letter: &Letter, to: &str) -> Result<(), AuthError> {
        Ok(self.mailer.send(letter.to(to), call.deadline).await?)
    }

    /// Runs `work`, and gives its letter if the quota let it make one. A refusal is committed like anything else.
    async fn in_quota<F>(&self, name: &'static str, work: F) -> Result<Letter, AuthError>
    where
        F: AsyncFn(&Transaction<'_>) -> Result<Result<Letter, Duration>, AuthError>,
    {
        let letter = self.db.transaction(name, work).await?;
        letter.map_err(|retry_after| AuthError::TooManyAttempts { retry_after })
    }
}

fn warn(call: &Invocation, error: &AuthError) {
    let causes = shared::problem::Causes(error).to_string();
    tracing::warn!(request.id = call.request_id, causes, "a mail did not leave");
}
