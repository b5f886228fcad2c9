//! Filters: a small language over a document's fields and the user's own attributes.
//!
//! ```json
//! {"attributes.lang": {"in": ["en", "de"]}, "created_at": {"gte": "2026-01-01T00:00:00Z"},
//!  "not": {"attributes.tags": {"eq": "draft"}}}
//! ```
//!
//! An object holds when all its members hold. A member is a field with its tests, or `and`, `or` (arrays of filters), `not`
//! (a filter).
//!
//! **Every test is true or false; there is no third value.** A test of something that a document does not have, or has as
//! another type, is false. `ne` is the negation of `eq`, and so true of what is not there; `not` is plain negation. A `null`
//! attribute counts as not there. Of an attribute that is an array, a test holds when it holds for one of its elements.
//!
//! `parse` reads it, [`sql`] makes a condition of it whose only text is ours: names and values of users are parameters.

mod contract;
mod parse;
pub(crate) mod sql;

use serde_json::Number;
use time::OffsetDateTime;

pub(crate) use self::{contract::FilterBody, parse::parse};

/// What a document must be like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    /// All of these hold; true of none.
    All(Vec<Filter>),
    /// One of these holds; false of none.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// A field passes a test.
    Test(Field, Test),
}

/// What is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    /// A field of every document.
    Column(Column),
    /// A user's attribute, by the keys that lead to it.
    Attribute(Vec<String>),
}

/// A field of every document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Column {
    SourceUri,
    Title,
    MediaType,
    SizeBytes,
    CreatedAt,
    UpdatedAt,
}

/// A test of one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// It is one of these.
    In(Vec<Scalar>),
    /// It stands so to this: numbers by size, texts by their bytes, times by the clock.
    Compare(Comparison, Scalar),
    /// It is a text that begins so.
    Prefix(String),
    /// It is there.
    Exists,
}

/// How two values stand to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Text(String),
    Number(Number),
    Bool(bool),
    Time(OffsetDateTime),
}

impl Column {
    const ALL: [(&'static str, Self); 6] = [
        ("source_uri", Self::SourceUri),
        ("title", Self::Title),
        ("media_type", Self::MediaType),
        ("size_bytes", Self::SizeBytes),
        ("created_at", Self::CreatedAt),
        ("updated_at", Self::UpdatedAt),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, column)| *column)
    }
}

#[cfg(test)]
mod tests;
