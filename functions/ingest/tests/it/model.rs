//! The protocol as a model that is searched exhaustively: every order of every process's steps, crashes, leases that run
//! out under a living holder, and requests to Qdrant that are lost, applied without an answer, twice, or late.
//!
//! One document; ids matter, texts only as far as equal ones keep their id. Each scenario is small enough that all its
//! states are seen. See docs/consistency.md.

mod ids;
mod postgres;
mod process;
mod properties;
mod qdrant;
mod rows;
mod steps;
mod system;

use std::{collections::BTreeSet, fmt::Write};

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::{
    process::Role,
    properties::Reach,
    rows::Content,
    system::{Action, Budget, State},
};

/// The protocol as it is built, or with one of its rules broken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Variant {
    #[default]
    AsBuilt,
    /// A new chunk may get an id that was retired.
    ReusesIds,
    /// Guarded statements do not name the fence.
    NoFence,
    /// Activation follows the last batch.
    NoVerify,
    /// Cleaning removes the document's points but for the active ones, instead of retired ids.
    DeletesByFilter,
    /// Cleaning forgets ids that a write in flight may bring back.
    ForgetsAtOnce,
    /// Cleaning forgets what is due when it forgets, also what was not yet when it read the list.
    ForgetsWhatIsDueByNow,
    /// The audit reads PostgreSQL, then Qdrant.
    AuditsPostgresFirst,
    /// A claim of other content discards what is unfinished, instead of leaving that to Stage.
    DiscardsInClaim,
    /// Stage leaves what is older and unfinished.
    KeepsOlder,
    /// Who lost the lease leaves its key as it is.
    KeepsKey,
    /// A query returns Qdrant's candidates as they are.
    NoJoin,
}

/// What takes part, and what may go wrong.
#[derive(Clone, Debug)]
struct Scenario {
    /// Each with the number of its invocations: a client sends a request again after a failure.
    processes: Vec<(Role, u8)>,
    budget: Budget,
    reaches: Vec<Reach>,
    variant: Variant,
    /// Whether the sweeper compares the stores.
    audits: bool,
    /// Whether a final refusal must have its reason; see [`properties::REFUSALS`].
    refusals: bool,
    /// Whether ids become due only when no write of them is under way any more.
    grace_holds: bool,
}

const FIRST: Role = Role::Writer { key: 0, content: Content::FIRST };
const SECOND: Role = Role::Writer { key: 1, content: Content::SECOND };
const FIRST_AGAIN: Role = Role::Writer { key: 1, content: Content::FIRST };
const FIRST_LATER: Role = Role::Writer { key: 2, content: Content::FIRST };
const UNREADABLE: Role = Role::Writer { key: 1, content: Content::UNREADABLE };

impl Scenario {
    fn new(processes: &[(Role, u8)], budget: Budget, reaches: &[Reach]) -> Self {
        let (processes, reaches) = (processes.to_vec(), reaches.to_vec());
        Self {
            processes,
            budget,
            reaches,
            variant: Variant::AsBuilt,
            audits: true,
            refusals: false,
            grace_holds: false,
        }
    }

    fn variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// Searches all states; every property must hold, every reach must be reached.
    fn holds(self) {
        let started = std::time::Instant::now();
        let checker = self.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        for property in self.properties() {
            let path = checker.discovery(property.name);
            match (property.expectation.discovery_is_failure(), path) {
                (true, Some(path)) => panic!("{}", self.story(&property, path.into_vec())),
                (false, None) => panic!("never reached: {}", property.name),
                _ => {}
            }
        }
        println!("{} states, depth {}, {:?}", checker.unique_state_count(), checker.max_depth(), started.elapsed());
    }

    /// Searches until this property is found violated.
    fn breaks(self, property: &'static str) {
        let found = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        let checker = self.clone().checker().finish_when(found).spawn_bfs().join();
        let path = checker.discovery(property).unwrap_or_else(|| panic!("not found wrong: {property}"));
        println!("{}", self.story(&self.property(property), path.into_vec()));
    }

    /// A counterexample, one line a step, up to the first state that is wrong.
    fn story(&self, property: &Property<Self>, path: Vec<(State, Option<Action>)>) -> String {
        let mut story = format!("violated: {}", property.name);
        for (number, (state, action)) in (1..).zip(path) {
            if !(property.condition)(self, &state) {
                let State { postgres, qdrant, acknowledged, .. } = &state;
                let _ = write!(story, "\n{postgres:?}\n{qdrant:?}\nacknowledged: {acknowledged:?}");
                break;
            }
            let Some(action) = action else { break };
            let _ = write!(story, "\n{number:>3}. {}", system::describe(&state, &action));
        }
        story
    }
}

