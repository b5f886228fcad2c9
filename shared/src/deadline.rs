//! The moment by which an invocation must have answered.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The moment by which an invocation must have answered. Every remote call is bounded by it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Deadline(Instant);

tokio::task_local! {
    /// Of the request that this task answers.
    static CURRENT: Deadline;
}

impl Deadline {
    /// Runs `work` as what must end by this deadline: calls to PostgreSQL in it that were given none take this one. It does
    /// not reach into tasks that `work` spawns.
    pub async fn cover<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// The deadline that covers this task, if one does.
    #[must_use]
    pub fn covering() -> Option<Self> {
        CURRENT.try_with(|deadline| *deadline).ok()
    }

    /// A deadline `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// The deadline at a moment of the clock on the wall: Lambda gives an invocation's end so.
    #[must_use]
    pub fn at(moment: SystemTime) -> Self {
        Self::after(moment.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// The time left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of this deadline and one `duration` from now: for one call among several.
    #[must_use]
    pub fn at_most(self, duration: Duration) -> Self {
        self.min(Self::after(duration))
    }

    /// This deadline, `margin` earlier: for work after which something must still be written down.
    #[must_use]
    pub fn minus(self, margin: Duration) -> Self {
        Self(self.0.checked_sub(margin).unwrap_or(self.0))
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The moment itself, for `tokio::time::timeout_at`.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }
}
