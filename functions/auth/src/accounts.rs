//! What can be done with accounts.

use serde_json::json;
use shared::{
    App,
    db::Db,
    domain::{DisplayName, KnowledgeBaseId, UserId},
    http::Invocation,
    knowledge_bases::{Membership, insert_personal, list_memberships},
};

use crate::{
    audit::{self, Event},
    email::Email,
    error::AuthError,
    hashing::{Hasher, Verdict},
    knowledge_bases,
    password::Password,
    signer::{AccessToken, Signer},
    users::{self, User},
};

/// What can be done with accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    db: Db,
    hasher: Hasher,
    signer: Signer,
}

/// Somebody who proved to be an account's owner.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The account.
    pub user: User,
    /// The knowledge base that it got at registration, while it exists.
    pub knowledge_base: Option<KnowledgeBaseId>,
    /// The proof for the next requests.
    pub access_token: AccessToken,
}

/// An account and where it may go.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The account.
    pub user: User,
    /// Its knowledge bases, in the order of their ids.
    pub knowledge_bases: Vec<Membership>,
}

impl Accounts {
    /// The accounts in the database of `app`, whose tokens `signer` signs.
    #[must_use]
    pub fn new(app: &App, signer: Signer) -> Self {
        Self { db: app.db.clone(), hasher: Hasher::default(), signer }
    }

    /// Makes an account and its personal knowledge base.
    ///
    /// # Errors
    /// [`AuthError::EmailTaken`] and failures of what it needs.
    pub async fn register(
        &self,
        call: &Invocation,
        email: Email,
        password: Password,
        display_name: Option<DisplayName>,
    ) -> Result<SignedIn, AuthError> {
        // First the hash, then the look: a taken address takes as long as a free one. The answer still tells them apart.
        // E-mail verification will change that here: both will be told to look into their mail, and only the owner of
        // the mailbox will learn which it was.
        let hash = self.hasher.hash(password, call.deadline).await?;
        let id = UserId::draw();
        let request_id = call.request_id.clone();
        let (user, knowledge_base) = self
            .db
            .transaction("register account", async move |tx| {
                let user = users::insert(tx, id, &email, display_name.as_ref(), &hash).await?;
                let knowledge_base = insert_personal(tx, id).await?;
                audit::insert(tx, Event::AccountRegistered, Some(id), &request_id).await?;
                Ok::<_, AuthError>((user, knowledge_base))
            })
            .await?;
        let access_token = self.signer.access_token(user.id)?;
        Ok(SignedIn { user, knowledge_base: Some(knowledge_base), access_token })
    }

    /// Gives the owner of an account, who knows its password, an access token.
    ///
    /// A missing account costs the same as a wrong password: one read, one comparison, one record.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] and failures of what it needs.
    pub async fn log_in(&self, call: &Invocation, email: Email, password: Password) -> Result<SignedIn, AuthError> {
        let found = self
            .db
            .transaction("find account for login", async move |tx| users::get_with_hash(tx, &email).await)
            .await?;
        let (user, hash) = found.unzip();
        let verdict = self.hasher.verify(password.clone(), hash.clone(), call.deadline).await?;
        let request_id = call.request_id.clone();
        let (Some(user), Some(hash), Verdict::Right | Verdict::RightButOutdated) = (user.clone(), hash, verdict) else {
            let user = user.map(|user| user.id);
            self.db
                .transaction("record failed login", async move |tx| {
                    audit::insert(tx, Event::LoginFailed, user, &request_id).await
                })
                .await?;
            return Err(AuthError::InvalidCredentials);
        };
        // Now, because only now the password is known.
        let newer = match verdict {
            Verdict::RightButOutdated => Some(self.hasher.hash(password, call.deadline).await?),
            Verdict::Right | Verdict::Wrong => None,
        };
        let id = user.id;
        let knowledge_bases = self
            .db
            .transaction("record login", async move |tx| {
                if let Some(newer) = &newer {
                    users::replace_hash(tx, id, &hash, newer).await?;
                }
                audit::insert(tx, Event::LoginSucceeded, Some(id), &request_id).await?;
                list_memberships(tx, id).await
            })
            .await?;
        let knowledge_base = knowledge_bases.iter().find(|membership| membership.personal).map(|personal| personal.id);
        Ok(SignedIn { access_token: self.signer.access_token(id)?, user, knowledge_base })
    }

    /// The account of a caller.
    ///
    /// # Errors
    /// [`AuthError::AccountGone`] and failures of what it needs.
    pub async fn profile(&self, user: UserId) -> Result<Profile, AuthError> {
        self.db
            .transaction("read profile", async move |tx| {
                let user = users::get(tx, user).await?.ok_or(AuthError::AccountGone)?;
                let knowledge_bases = list_memberships(tx, user.id).await?;
                Ok(Profile { user, knowledge_bases })
            })
            .await
    }
    /// Deletes an account whose owner knows its password, with everything that belongs to it: the personal knowledge
    /// base, those that it alone owns (other members lose them), their documents, its memberships elsewhere, and its
    /// idempotency keys. One transaction: all of it is out of sight at once. What Qdrant holds of it is removed by the
    /// sweeper. The audit log keeps its records.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::AccountGone`] and failures of what it needs.
    pub async fn delete(&self, call: &Invocation, user: UserId, password: Password) -> Result<(), AuthError> {
        let hash = self.db.transaction("find account to delete", async move |tx| users::get_hash(tx, user).await);
        let hash = hash.await?.ok_or(AuthError::AccountGone)?;
        let verdict = self.hasher.verify(password, Some(hash), call.deadline).await?;
        let request_id = call.request_id.clone();
        if verdict == Verdict::Wrong {
            self.db
                .transaction("record failed reauthentication", async move |tx| {
                    audit::insert(tx, Event::ReauthenticationFailed, Some(user), &request_id).await
                })
                .await?;
            return Err(AuthError::WrongPassword);
        }
        self.db
            .transaction("delete account", async move |tx| {
                if !users::lock_to_delete(tx, user).await? {
                    return Err(AuthError::AccountGone);
                }
                let owned = knowledge_bases::lock_solely_owned(tx, user).await?;
                let documents = knowledge_bases::delete(tx, &owned).await?;
                knowledge_bases::leave_all(tx, user).await?;
                users::delete(tx, user).await?;
                let detail = json!({ "knowledge_bases": owned.len(), "documents": documents });
                audit::insert_with(tx, Event::AccountDeleted, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}
