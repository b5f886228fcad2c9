//! All processes with both stores: which actions are possible, and what each one does.

use stateright::{Model, Property};

use super::{
    Scenario, Variant,
    ids::Ids,
    postgres::{Answer, Claimed, Lease, Postgres},
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

fn acknowledge(state: &mut State, document: u8, revision: u8) {
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

impl Scenario {
    fn actions_of(state: &State, index: usize, process: &Process, actions: &mut Vec<Action>) {
        let task = process.task();
        if !process.at.running() {
            if matches!(process.at, At::Idle | At::Fenced) && process.tries > 0 {
                actions.push(Action::Do(index, task));
            }
            return;
        }
        if state.budget.crashes > 0 {
            actions.push(Action::Crash(index, task));
        }
        let writes = matches!(process.role, Role::Writer { .. });
        if writes && state.budget.pauses > 0 && matches!(process.at, At::Write { .. }) {
            actions.push(Action::Pause(index, task));
        }
        let Some(request) = process.request() else {
            actions.push(Action::Do(index, task));
            return;
        };
        actions.push(Action::Send(index, task, request, Fate::Applied));
        if state.budget.faults > 0 {
            actions.extend(Fate::FAULTS.map(|fate| Action::Send(index, task, request, fate)));
            if matches!(request, Request::Upsert(_)) {
                let failed = Fate::FAULTS.into_iter().filter(|fate| !fate.answered());
                actions.extend(failed.map(|fate| Action::SendAndRepeat(index, task, request, fate)));
            }
        }
        if state.budget.lost_writes > 0 && matches!(request, Request::Upsert(_)) {
            actions.push(Action::Send(index, task, request, Fate::AnsweredThenLost));
        }
    }

    fn send(&self, state: &mut State, index: usize, request: Request, fate: Fate, repeat: bool) {
        let State { postgres, qdrant, processes, budget, wrong, .. } = state;
        let process = &mut processes[index];
        match fate {
            Fate::Applied => {}
            Fate::AnsweredThenLost => budget.lost_writes -= 1,
            _ => budget.faults -= 1,
        }
        if let Request::Upsert(ids) = request {
            // Who lost the lease may not know it yet; who has it never names an id that PostgreSQL does not hold.
            let holds = process.lease.is_some_and(|lease| postgres.holds(lease));
            wrong.unheld_id_written |= holds && !ids.within(postgres.known());
        }
        qdrant.send(request, fate, postgres);
        if repeat {
            return;
        }
        let answered = fate.answered();
        match process.at {
            At::Write { embedded, .. } if answered => process.at = At::Progress { embedded },
            At::Repair { ids, .. } if answered => process.at = At::Recount { ids },
            At::Write { .. } | At::Repair { .. } => self.release(state, index),
            At::Remove { ids, .. } if answered => process.at = At::Forget { ids },
            At::Orphans { missing, .. } if answered && !missing.is_empty() => process.at = At::Missing { missing },
            // The answer stands, and the list of retired points: the sweeper goes on.
            At::Remove { .. } if process.lease.is_some() || process.role != Role::Sweeper => self.cleaned(state, index),
            _ => process.finish(At::Idle),
        }
    }

    /// One step that is atomic in itself. `None` when it changes nothing, and the client will come again.
    fn step(&self, state: &mut State, index: usize) -> Option<()> {
        let process = state.processes[index];
        match (process.at, process.lease) {
            (At::Idle | At::Fenced, _) => self.begin(state, index)?,
            (At::TakeOver, _) => self.take_over(state, index),
            (At::Compare { other }, _) => self.compare(state, index, other),
            (At::Join { candidates, active }, _) => self.join(state, index, candidates, active),
            (At::Forget { ids }, _) => {
                state.postgres.forget(ids, self.variant);
                self.cleaned(state, index);
            }
            (at, Some(lease)) => self.saga(state, index, at, lease),
            (at, None) => unreachable!("{at:?} without a lease"),
        }
        Some(())
    }

    /// The steps that name the lease.
    fn saga(&self, state: &mut State, index: usize, at: At, lease: Lease) {
        let State { postgres, qdrant, processes, wrong, activations, .. } = state;
        let process = &mut processes[index];
        let next = match at {
            At::Stage => postgres.stage(lease, self.variant).then(|| self.pending(postgres, lease)),
            At::Progress { embedded } => {
                postgres.progress(lease, embedded, self.variant).then(|| self.pending(postgres, lease))
            }
            At::Count { ids } | At::Recount { ids } if ids.within(qdrant.points) => Some(At::Activate),
            At::Count { ids } => {
                Some(At::Repair { missing: ids.without(qdrant.points).and(postgres.page(lease)), ids })
            }
            At::Recount { .. } => return self.release(state, index),
            At::Activate => {
                if postgres.activate(lease, self.variant) {
                    let began = Some((lease.document, lease.revision));
                    for (times, key) in activations.iter_mut().zip(&postgres.keys) {
                        *times += u8::from(key.is_some_and(|key| key.began == began));
                    }
                    wrong.incomplete_activation |= !postgres.visible().within(qdrant.points);
                    return self.retired(state, index, lease.document);
                }
                None
            }
            At::GiveUp => postgres.give_up(lease, self.variant).then_some(At::Refused),
            at => unreachable!("{at:?}"),
        };
        match next {
            Some(At::Refused) => process.finish(At::Refused),
            Some(at) => process.at = at,
            None => {
                if self.variant != Variant::KeepsKey {
                    postgres.free_key(lease);
                }
                match process.role {
                    Role::Sweeper => self.due(state, index),
                    _ => process.finish(At::Fenced),
                }
            }
        }
    }

    /// `embed::pending`; where nothing is, `verify::page`.
    fn pending(&self, postgres: &Postgres, lease: Lease) -> At {
        match (postgres.pending(lease), postgres.page(lease)) {
            (Some((ids, embedded)), _) => At::Write { ids, embedded },
            (None, ids) if ids.is_empty() || self.variant == Variant::NoVerify => At::Activate,
            (None, ids) => At::Count { ids },
        }
    }

    /// `saga::release` after an error: the client comes again, the sweeper leaves it for later.
    fn release(&self, state: &mut State, index: usize) {
        let Process { lease, role, .. } = state.processes[index];
        if let Some(lease) = lease {
            state.postgres.release(lease, self.variant);
        }
        match role {
            Role::Sweeper => self.due(state, index),
            _ => state.processes[index].finish(At::Idle),
        }
    }

    /// Begins an invocation.
    fn begin(&self, state: &mut State, index: usize) -> Option<()> {
        state.processes[index].tries -= 1;
        match state.processes[index].role {
            Role::Writer { key, content } => {
                let (at, lease) = match state.postgres.claim(key, content, self.variant) {
                    Claimed::InFlight => return None,
                    Claimed::Refused | Claimed::Replay(Answer::Refused) => (At::Refused, None),
                    // The step Extract touches no store.
                    Claimed::Begun(lease) if content.texts().is_none() => (At::GiveUp, Some(lease)),
                    Claimed::Begun(lease) => (At::Stage, Some(lease)),
                    Claimed::Resumed(lease) => (self.pending(&state.postgres, lease), Some(lease)),
                    Claimed::Unchanged(document, revision) | Claimed::Replay(Answer::Active { document, revision }) => {
                        acknowledge(state, document, revision);
                        (At::Answered, None)
                    }
                };
                let process = &mut state.processes[index];
                (process.at, process.lease) = (at, lease);
            }
            Role::Deleter => {
                let document = state.postgres.delete()?;
                self.retired(state, index, document);
            }
            Role::Sweeper => self.take_over(state, index),
            Role::Reader => ask(state, index),
        }
        Some(())
    }

    /// `clean::clean_document` reads its list.
    fn retired(&self, state: &mut State, index: usize, document: u8) {
        let postgres = &state.postgres;
        let ids = postgres.retired.and(postgres.drawn_for(document));
        if ids.is_empty() {
            return self.cleaned(state, index);
        }
        let request = match self.variant {
            Variant::DeletesByFilter => Request::DeleteAllBut { document, kept: postgres.visible() },
            _ => Request::Delete(ids),
        };
        let ids = match self.variant {
            Variant::ForgetsWhatIsDueByNow | Variant::ForgetsAtOnce => ids,
            _ => ids.and(postgres.due),
        };
        state.processes[index].at = At::Remove { request, ids };
    }

    /// `clean::clean_due` reads its list; where that is empty, the audit reads the first store.
    fn due(&self, state: &mut State, index: usize) {
        let State { postgres, qdrant, processes, .. } = state;
        processes[index].finish(match postgres.due {
            ids if !ids.is_empty() => At::Remove { request: Request::Delete(ids), ids },
            _ if !self.audits => At::Idle,
            _ if self.variant == Variant::AuditsPostgresFirst => {
                At::Compare { other: postgres.known().or(postgres.retired) }
            }
            _ => At::Compare { other: qdrant.points },
        });
    }

    /// What one store has and the other has not. Qdrant was read first: an id that it had and that PostgreSQL does not
    /// hold afterwards is dead for ever.
    fn compare(&self, state: &mut State, index: usize, other: Ids) {
        let State { postgres, qdrant, processes, .. } = state;
        let (orphans, missing) = match self.variant {
            Variant::AuditsPostgresFirst => (qdrant.points.without(other), Ids::default()),
            _ => (other.without(postgres.known()).without(postgres.retired), postgres.visible().without(other)),
        };
        let process = &mut processes[index];
        match (orphans.is_empty(), missing.is_empty()) {
            (true, true) => process.finish(At::Idle),
            (true, false) => process.at = At::Missing { missing },
            (false, _) => process.at = At::Orphans { orphans, missing },
        }
    }

    /// `query::hydrate`. Where another revision is active than when Qdrant was asked, `query::refill` asks again.
    fn join(&self, state: &mut State, index: usize, candidates: Ids, active: Option<(u8, u8)>) {
        let visible = state.postgres.visible();
        let hits = if self.variant == Variant::NoJoin { candidates } else { candidates.and(visible) };
        if self.variant != Variant::NoJoin && shown(&state.postgres) != active {
            return ask(state, index);
        }
        state.wrong.dead_hit |= !hits.within(visible);
        state.wrong.missing_hit |= !visible.within(hits);
        state.processes[index].finish(At::Answered);
    }

    fn take_over(&self, state: &mut State, index: usize) {
        let Some(lease) = state.postgres.take_over_expired() else { return self.due(state, index) };
        state.processes[index].lease = Some(lease);
        state.processes[index].at = self.pending(&state.postgres, lease);
    }

    /// The end of a removal: the client is answered, the sweeper goes on.
    fn cleaned(&self, state: &mut State, index: usize) {
        let Process { role, lease, .. } = state.processes[index];
        match (role, lease) {
            (Role::Sweeper, Some(_)) => state.processes[index].finish(At::TakeOver),
            (Role::Sweeper, None) => self.due(state, index),
            (_, Some(lease)) => {
                acknowledge(state, lease.document, lease.revision);
                state.processes[index].finish(At::Answered);
            }
            (_, None) => state.processes[index].finish(At::Answered),
        }
    }
}

fn shown(postgres: &Postgres) -> Option<(u8, u8)> {
    postgres.document.and_then(|document| Some((document.id, document.active_revision?)))
}

fn ask(state: &mut State, index: usize) {
    let (candidates, active) = (state.qdrant.points, shown(&state.postgres));
    state.processes[index].at = At::Join { candidates, active };
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
