//! The processes of the model, and where each one stands between two steps.

use ingest::saga::Step;

use super::{ids::Ids, postgres::Lease, qdrant::Request, rows::Content};

/// What a process is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// `POST /documents` with this idempotency key and content; the client sends it again after a failure.
    Writer { key: usize, content: Content },
    /// `DELETE /documents/{id}`.
    Deleter,
    /// `sweep`: finishes what was interrupted, removes what is due, audits.
    Sweeper,
    /// `POST /query`.
    Reader,
}

/// Where a process stands: what it will do next, and what it holds in its memory for that.
///
/// What a step reads from PostgreSQL is read together with the step before it. Other processes act in between all the same,
/// on what was read then: the reader is never better informed than in the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum At {
    /// No invocation runs; whoever sends it may do so, or do so again.
    Idle,
    /// Will commit the chunks.
    Stage,
    /// Will write this chunk's point.
    Write { ids: Ids, embedded: u8 },
    /// Will commit the progress.
    Progress { embedded: u8 },
    /// Will count these in Qdrant.
    Count { ids: Ids },
    /// Will write those that were missing.
    Repair { missing: Ids, ids: Ids },
    /// Will count again.
    Recount { ids: Ids },
    /// Will activate.
    Activate,
    /// Will remove them from Qdrant.
    Remove { request: Request, ids: Ids },
    /// Will remove them from the list.
    Forget { ids: Ids },
    /// Extraction found that the content can not be read: will take the revision back.
    GiveUp,
    /// The sweeper: will look for an expired lease.
    TakeOver,
    /// The sweeper: will compare them with PostgreSQL's.
    Compare { other: Ids },
    /// The sweeper: will remove orphans, then write what is missing.
    Orphans { orphans: Ids, missing: Ids },
    /// The sweeper: will write what is missing.
    Missing { missing: Ids },
    /// The reader: has Qdrant's candidates, will join them. `active` is what was active when Qdrant was asked.
    Join { candidates: Ids, active: Option<(u8, u8)> },
    /// The end: answered.
    Answered,
    /// The end: was told that its lease is lost. The client may send again.
    Fenced,
    /// The end: the document was deleted meanwhile, or can not be read.
    Refused,
}

impl At {
    /// Whether an invocation is under way.
    pub fn running(self) -> bool {
        !matches!(self, Self::Idle | Self::Answered | Self::Fenced | Self::Refused)
    }

    /// The ids that an upsert may be sent for without asking PostgreSQL again.
    pub fn in_hand(self) -> Ids {
        match self {
            Self::Write { ids, .. } => ids,
            Self::Repair { missing, .. } | Self::Missing { missing } | Self::Orphans { missing, .. } => missing,
            _ => Ids::default(),
        }
    }
}

/// A step's name, for the actions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Task {
    /// A step of the saga.
    Saga(Step),
    /// `documents::delete`.
    Delete,
    /// The sweeper's comparison of both stores.
    Audit,
    /// `query::hydrate` and the search before it.
    Query,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Process {
    pub role: Role,
    pub at: At,
    pub lease: Option<Lease>,
    /// Invocations that may still be begun.
    pub tries: u8,
}

impl Process {
    pub fn new(role: Role, tries: u8) -> Self {
        Self { role, at: At::Idle, lease: None, tries }
    }

    pub fn task(&self) -> Task {
        match (self.at, self.role) {
            (At::Idle | At::Fenced, Role::Writer { .. } | Role::Sweeper) | (At::TakeOver, _) => Task::Saga(Step::Claim),
            (At::Idle | At::Fenced, Role::Deleter) => Task::Delete,
            (At::Idle | At::Fenced, Role::Reader) | (At::Join { .. }, _) => Task::Query,
            (At::GiveUp | At::Answered | At::Refused, _) => Task::Saga(Step::Extract),
            (At::Stage, _) => Task::Saga(Step::Stage),
            (At::Write { .. } | At::Progress { .. }, _) => Task::Saga(Step::Embed),
            (At::Count { .. } | At::Repair { .. } | At::Recount { .. }, _) => Task::Saga(Step::Verify),
            (At::Activate, _) => Task::Saga(Step::Activate),
            (At::Remove { .. } | At::Forget { .. }, _) => Task::Saga(Step::Clean),
            (At::Compare { .. } | At::Orphans { .. } | At::Missing { .. }, _) => Task::Audit,
        }
    }

    /// The request to Qdrant that comes next.
    pub fn request(&self) -> Option<Request> {
        match self.at {
            At::Write { ids, .. } => Some(Request::Upsert(ids)),
            At::Repair { missing, .. } | At::Missing { missing } => Some(Request::Upsert(missing)),
            At::Remove { request, .. } => Some(request),
            At::Orphans { orphans, .. } => Some(Request::Delete(orphans)),
            _ => None,
        }
    }

    pub fn finish(&mut self, at: At) {
        (self.at, self.lease) = (at, None);
    }
}
