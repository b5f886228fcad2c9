//! What must hold, and what must be reachable for that to mean something.

use stateright::Property;

use super::{
    Scenario,
    process::{At, Role},
    qdrant::Request,
    rows::{Answer, Key, Revision, RevisionState},
    system::State,
};

pub const HITS_ALIVE: &str = "P1: every hit is a chunk of the active revision";
pub const HITS_COMPLETE: &str = "P2: a query finds the whole active revision";
pub const ACTIVE_COMPLETE: &str = "P2: all points of the active revision are in Qdrant from its activation on";
pub const HELD_IDS: &str = "who holds the lease writes only ids that PostgreSQL holds";
pub const ONE_EACH: &str = "at most one active and one staged revision";
pub const NEWER_WINS: &str =
    "what is unfinished is newer than the active revision, what is claimed than the staged one";
pub const FENCED: &str = "who lost the lease changes nothing in PostgreSQL";
pub const TOLD_AT_ONCE: &str = "no key stays in flight once its request has ended";
pub const IDS_LIVE_ONCE: &str = "a retired id is not staged or active";
pub const NOTHING_LOST: &str = "P3: what was acknowledged is active, or replaced, or deleted";
pub const REFUSALS: &str = "what can be read is refused only if it was deleted or replaced";
pub const NOTHING_DOUBLED: &str = "P3: what is retried becomes active once";
pub const NOTHING_LEFT: &str = "P4, P5: in the end Qdrant holds the active revision's points and the list is empty";

/// What must be reachable, by scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    Carried,
    Fenced,
    LateUpsertOfDead,
    Orphan,
    Replaced,
    SweptTakeover,
    WriteAfterRetirement,
    LateDelete,
    DeletedMeanwhile,
    Repair,
    Missing,
    Superseded,
    Outlived,
}

pub fn of(scenario: &Scenario) -> Vec<Property<Scenario>> {
    let mut properties = vec![
        Property::always(HITS_ALIVE, |_, state: &State| !state.wrong.dead_hit),
        Property::always(HELD_IDS, |_, state: &State| !state.wrong.unheld_id_written),
        Property::always(ONE_EACH, |_, state: &State| one_each(state)),
        Property::always(NEWER_WINS, |_, state: &State| newer_wins(state)),
        Property::always(FENCED, |_, state: &State| !state.wrong.fenced_write),
        Property::always(TOLD_AT_ONCE, |scenario: &Scenario, state: &State| {
            scenario.budget.crashes > 0 || told_at_once(state)
        }),
        Property::always(IDS_LIVE_ONCE, |_, state: &State| {
            state.postgres.known().and(state.postgres.retired).is_empty()
        }),
        Property::always(NOTHING_LOST, |_, state: &State| !state.quiescent() || nothing_lost(state)),
        Property::always(NOTHING_DOUBLED, |_, state: &State| state.activations.iter().all(|times| *times <= 1)),
        Property::always(NOTHING_LEFT, |_, state: &State| {
            let clean = state.qdrant.points == state.postgres.visible() && state.postgres.retired.is_empty();
            !state.quiescent() || clean
        }),
    ];
    if scenario.budget.lost_points == 0 {
        properties.push(Property::always(HITS_COMPLETE, |_, state: &State| !state.wrong.missing_hit));
        properties.push(Property::always(ACTIVE_COMPLETE, |_, state: &State| {
            !state.wrong.incomplete_activation && state.postgres.visible().within(state.qdrant.points)
        }));
    }
    if scenario.refusals {
        properties.push(Property::always(REFUSALS, |_, state: &State| !state.quiescent() || refusals_are_due(state)));
    }
    properties.push(Property::sometimes("the end is reached", |_, state: &State| state.quiescent()));
    properties.extend(scenario.reaches.iter().map(|reach| reachable(*reach)));
    properties
}

fn one_each(state: &State) -> bool {
    let count = |wanted| state.postgres.revisions.iter().filter(|revision| revision.state == wanted).count();
    let active = state.postgres.active().map(|active| active.number);
    count(RevisionState::Active) <= 1
        && count(RevisionState::Staged) <= 1
        && active == state.postgres.document.and_then(|document| document.active_revision)
}

/// So an older text never becomes active over a newer one, and what a newer one replaces is gone for good.
fn newer_wins(state: &State) -> bool {
    let postgres = &state.postgres;
    let newer = |than: Option<u8>, what: &[RevisionState]| {
        let others = postgres.revisions.iter().filter(|revision| what.contains(&revision.state));
        than.is_none_or(|than| others.into_iter().all(|other| other.number > than))
    };
    newer(postgres.active().map(|active| active.number), &[RevisionState::Claimed, RevisionState::Staged])
        && newer(postgres.staged().map(|staged| staged.number), &[RevisionState::Claimed])
}

