//! API keys: made, listed, narrowed and revoked.
//!
//! A key that makes another can give it no more than it has: neither scopes nor time. What it made goes when it goes, so
//! that a stolen key leaves nothing behind once it is revoked.

use std::collections::BTreeSet;

use serde_json::json;
use shared::{
    App,
    api_keys::{ApiKey, KeyGrant, NAME_BYTES, SECRET_BYTES, Scope, scopes},
    db::{Db, DbError, constraint},
    domain::{ApiKeyId, DisplayName, UserId},
    http::{Admin, Invocation},
};
use time::{Duration, OffsetDateTime};
use tokio_postgres::{Row, Transaction, types::Type};

use crate::{
    audit::{self, Event},
    error::AuthError,
    users,
};

/// How long a key lives unless its maker says: a forgotten one ends by itself.
pub const LIFE_DEFAULT: Duration = Duration::days(90);

/// The longest life of a key.
pub const LIFE_MAX: Duration = Duration::days(366);

/// Keys of one account; a list shows all of them.
const KEYS_MAX: i64 = 100;

/// What can be done with API keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiKeys {
    db: Db,
}

/// An API key, as its account sees it.
#[derive(Clone, Debug)]
pub struct ApiKeyView {
    /// Its id.
    pub id: ApiKeyId,
    /// What it is for, in words of its maker.
    pub name: String,
    /// How it begins.
    pub prefix: String,
    /// What it lets its holder do.
    pub scopes: BTreeSet<Scope>,
    /// The key that made it, if one did.
    pub parent: Option<ApiKeyId>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was last used, to a minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// What it is for.
    pub name: DisplayName,
    /// What it lets its holder do.
    pub scopes: BTreeSet<Scope>,
    /// When it ends; [`LIFE_DEFAULT`] from now unless told.
    pub expires_at: Option<OffsetDateTime>,
}

impl ApiKeys {
    /// The API keys in the database of `app`.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { db: app.db.clone() }
    }

    /// Makes a key, and shows it for the only time.
    ///
    /// # Errors
    /// [`AuthError::BeyondKey`] when the caller's key has less scope, or was revoked meanwhile; [`AuthError::KeyLife`],
    /// [`AuthError::TooManyKeys`], [`AuthError::AccountGone`], or those of what it needs.
    pub async fn create(
        &self,
        call: &Invocation,
        caller: &Admin,
        new: NewApiKey,
    ) -> Result<(ApiKeyView, ApiKey), AuthError> {
        let now = OffsetDateTime::now_utc();
        let parent = caller.key.as_ref();
        if parent.is_some_and(|parent| !new.scopes.is_subset(&parent.scopes)) {
            return Err(AuthError::BeyondKey);
        }
        let expires_at = expiry(now, new.expires_at, parent)?;
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut name)
            .and_then(|()| aws_lc_rs::rand::fill(&mut secret))
            .map_err(AuthError::Random)?;
        let key = ApiKey::new(name, secret);
        let (id, user, request_id) = (ApiKeyId::draw(), caller.user, call.request_id.clone());
        let (parent, shown) = (parent.map(|parent| parent.key), key.clone());
        let view = self
            .db
            .transaction("create API key", async move |tx| {
                if !users::lock_to_change(tx, user).await? {
                    return Err(AuthError::AccountGone);
                }
                if count(tx, user).await? >= KEYS_MAX {
                    return Err(AuthError::TooManyKeys);
                }
                let view = insert(tx, id, user, parent, &key, &new, expires_at).await?;
                let detail = json!({ "api_key": id, "scopes": new.scopes, "by_api_key": parent });
                audit::insert_with(tx, Event::ApiKeyCreated, Some(user), &request_id, &detail).await?;
                Ok(view)
            })
            .await?;
        Ok((view, shown))
    }

    /// All keys of `user`, the expired ones included, newest first.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn list(&self, user: UserId) -> Result<Vec<ApiKeyView>, AuthError> {
        self.db.transaction("list API keys", async move |tx| Ok(list(tx, user).await?)).await
    }

    /// Takes all scopes from a key, and from those that it made, that are not among `scopes`. Nothing is ever added: the
    /// key may have been seen by those who were to have less.
    ///
    /// # Errors
    /// [`AuthError::NoApiKey`], or PostgreSQL's.
    pub async fn narrow(
        &self,
        call: &Invocation,
        user: UserId,
        id: ApiKeyId,
        scopes: BTreeSet<Scope>,
    ) -> Result<ApiKeyView, AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("narrow API key", async move |tx| {
                if !users::lock_to_change(tx, user).await? {
                    return Err(AuthError::AccountGone);
                }
                narrow(tx, user, id, &scopes).await?;
                let view = list(tx, user).await?.into_iter().find(|key| key.id == id).ok_or(AuthError::NoApiKey)?;
                let detail = json!({ "api_key": id, "scopes": view.scopes });
                audit::insert_with(tx, Event::ApiKeyNarrowed, Some(user), &request_id, &detail).await?;
                Ok(view)
            })
            .await
    }

    /// Revokes a key of `user`, with those that it made, from the next request on.
    ///
    /// # Errors
    /// [`AuthError::NoApiKey`], or PostgreSQL's.
    pub async fn revoke(&self, call: &Invocation, user: UserId, id: ApiKeyId) -> Result<(), AuthError> {
        let request_id = call.request_id.clone();
        self.db
            .transaction("revoke API key", async move |tx| {
                let rows = tx
                    .execute_typed(
                        "-- api_keys::delete
                        DELETE FROM api_keys WHERE id = $1 AND user_id = $2",
                        &[(&id.0, Type::UUID), (&user.0, Type::UUID)],
                    )
                    .await?;
                if rows == 0 {
                    return Err(AuthError::NoApiKey);
                }
                let detail = json!({ "api_key": id });
                audit::insert_with(tx, Event::ApiKeyRevoked, Some(user), &request_id, &detail).await?;
                Ok(())
            })
            .await
    }
}

