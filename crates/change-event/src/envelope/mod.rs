//! The value of a record: a Debezium envelope in JSON, bare or (on request) beside the inline schema that Debezium's consumers want.
//!
//! `{"before":…,"after":…,"source":{…},"op":"c","ts_ms":…,"transaction":{…}}`; docs/ENVELOPE.md lists where it differs from
//! Debezium's on purpose.
//!
//! # Invariants
//! - A column of `after` that is absent is *unavailable* (unchanged TOAST): never null, never a placeholder.
//! - `before` holds only what the source sent: the key, or the whole row under `REPLICA IDENTITY FULL`.
//! - A value's JSON form follows its [`crate::ColumnType`]: boolean, number, or the source's exact text as a string.

mod inline;
mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use inline::{bare_value, without_row};
pub use read::{EnvelopeError, EnvelopeView, ImageFields, ImageView, RawCell, RawString};
pub use write::{ChangeOrigin, EnvelopeWriter, WriteError};

/// One value of a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The source did not send it: an unchanged TOAST value.
    Unavailable,
    /// The value's text as the source prints it, UTF-8.
    Text(&'a str),
}

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// INSERT, or the second half of a key change.
    Create,
    /// UPDATE that kept the key.
    Update,
    /// DELETE, or the first half of a key change.
    Delete,
    /// Read by a table copy.
    Read,
    /// TRUNCATE of the table.
    Truncate,
}

impl Operation {
    /// The letter that the envelope and the lake column `_op` carry.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
        }
    }

    /// The operation of a letter.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Self> {
        match letter {
            "c" => Some(Self::Create),
            "u" => Some(Self::Update),
            "d" => Some(Self::Delete),
            "r" => Some(Self::Read),
            "t" => Some(Self::Truncate),
            _ => None,
        }
    }
}

/// The value of a record whose envelope is too large for the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Key of the object that holds the envelope.
    pub firn_reference: String,
    /// Size of the envelope in bytes.
    pub size_bytes: u64,
}
