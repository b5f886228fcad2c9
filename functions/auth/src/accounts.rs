//! What can be done with accounts.

use std::sync::Arc;

use serde_json::json;
use shared::{
    App,
    config::{Config, Registration},
    db::Db,
    domain::{DisplayName, KnowledgeBaseId, SessionId, UserId},
    http::{Client, Invocation},
    knowledge_bases::{Membership, insert_personal, list_memberships},
};

use crate::{
    audit::{self, Event},
    backoff::{self, Attempt},
    codes::{self, EmailCode, Purpose, Sent},
    email::Email,
    error::AuthError,
    hashing::{Hasher, StoredHash, Verdict},
    knowledge_bases,
    letters::Letter,
    mail::Mailer,
    mailboxes::Mailboxes,
    password::{Password, RawPassword},
    sessions::{self, Tokens},
    signer::Signer,
    users::{self, User},
};

/// What can be done with accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    db: Db,
    config: Arc<Config>,
    hasher: Hasher,
    signer: Signer,
    mailboxes: Mailboxes,
}

/// Somebody who proved to be an account's owner.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The account.
    pub user: User,
    /// The knowledge base that it got at registration, while it exists.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// The proof for the next requests.
    pub tokens: Tokens,
}

/// An account and where it may go.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The account.
    pub user: User,
    /// Its knowledge bases, in the order of their ids.
    pub knowledge_bases: Vec<Membership>,
}

/// What is to be another password.
#[derive(Debug)]
pub struct PasswordChange {
    /// The one that holds.
    pub current: Password,
    /// The one that is to hold.
    pub new: RawPassword,
    /// What becomes of the account's sessions.
    pub others: OtherSessions,
}

/// What becomes of an account's sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OtherSessions {
    /// They stay.
    Stay,
    /// They end.
    End {
        /// Except this one.
        but: Option<SessionId>,
    },
}

impl Accounts {
    /// The accounts in the database of `app`, whose tokens `signer` signs, and whose mail `mailer` sends.
    #[must_use]
    pub fn new(app: &App, signer: Signer, mailer: Arc<dyn Mailer>) -> Self {
        let (db, config) = (app.db.clone(), app.config.clone());
        let hasher = Hasher::new(config.accounts.memory_mib);
        let mailboxes = Mailboxes { db: db.clone(), config: config.clone(), hasher: hasher.clone(), mailer };
        Self { db, config, hasher, signer, mailboxes }
    }

    /// What is proved by mail.
    #[must_use]
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Makes an account and its personal knowledge base. It is signed in, where registration is open; else it waits for
    /// its address to be confirmed, and the answer is `None` whether or not the address has an account.
    ///
    /// # Errors
    /// [`AuthError::EmailTaken`], where registration is open, and failures of what it needs.
    pub async fn register(
        &self,
        call: &Invocation,
        client: Client,
        email: Email,
        password: Password,
        display_name: Option<DisplayName>,
    ) -> Result<Option<SignedIn>, AuthError> {
        match self.config.accounts.registration {
            Registration::Open => self.register_open(call, client, email, password, display_name).await.map(Some),
            Registration::Verified => self.mailboxes.register(call, email, password, display_name).await.map(|()| None),
        }
    }

    async fn register_open(
        &self,
        call: &Invocation,
        client: Client,
        email: Email,
        password: Password,
        display_name: Option<DisplayName>,
    ) -> Result<SignedIn, AuthError> {
        // First the hash, then the look: a taken address takes as long as a free one. The answer still tells them apart.
        let hash = self.hasher.hash(password, call.deadline).await?;
        let id = UserId::draw();
        let request_id = call.request_id.clone();
        let (user, knowledge_base, (session, refresh)) = self
            .db
            .transaction("register account", async move |tx| {
                let user = users::insert(tx, id, &email, display_name.as_ref(), &hash).await?;
                let knowledge_base = insert_personal(tx, id).await?;
                audit::insert(tx, Event::AccountRegistered, Some(id), &request_id).await?;
                backoff::succeed(tx, email.as_str(), &client).await?;
                let session = sessions::begin(tx, id, &client).await?;
                Ok::<_, AuthError>((user, knowledge_base, session))
            })
            .await?;
        if self.config.accounts.mail.is_some() {
            self.mailboxes.welcome(call, id, user.email.clone()).await;
        }
        let tokens = Tokens { access: self.signer.session_token(user.id, session)?, refresh };
        Ok(SignedIn { user, knowledge_base: Some(knowledge_base), tokens })
    }

