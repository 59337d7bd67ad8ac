//! Combines a table to the end of what is staged, with the schema changes that this needs on the way.
//!
//! Flow: ingest (inline) and functions/commit -> **here** -> [`Committer::combine`], commit after commit.
//!
//! # Invariants
//! - Who changes the schema is the caller's: here it is a function that is awaited.
//! - The number of rounds is bounded; what is left over is found by the next call.

use crate::catalog::TableName;
use crate::combine::{CombineOutcome, Combined};
use crate::error::CommitError;
use crate::table::{Committer, LoadedTable};

/// Commits and schema changes in one call. With five hundred intents in a commit this is far more than a day stages.
const ROUNDS_MAX: u32 = 100;

/// What a call committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Snapshots.
    pub commit_count: u64,
    /// Intents in them.
    pub intent_count: u64,
    /// Data files in them.
    pub file_count: u64,
    /// Rows in them.
    pub row_count: u64,
    /// Times that another combiner was first.
    pub conflict_count: u64,
    /// Schema changes asked for.
    pub schema_change_count: u64,
    /// Creation time of the oldest intent that was committed, in milliseconds.
    pub oldest_intent_ms: Option<i64>,
    /// The last of the snapshots.
    pub snapshot_id: Option<i64>,
}

/// Why a table was not combined to the end; what was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum DrainError<E: std::error::Error + 'static> {
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The schema change that the next intent needs failed.
    #[error("{table}: schema version {version} is not to be had")]
    Schema {
        /// The table.
        table: TableName,
        /// The version.
        version: u32,
        /// What went wrong.
        #[source]
        source: E,
    },
}

impl Committer {
    /// [`Committer::drain_from`] the table as it is now.
    ///
    /// # Errors
    /// Those of [`Committer::load`], of a table that is not there, and of [`Committer::drain_from`].
    pub async fn drain<E: std::error::Error + 'static>(
        &self,
        name: &TableName,
        evolve: impl AsyncFn(u32) -> Result<(), E>,
    ) -> Result<Drained, DrainError<E>> {
        let table = self.load_existing(name).await?;
        self.drain_from(table, evolve).await
    }

    /// Combines until nothing is staged; `evolve` brings the table to a schema version when the next intent needs it.
    ///
    /// `table` is what the caller has just loaded.
    ///
    /// # Errors
    /// [`DrainError::Commit`] with those of [`Committer::combine_from`]; [`DrainError::Schema`] with the caller's.
    pub async fn drain_from<E: std::error::Error + 'static>(
        &self,
        table: LoadedTable,
        evolve: impl AsyncFn(u32) -> Result<(), E>,
    ) -> Result<Drained, DrainError<E>> {
        let name = table.name.clone();
        let mut next = self.combine_from(table).await?;
        let mut drained = Drained::default();
        for _ in 0..ROUNDS_MAX {
            let needed = match next {
                CombineOutcome::NothingStaged => break,
                CombineOutcome::CommittedByOther => {
                    drained.conflict_count += 1;
                    break;
                }
                CombineOutcome::Committed(combined) => {
                    drained.add(&combined);
                    match combined.needs_schema {
                        Some(version) => Some(version),
                        None if combined.more => None,
                        None => break,
                    }
                }
                CombineOutcome::NeedsSchema { version } => Some(version),
            };
            if let Some(version) = needed {
                drained.schema_change_count += 1;
                evolve(version).await.map_err(|source| DrainError::Schema {
                    table: name.clone(),
                    version,
                    source,
                })?;
            }
            next = self.combine(&name).await?;
        }
        Ok(drained)
    }
}

impl Drained {
    fn add(&mut self, combined: &Combined) {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        self.commit_count += 1;
        self.intent_count += count(combined.intent_count);
        self.file_count += count(combined.file_count);
        self.row_count += combined.row_count;
        self.snapshot_id = Some(combined.snapshot_id);
        self.oldest_intent_ms = Some(
            self.oldest_intent_ms
                .map_or(combined.oldest_intent_ms, |ms| {
                    ms.min(combined.oldest_intent_ms)
                }),
        );
    }
}
