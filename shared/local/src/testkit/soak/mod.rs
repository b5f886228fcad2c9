//! Random schedules: writers, deleters, sweepers and readers over a few documents, while everything goes wrong that may.
//!
//! A round is drawn from a seed ([`plan`]): who does what with which content, and what befalls it. It runs against private
//! stores through proxies, in real processes that are killed ([`world`], [`act`]). Readers check P1 and P2 at every query
//! ([`ledger`]); when all has come to rest, P3 to P5 are checked and both stores are read directly ([`settle`]). The short
//! version stands in the tests, the long one is `make soak`.
//!
//! The same seed draws the same actions, word for word. In which order those of different actors meet is the machine's to
//! decide, and can not be replayed. There are few actors and few documents, so that what failed once usually fails again.
#![allow(clippy::indexing_slicing, reason = "answers in JSON: what is not there is null")]
#![allow(clippy::similar_names, reason = "a shelf is nothing like self")]

mod act;
mod ledger;
mod plan;
mod record;
mod settle;
mod text;
mod world;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    act::Actor,
    plan::Plan,
    record::{Counts, Record},
    world::World,
};
pub use plan::Size;

/// Private stores, and rounds against them, one after the other: each finds what the one before has left.
#[derive(Debug)]
pub struct Soak {
    world: Arc<World>,
}

/// What a round was.
#[derive(Clone, Debug)]
pub struct Round {
    /// What it was drawn from.
    pub seed: u64,
    /// Actions.
    pub steps: usize,
    /// Queries that were answered and checked.
    pub queries: usize,
    /// What was broken; nothing, if all is well.
    pub violations: Vec<String>,
    /// What everybody did and was told, in order.
    pub history: String,
    counts: Counts,
    load_s: f64,
    seconds: f64,
}

impl Soak {
    /// Starts the stores and the processes.
    pub async fn start() -> Self {
        Self { world: Arc::new(World::start().await) }
    }

    /// One round: load with faults, then rest, then checks. The load ends early after `load_max`, and when something is
    /// found broken.
    pub async fn round(&self, seed: u64, size: Size, load_max: Duration) -> Round {
        let plan = Plan::draw(seed, size);
        let record = Arc::new(Record::new());
        self.world.renew().await;
        let steps = self.load(&plan, &record, load_max).await;
        let load_s = record.seconds();
        let rest = self.actor(&record, "rest");
        let hasty = plan.hasty || load_s > LATE_S;
        if record.violations().is_empty() {
            let it = rest.clone();
            let settle = tokio::spawn(async move {
                it.settle(hasty).await;
                it.check().await;
                it.world.app.pg().await.batch_execute(ledger::COMPACT).await.expect("the ledger can be made short");
            });
            rest.guard(settle).await;
        }
        let counts = record.memory().counts.clone();
        Round {
            seed,
            steps,
            queries: counts.get("queries"),
            violations: record.violations(),
            history: record.history(),
            counts,
            load_s,
            seconds: record.seconds(),
        }
    }

    fn actor(&self, record: &Arc<Record>, name: &str) -> Actor {
        Actor { world: Arc::clone(&self.world), record: Arc::clone(record), name: name.to_owned() }
    }

    /// Lets all actors act at once, until the writers have done all; how many actions that were.
    async fn load(&self, plan: &Plan, record: &Arc<Record>, load_max: Duration) -> usize {
        let (stop, end) = (Arc::new(AtomicBool::new(false)), Instant::now() + load_max);
        let (writers, others): (Vec<_>, Vec<_>) = plan.actors.iter().cloned().partition(|actor| actor.writer);
        let spawn = |actor: plan::Actor| {
            let (it, stop) = (self.actor(record, &actor.name), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut steps = 0;
                // Who does not write goes on until the writers have ended.
                let count = if actor.writer { actor.steps.len() } else { usize::MAX };
                for turn in 0..count {
                    let Some(step) = actor.steps.get(turn % actor.steps.len()).cloned() else { break };
                    if stop.load(Ordering::Relaxed) || !it.record.violations().is_empty() {
                        break;
                    }
                    // The deaths that were drawn are not left out, however slow the machine is.
                    if Instant::now() < end || step.action == plan::Action::Stores {
                        tokio::time::sleep(step.pause).await;
                        let doer = it.clone();
                        it.guard(tokio::spawn(async move { doer.act(&step.action).await })).await;
                        steps += 1;
                    } else if !actor.writer {
                        break;
                    }
                }
                steps
            })
        };
        let writers: Vec<_> = writers.into_iter().map(spawn).collect();
        let others: Vec<_> = others.into_iter().map(spawn).collect();
        let mut steps = 0;
        for writer in writers {
            steps += writer.await.expect("its panics are caught");
        }
        stop.store(true, Ordering::Relaxed);
        for other in others {
            steps += other.await.expect("its panics are caught");
        }
        steps
    }
}

/// A load that takes longer may have kept a late write for longer than the list of retired points waits for it.
const LATE_S: f64 = 50.0;

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} steps in {:.0} s ({:.0} s with the rest), {} queries checked, {} violations; {}",
            self.seed,
            self.steps,
            self.load_s,
            self.seconds,
            self.queries,
            self.violations.len(),
            self.counts
        )
    }
}

/// Rounds altogether.
#[derive(Debug, Default)]
pub struct Total {
    rounds: usize,
    steps: usize,
    counts: Counts,
    /// What was broken.
    pub violations: usize,
}

impl Total {
    /// Adds a round.
    pub fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.steps += round.steps;
        self.counts.add(&round.counts);
        self.violations += round.violations.len();
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds, {} steps, {} violations; {}", self.rounds, self.steps, self.violations, self.counts)
    }
}