/// Numbers grow, so a higher active one is a later one. Nothing that could be finished without the client is left.
fn nothing_lost(state: &State) -> bool {
    let postgres = &state.postgres;
    let stands = |(document, revision): &(u8, u8)| match postgres.document {
        Some(now) if now.id == *document => now.active_revision.is_some_and(|active| active >= *revision),
        _ => postgres.deleted.contains(*document),
    };
    state.acknowledged.iter().all(stands) && postgres.staged().is_none()
}

/// Whoever was killed keeps its key until its lease runs out; nobody else does.
fn told_at_once(state: &State) -> bool {
    let postgres = &state.postgres;
    postgres
        .keys
        .iter()
        .flatten()
        .filter(|key| key.answer.is_none() && postgres.leases.contains(key.fence))
        .all(|key| state.processes.iter().any(|process| process.lease.is_some_and(|lease| lease.fence == key.fence)))
}

fn refusals_are_due(state: &State) -> bool {
    let postgres = &state.postgres;
    state.processes.iter().all(|process| {
        let Role::Writer { key, content } = process.role else { return true };
        let Some(Key { began: Some((document, revision)), answer: Some(Answer::Refused), .. }) = postgres.keys[key]
        else {
            return true;
        };
        let replaced = postgres.document.and_then(|now| now.active_revision).is_some_and(|active| active > revision);
        content.texts().is_none() || postgres.deleted.contains(document) || replaced
    })
}

fn reachable(reach: Reach) -> Property<Scenario> {
    match reach {
        Reach::Carried => Property::sometimes("a chunk is carried over", |_, state: &State| {
            state.postgres.active().is_some_and(|a| {
                state.postgres.chunks.iter().any(|c| a.ids().contains(c.id) && c.first_revision < a.number)
            })
        }),
        Reach::Fenced => Property::sometimes("a zombie is told that it lost its lease", |_, state: &State| {
            at(state, |at| at == At::Fenced)
        }),
        Reach::LateUpsertOfDead => Property::sometimes(
            "an upsert is still to come for an id that was retired and removed",
            |_, state: &State| {
                let gone = |ids: super::ids::Ids| {
                    !ids.within(state.postgres.known().or(state.qdrant.points).or(state.postgres.retired))
                };
                state.qdrant.network.iter().any(|request| matches!(request, Request::Upsert(ids) if gone(*ids)))
            },
        ),
        Reach::Orphan => Property::sometimes("Qdrant holds an orphan", |_, state: &State| {
            !state.qdrant.points.within(state.postgres.known().or(state.postgres.retired))
        }),
        Reach::Replaced => {
            Property::sometimes("both contents are acknowledged", |_, state: &State| state.acknowledged.len() > 1)
        }
        Reach::SweptTakeover => {
            Property::sometimes("the sweeper takes a lease over from a holder that lives", |_, state: &State| {
                let sweeps = state.processes.iter().find(|p| p.role == Role::Sweeper).and_then(|sweeper| sweeper.lease);
                sweeps.is_some_and(|ours| {
                    state.processes.iter().any(|p| {
                        p.lease.is_some_and(|lease| lease.revision == ours.revision && lease.fence < ours.fence)
                    })
                })
            })
        }
        Reach::WriteAfterRetirement => {
            Property::sometimes("a zombie is about to write an id that is retired", |_, state: &State| {
                at(state, |at| !at.in_hand().within(state.postgres.known()))
            })
        }
        Reach::LateDelete => {
            Property::sometimes("a removal is still to come while another revision is active", |_, state: &State| {
                state.postgres.active().is_some()
                    && state.qdrant.network.iter().any(|request| matches!(request, Request::Delete(_)))
            })
        }
        Reach::DeletedMeanwhile => {
            Property::sometimes("a writer is told that its document was deleted", |_, state: &State| {
                at(state, |at| at == At::Refused)
            })
        }
        Reach::Repair => Property::sometimes("Verify finds a point missing", |_, state: &State| {
            at(state, |at| matches!(at, At::Repair { .. }))
        }),
        Reach::Missing => Property::sometimes("the audit finds a point missing", |_, state: &State| {
            at(state, |at| matches!(at, At::Missing { .. }))
        }),
        Reach::Outlived => {
            Property::sometimes("a revision becomes active beside a newer one that is claimed", |_, state: &State| {
                let claimed = |revision: &Revision| revision.state == RevisionState::Claimed;
                state.postgres.active().is_some()
                    && state.postgres.revisions.iter().any(claimed)
                    && state.postgres.document.is_some_and(|d| {
                        d.active_revision.is_some_and(|active| state.acknowledged.iter().any(|told| told.1 == active))
                    })
            })
        }
        Reach::Superseded => {
            Property::sometimes("an accepted revision is replaced before it is complete", |_, state: &State| {
                let replaced = |(document, revision): &(u8, u8)| {
                    state.postgres.document.is_some_and(|d| d.id == *document)
                        && !state.postgres.revisions.iter().any(|r| r.number == *revision)
                        && state.postgres.active().is_none()
                };
                state.acknowledged.iter().any(replaced)
            })
        }
    }
}

fn at(state: &State, condition: impl Fn(At) -> bool) -> bool {
    state.processes.iter().any(|process| condition(process.at))
}
