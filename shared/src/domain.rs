//! The words of the domain as types: parsed once at the edge, trusted inside. No I/O.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema},
};
use uuid::Uuid;

/// Declares a UUID newtype, so that one kind of id can not be passed for another.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Draws a new id: a UUIDv7, so that ids drawn later sort later.
            #[must_use]
            pub fn draw() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A person's account.
    UserId
);
id!(
    /// A session: a login and what was refreshed from it.
    SessionId
);
id!(
    /// A knowledge base: the unit of access.
    KnowledgeBaseId
);
id!(
    /// An API key.
    ApiKeyId
);
id!(
    /// An invitation into a knowledge base.
    InvitationId
);
id!(
    /// A document, through all its revisions.
    DocumentId
);
id!(
    /// A chunk, and the Qdrant point that holds its vectors. Committed in PostgreSQL before the point is
    /// written, and never used again once it is retired.
    ChunkId
);

/// SHA-256 of a document's source as it was sent. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for ContentHash {
    fn schema() -> RefOr<schema::Schema> {
        schema::Object::builder().schema_type(schema::Type::String).pattern(Some("^[0-9a-f]{64}$")).into()
    }
}

impl ToSchema for ContentHash {}

impl TryFrom<&[u8]> for ContentHash {
    type Error = InvalidValue;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| InvalidValue::new("is not 32 bytes long"))
    }
}

/// What a member may do in a knowledge base. Ordered: a later role may do all that an earlier one may.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and queries.
    Viewer,
    /// Also adds, changes and deletes documents.
    Editor,
    /// Also renames and deletes the knowledge base, and changes who is a member.
    Owner,
}

impl Role {
    /// The word that stands in `knowledge_base_members.role`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Role {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "editor" => Ok(Self::Editor),
            "owner" => Ok(Self::Owner),
            _ => Err(InvalidValue::new("is not one of viewer, editor, owner")),
        }
    }
}

/// Why a value was not accepted; reads as the end of "`field` ...".
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    /// `reason` reads as the end of a sentence that begins with the field's name: "is empty".
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Declares a text newtype of one line: 1 to `$max` bytes, no control characters, no outer white space.
macro_rules! line {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The most bytes such a text may have.
            pub const BYTES_MAX: usize = $max;

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                one_line(text, Self::BYTES_MAX).map(|text| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<schema::Schema> {
                let text = schema::Object::builder().schema_type(schema::Type::String).pattern(Some(LINE));
                text.min_length(Some(1)).max_length(Some(Self::BYTES_MAX)).into()
            }
        }

        impl ToSchema for $name {}
    };
}

/// What [`one_line`] takes, as the API's contract says it: visible characters, with any white space around them.
const LINE: &str =
    r"^\s*[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?\s*$";

line!(
    /// Where a document came from: names it within its knowledge base. A URI, a path or any other stable name;
    /// at most 2,048 bytes, what PostgreSQL can hold in one entry of a B-tree index (2,704) less its knowledge base.
    SourceUri,
    2_048
);
line!(
    /// A document's title, for people.
    Title,
    1_024
);
line!(
    /// The name of a knowledge base or a person, for people.
    DisplayName,
    256
);
line!(
    /// A client's idempotency key: draft-ietf-httpapi-idempotency-key-header.
    IdempotencyKey,
    255
);

/// Checks a text of one line and trims it.
fn one_line(text: &str, bytes_max: usize) -> Result<&str, InvalidValue> {
    if text.len() > bytes_max {
        return Err(InvalidValue::new(format!("is longer than {bytes_max} bytes")));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidValue::new("is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::new("contains a control character"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_what_they_may_do() {
        assert!(Role::Viewer < Role::Editor && Role::Editor < Role::Owner);
        for role in [Role::Viewer, Role::Editor, Role::Owner] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_line_is_trimmed_bounded_and_free_of_control_characters() {
        assert_eq!("  a title ".parse::<Title>().unwrap().as_str(), "a title");
        for bad in ["", "   ", "a\0b", "a\nb", "a\u{85}b", &"x".repeat(Title::BYTES_MAX + 1)] {
            assert!(bad.parse::<Title>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_content_hash_is_shown_in_hexadecimal_with_its_leading_zeros() {
        let hash = ContentHash::try_from([&[0x00, 0x0f, 0xa0][..], &[0xff; 29]].concat().as_slice()).unwrap();
        assert_eq!(hash.to_string(), format!("000fa0{}", "ff".repeat(29)));
        assert!(ContentHash::try_from(&[0; 31][..]).is_err());
    }

    #[test]
    fn ids_drawn_later_sort_later() {
        let first = ChunkId::draw();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < ChunkId::draw());
    }
}
