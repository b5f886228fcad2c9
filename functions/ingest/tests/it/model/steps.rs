//! What a process may do next, and what that does to both stores.

use super::{
    Scenario, Variant,
    ids::Ids,
    postgres::{Claimed, Lease, Postgres},
    process::{At, Process, Role},
    qdrant::{Fate, Request},
    rows::Answer,
    system::{Action, State, acknowledge},
};

impl Scenario {
    pub fn actions_of(state: &State, index: usize, process: &Process, actions: &mut Vec<Action>) {
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

    pub fn send(&self, state: &mut State, index: usize, request: Request, fate: Fate, repeat: bool) {
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
    pub fn step(&self, state: &mut State, index: usize) -> Option<()> {
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
