//! Sets of small numbers, as bits.

use std::fmt::{self, Debug, Display};

/// Ids of chunks (or fences), each below 16.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ids(u16);

impl Ids {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }

    pub fn insert(&mut self, id: u8) {
        self.0 |= 1 << id;
    }

    pub fn remove(&mut self, id: u8) {
        self.0 &= !(1 << id);
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of these are among `others`.
    pub fn within(self, others: Self) -> bool {
        self.without(others).is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |id| self.contains(*id))
    }
}

impl FromIterator<u8> for Ids {
    fn from_iter<I: IntoIterator<Item = u8>>(ids: I) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

impl Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(self, f)
    }
}