    /// Begins a session for the owner of an account, who knows its password.
    ///
    /// A missing account costs the same as a wrong password: one read, one comparison, one record.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`], [`AuthError::TooManyAttempts`], [`AuthError::EmailUnverified`], and failures of
    /// what it needs.
    pub async fn log_in(
        &self,
        call: &Invocation,
        client: Client,
        email: Email,
        password: Password,
    ) -> Result<SignedIn, AuthError> {
        let (quota, request_id, from) = (self.config.accounts.account_quota, call.request_id.clone(), client.clone());
        let (attempt, found) = self
            .db
            .transaction("find account for login", async move |tx| {
                let attempt = backoff::attempt(tx, email.as_str(), &from, quota).await?;
                let found = users::get_with_hash(tx, &email).await?;
                if attempt != Attempt::Go {
                    let user = found.as_ref().map(|(user, _)| user.id);
                    audit::insert(tx, Event::LoginThrottled, user, &request_id).await?;
                }
                Ok::<_, AuthError>((attempt, found))
            })
            .await?;
        attempt.check()?;
        let (user, hash) = found.unzip();
        let verdict = self.hasher.verify(password.clone(), hash.clone(), call.deadline).await?;
        let (Some(user), Some(hash), Verdict::Right | Verdict::RightButOutdated) = (user.clone(), hash, verdict) else {
            self.record(call, Event::LoginFailed, user.map(|user| user.id)).await?;
            return Err(AuthError::InvalidCredentials);
        };
        if self.config.accounts.registration == Registration::Verified && !user.email_verified {
            self.record(call, Event::LoginUnverified, Some(user.id)).await?;
            return Err(AuthError::EmailUnverified);
        }
        // Now, because only now the password is known.
        let newer = match verdict {
            Verdict::RightButOutdated => Some(self.hasher.hash(password, call.deadline).await?),
            Verdict::Right | Verdict::Wrong => None,
        };
        let (id, address, request_id) = (user.id, user.email.clone(), call.request_id.clone());
        let (knowledge_bases, (session, refresh)) = self
            .db
            .transaction("record login", async move |tx| {
                if let Some(newer) = &newer {
                    users::replace_hash(tx, id, &hash, newer).await?;
                }
                audit::insert(tx, Event::LoginSucceeded, Some(id), &request_id).await?;
                backoff::succeed(tx, &address, &client).await?;
                let session = sessions::begin(tx, id, &client).await?;
                Ok::<_, AuthError>((list_memberships(tx, id).await?, session))
            })
            .await?;
        let knowledge_base = knowledge_bases.iter().find(|membership| membership.personal).map(|personal| personal.id);
        let tokens = Tokens { access: self.signer.session_token(id, session)?, refresh };
        Ok(SignedIn { user, knowledge_base, tokens })
    }

    /// The account of a caller.
    ///
    /// # Errors
    /// [`AuthError::AccountGone`] and failures of what it needs.
    pub async fn profile(&self, user: UserId) -> Result<Profile, AuthError> {
        let (user, knowledge_bases) = users::profile(&self.db, user).await?.ok_or(AuthError::AccountGone)?;
        Ok(Profile { user, knowledge_bases })
    }

