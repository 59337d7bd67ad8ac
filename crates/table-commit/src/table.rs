//! Tables as this protocol sees them: loading, creating, registering partitions.
//!
//! # Invariants
//! - Coverage is judged by the state property of the metadata just loaded, and by nothing else.
//! - A table whose history does not hold our last snapshot, or that has snapshots and no state, is not touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use change_event::{Clock, IdSource, SourceSchema, TopicRegistration};
use iceberg::spec::TableMetadata;
use object_io::ObjectStore;

use crate::catalog::{Catalog, Pointer, TableName};
use crate::chain::Chain;
use crate::error::CommitError;
use crate::state::{Frontier, TableState};

/// Bounds of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Intents in one snapshot: what a later call takes is not lost.
    pub intents_per_commit_max: usize,
    /// Races lost before a call gives up.
    pub tries_max: u32,
    /// Snapshots kept in the metadata; older ones that no tag or branch names are expired by the commit.
    pub snapshots_kept: usize,
    /// Entries from which a manifest is left alone instead of being merged with the next commit's.
    pub manifest_entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Measured: with 100 of both, the bytes written by a commit stay flat (docs/SEMANTICS.md).
        Self { intents_per_commit_max: 1000, tries_max: 10, snapshots_kept: 100, manifest_entries_max: 100 }
    }
}

/// The protocol with its ports.
#[derive(Debug, Clone)]
pub struct Committer {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) limits: Limits,
}

/// A table as it was read.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Its name.
    pub name: TableName,
    /// Where its metadata was, and the version to compare.
    pub pointer: Pointer,
    /// Its metadata.
    pub metadata: Arc<TableMetadata>,
    /// Its state.
    pub state: TableState,
}

impl LoadedTable {
    /// Frontier of a partition, if it is registered.
    #[must_use]
    pub fn frontier(&self, partition: u32) -> Option<&Frontier> {
        self.state.partitions.get(&partition)
    }

    /// The chain of a partition.
    #[must_use]
    pub fn chain(&self, partition: u32) -> Chain {
        Chain {
            table_uuid: self.metadata.uuid().to_string(),
            topic: self.state.topic.clone(),
            partition,
        }
    }

    /// Address of its data folder, without a trailing slash.
    #[must_use]
    pub fn data_location(&self) -> String {
        format!("{}/data", self.metadata.location())
    }

    /// Seconds between two commits, as the table's owner set it.
    #[must_use]
    pub fn freshness_seconds(&self) -> u32 {
        todo!()
    }

    /// Whether the last commit is as old as the table's freshness allows. A last commit in the future (clocks are
    /// skewed) counts as now.
    #[must_use]
    pub fn is_due(&self, now_ms: i64) -> bool {
        todo!()
    }

    /// Milliseconds until the table is due; 0 if it is.
    #[must_use]
    pub fn due_in_ms(&self, now_ms: i64) -> i64 {
        todo!()
    }
}

impl Committer {
    /// The protocol over these ports, with default limits.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        catalog: Arc<dyn Catalog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        Self { store, catalog, clock, ids, limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The table as it is now, or `None` if there is none.
    ///
    /// # Errors
    /// Halt: [`CommitError::NoState`], [`CommitError::RolledBack`], [`CommitError::MalformedState`]; Retry from the ports.
    pub async fn load(&self, name: &TableName) -> Result<Option<LoadedTable>, CommitError> {
        todo!()
    }

    /// The table of a topic, made if there is none, with every partition of the registration in its state.
    ///
    /// Safe under concurrent callers. `schema` is used to create the table; an existing one is not evolved here.
    ///
    /// # Errors
    /// [`CommitError::ForeignTable`] (Halt) if another topic feeds the table; those of [`Committer::load`];
    /// [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn ensure_table(
        &self,
        registration: &TopicRegistration,
        schema: &SourceSchema,
    ) -> Result<LoadedTable, CommitError> {
        todo!()
    }
}