const NOTHING_FAILS: Budget = Budget { crashes: 0, expiries: 0, faults: 0, pauses: 0, lost_writes: 0, lost_points: 0 };

#[test]
fn two_writers_and_a_sweeper_keep_every_promise() {
    let budget = Budget { crashes: 1, expiries: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Fenced, Reach::Carried, Reach::Replaced, Reach::SweptTakeover, Reach::WriteAfterRetirement];
    Scenario::new(&[(FIRST, 2), (SECOND, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn two_writers_and_late_requests_keep_every_promise() {
    let budget = Budget { expiries: 1, faults: 2, ..NOTHING_FAILS };
    let reaches = [Reach::Fenced, Reach::Orphan, Reach::LateDelete, Reach::WriteAfterRetirement];
    Scenario::new(&[(FIRST, 2), (SECOND, 1), (Role::Sweeper, 0)], budget, &reaches).holds();
}

#[test]
fn a_delete_during_ingestion_leaves_nothing() {
    let budget = Budget { crashes: 1, expiries: 1, faults: 1, ..NOTHING_FAILS };
    let reaches = [Reach::DeletedMeanwhile, Reach::LateUpsertOfDead, Reach::Orphan, Reach::Fenced];
    Scenario::new(&[(FIRST, 2), (Role::Deleter, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn two_writers_and_a_deleter_keep_every_promise() {
    let processes = [(FIRST, 2), (SECOND, 1), (Role::Deleter, 1), (Role::Sweeper, 0)];
    let late = Budget { faults: 1, ..NOTHING_FAILS };
    Scenario::new(&processes, late, &[Reach::DeletedMeanwhile, Reach::Fenced, Reach::Orphan]).holds();
    let killed = Budget { crashes: 1, expiries: 1, ..NOTHING_FAILS };
    Scenario::new(&processes, killed, &[Reach::DeletedMeanwhile, Reach::Fenced, Reach::Orphan]).holds();
}

#[test]
fn a_request_sent_twice_at_the_same_time_is_not_doubled() {
    let budget = Budget { crashes: 1, expiries: 1, faults: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Fenced, Reach::SweptTakeover];
    Scenario::new(&[(FIRST, 2), (FIRST, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn a_reader_sees_the_active_revision_and_all_of_it() {
    let budget = Budget { expiries: 1, faults: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Carried, Reach::Replaced, Reach::Orphan];
    Scenario::new(&[(FIRST, 2), (SECOND, 1), (Role::Reader, 1), (Role::Sweeper, 0)], budget, &reaches).holds();
}

#[test]
fn a_reader_sees_nothing_of_a_deleted_document() {
    let budget = Budget { faults: 1, ..NOTHING_FAILS };
    let processes = [(FIRST, 1), (Role::Deleter, 1), (Role::Reader, 1), (Role::Sweeper, 0)];
    Scenario::new(&processes, budget, &[]).holds();
}

#[test]
fn verify_finds_a_write_that_was_acknowledged_and_lost() {
    let budget = Budget { expiries: 1, lost_writes: 1, ..NOTHING_FAILS };
    Scenario::new(&[(FIRST, 1), (SECOND, 1), (Role::Sweeper, 1)], budget, &[Reach::Repair]).holds();
}

#[test]
fn the_audit_writes_a_point_that_qdrant_lost() {
    let budget = Budget { expiries: 1, lost_points: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Repair, Reach::Missing];
    Scenario::new(&[(FIRST, 1), (SECOND, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn an_accepted_ingestion_is_finished_by_the_sweeper() {
    let budget = Budget { crashes: 1, expiries: 1, pauses: 1, faults: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Fenced, Reach::SweptTakeover];
    Scenario::new(&[(FIRST, 1), (FIRST_AGAIN, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn an_accepted_ingestion_may_be_replaced_before_it_is_complete() {
    let budget = Budget { expiries: 1, pauses: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Superseded, Reach::Fenced];
    Scenario::new(&[(FIRST, 1), (SECOND, 1), (Role::Sweeper, 1)], budget, &reaches).holds();
}

#[test]
fn an_accepted_ingestion_outlives_a_successor_that_dies_before_stage() {
    let budget = Budget { pauses: 1, crashes: 1, expiries: 1, ..NOTHING_FAILS };
    let reaches = [Reach::Outlived, Reach::Superseded, Reach::Fenced];
    let scenario = Scenario::new(&[(FIRST, 2), (SECOND, 2), (Role::Sweeper, 1)], budget, &reaches);
    Scenario { refusals: true, ..scenario }.holds();
}

#[test]
fn an_accepted_ingestion_outlives_a_successor_that_can_not_be_read() {
    let budget = Budget { pauses: 1, ..NOTHING_FAILS };
    Scenario::new(&[(FIRST, 1), (UNREADABLE, 1), (Role::Sweeper, 0)], budget, &[]).holds();
}

#[test]
fn no_request_is_refused_because_of_a_successor_that_came_to_nothing() {
    let budget = Budget { crashes: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 2), (UNREADABLE, 1), (Role::Sweeper, 0)], budget, &[]);
    Scenario { refusals: true, ..scenario }.holds();
}

#[test]
fn the_list_alone_suffices_if_it_forgets_only_what_was_due_when_it_was_read() {
    without_audit().holds();
}

#[test]
fn broken_forgetting_of_what_has_become_due_since_it_was_read_is_found() {
    without_audit().variant(Variant::ForgetsWhatIsDueByNow).breaks(properties::NOTHING_LEFT);
}

/// Nothing is written later than the grace allows for: then no audit should be needed.
fn without_audit() -> Scenario {
    let budget = Budget { expiries: 1, faults: 1, ..NOTHING_FAILS };
    let processes = [(FIRST, 1), (SECOND, 1), (Role::Sweeper, 1)];
    Scenario { audits: false, grace_holds: true, ..Scenario::new(&processes, budget, &[Reach::Fenced]) }
}

#[test]
fn broken_reuse_of_a_retired_id_is_found() {
    let budget = Budget { faults: 1, expiries: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 1), (SECOND, 1), (Role::Sweeper, 0)], budget, &[]);
    scenario.variant(Variant::ReusesIds).breaks(properties::ACTIVE_COMPLETE);
}

#[test]
fn broken_fence_is_found() {
    let budget = Budget { expiries: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Sweeper, 1)], budget, &[]);
    scenario.variant(Variant::NoFence).breaks(properties::FENCED);
}

#[test]
fn broken_activation_without_verify_is_found() {
    let budget = Budget { lost_writes: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Sweeper, 0)], budget, &[]);
    scenario.variant(Variant::NoVerify).breaks(properties::ACTIVE_COMPLETE);
}

#[test]
fn broken_removal_by_filter_is_found() {
    let scenario = Scenario::new(&[(FIRST, 1), (SECOND, 1), (FIRST_LATER, 1), (Role::Sweeper, 0)], NOTHING_FAILS, &[]);
    scenario.variant(Variant::DeletesByFilter).breaks(properties::ACTIVE_COMPLETE);
}

#[test]
fn broken_forgetting_without_audit_is_found() {
    let budget = Budget { faults: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Deleter, 1), (Role::Sweeper, 0)], budget, &[]);
    Scenario { audits: false, grace_holds: true, ..scenario }
        .variant(Variant::ForgetsAtOnce)
        .breaks(properties::NOTHING_LEFT);
}

#[test]
fn broken_audit_that_reads_postgresql_first_is_found() {
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Sweeper, 1)], NOTHING_FAILS, &[]);
    scenario.variant(Variant::AuditsPostgresFirst).breaks(properties::ACTIVE_COMPLETE);
}

#[test]
fn broken_claim_that_discards_what_was_accepted_is_found() {
    let scenario = |other, budget| Scenario::new(&[(FIRST, 1), (other, 1), (Role::Sweeper, 0)], budget, &[]);
    let killed = scenario(SECOND, Budget { pauses: 1, crashes: 1, ..NOTHING_FAILS });
    killed.variant(Variant::DiscardsInClaim).breaks(properties::NOTHING_LOST);
    let unreadable = scenario(UNREADABLE, Budget { pauses: 1, ..NOTHING_FAILS });
    unreadable.variant(Variant::DiscardsInClaim).breaks(properties::NOTHING_LOST);
}

#[test]
fn broken_stage_that_leaves_what_is_older_is_found() {
    let budget = Budget { pauses: 1, ..NOTHING_FAILS };
    let scenario = Scenario::new(&[(FIRST, 1), (SECOND, 1), (Role::Sweeper, 0)], budget, &[]);
    scenario.variant(Variant::KeepsOlder).breaks(properties::ONE_EACH);
}

#[test]
fn broken_end_of_a_zombie_that_keeps_its_key_is_found() {
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Deleter, 1), (Role::Sweeper, 0)], NOTHING_FAILS, &[]);
    scenario.variant(Variant::KeepsKey).breaks(properties::TOLD_AT_ONCE);
}

#[test]
fn broken_query_without_the_join_is_found() {
    let scenario = Scenario::new(&[(FIRST, 1), (Role::Reader, 1), (Role::Sweeper, 0)], NOTHING_FAILS, &[]);
    scenario.variant(Variant::NoJoin).breaks(properties::HITS_ALIVE);
}
