//! How a table stands: frontiers, what is staged behind them, and whatever stops it. Changes nothing.
//!
//! Flow: registration -> **here** -> `firn status`, `firn check`.
//!
//! # Invariants
//! - One table that cannot be read is one report with its trouble in it; it hides no other.

use std::collections::HashSet;

use change_event::TopicRegistration;
use futures_util::future::join_all;

use crate::act::{Act, acts};
use crate::catalog::TableName;
use crate::error::CommitError;
use crate::state::Frontier;
use crate::table::{Committer, LoadedTable};

/// How a table stands.
#[derive(Debug)]
pub struct TableReport {
    /// The topic.
    pub topic: String,
    /// The table.
    pub table: TableName,
    /// What there is of it; none if it cannot be loaded, or is not there yet.
    pub found: Option<FoundReport>,
    /// What stops it, or was in the way of a look.
    pub troubles: Vec<CommitError>,
}

/// What there is of a table.
#[derive(Debug)]
pub struct FoundReport {
    /// The table as it was loaded.
    pub table: LoadedTable,
    /// What is staged, per partition.
    pub partitions: Vec<PartitionReport>,
    /// What operators did, oldest first.
    pub acts: Vec<Act>,
}

/// What is staged in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// The partition.
    pub partition: u32,
    /// What is committed.
    pub frontier: Frontier,
    /// Where its chain ends, as far as it was walked.
    pub tail: Frontier,
    /// Intents behind the frontier.
    pub staged_count: usize,
    /// Rows in them.
    pub staged_rows: u64,
    /// When the oldest of them was staged, in milliseconds.
    pub oldest_ms: Option<i64>,
    /// The walk came to the chain's end.
    pub at_end: bool,
}

impl Committer {
    /// How the table of a topic stands, by walks over at most `limit` slots of each partition.
    ///
    /// With `files`, each staged file is looked for, too.
    pub async fn inspect(
        &self,
        registration: &TopicRegistration,
        limit: usize,
        files: bool,
    ) -> TableReport {
        let mut report = TableReport {
            topic: registration.topic.clone(),
            table: TableName::of(registration),
            found: None,
            troubles: Vec::new(),
        };
        let table = match self.load(&report.table).await {
            Ok(Some(table)) => table,
            Ok(None) => {
                let incarnation = registration.topic_incarnation;
                let made = self.may_be_made(&report.table, incarnation).await;
                report.troubles.extend(made.err());
                return report;
            }
            Err(trouble) => {
                report.troubles.push(trouble);
                return report;
            }
        };
        if table.state.topic != registration.topic {
            report.troubles.push(CommitError::ForeignTable {
                table: report.table.clone(),
                topic: registration.topic.clone(),
                found: Some(table.state.topic.clone()),
            });
        }
        let walks = table.state.partitions.iter().map(|(partition, frontier)| {
            let table = &table;
            async move { self.partition(table, *partition, frontier, limit).await }
        });
        let mut partitions = Vec::new();
        let mut staged = HashSet::new();
        for walk in join_all(walks).await {
            match walk {
                Ok((partition, paths)) => {
                    partitions.push(partition);
                    staged.extend(paths);
                }
                Err(trouble) => report.troubles.push(trouble),
            }
        }
        if files {
            match self.missing_file(&table, staged).await {
                Ok(None) => {}
                Ok(Some(key)) => report.troubles.push(CommitError::MissingObject {
                    table: report.table.clone(),
                    key,
                }),
                Err(trouble) => report.troubles.push(trouble),
            }
        }
        let acts = acts(&table.metadata);
        report.found = Some(FoundReport {
            table,
            partitions,
            acts,
        });
        report
    }

    async fn partition(
        &self,
        table: &LoadedTable,
        partition: u32,
        frontier: &Frontier,
        limit: usize,
    ) -> Result<(PartitionReport, Vec<String>), CommitError> {
        let chain = table.chain(partition);
        let walk = chain.walk(self.store(), frontier, limit).await?;
        if walk.at_end
            && let Some(seal) = chain.next(self.store(), &walk.tail).await?
            && let Some(moved_to) = seal.moved_to
        {
            let key = chain.slot_key(&walk.tail);
            return Err(CommitError::ChainSealed { key, moved_to });
        }
        let report = PartitionReport {
            partition,
            frontier: *frontier,
            tail: walk.tail,
            staged_count: walk.intents.len(),
            staged_rows: walk.intents.iter().map(|intent| intent.row_count).sum(),
            oldest_ms: walk.intents.iter().map(|intent| intent.created_ms).min(),
            at_end: walk.at_end,
        };
        let files = walk.intents.into_iter().flat_map(|intent| intent.files);
        Ok((report, files.map(|file| file.path).collect()))
    }
}
