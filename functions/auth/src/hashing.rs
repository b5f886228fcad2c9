//! Password hashes: argon2id, in a bounded number of threads of their own.

use std::{fmt, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::Error as PasswordHashError,
};
use secrecy::{ExposeSecret, SecretString};
use shared::deadline::Deadline;
use tokio::{sync::Semaphore, task::JoinError};

use crate::password::Password;

/// 19 MiB, in KiB. With two passes and one lane one of OWASP's equivalent choices for argon2id.
/// <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id>
pub const MEMORY_KIB: u32 = 19 * 1024;

/// Passes over the memory.
pub const PASSES: u32 = 2;

/// Lanes.
pub const LANES: u32 = 1;

/// Hashes made at the same time: 76 MiB, which the smallest container that we ship can spare (256 MB). Lambda gives a
/// container one request at a time anyway; the bound is for where one process serves many.
const CONCURRENT_MAX: usize = 4;

/// What a request keeps of its time when it queues: to hash, and to write the result down.
const WORK_TIME: Duration = Duration::from_secs(1);

const PARAMS: Params = match Params::new(MEMORY_KIB, PASSES, LANES, None) {
    Ok(params) => params,
    // At compile time.
    Err(_) => panic!("argon2 does not take these parameters"),
};

/// What a login is compared with where there is no account: no password gives it, and to find that out takes as long as
/// with any other. Random bytes under the parameters above.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$xEYKJVrFHZe4whT1MxIExA$uMy+DyUghyBY7ClI30ftxJotvZ6qhLtmZXwbSsKqyhI";

/// A password's hash as it is stored: PHC string format, parameters and salt included. Not shown by `Debug`.
#[derive(Clone)]
pub struct StoredHash(SecretString);

impl StoredHash {
    /// The hash as the database holds it.
    #[must_use]
    pub fn new(phc: String) -> Self {
        Self(phc.into())
    }

    /// The hash, to be stored.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash([redacted])")
    }
}

/// Whether a password is the one that was hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is not.
    Wrong,
    /// It is.
    Right,
    /// It is, but the hash was made with other parameters than today's, and should be made again.
    RightButOutdated,
}

/// A password that could be neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Too many others wait.
    #[error("no turn to hash came within the request's time")]
    Busy,
    /// argon2 refused, or the stored hash is not one.
    #[error("argon2 refused")]
    Argon2(#[source] PasswordHashError),
    /// The thread ended without an answer.
    #[error("the hashing thread ended without an answer")]
    Thread(#[source] JoinError),
}

/// Hashes and compares passwords. Cheap to clone; the clones share one bound.
#[derive(Clone, Debug)]
pub struct Hasher {
    turns: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(CONCURRENT_MAX)) }
    }
}

impl Hasher {
    /// A fresh hash of `password`, with a random salt.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(&self, password: Password, deadline: Deadline) -> Result<StoredHash, HashError> {
        self.in_turn(deadline, move || {
            let hash = argon2id().hash_password(password.as_bytes()).map_err(HashError::Argon2)?;
            Ok(StoredHash::new(hash.to_string()))
        })
        .await
    }

    /// Compares `password` with `stored`. Without a hash the answer is [`Verdict::Wrong`], after the same time.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<StoredHash>,
        deadline: Deadline,
    ) -> Result<Verdict, HashError> {
        self.in_turn(deadline, move || verify(&password, stored.as_ref())).await
    }

    /// Runs `work` when a turn is free. The turn is the thread's, not the caller's: when the caller gives up, the memory
    /// is in use until the thread ends.
    async fn in_turn<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = tokio::time::timeout_at(deadline.minus(WORK_TIME).instant(), self.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| HashError::Busy)?.map_err(|_closed| HashError::Busy)?;
        let thread = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        thread.await.map_err(HashError::Thread)?
    }
}

fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, PARAMS)
}

fn verify(password: &Password, stored: Option<&StoredHash>) -> Result<Verdict, HashError> {
    let parsed =
        PasswordHash::new(stored.map_or(DUMMY, StoredHash::expose)).map_err(|e| HashError::Argon2(e.into()))?;
    match argon2id().verify_password(password.as_bytes(), &parsed) {
        Ok(()) if stored.is_none() => Ok(Verdict::Wrong),
        Ok(()) if is_current(&parsed) => Ok(Verdict::Right),
        Ok(()) => Ok(Verdict::RightButOutdated),
        Err(PasswordHashError::PasswordInvalid) => Ok(Verdict::Wrong),
        Err(error) => Err(HashError::Argon2(error)),
    }
}

/// Whether a hash was made as [`Hasher::hash`] makes it today.
fn is_current(hash: &PasswordHash) -> bool {
    let same = |params: Params| {
        (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES)
            && params.output_len() == Some(Params::DEFAULT_OUTPUT_LEN)
    };
    hash.algorithm == Algorithm::Argon2id.ident()
        && hash.version == Some(Version::V0x13.into())
        && Params::try_from(hash).is_ok_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_mins(1))
    }

    fn password(text: &str) -> Password {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_hash_says_how_it_was_made_and_knows_its_password() {
        let hasher = Hasher::default();
        let hash = hasher.hash(password("open sesame"), soon()).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert_eq!(hasher.verify(password("open sesame"), Some(hash.clone()), soon()).await.unwrap(), Verdict::Right);
        assert_eq!(hasher.verify(password("open Sesame"), Some(hash.clone()), soon()).await.unwrap(), Verdict::Wrong);
        assert!(!format!("{hash:?}").contains("argon2id"));
        let other = hasher.hash(password("open sesame"), soon()).await.unwrap();
        assert_ne!(hash.expose(), other.expose(), "the salt is random");
    }

    #[test]
    fn the_dummy_is_made_like_the_others_and_no_password_gives_it() {
        assert!(is_current(&PasswordHash::new(DUMMY).unwrap()));
        assert_eq!(verify(&password(""), None).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn a_hash_with_other_parameters_is_outdated() {
        for params in [(8, 1, 1, None), (MEMORY_KIB, 1, LANES, None), (8, PASSES, LANES, Some(16))] {
            let weak = Params::new(params.0, params.1, params.2, params.3).unwrap();
            let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, weak);
            let hash = StoredHash::new(weak.hash_password(b"open sesame").unwrap().to_string());
            assert_eq!(verify(&password("open sesame"), Some(&hash)).unwrap(), Verdict::RightButOutdated);
            assert_eq!(verify(&password("open Sesame"), Some(&hash)).unwrap(), Verdict::Wrong);
        }
    }

    #[test]
    fn a_stored_text_that_is_no_hash_is_an_error_and_not_shown() {
        let error = verify(&password("x"), Some(&StoredHash::new("plain-text".to_owned()))).unwrap_err();
        assert!(!shared::problem::Causes(&error).to_string().contains("plain"));
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_told_so() {
        let hasher = Hasher::default();
        let _all = hasher.turns.acquire_many(u32::try_from(CONCURRENT_MAX).unwrap()).await.unwrap();
        let deadline = Deadline::after(WORK_TIME + Duration::from_millis(20));
        let error = hasher.hash(password("open sesame"), deadline).await.unwrap_err();
        assert!(matches!(error, HashError::Busy), "{error:?}");
    }
}
