//! All processes with both stores, and what may happen to them.

use stateright::{Model, Property};

use super::{
    Scenario,
    ids::Ids,
    postgres::Postgres,
    process::{At, Process, Role, Task},
    properties,
    qdrant::{Fate, Qdrant, Request},
};

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Budget {
    /// Processes that are killed.
    pub crashes: u8,
    /// Leases that run out while their holder lives on.
    pub expiries: u8,
    /// Requests to Qdrant with another fate than [`Fate::Applied`].
    pub faults: u8,
    /// Invocations whose time is over before the work is done.
    pub pauses: u8,
    /// Writes that Qdrant acknowledges and loses.
    pub lost_writes: u8,
    /// Points that Qdrant loses later, at any time.
    pub lost_points: u8,
}

/// What was seen to go wrong in a step, and can not be seen in a state.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "one for each thing that can go wrong")]
pub struct Wrong {
    pub dead_hit: bool,
    pub missing_hit: bool,
    pub unheld_id_written: bool,
    pub incomplete_activation: bool,
    pub fenced_write: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    pub postgres: Postgres,
    pub qdrant: Qdrant,
    pub processes: Vec<Process>,
    pub budget: Budget,
    /// Revisions that a client was told of: (document, revision), accepted (202) ones included.
    pub acknowledged: Vec<(u8, u8)>,
    /// How often the work of each idempotency key became active.
    pub activations: [u8; 3],
    /// Once all else is over, the sweeper runs again, and nothing fails. What retires in that run is due in the next.
    pub last_runs: u8,
    pub wrong: Wrong,
}

impl State {
    /// Nothing is left to do.
    pub fn quiescent(&self) -> bool {
        self.last_runs > 0 && self.idle() && !self.may_run_again()
    }

    fn may_run_again(&self) -> bool {
        self.last_runs == 0 || (self.last_runs == 1 && !self.postgres.retired.within(self.postgres.due))
    }

    fn idle(&self) -> bool {
        self.processes.iter().all(|process| !process.at.running())
    }
}