/// When a key made now ends; never after the one that made it.
fn expiry(
    now: OffsetDateTime,
    wanted: Option<OffsetDateTime>,
    parent: Option<&KeyGrant>,
) -> Result<OffsetDateTime, AuthError> {
    let expires_at = wanted.unwrap_or(now + LIFE_DEFAULT);
    if expires_at <= now || expires_at > now + LIFE_MAX {
        return Err(AuthError::KeyLife);
    }
    Ok(parent.map_or(expires_at, |parent| expires_at.min(parent.expires_at)))
}

async fn count(tx: &Transaction<'_>, user: UserId) -> Result<i64, DbError> {
    let row = tx
        .query_typed_one(
            "-- api_keys::count
            SELECT count(*) FROM api_keys WHERE user_id = $1",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    Ok(row.try_get(0)?)
}

async fn insert(
    tx: &Transaction<'_>,
    id: ApiKeyId,
    user: UserId,
    parent: Option<ApiKeyId>,
    key: &ApiKey,
    new: &NewApiKey,
    expires_at: OffsetDateTime,
) -> Result<ApiKeyView, AuthError> {
    // A parent that was revoked or narrowed since the request was let in gives nothing on.
    let row = tx
        .query_typed_opt(
            "-- api_keys::insert
            INSERT INTO api_keys (id, user_id, parent_id, name, prefix, hash, scopes, expires_at)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8
            WHERE $3::uuid IS NULL OR EXISTS (SELECT FROM api_keys p WHERE p.id = $3 AND p.scopes @> $7)
            RETURNING id, name, prefix, scopes, parent_id, created_at, expires_at, last_used_at",
            &[
                (&id.0, Type::UUID),
                (&user.0, Type::UUID),
                (&parent.map(|parent| parent.0), Type::UUID),
                (&new.name.as_str(), Type::TEXT),
                (&key.prefix(), Type::TEXT),
                (&key.hash().as_slice(), Type::BYTEA),
                (&words(&new.scopes), Type::TEXT_ARRAY),
                (&expires_at, Type::TIMESTAMPTZ),
            ],
        )
        .await
        .map_err(|error| match constraint(&error) {
            Some("api_keys_parent_fk") => AuthError::BeyondKey,
            _ => error.into(),
        })?
        .ok_or(AuthError::BeyondKey)?;
    Ok(view(&row)?)
}

async fn list(tx: &Transaction<'_>, user: UserId) -> Result<Vec<ApiKeyView>, DbError> {
    let rows = tx
        .query_typed(
            "-- api_keys::list
            SELECT id, name, prefix, scopes, parent_id, created_at, expires_at, last_used_at
            FROM api_keys WHERE user_id = $1 ORDER BY id DESC",
            &[(&user.0, Type::UUID)],
        )
        .await?;
    rows.iter().map(view).collect()
}

async fn narrow(
    tx: &Transaction<'_>,
    user: UserId,
    id: ApiKeyId,
    scopes: &BTreeSet<Scope>,
) -> Result<(), tokio_postgres::Error> {
    // The account is locked: no key is made meanwhile.
    tx.execute_typed(
        "-- api_keys::narrow
        WITH RECURSIVE family AS (
            SELECT id FROM api_keys WHERE id = $1 AND user_id = $2
            UNION ALL SELECT k.id FROM api_keys k JOIN family f ON k.parent_id = f.id
        )
        UPDATE api_keys k SET scopes = ARRAY(SELECT unnest(k.scopes) INTERSECT SELECT unnest($3::text[]) ORDER BY 1)
        FROM family f WHERE k.id = f.id",
        &[(&id.0, Type::UUID), (&user.0, Type::UUID), (&words(scopes), Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}

fn words(scopes: &BTreeSet<Scope>) -> Vec<&'static str> {
    scopes.iter().map(|scope| scope.as_str()).collect()
}

fn view(row: &Row) -> Result<ApiKeyView, DbError> {
    Ok(ApiKeyView {
        id: ApiKeyId(row.try_get("id")?),
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        scopes: scopes(&row.try_get::<_, Vec<String>>("scopes")?)?,
        parent: row.try_get::<_, Option<_>>("parent_id")?.map(ApiKeyId),
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}
