//! An intent: what one batch of one partition adds to the table, staged in a slot of the partition's chain.
//!
//! # Invariants
//! - A slot is named by the frontier it starts from, so that two batches which start alike meet in one key.
//! - `start` is the offset of the chain's tail, never the batch's first offset; `end` is `after.offset`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use table_file::StagedFile;

use crate::error::CommitError;
use crate::gap::AcceptedGap;
use crate::state::Frontier;

/// Format of an intent.
pub const INTENT_FORMAT: u32 = 1;

/// What one batch of one partition adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// [`INTENT_FORMAT`].
    pub v: u32,
    /// Identity of the attempt that wrote it.
    pub id: String,
    /// Offset of the chain's tail that it continues.
    pub start: i64,
    /// Next offset after it, in the incarnation of `after`.
    pub end: i64,
    /// The frontier after it.
    pub after: Frontier,
    /// Newest schema version among its files; 0 without files.
    pub schema_version: u32,
    /// Rows in its files.
    pub row_count: u64,
    /// Its data files.
    pub files: Vec<StagedFile>,
    /// When it was written, in milliseconds since the Unix epoch, by its writer's clock.
    pub created_ms: i64,
    /// Nothing follows in this incarnation: the chain goes on in the incarnation of `after`.
    pub closed: bool,
    /// No batch, but an operator's acceptance of a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_gap: Option<AcceptedGap>,
    /// Nothing follows at all: the table was rebuilt, and this is the identity of the one that goes on in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
}

impl Intent {
    /// The intent of a batch that takes the chain from `tail` to `after`.
    #[must_use]
    pub fn new(
        id: String,
        tail: &Frontier,
        after: &Frontier,
        files: Vec<StagedFile>,
        created_ms: i64,
    ) -> Self {
        Self {
            v: INTENT_FORMAT,
            id,
            start: tail.offset,
            end: after.offset,
            after: *after,
            schema_version: files
                .iter()
                .map(|file| file.schema_version)
                .max()
                .unwrap_or(0),
            row_count: files.iter().map(|file| file.row_count).sum(),
            files,
            created_ms,
            closed: false,
            accepted_gap: None,
            moved_to: None,
        }
    }

    /// The intent that ends a chain, because the topic was made anew.
    #[must_use]
    pub fn closing(id: String, tail: &Frontier, incarnation: u32, created_ms: i64) -> Self {
        let after = tail.reopened(incarnation);
        Self {
            closed: true,
            ..Self::new(id, tail, &after, Vec::new(), created_ms)
        }
    }

    /// The intent by which an operator takes the chain over a gap, to just before the record that showed it.
    #[must_use]
    pub fn accepting(id: String, tail: &Frontier, gap: AcceptedGap, created_ms: i64) -> Self {
        let after = gap.place.behind(tail);
        Self {
            accepted_gap: Some(gap),
            ..Self::new(id, tail, &after, Vec::new(), created_ms)
        }
    }

    /// The intent that ends a chain for good, because another table goes on in its place.
    #[must_use]
    pub fn sealing(id: String, tail: &Frontier, moved_to: &str, created_ms: i64) -> Self {
        Self {
            moved_to: Some(moved_to.to_owned()),
            ..Self::new(id, tail, tail, Vec::new(), created_ms)
        }
    }

    /// Its bytes in the slot.
    ///
    /// # Errors
    /// [`CommitError::MalformedIntent`] if it has no JSON form, which no intent lacks.
    pub fn to_bytes(&self, key: &str) -> Result<Bytes, CommitError> {
        let malformed = |source| CommitError::MalformedIntent {
            key: key.to_owned(),
            source,
        };
        serde_json::to_vec(self).map(Bytes::from).map_err(malformed)
    }

    /// Reads what [`Intent::to_bytes`] gave.
    ///
    /// # Errors
    /// [`CommitError::MalformedIntent`] (Halt).
    pub fn from_bytes(key: &str, bytes: &[u8]) -> Result<Self, CommitError> {
        serde_json::from_slice(bytes).map_err(|source| CommitError::MalformedIntent {
            key: key.to_owned(),
            source,
        })
    }
}
