//! Combining.

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::table::Committer;

/// What a commit added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    /// The snapshot.
    pub snapshot_id: i64,
    /// Intents in it.
    pub intent_count: usize,
    /// Data files in it.
    pub file_count: usize,
    /// Rows in it.
    pub row_count: u64,
    /// Creation time of its oldest intent, in milliseconds.
    pub oldest_intent_ms: i64,
    /// More was staged than one commit takes: call again.
    pub more: bool,
    /// The next intent needs the table's schema at this version: evolve, then call again.
    pub needs_schema: Option<u32>,
}

/// How combining ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CombineOutcome {
    /// Nothing is staged.
    NothingStaged,
    /// A snapshot with everything found is in the table.
    Committed(Combined),
    /// Another combiner committed what was found.
    CommittedByOther,
    /// The first intent needs the table's schema at this version: evolve, then call again.
    NeedsSchema {
        /// The version.
        version: u32,
    },
}

impl Committer {
    /// Walks every registered partition's chain and commits everything found in one snapshot.
    ///
    /// # Errors
    /// Those of [`Committer::load`]; [`CommitError::NoTable`] (Halt); [`CommitError::TriesExhausted`] (Refresh);
    /// [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn combine(&self, name: &TableName) -> Result<CombineOutcome, CommitError> {
        todo!()
    }
}
