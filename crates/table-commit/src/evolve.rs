//! Evolving.

use change_event::SourceSchema;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::table::Committer;

impl Committer {
    /// Brings the table's schema to a document's, unless it is there or further already. Gives the version it has then.
    ///
    /// Safe under concurrent callers.
    ///
    /// # Errors
    /// [`CommitError::ColumnDropped`], [`CommitError::ColumnConflict`] (Halt); those of [`Committer::load`];
    /// [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn evolve(&self, name: &TableName, target: &SourceSchema) -> Result<u32, CommitError> {
        todo!()
    }
}
