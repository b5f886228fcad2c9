//! What a round does, drawn from its seed and nothing else: who does what with which content, and what goes wrong.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use ingest::failpoint;

use super::text::{PARAGRAPHS, Text};
use crate::testkit::{Call, Cut, Fault};

/// The documents: whose knowledge base, and under which name. The last one is another tenant's.
pub(super) const SLOTS: [(usize, &str); 4] = [(0, "notes/a"), (0, "notes/b"), (1, "notes/a"), (2, "notes/a")];

/// The knowledge bases of [`SLOTS`]: whose they are.
pub(super) const SHELVES: [usize; 3] = [0, 0, 1];

/// Processes of the function `ingest`.
pub(super) const PROCESSES: usize = 2;

const WRITERS: usize = 3;
const READERS: usize = 2;

/// How much there is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Actions of each writer. All others go on until the writers are done.
    pub writes: usize,
    /// How often both stores are killed meanwhile.
    pub deaths: usize,
}

/// A round.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    /// Whether ids come off the list of retired points while writes to them may be under way: then there may be orphans.
    pub(super) hasty: bool,
    pub(super) actors: Vec<Actor>,
}

/// One who does one thing after another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Actor {
    pub(super) name: String,
    /// Ends with its list; the others begin theirs again, until all writers have ended.
    pub(super) writer: bool,
    pub(super) steps: Vec<Step>,
}

/// Something to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Step {
    /// How long to wait before.
    pub(super) pause: Duration,
    pub(super) action: Action,
}

/// What there is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// Sends a document, again and again if there is no last word, and gives up after so many attempts.
    Write {
        text: Text,
        key: Option<String>,
        via: usize,
        attempts: u32,
    },
    /// Sends a request again that was sent under this key.
    Again {
        key: String,
        via: usize,
    },
    Delete {
        slot: usize,
        via: usize,
    },
    Retry {
        slot: usize,
        via: usize,
    },
    /// A question over a knowledge base, or over all that the tenant may read.
    Query {
        tenant: usize,
        shelf: Option<usize>,
        mode: &'static str,
    },
    Sweep,
    Verify {
        shelf: usize,
        via: usize,
    },
    /// `kill -9`, and another process in its place; one that dies at a failpoint, when there is one.
    Kill {
        process: usize,
        next: Option<(&'static str, u32)>,
    },
    Fault {
        call: Call,
        fault: Fault,
        times: usize,
    },
    /// What is late arrives.
    Deliver,
    Cut {
        statement: &'static str,
        cut: Cut,
    },
    /// All leases run out, also under those who live on.
    Expire,
    /// All retired points are due.
    Due,
    /// Both stores are killed, and started again.
    Stores,
}

/// Every transaction that can be cut, by a statement in it.
const TRANSACTIONS: [&str; 6] = [
    "revisions::insert",
    "revisions::staged_chunks",
    "revisions::progress",
    "documents::activate",
    "retired_points::delete",
    "documents::delete",
];

impl Plan {
    /// The round of this seed.
    pub(super) fn draw(seed: u64, size: Size) -> Self {
        let mut rng = Rng::with_seed(seed);
        let hasty = rng.bool();
        let mut actors = Vec::new();
        let mut texts = Vec::new();
        for writer in 0..WRITERS {
            let mut keys = Vec::new();
            let mut steps: Vec<Step> = (0..size.writes)
                .map(|nth| {
                    let name = format!("{seed:x}-{writer}-{nth}");
                    Step { pause: pause(&mut rng, 0..=60), action: write(&mut rng, &mut keys, &mut texts, name) }
                })
                .collect();
            if writer == 0 {
                for death in (1..=size.deaths).rev() {
                    let step = Step { pause: Duration::ZERO, action: Action::Stores };
                    steps.insert(size.writes * death / (size.deaths + 1), step);
                }
            }
            actors.push(Actor { name: format!("writer {writer}"), writer: true, steps });
        }
        let mut others = |name: &str, pauses: RangeInclusive<u64>, draw: &dyn Fn(&mut Rng) -> Action| {
            let step = |rng: &mut Rng| Step { pause: pause(rng, pauses.clone()), action: draw(rng) };
            let steps = (0..size.writes).map(|_| step(&mut rng)).collect();
            actors.push(Actor { name: name.to_owned(), writer: false, steps });
        };
        others("deleter", 100..=1_000, &|rng| {
            let (slot, via) = (rng.usize(..SLOTS.len()), rng.usize(..PROCESSES));
            if rng.u8(..4) == 0 { Action::Retry { slot, via } } else { Action::Delete { slot, via } }
        });
        others("sweeper", 50..=500, &|rng| match rng.u8(..5) {
            0 => Action::Verify { shelf: rng.usize(..SHELVES.len()), via: rng.usize(..PROCESSES) },
            _ => Action::Sweep,
        });
        for reader in 0..READERS {
            others(&format!("reader {reader}"), 0..=80, &query);
        }
        others("chaos", 20..=250, &|rng| chaos(rng, hasty));
        Self { hasty, actors }
    }
}

