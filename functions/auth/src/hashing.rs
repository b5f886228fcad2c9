//! Password hashes: argon2id, in a bounded number of threads of their own, and of buffers.
//!
//! The buffers are made once and used again. Left to the allocator, each thread that ever hashed keeps one: after the first
//! is freed, glibc takes blocks of that size from the thread's own arena, which does not give them back, and 60 logins
//! in one process left 605 MB resident.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::{
        Error as PasswordHashError,
        phc::{Output, ParamsString, Salt},
    },
};
use secrecy::{ExposeSecret, SecretString};
use shared::{deadline::Deadline, metrics};
use tokio::{sync::Semaphore, task::JoinError};

use crate::password::Password;

/// 19 MiB, in KiB. With two passes and one lane one of OWASP's equivalent choices for argon2id.
/// <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id>
pub const MEMORY_KIB: u32 = 19 * 1024;

/// Passes over the memory.
pub const PASSES: u32 = 2;

/// Lanes.
pub const LANES: u32 = 1;

/// Hashes made at the same time, at most: more would only share the processors, of which a Lambda function has up to six.
const TURNS_MAX: usize = 4;

/// The part of the process's memory that hashing may take: the rest is for what else it does.
const MEMORY_SHARE: u32 = 4;

/// Those who may wait for each turn. A hash takes some 30 ms of a processor, so that the last of them waits about half a
/// second, or a few where the function has a fraction of one; who comes then is told at once to come back.
const WAITING_FACTOR: usize = 16;

/// Random bytes of a salt: RFC 9106, section 3.1.
const SALT_BYTES: usize = 16;

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
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Random(#[source] aws_lc_rs::error::Unspecified),
    /// The thread ended without an answer.
    #[error("the hashing thread ended without an answer")]
    Thread(#[source] JoinError),
}

/// Hashes and compares passwords. Cheap to clone; the clones share one bound.
#[derive(Clone, Debug)]
pub struct Hasher {
    turns: Arc<Semaphore>,
    // Who has a turn or waits for one.
    places: Arc<Semaphore>,
    buffers: Arc<Buffers>,
}

/// The memory that argon2 fills, for as many as may hash at once.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<Block>>>);

impl Buffers {
    fn take(&self) -> Vec<Block> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![Block::new(); PARAMS.block_count()])
    }

    fn give_back(&self, buffer: Vec<Block>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands in them follows from passwords.
        f.write_str("Buffers")
    }
}

impl Hasher {
    /// A hasher in a process that may take `memory_mib` in all.
    #[must_use]
    pub fn new(memory_mib: u32) -> Self {
        let turns = usize::try_from(memory_mib / MEMORY_SHARE * 1024 / MEMORY_KIB).unwrap_or(TURNS_MAX);
        let turns = turns.clamp(1, TURNS_MAX);
        Self {
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(turns * (1 + WAITING_FACTOR))),
            buffers: Arc::default(),
        }
    }

    /// A fresh hash of `password`, with a random salt.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(&self, password: Password, deadline: Deadline) -> Result<StoredHash, HashError> {
        self.in_turn(deadline, move |buffer| hash(&password, buffer)).await
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
        self.in_turn(deadline, move |buffer| verify(&password, stored.as_ref(), buffer)).await
    }

    /// Runs `work` when a turn is free. The turn is the thread's, not the caller's: when the caller gives up, the memory
    /// is in use until the thread ends.
    async fn in_turn<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_full| HashError::Busy)?;
        let turn = tokio::time::timeout_at(deadline.minus(WORK_TIME).instant(), self.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| HashError::Busy)?.map_err(|_closed| HashError::Busy)?;
        let buffers = self.buffers.clone();
        let started = Instant::now();
        let thread = tokio::task::spawn_blocking(move || {
            let mut buffer = buffers.take();
            let result = work(&mut buffer);
            buffers.give_back(buffer);
            drop((turn, place));
            result
        });
        let result = thread.await.map_err(HashError::Thread)?;
        metrics::stage("hash", started.elapsed().as_secs_f64() * 1_000.0);
        result
    }
}

fn hash(password: &Password, buffer: &mut Vec<Block>) -> Result<StoredHash, HashError> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(HashError::Random)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&PARAMS).map_err(HashError::Argon2)?,
        salt: Some(Salt::new(&salt).map_err(|error| HashError::Argon2(error.into()))?),
        hash: Some(output(&argon2id(), password, &salt, Params::DEFAULT_OUTPUT_LEN, buffer)?),
    };
    Ok(StoredHash::new(hash.to_string()))
}

/// What argon2 makes of a password, in the memory of `buffer`.
fn output(
    argon2: &Argon2<'_>,
    password: &Password,
    salt: &[u8],
    bytes: usize,
    buffer: &mut Vec<Block>,
) -> Result<Output, HashError> {
    let refused = |error: argon2::Error| HashError::Argon2(error.into());
    // A hash from a time of stronger parameters needs more, for once.
    if buffer.len() < argon2.params().block_count() {
        buffer.resize(argon2.params().block_count(), Block::new());
    }
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..bytes).ok_or(HashError::Argon2(PasswordHashError::OutputSize))?;
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, buffer.as_mut_slice()).map_err(refused)?;
    buffer.truncate(PARAMS.block_count());
    buffer.shrink_to_fit();
    Output::new(output).map_err(|error| HashError::Argon2(error.into()))
}

fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, PARAMS)
}

fn verify(password: &Password, stored: Option<&StoredHash>, buffer: &mut Vec<Block>) -> Result<Verdict, HashError> {
    let parsed =
        PasswordHash::new(stored.map_or(DUMMY, StoredHash::expose)).map_err(|e| HashError::Argon2(e.into()))?;
    let (Some(salt), Some(expected)) = (&parsed.salt, &parsed.hash) else {
        return Err(HashError::Argon2(PasswordHashError::PasswordInvalid));
    };
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).map_err(HashError::Argon2)?;
    let version = parsed.version.map(Version::try_from).transpose();
    let version = version.map_err(|error: argon2::Error| HashError::Argon2(error.into()))?.unwrap_or_default();
    let params = Params::try_from(&parsed).map_err(HashError::Argon2)?;
    let argon2 = Argon2::new(algorithm, version, params);
    // Compared in constant time, by `Output` itself.
    let right = output(&argon2, password, salt, expected.len(), buffer)? == *expected;
    Ok(match (right, stored) {
        (false, _) | (true, None) => Verdict::Wrong,
        (true, Some(_)) if is_current(&parsed) => Verdict::Right,
        (true, Some(_)) => Verdict::RightButOutdated,
    })
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
    use argon2::PasswordHasher;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_mins(1))
    }

    fn password(text: &str) -> Password {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_hash_says_how_it_was_made_and_knows_its_password() {
        let hasher = Hasher::new(512);
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
        assert_eq!(verify(&password(""), None, &mut Vec::new()).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn a_hash_with_other_parameters_is_outdated() {
        for params in [(8, 1, 1, None), (MEMORY_KIB, 1, LANES, None), (8, PASSES, LANES, Some(16))] {
            let weak = Params::new(params.0, params.1, params.2, params.3).unwrap();
            let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, weak);
            let hash = StoredHash::new(weak.hash_password(b"open sesame").unwrap().to_string());
            let mut buffer = Vec::new();
            assert_eq!(verify(&password("open sesame"), Some(&hash), &mut buffer).unwrap(), Verdict::RightButOutdated);
            assert_eq!(verify(&password("open Sesame"), Some(&hash), &mut buffer).unwrap(), Verdict::Wrong);
        }
    }

    #[test]
    fn a_stored_text_that_is_no_hash_is_an_error_and_not_shown() {
        let error =
            verify(&password("x"), Some(&StoredHash::new("plain-text".to_owned())), &mut Vec::new()).unwrap_err();
        assert!(!shared::problem::Causes(&error).to_string().contains("plain"));
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_told_so() {
        let hasher = Hasher::new(512);
        let _all = hasher.turns.acquire_many(u32::try_from(TURNS_MAX).unwrap()).await.unwrap();
        let deadline = Deadline::after(WORK_TIME + Duration::from_millis(20));
        let error = hasher.hash(password("open sesame"), deadline).await.unwrap_err();
        assert!(matches!(error, HashError::Busy), "{error:?}");
    }

    #[tokio::test]
    async fn who_finds_all_places_taken_is_told_at_once() {
        let hasher = Hasher::new(512);
        let places = u32::try_from(hasher.places.available_permits()).unwrap();
        let _all = hasher.places.acquire_many(places).await.unwrap();
        let error = hasher.hash(password("open sesame"), soon()).await.unwrap_err();
        assert!(matches!(error, HashError::Busy), "{error:?}");
    }

    #[test]
    fn the_turns_fit_into_the_memory() {
        for (memory_mib, turns) in [(1, 1), (128, 1), (256, 3), (512, 4), (10_240, 4)] {
            assert_eq!(Hasher::new(memory_mib).turns.available_permits(), turns, "{memory_mib} MiB");
        }
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_and_stays_as_large_as_it_must_be() {
        let hasher = Hasher::new(512);
        for _ in 0..3 {
            hasher.hash(password("open sesame"), soon()).await.unwrap();
        }
        let large = Params::new(2 * MEMORY_KIB, 1, LANES, None).unwrap();
        let large = Argon2::new(Algorithm::Argon2id, Version::V0x13, large).hash_password(b"open sesame").unwrap();
        let stored = StoredHash::new(large.to_string());
        assert_eq!(
            hasher.verify(password("open sesame"), Some(stored), soon()).await.unwrap(),
            Verdict::RightButOutdated
        );
        let buffers = hasher.buffers.0.lock().unwrap();
        assert_eq!(buffers.iter().map(Vec::capacity).collect::<Vec<_>>(), [PARAMS.block_count()]);
    }
}