    /// Sets or removes the name of an account.
    ///
    /// # Errors
    /// [`AuthError::AccountGone`], or PostgreSQL's.
    pub async fn rename(&self, call: &Invocation, user: UserId, name: Option<DisplayName>) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("rename account", async move |tx| {
                if !users::set_display_name(tx, user, name.as_ref()).await? {
                    return Err(AuthError::AccountGone);
                }
                audit::insert(tx, Event::ProfileUpdated, Some(user), &request_id).await?;
                Ok(())
            })
            .await
    }

    /// Asks for another address. The account moves there when the code that is sent to it comes back; the old address is
    /// told at once. An address that has an account gets a mail that says so: the caller does not learn it.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::TooManyAttempts`], [`AuthError::AccountGone`], and failures of what it
    /// needs.
    pub async fn change_email(
        &self,
        call: &Invocation,
        client: Client,
        user: UserId,
        password: Password,
        email: Email,
    ) -> Result<(), AuthError> {
        let (account, _) = self.reauthenticate(call, client, user, password).await?;
        let (quota, request_id) = (self.config.accounts.mail_quota, call.request_id.clone());
        let code = EmailCode::draw().map_err(AuthError::Random)?;
        let to = email.to_string();
        let letter = self
            .db
            .transaction("ask for another address", async move |tx| {
                if let Attempt::Wait(wait) = backoff::mail(tx, &email, quota).await? {
                    return Ok(Err(wait));
                }
                audit::insert(tx, Event::EmailChangeRequested, Some(user), &request_id).await?;
                if users::get_standing(tx, &email).await?.is_some() {
                    return Ok(Ok(Letter::AlreadyRegistered));
                }
                let sent = Sent { user, email: email.to_string(), password_hash: None, display_name: None };
                codes::insert(tx, &code.hash(), Purpose::Change, &sent).await?;
                Ok::<_, AuthError>(Ok(Letter::Change(code.clone())))
            })
            .await?
            .map_err(|retry_after| AuthError::TooManyAttempts { retry_after })?;
        self.mailboxes.send(call, &letter, &to).await?;
        self.mailboxes.tell(call, &Letter::ChangeRequested, &account.email).await;
        Ok(())
    }

    /// Replaces the password, and tells the owner by mail.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::InvalidPassword`], [`AuthError::TooManyAttempts`],
    /// [`AuthError::AccountGone`], and failures of what it needs.
    pub async fn change_password(
        &self,
        call: &Invocation,
        client: Client,
        user: UserId,
        change: PasswordChange,
    ) -> Result<(), AuthError> {
        let (account, old) = self.reauthenticate(call, client, user, change.current).await?;
        let email: Email = account.email.parse().map_err(AuthError::InvalidPassword)?;
        let new = change.new.parse_new(&email).map_err(AuthError::InvalidPassword)?;
        let new = self.hasher.hash(new, call.deadline).await?;
        let (request_id, others) = (call.request_id.clone(), change.others);
        self.db
            .transaction("change password", async move |tx| {
                // Another change won: the current password is not the one that was given.
                if !users::change_password(tx, user, &old, &new).await? {
                    return Err(AuthError::WrongPassword);
                }
                codes::delete_all(tx, user).await?;
                let ended = match others {
                    OtherSessions::End { but } => sessions::delete_all(tx, user, but).await?,
                    OtherSessions::Stay => 0,
                };
                let detail = json!({ "sessions": ended });
                audit::insert_with(tx, Event::PasswordChanged, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await?;
        self.mailboxes.tell(call, &Letter::PasswordChanged, &account.email).await;
        Ok(())
    }

    /// Deletes an account whose owner knows its password, with everything that belongs to it: the personal knowledge
    /// base, those that it alone owns (other members lose them), their documents, its memberships elsewhere, its
    /// sessions, and its idempotency keys. One transaction: all of it is out of sight at once. What Qdrant holds of it is
    /// removed by the sweeper. The audit log keeps its records.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::TooManyAttempts`], [`AuthError::AccountGone`] and failures of what it
    /// needs.
    pub async fn delete(
        &self,
        call: &Invocation,
        client: Client,
        user: UserId,
        password: Password,
    ) -> Result<(), AuthError> {
        self.reauthenticate(call, client, user, password).await?;
        let request_id = call.request_id.clone();
        self.db
            .transaction("delete account", async move |tx| {
                if !users::lock_to_delete(tx, user).await? {
                    return Err(AuthError::AccountGone);
                }
                let owned = knowledge_bases::lock_solely_owned(tx, user).await?;
                let documents = knowledge_bases::delete(tx, &owned).await?;
                knowledge_bases::leave_all(tx, user).await?;
                backoff::forget(tx, user).await?;
                users::delete(tx, user).await?;
                let detail = json!({ "knowledge_bases": owned.len(), "documents": documents });
                audit::insert_with(tx, Event::AccountDeleted, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }

    /// Makes sure that a caller knows their password: a token alone may be stolen.
    async fn reauthenticate(
        &self,
        call: &Invocation,
        client: Client,
        user: UserId,
        password: Password,
    ) -> Result<(User, StoredHash), AuthError> {
        let (quota, from) = (self.config.accounts.account_quota, client.clone());
        let (attempt, account, hash) = self
            .db
            .transaction("find account to reauthenticate", async move |tx| {
                let (account, hash) = users::get_by_id_with_hash(tx, user).await?.ok_or(AuthError::AccountGone)?;
                Ok::<_, AuthError>((backoff::attempt(tx, &account.email, &from, quota).await?, account, hash))
            })
            .await?;
        attempt.check()?;
        let verdict = self.hasher.verify(password, Some(hash.clone()), call.deadline).await?;
        if verdict == Verdict::Wrong {
            self.record(call, Event::ReauthenticationFailed, Some(user)).await?;
            return Err(AuthError::WrongPassword);
        }
        let email = account.email.clone();
        self.db
            .transaction("record reauthentication", async move |tx| {
                Ok::<_, AuthError>(backoff::succeed(tx, &email, &client).await?)
            })
            .await?;
        Ok((account, hash))
    }

    async fn record(&self, call: &Invocation, event: Event, user: Option<UserId>) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("record event", async move |tx| {
                Ok::<_, AuthError>(audit::insert(tx, event, user, &request_id).await?)
            })
            .await
    }
}
