//! Combining: everything that is staged for a table becomes one snapshot.
//!
//! Flow: chains of intents -> **here** -> [`crate::snapshot`] -> compare-and-set.
//!
//! # Invariants
//! - A slot is never skipped: what is committed of a partition is a prefix of its chain from the committed frontier.
//! - Nothing of a partition map is taken before every partition has passed that map's barrier ([`crate::barrier`]).
//! - Files and frontiers of an intent are committed together or not at all.
//! - Any number of combiners may run at once: the compare-and-set lets one through, the others go on from its frontier.

use futures_util::future::try_join_all;

use crate::barrier;
use crate::catalog::{SwapOutcome, TableName};
use crate::chain::Walk;
use crate::error::CommitError;
use crate::gap;
use crate::metadata_file::uuid_of;
use crate::publish::Race;
use crate::snapshot::Plan;
use crate::state::TableState;
use crate::table::{Committer, LoadedTable};

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
    /// Another combiner was first. What it left is for when the table is due again.
    CommittedByOther,
    /// The first intent needs the table's schema at this version: evolve, then call again.
    NeedsSchema {
        /// The version.
        version: u32,
    },
}

/// What the chains hold behind the committed frontier, as far as this commit takes it.
#[derive(Debug)]
struct Staged {
    walks: Vec<(u32, Walk)>,
    more: bool,
    needs_schema: Option<u32>,
}

impl Committer {
    /// [`Committer::combine_from`] the table as it is now.
    ///
    /// # Errors
    /// Those of [`Committer::load`]; [`CommitError::NoTable`] (Halt); those of [`Committer::combine_from`].
    pub async fn combine(&self, name: &TableName) -> Result<CombineOutcome, CommitError> {
        let table = self.load_existing(name).await?;
        self.combine_from(table).await
    }

