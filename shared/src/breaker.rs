//! A circuit breaker: a dependency that is down costs its timeout once, and not on every request.
//!
//! Closed, it lets all through. A failure opens it: for a pause nobody is let through, then one at a time (the probe),
//! and the first success closes it. Each container has its own; none of its state outlives it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long nobody asks after a failure. Short against the ten seconds within which full service must be back, and long
/// against what a probe costs.
const PAUSE: Duration = Duration::from_secs(2);

/// Stands before one dependency. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Breaker {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

/// The right to ask once. Whoever drops it without a word has learnt nothing.
#[derive(Debug)]
pub struct Permit {
    breaker: Breaker,
    probe: bool,
    told: bool,
}

impl Breaker {
    /// A closed one. `name` stands in the log.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, state: Arc::new(Mutex::new(State::Closed)) }
    }

    /// Lets through whoever may ask; `None`: the dependency counts as down.
    #[must_use]
    pub fn admit(&self) -> Option<Permit> {
        let mut state = self.lock();
        let probe = match *state {
            State::Closed => false,
            State::Open { until } if until <= Instant::now() => {
                *state = State::Probing;
                true
            }
            State::Open { .. } | State::Probing => return None,
        };
        Some(Permit { breaker: self.clone(), probe, told: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The dependency answered, whatever it said.
    pub fn succeeded(mut self) {
        self.told = true;
        // One that was let through before the failure, and answers after it, says nothing about now.
        if self.probe {
            tracing::info!(dependency = self.breaker.name, "answers again");
            *self.breaker.lock() = State::Closed;
        }
    }

    /// It can not be reached, or not in time.
    pub fn failed(mut self) {
        self.told = true;
        let mut state = self.breaker.lock();
        if self.probe || matches!(*state, State::Closed) {
            tracing::warn!(dependency = self.breaker.name, pause_ms = PAUSE.as_millis(), "is left alone for a while");
            *state = State::Open { until: Instant::now() + PAUSE };
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe && !self.told {
            // The client went away meanwhile: the next one probes.
            *self.breaker.lock() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn let_the_pause_pass(breaker: &Breaker) {
        *breaker.lock() = State::Open { until: Instant::now() };
    }

    #[test]
    fn after_a_failure_nobody_asks_then_one_does_and_its_success_lets_all_through() {
        let breaker = Breaker::new("test");
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        first.failed();
        assert!(breaker.admit().is_none());
        second.succeeded();
        assert!(breaker.admit().is_none(), "an old call's success is no news");
        let_the_pause_pass(&breaker);
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_none(), "one at a time");
        probe.failed();
        assert!(breaker.admit().is_none());
        let_the_pause_pass(&breaker);
        breaker.admit().unwrap().succeeded();
        assert!(breaker.admit().is_some() && breaker.clone().admit().is_some());
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
        let breaker = Breaker::new("test");
        breaker.admit().unwrap().failed();
        let_the_pause_pass(&breaker);
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_some());
    }
}
