//! What we present to somebody who lets us in by it: a password, an API key. It is kept until it is refused; then the secret
//! is read again, and the call is made once more. So a rotation needs no restart and fails no request.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex, time::Instant};

use super::{Entry, READ_TIMEOUT, SecretError};
use crate::{config::ConfigError, metrics, problem::Causes};

/// Before the further readings that a refusal starts when the first brings nothing new. The other side and the secret are
/// never changed at the same moment; who rotates by hand, or by a busy machine, takes about so long from one to the other.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// After readings that brought nothing, the secret is left alone for so long, however many calls are refused.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// The most that [`Credential::renew`] takes when nobody is before us.
pub const RENEWAL_MAX: Duration = READ_TIMEOUT.saturating_mul(5).saturating_add(PAUSES[0]).saturating_add(PAUSES[1]);

/// A password or a key, with the entry that it was read from. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Credential(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    value: RwLock<Arc<SecretString>>,
    /// `None`: it can not change.
    entry: Option<Entry>,
    check: fn(&str) -> Result<(), ConfigError>,
    /// When readings that brought nothing ended.
    in_vain: Mutex<Option<Instant>>,
}

impl Credential {
    /// The value that was just read from `entry`.
    #[must_use]
    pub fn new(value: SecretString, entry: Option<Entry>) -> Self {
        Self::checked(value, entry, |_| Ok(()))
    }

    /// The same; what does not pass `check` will not take its place.
    pub fn checked(value: SecretString, entry: Option<Entry>, check: fn(&str) -> Result<(), ConfigError>) -> Self {
        let value = RwLock::new(Arc::new(value));
        Self(Arc::new(Inner { value, entry, check, in_vain: Mutex::new(None) }))
    }