    /// Walks every registered partition's chain and commits everything found in one snapshot.
    ///
    /// `table` is what the caller has just loaded: a stale one costs a lost attempt, never more.
    ///
    /// # Errors
    /// Those of [`Committer::load`]; [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn combine_from(&self, table: LoadedTable) -> Result<CombineOutcome, CommitError> {
        let name = table.name.clone();
        let mut table = table;
        let mut race = Race::new(&name, "combine", self.limits.tries_max);
        let mut attempts: Vec<Combined> = Vec::new();
        loop {
            let staged = self.staged(&table).await?;
            if staged.walks.is_empty() {
                return Ok(match staged.needs_schema {
                    Some(version) => CombineOutcome::NeedsSchema { version },
                    None if race.has_tried() => CombineOutcome::CommittedByOther,
                    None => CombineOutcome::NothingStaged,
                });
            }
            race.begin()?;
            // Before a commit in a new incarnation: at no cost for the others.
            if let Some(reached) = staged.incarnation()
                && reached > table.state.topic_incarnation
            {
                self.identify(&table, reached).await?;
            }
            let combined = staged.summary(self.ids.next_snapshot_id());
            let plan = self.plan(&table, &staged, combined.snapshot_id);
            let built = plan.build(self).await?;
            let outcome = self.publish(&table, &built.metadata, built.objects).await?;
            if outcome == SwapOutcome::Swapped {
                return Ok(CombineOutcome::Committed(combined));
            }
            tracing::info!(table = %name, ?outcome, "commit did not go through, reading back");
            if outcome == SwapOutcome::Unknown {
                attempts.push(combined);
            }
            race.note(outcome);
            let base_sequence_number = table.state.sequence_number;
            table = self.load_existing(&name).await?;
            // An attempt of which the answer was lost.
            let landed = attempts
                .iter()
                .position(|attempt| table.metadata.snapshot_by_id(attempt.snapshot_id).is_some());
            if let Some(landed) = landed {
                return Ok(CombineOutcome::Committed(attempts.swap_remove(landed)));
            }
            // Who lost stands back instead of racing on: what is left has time until the table is due again.
            let now_ms = self.clock.now_ms();
            let advanced = table.state.sequence_number > base_sequence_number;
            if staged.is_covered_by(&table.state) || (advanced && !table.is_due(now_ms)) {
                return Ok(CombineOutcome::CommittedByOther);
            }
        }
    }

    /// Walks all chains of a table, concurrently.
    async fn staged(&self, table: &LoadedTable) -> Result<Staged, CommitError> {
        let partitions = table.state.partitions.len().max(1);
        let limit = self.limits.intents_per_commit_max.div_ceil(partitions);
        let walks = table
            .state
            .partitions
            .iter()
            .map(|(partition, frontier)| async move {
                let chain = table.chain(*partition);
                let walk = chain.walk(self.store.as_ref(), frontier, limit).await?;
                Ok::<_, CommitError>((*partition, *frontier, walk))
            });
        let mut staged = Staged {
            walks: Vec::new(),
            more: false,
            needs_schema: None,
        };
        let mut walks = try_join_all(walks).await?;
        for (_, from, walk) in &mut walks {
            // The chain is cut before the first intent that the table's schema does not hold.
            let schema_version = table.state.schema_version;
            if let Some(cut) = walk
                .intents
                .iter()
                .position(|intent| intent.schema_version > schema_version)
            {
                let needed = walk.intents.get(cut).map(|intent| intent.schema_version);
                staged.needs_schema = staged.needs_schema.max(needed);
                walk.truncate(from, cut);
            } else {
                staged.more |= !walk.at_end;
            }
        }
        barrier::hold_back(walks.iter_mut().map(|(_, from, walk)| (*from, walk)));
        staged.walks = walks
            .into_iter()
            .filter(|(_, _, walk)| !walk.intents.is_empty())
            .map(|(partition, _, walk)| (partition, walk))
            .collect();
        Ok(staged)
    }

    fn plan<'a>(&self, table: &'a LoadedTable, staged: &'a Staged, snapshot_id: i64) -> Plan<'a> {
        let metadata = &table.metadata;
        let timestamp_ms = self.clock.now_ms().max(metadata.last_updated_ms());
        let mut state = TableState {
            sequence_number: metadata.next_sequence_number(),
            snapshot_id: Some(snapshot_id),
            committed_ms: self.clock.now_ms(),
            ..table.state.clone()
        };
        for (partition, walk) in &staged.walks {
            state.topic_incarnation = state.topic_incarnation.max(walk.tail.incarnation);
            state.partitions.insert(*partition, walk.tail);
        }
        Plan {
            base: table,
            files: staged.intents().flat_map(|intent| &intent.files).collect(),
            state,
            acts: staged.intents().filter_map(gap::act_of).collect(),
            snapshot_id,
            attempt_id: uuid_of(&self.ids.next_id()).to_string(),
            timestamp_ms,
        }
    }
}

impl Staged {
    fn intents(&self) -> impl Iterator<Item = &crate::intent::Intent> {
        self.walks.iter().flat_map(|(_, walk)| &walk.intents)
    }

    /// Whether all that was found is committed.
    fn is_covered_by(&self, state: &TableState) -> bool {
        self.walks.iter().all(|(partition, walk)| {
            let reached = state.partitions.get(partition);
            reached.is_some_and(|frontier| {
                (frontier.incarnation, frontier.offset) >= (walk.tail.incarnation, walk.tail.offset)
            })
        })
    }

    /// Newest topic incarnation that it reaches.
    fn incarnation(&self) -> Option<u32> {
        let tails = self.walks.iter().map(|(_, walk)| walk.tail.incarnation);
        tails.max()
    }

    fn summary(&self, snapshot_id: i64) -> Combined {
        Combined {
            snapshot_id,
            intent_count: self.intents().count(),
            file_count: self.intents().map(|intent| intent.files.len()).sum(),
            row_count: self.intents().map(|intent| intent.row_count).sum(),
            oldest_intent_ms: self
                .intents()
                .map(|intent| intent.created_ms)
                .min()
                .unwrap_or(0),
            more: self.more,
            needs_schema: self.needs_schema,
        }
    }
}
