//! When a failed call is made again: after a pause with full jitter, and only while the container's budget lasts.

use std::{sync::Arc, time::Duration};

use tower::retry::budget::{Budget, TpsBudget};

use crate::metrics;

/// How long a call counts for the budget.
const WINDOW: Duration = Duration::from_secs(10);

/// Retries in each second that even a container with hardly any calls may make.
const MIN_PER_S: u32 = 2;

/// Retries for each call beyond that. Finagle's measure: a dependency that fails altogether gets a fifth more load from us,
/// and not four times as much. <https://finagle.github.io/blog/2016/02/08/retry-budgets/>
const PER_CALL: f32 = 0.2;

/// The retries that one container may still make towards one dependency. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    dependency: &'static str,
    budget: Arc<TpsBudget>,
}

impl RetryBudget {
    /// The full budget for this dependency.
    #[must_use]
    pub fn new(dependency: &'static str) -> Self {
        Self { dependency, budget: Arc::new(TpsBudget::new(WINDOW, MIN_PER_S, PER_CALL)) }
    }

    /// Notes a call, which earns its part of a retry. Once for each call, however often it is made again.
    pub fn note_call(&self) {
        self.budget.deposit();
    }

    /// Takes one retry out of the budget; false when there is none left, and the call must fail as it is.
    #[must_use]
    pub fn take(&self) -> bool {
        let taken = self.budget.withdraw();
        if taken {
            metrics::retry(self.dependency);
        }
        taken
    }
}

/// The pause before attempt `attempt + 1`: a random part ("full jitter") of `first` doubled with each attempt, at most of
/// `max`. <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
#[must_use]
pub fn pause(first: Duration, max: Duration, attempt: u32) -> Duration {
    let bound = first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    bound.min(max).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn a_pause_grows_to_a_bound_and_never_overflows() {
        assert!((0..100).all(|_| pause(FIRST, MAX, 1) <= FIRST));
        assert!((0..100).any(|_| pause(FIRST, MAX, 4) > FIRST));
        assert!(pause(FIRST, MAX, u32::MAX) <= MAX);
    }

    #[test]
    fn a_dependency_that_always_fails_is_not_asked_again_for_every_call() {
        let budget = RetryBudget::new("qdrant");
        let retries = (0..1_000).filter(|_| {
            budget.note_call();
            budget.take()
        });
        // A fifth of the calls, and what a quiet container may do in the window.
        let bound = 1_000 / 5 + 20;
        let retries = retries.count();
        assert!((bound - 2..=bound).contains(&retries), "{retries} retries, and not {bound}");
        assert!(!budget.clone().take(), "clones share it");
    }
}