    /// The value to present now.
    #[must_use]
    pub fn now(&self) -> Arc<SecretString> {
        Arc::clone(&self.0.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `refused` was refused. Whether it is worth presenting [`Self::now`], once.
    ///
    /// One reads at a time; who comes meanwhile waits, and gets what that one got. While a rotation is under way,
    /// the version that is to come (`AWSPENDING`) may hold already.
    pub async fn renew(&self, refused: &Arc<SecretString>) -> bool {
        let Some(entry) = &self.0.entry else {
            metrics::secret_failure();
            return false;
        };
        let came = Instant::now();
        let mut in_vain = self.0.in_vain.lock().await;
        if !Arc::ptr_eq(refused, &self.now()) {
            return true;
        }
        if let Some(ended) = *in_vain {
            // Somebody has waited in our place: the other side may be through with its change as well.
            if ended > came {
                return true;
            }
            if ended.elapsed() < LEFT_ALONE {
                metrics::secret_failure();
                return false;
            }
        }
        tracing::warn!(secret = entry.id, "what the secret held is refused: it is read again");
        if self.adopt(entry, refused, read(entry.secrets.get(&entry.id)).await) {
            return true;
        }
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            if self.adopt(entry, refused, read(entry.secrets.get(&entry.id)).await)
                || self.adopt(entry, refused, read(entry.secrets.get_pending(&entry.id)).await)
            {
                return true;
            }
        }
        metrics::secret_failure();
        tracing::error!(secret = entry.id, "what the secret holds is refused");
        *in_vain = Some(Instant::now());
        true
    }

    /// Takes what was read, if it is another value than the one that was refused, and holds.
    fn adopt(
        &self,
        entry: &Entry,
        refused: &SecretString,
        read: Option<Result<Option<SecretString>, SecretError>>,
    ) -> bool {
        match read {
            Some(Ok(Some(value))) if value.expose_secret() != refused.expose_secret() => {
                if let Err(error) = (self.0.check)(value.expose_secret()) {
                    metrics::secret_failure();
                    tracing::error!(secret = entry.id, error = %Causes(&error), "the secret does not hold");
                    return false;
                }
                tracing::info!(secret = entry.id, "the secret was rotated");
                *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                true
            }
            Some(Ok(_)) => false,
            Some(Err(error)) => {
                metrics::secret_failure();
                tracing::error!(secret = entry.id, error = %Causes(&error), "the secret is not read");
                false
            }
            None => {
                metrics::secret_failure();
                tracing::error!(secret = entry.id, "the secret is not read in time");
                false
            }
        }
    }
}

/// `None`: not in time.
async fn read<T: Into<Option<SecretString>>>(
    reading: impl Future<Output = Result<T, SecretError>>,
) -> Option<Result<Option<SecretString>, SecretError>> {
    tokio::time::timeout(READ_TIMEOUT, reading).await.ok().map(|read| read.map(Into::into))
}

impl From<SecretString> for Credential {
    fn from(value: SecretString) -> Self {
        Self::new(value, None)
    }
}

impl From<&str> for Credential {
    fn from(value: &str) -> Self {
        SecretString::from(value).into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;

    use super::*;
    use crate::secrets::SecretSource;

    /// Two versions, and how often they were asked for.
    #[derive(Debug, Default)]
    struct Versions {
        current: StdMutex<String>,
        pending: StdMutex<Option<String>>,
        readings: AtomicUsize,
    }

    #[async_trait]
    impl SecretSource for Versions {
        async fn get(&self, _: &str) -> Result<SecretString, SecretError> {
            self.readings.fetch_add(1, Ordering::Relaxed);
            // Others get their turn: they must wait, and not read too.
            tokio::task::yield_now().await;
            Ok(self.current.lock().unwrap().clone().into())
        }

        async fn get_pending(&self, _: &str) -> Result<Option<SecretString>, SecretError> {
            Ok(self.pending.lock().unwrap().clone().map(SecretString::from))
        }
    }

    fn credential(versions: &Arc<Versions>) -> Credential {
        *versions.current.lock().unwrap() = "old".to_owned();
        let secrets: Arc<dyn SecretSource> = versions.clone();
        Credential::checked("old".into(), Some(Entry { secrets, id: "key".to_owned() }), |value| {
            if value == "nonsense" { Err(ConfigError::invalid("KEY", "nonsense")) } else { Ok(()) }
        })
    }

    fn shown(credential: &Credential) -> String {
        credential.now().expose_secret().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_value_is_read_once_for_all_who_were_refused() {
        let versions = Arc::new(Versions::default());
        let credential = credential(&versions);
        let old = credential.now();
        *versions.current.lock().unwrap() = "new".to_owned();
        let all = futures::future::join_all((0..20).map(|_| credential.renew(&old))).await;
        assert!(all.into_iter().all(|again| again));
        assert_eq!((shown(&credential).as_str(), versions.readings.load(Ordering::Relaxed)), ("new", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_wrong_is_read_three_times_and_then_left_alone_for_a_while() {
        let versions = Arc::new(Versions::default());
        let credential = credential(&versions);
        let old = credential.now();
        let all = futures::future::join_all((0..20).map(|_| credential.renew(&old))).await;
        assert!(all.into_iter().all(|again| again), "each may try once more");
        assert_eq!(versions.readings.load(Ordering::Relaxed), 3);
        for _ in 0..20 {
            assert!(!credential.renew(&old).await);
        }
        assert_eq!(versions.readings.load(Ordering::Relaxed), 3);
        tokio::time::advance(LEFT_ALONE).await;
        assert!(credential.renew(&old).await);
        assert_eq!(versions.readings.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_rotation_is_under_way_the_version_to_come_is_tried() {
        let versions = Arc::new(Versions::default());
        let credential = credential(&versions);
        *versions.pending.lock().unwrap() = Some("to come".to_owned());
        assert!(credential.renew(&credential.now()).await);
        assert_eq!(shown(&credential), "to come");
        // It was given up: the current one holds again.
        assert!(credential.renew(&credential.now()).await);
        assert_eq!(shown(&credential), "old");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_does_not_hold_does_not_take_the_place_of_one_that_may() {
        let versions = Arc::new(Versions::default());
        let credential = credential(&versions);
        *versions.current.lock().unwrap() = "nonsense".to_owned();
        credential.renew(&credential.now()).await;
        assert_eq!(shown(&credential), "old");
    }

    #[tokio::test]
    async fn what_was_given_without_a_secret_stays_and_is_not_shown() {
        let credential = Credential::from("sesame");
        assert!(!credential.renew(&credential.now()).await);
        assert!(!format!("{credential:?}").contains("sesame"));
    }
}