fn pause(rng: &mut Rng, ms: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(ms))
}

fn write(rng: &mut Rng, keys: &mut Vec<String>, texts: &mut Vec<Text>, name: String) -> Action {
    let via = rng.usize(..PROCESSES);
    if rng.u8(..6) == 0
        && let Some(key) = rng.choice(keys.iter())
    {
        return Action::Again { key: key.clone(), via };
    }
    let text = match rng.choice(texts.iter()) {
        // What was sent before, perhaps by another: a change is taken back, or two send the same.
        Some(text) if rng.u8(..6) == 0 => text.clone(),
        _ => {
            let slot = rng.usize(..SLOTS.len());
            // Seldom more than one batch.
            let count = if rng.u8(..12) == 0 { rng.usize(34..44) } else { rng.usize(1..7) };
            let pool = if count > 10 { PARAGRAPHS } else { 12 };
            let paragraphs = rng.choose_multiple(0..pool, count);
            let text = Text { slot, edition: name.clone(), paragraphs };
            texts.push(text.clone());
            text
        }
    };
    let key = (rng.u8(..5) > 0).then_some(name);
    keys.extend(key.clone());
    Action::Write { text, key, via, attempts: rng.u32(1..8) }
}

fn query(rng: &mut Rng) -> Action {
    let shelf = rng.usize(..SHELVES.len());
    let tenant = SHELVES.get(shelf).copied().unwrap_or_default();
    let mode = match rng.u8(..6) {
        0 => "sparse",
        1 | 2 => "dense",
        _ => "hybrid",
    };
    Action::Query { tenant, shelf: (rng.u8(..4) > 0).then_some(shelf), mode }
}

fn chaos(rng: &mut Rng, hasty: bool) -> Action {
    match rng.u8(..16) {
        0..=5 => {
            let fault = match rng.u8(..8) {
                0 => Fault::NotApplied,
                1 => Fault::AppliedThenError,
                2 => Fault::AppliedThenCut,
                3 => Fault::AppliedTwice,
                4 | 5 => Fault::Late,
                // Longer than the quick process has.
                6 => Fault::Slow(Duration::from_secs(rng.u64(2..6))),
                _ => Fault::Throttled { retry_after_s: 1 },
            };
            let call = if rng.u8(..3) == 0 { Call::Delete } else { Call::Upsert };
            // All attempts of a request, or one of them.
            Action::Fault { call, fault, times: if rng.u8(..8) == 0 { 8 } else { 1 } }
        }
        6..=8 => Action::Deliver,
        9 | 10 => {
            let statement = TRANSACTIONS.get(rng.usize(..TRANSACTIONS.len())).copied().unwrap_or_default();
            Action::Cut { statement, cut: if rng.bool() { Cut::BeforeCommit } else { Cut::AfterCommit } }
        }
        11 | 12 => {
            let point = failpoint::POINTS.get(rng.usize(..failpoint::POINTS.len())).copied().unwrap_or_default();
            let next = (rng.u8(..3) > 0).then_some((point, rng.u32(1..5)));
            Action::Kill { process: rng.usize(..PROCESSES), next }
        }
        13 if hasty => Action::Due,
        _ => Action::Expire,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { writes: 40, deaths: 2 };

    #[test]
    fn a_seed_draws_the_same_plan_each_time_and_another_one_another() {
        assert_eq!(Plan::draw(7, SIZE), Plan::draw(7, SIZE));
        assert_ne!(Plan::draw(7, SIZE), Plan::draw(8, SIZE));
    }

    #[test]
    fn plans_have_all_that_there_is_and_the_deaths_that_were_asked_for() {
        let plans: Vec<Plan> = (0..8).map(|seed| Plan::draw(seed, SIZE)).collect();
        let steps = || plans.iter().flat_map(|plan| &plan.actors).flat_map(|actor| &actor.steps);
        let kinds: std::collections::HashSet<_> = steps().map(|step| std::mem::discriminant(&step.action)).collect();
        assert_eq!(kinds.len(), 14);
        assert_eq!(steps().filter(|step| step.action == Action::Stores).count(), 8 * SIZE.deaths);
        assert!(plans.iter().any(|plan| plan.hasty) && plans.iter().any(|plan| !plan.hasty));
    }
}
