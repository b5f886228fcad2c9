//! What PostgreSQL's tables hold in the model.

use super::ids::Ids;

/// Stands for a chunk's text: equal texts keep their id from one revision to the next.
pub type Text = u8;

/// The revisions that clients send: which texts each one is cut into. The second changes one chunk, the last one can not be
/// read.
const CONTENTS: [Option<&[Text]>; 3] = [Some(&[0, 1]), Some(&[1, 2]), None];

/// What a client sends, as an index of [`CONTENTS`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Content(pub u8);

impl Content {
    /// Two chunks.
    pub const FIRST: Self = Self(0);
    /// Two chunks, one of them the first content's second.
    pub const SECOND: Self = Self(1);
    /// No text can be extracted from it.
    pub const UNREADABLE: Self = Self(2);

    pub fn texts(self) -> Option<&'static [Text]> {
        CONTENTS[usize::from(self.0)]
    }
}

/// The row of `documents` that has the one `source_uri` of the model.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Document {
    pub id: u8,
    pub active_revision: Option<u8>,
    pub latest_revision: u8,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RevisionState {
    Claimed,
    Staged,
    Active,
}

/// A row of `document_revisions`. Retired ones are left out: an active one with a higher number says the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Revision {
    pub number: u8,
    pub state: RevisionState,
    pub content: Content,
    pub fence: u8,
    /// `chunk_positions`: the id at each ordinal. None as long as it is claimed.
    pub positions: Vec<u8>,
    /// New chunks before this position are in Qdrant (`embedded_through` plus one).
    pub embedded: u8,
}

impl Revision {
    pub fn ids(&self) -> Ids {
        self.positions.iter().copied().collect()
    }

    /// Whether it may still become active.
    pub fn unfinished(&self) -> bool {
        self.state != RevisionState::Active
    }
}

/// A row of `chunk_metadata`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Chunk {
    pub id: u8,
    pub text: Text,
    pub first_revision: u8,
}

/// A row of `idempotency_keys`. Its lease ends with the one that has the same fence.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    pub fence: u8,
    /// Document and revision that it began.
    pub began: Option<(u8, u8)>,
    pub answer: Option<Answer>,
}

/// What a client is told in the end.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Answer {
    /// The revision of the document is active.
    Active { document: u8, revision: u8 },
    /// The content can not be read, or what the request began was deleted or replaced.
    Refused,
}
