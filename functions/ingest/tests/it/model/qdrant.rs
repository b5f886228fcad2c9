//! Qdrant in the model: a set of points, and the requests that are still on their way to it.

use super::{ids::Ids, postgres::Postgres};

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Request {
    Upsert(Ids),
    /// By id, as the code does it.
    Delete(Ids),
    /// By filter: what a broken variant does. All points of the document but these.
    DeleteAllBut {
        document: u8,
        kept: Ids,
    },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fate {
    /// Applied, then answered.
    Applied,
    /// Applied and answered, and once more at any time later.
    AppliedTwice,
    /// Applied, and the answer is an error or lost.
    AppliedThenError,
    /// An error, and never applied.
    Lost,
    /// An error, and applied at any time later.
    Late,
    /// Answered as if it were applied, and never applied: what Qdrant does not do with `wait=true`, unless it then loses it.
    AnsweredThenLost,
}

impl Fate {
    pub const FAULTS: [Self; 4] = [Self::AppliedTwice, Self::AppliedThenError, Self::Lost, Self::Late];

    /// Whether the sender is answered with success.
    pub fn answered(self) -> bool {
        matches!(self, Self::Applied | Self::AppliedTwice | Self::AnsweredThenLost)
    }
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Qdrant {
    pub points: Ids,
    /// Requests that will still be applied. In no order: each may be the next.
    pub network: Vec<Request>,
}

impl Qdrant {
    pub fn send(&mut self, request: Request, fate: Fate, postgres: &Postgres) {
        if matches!(fate, Fate::Applied | Fate::AppliedTwice | Fate::AppliedThenError) {
            self.apply(request, postgres);
        }
        if matches!(fate, Fate::AppliedTwice | Fate::Late) {
            self.network.push(request);
            self.network.sort_unstable();
        }
    }

    pub fn deliver(&mut self, index: usize, postgres: &Postgres) {
        let request = self.network.remove(index);
        self.apply(request, postgres);
    }

    /// `postgres` only says of which document a point is, which stands in the point's payload.
    fn apply(&mut self, request: Request, postgres: &Postgres) {
        self.points = match request {
            Request::Upsert(ids) => self.points.or(ids),
            Request::Delete(ids) => self.points.without(ids),
            Request::DeleteAllBut { document, kept } => self.points.without(postgres.drawn_for(document).without(kept)),
        };
    }

    /// Whether an upsert of this id is still to come.
    pub fn expects(&self, id: u8) -> bool {
        self.network.iter().any(|request| matches!(request, Request::Upsert(ids) if ids.contains(id)))
    }
}