/// One atomic step. The first field is the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// A transaction, or a read of a store.
    Do(usize, Task),
    /// A request to Qdrant that changes points, and what becomes of it.
    Send(usize, Task, Request, Fate),
    /// The same, after which the sender sends again.
    SendAndRepeat(usize, Task, Request, Fate),
    /// The invocation's time is over: the lease is given back, the client is told 202.
    Pause(usize, Task),
    /// The process is killed before its next step.
    Crash(usize, Task),
    /// The lease with this fence runs out.
    Expire(u8),
    /// A request arrives late.
    Deliver(usize, Request),
    /// Time passes: this id's grace is over.
    Due(u8),
    /// Qdrant loses this point.
    LosePoint(u8),
    /// Time passes: all leases and graces end, and the sweeper runs again.
    LastRun,
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            postgres: Postgres::default(),
            qdrant: Qdrant::default(),
            processes: self.processes.iter().map(|(role, tries)| Process::new(*role, *tries)).collect(),
            budget: self.budget,
            acknowledged: Vec::new(),
            activations: [0; 3],
            last_runs: 0,
            wrong: Wrong::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, process) in state.processes.iter().enumerate() {
            Self::actions_of(state, index, process, actions);
        }
        if state.qdrant.network.is_empty() && state.idle() && state.may_run_again() {
            actions.push(Action::LastRun);
        }
        if state.last_runs > 0 {
            return;
        }
        for fence in state.postgres.leases.iter() {
            let lives = state.processes.iter().any(|p| p.lease.is_some_and(|lease| lease.fence == fence));
            if !lives || state.budget.expiries > 0 {
                actions.push(Action::Expire(fence));
            }
        }
        for (index, request) in state.qdrant.network.iter().enumerate() {
            actions.push(Action::Deliver(index, *request));
        }
        for id in state.postgres.retired.without(state.postgres.due).iter() {
            let in_flight =
                state.qdrant.expects(id) || state.processes.iter().any(|process| process.at.in_hand().contains(id));
            if !(self.grace_holds && in_flight) {
                actions.push(Action::Due(id));
            }
        }
        if state.budget.lost_points > 0 {
            actions.extend(state.qdrant.points.iter().map(Action::LosePoint));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Do(index, _) => self.step(&mut state, index)?,
            Action::Send(index, _, request, fate) => self.send(&mut state, index, request, fate, false),
            Action::SendAndRepeat(index, _, request, fate) => self.send(&mut state, index, request, fate, true),
            Action::Pause(index, _) => {
                state.budget.pauses -= 1;
                let lease = state.processes[index].lease?;
                state.postgres.release(lease, self.variant);
                acknowledge(&mut state, lease.document, lease.revision);
                state.processes[index].finish(At::Answered);
            }
            Action::Crash(index, _) => {
                state.budget.crashes -= 1;
                state.processes[index].finish(At::Idle);
            }
            Action::Expire(fence) => {
                if state.processes.iter().any(|p| p.lease.is_some_and(|lease| lease.fence == fence)) {
                    state.budget.expiries -= 1;
                }
                state.postgres.leases.remove(fence);
            }
            Action::Deliver(index, _) => state.qdrant.deliver(index, &state.postgres),
            Action::Due(id) => state.postgres.due.insert(id),
            Action::LosePoint(id) => {
                state.budget.lost_points -= 1;
                state.qdrant.points.remove(id);
            }
            Action::LastRun => last_run(&mut state),
        }
        let holder = match action {
            Action::Do(index, _) | Action::Pause(index, _) => last.processes[index].lease,
            _ => None,
        };
        if let Some(lease) = holder.filter(|lease| !last.postgres.holds(*lease)) {
            // Removing dead ids from their list needs no lease; the lease of the own idempotency key may be ended.
            let (now, then) = (&state.postgres, &last.postgres);
            let ended = then.leases.without(now.leases).without(Ids::from_iter([lease.fence]));
            let changed = (now.document, &now.revisions, &now.chunks) != (then.document, &then.revisions, &then.chunks);
            state.wrong.fenced_write |= changed || !ended.is_empty();
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

pub fn acknowledge(state: &mut State, document: u8, revision: u8) {
    if !state.acknowledged.contains(&(document, revision)) {
        state.acknowledged.push((document, revision));
        state.acknowledged.sort_unstable();
    }
}

fn last_run(state: &mut State) {
    state.last_runs += 1;
    state.budget = Budget::default();
    state.postgres.leases = Ids::default();
    state.postgres.due = state.postgres.retired;
    for process in &mut state.processes {
        if process.role == Role::Sweeper {
            process.at = At::TakeOver;
        } else {
            process.finish(At::Answered);
        }
        process.tries = 0;
    }
}

/// An action in words; `state` is the one before it.
pub fn describe(state: &State, action: &Action) -> String {
    let who = |index: usize| {
        let Process { role, lease, .. } = state.processes[index];
        let name = match role {
            Role::Writer { key, content } => format!("writer {index} (key {key}, content {})", content.0),
            role => format!("{role:?}").to_lowercase(),
        };
        let lease = lease.map(|lease| format!(" [revision {}, fence {}]", lease.revision, lease.fence));
        name + &lease.unwrap_or_default()
    };
    match action {
        Action::Do(index, task) => format!("{}: {task:?}, {:?}", who(*index), state.processes[*index].at),
        Action::Send(index, task, request, fate) => format!("{}: {task:?}, sends {request:?}: {fate:?}", who(*index)),
        Action::SendAndRepeat(index, task, request, fate) => {
            format!("{}: {task:?}, sends {request:?}: {fate:?}, and will send it again", who(*index))
        }
        Action::Pause(index, task) => format!("{}: {task:?}, its time is over, the client is told 202", who(*index)),
        Action::Crash(index, task) => format!("{}: is killed before {task:?}", who(*index)),
        Action::Expire(fence) => format!("the lease with fence {fence} runs out"),
        Action::Deliver(_, request) => format!("Qdrant: {request:?} arrives late"),
        Action::Due(id) => format!("the grace of {id} is over"),
        Action::LosePoint(id) => format!("Qdrant loses {id}"),
        Action::LastRun => "time passes, and the sweeper runs again".to_owned(),
    }
}
