//! A table whose head somebody moved: what the state and the head say apart, and an operator's two ways to make them one.
//!
//! Flow: [`CommitError::RolledBack`] -> operator -> **here** -> property `firn.state` by compare-and-set -> combining goes on.
//!
//! `accept` keeps the frontier: what was rolled back stays away. `replay` sets the frontier to what the head holds: the
//! intents behind it are combined once more.
//!
//! # Invariants
//! - Settled is the head that the operator was shown: if it has moved, nothing is done.
//! - Replayed is only what is all there, each slot and each file. functions/maintain removes neither while the table is
//!   rolled back, because it does not load; a run that began before may go on for [`MAINTENANCE_MS`].
//! - Neither way ever puts the frontier before rows that the head holds: they would come twice.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;

use iceberg::spec::TableMetadata;

use crate::act::{Act, ActKind, Operator, acts};
use crate::catalog::TableName;
use crate::chain::Chain;
use crate::error::CommitError;
use crate::metadata_file::key_of;
use crate::publish::Race;
use crate::snapshot::ancestors;
use crate::state::{Frontier, STATE_PROPERTY, TableState};
use crate::table::{Committer, LoadedTable};

/// A run of functions/maintain that read the table before it was rolled back is over after this (Lambda: 15 minutes).
pub const MAINTENANCE_MS: i64 = 20 * 60_000;

/// Slots younger than this are not removed by any run yet (the rule says a day; clocks are skewed).
const SURELY_KEPT_MS: i64 = 23 * 3_600_000;

/// The head of a table, or a snapshot that a state names: there may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(pub Option<i64>);

/// The snapshot id, or `none`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{id}"),
            None => f.write_str("none"),
        }
    }
}

/// What an operator chooses between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The snapshot that the state belongs to.
    pub state: Head,
    /// The head now.
    pub head: Head,
    /// The head holds rows that the frontier does not cover: it was moved forward, and `replay` is the only way.
    pub head_is_ahead: bool,
    /// What a replay would do, or why there is none.
    pub replay: Result<Replay, ReplayRefusal>,
}

/// What a replay does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// Frontier of each partition afterwards.
    pub partitions: BTreeMap<u32, Frontier>,
    /// Intents that are combined once more.
    pub intent_count: usize,
    /// Rows in them.
    pub row_count: u64,
    /// When the oldest of them was staged, in milliseconds.
    pub oldest_ms: Option<i64>,
}

/// Why there is no replay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefusal {
    /// No snapshot before the head says how far it is.
    #[error("no snapshot up to the head says how far the table was")]
    NoState,
    /// A slot is gone: maintenance removed it.
    #[error("slot {key} of partition {partition} is gone, so what was rolled back is not complete")]
    SlotGone {
        /// The partition.
        partition: u32,
        /// Key of the slot.
        key: String,
    },
    /// A staged file is gone: another engine removed it.
    #[error("data file {path} is gone, so what was rolled back is not complete")]
    FileGone {
        /// Its address.
        path: String,
    },
    /// Maintenance that began before the rollback may still remove slots.
    #[error("maintenance that began before the rollback may still be at work for {} s", wait_ms / 1000)]
    TooEarly {
        /// How long to wait.
        wait_ms: i64,
    },
}

/// How settling a rollback ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackOutcome {
    /// State and head are one again, by this call.
    Settled,
    /// The table is not rolled back, or not any more.
    NotRolledBack,
    /// The head is not the one that the operator was shown.
    HeadMoved {
        /// The head now.
        head: Head,
    },
    /// Accepting would bring rows twice: the head is ahead of the frontier.
    HeadIsAhead,
    /// There is no replay.
    NoReplay(ReplayRefusal),
}

/// The two ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Accept,
    Replay,
}

impl Committer {
    /// What was rolled back, and what each way out would do. `None` if the table is not rolled back. Changes nothing.
    ///
    /// # Errors
    /// [`CommitError::NoTable`], [`CommitError::NoState`], [`CommitError::MalformedState`] (Halt); Retry from the ports.
    pub async fn examine_rollback(
        &self,
        name: &TableName,
    ) -> Result<Option<Rollback>, CommitError> {
        let table = self.find_unjudged(name).await?;
        let Some((state, head)) = self.moved(&table).await? else {
            return Ok(None);
        };
        Ok(Some(Rollback {
            state,
            head,
            head_is_ahead: is_ahead(&table),
            replay: self.replay_of(&table).await?,
        }))
    }

    /// Keeps the frontier and lets the state belong to the head: what was rolled back stays away.
    ///
    /// Safe under concurrent callers, and harmless when called again.
    ///
    /// # Errors
    /// Those of [`Committer::examine_rollback`]; [`CommitError::TriesExhausted`] (Refresh);
    /// [`CommitError::OutcomeUnknown`] (Verify): call again.
    pub async fn accept_rollback(
        &self,
        name: &TableName,
        head: Head,
        operator: &Operator,
    ) -> Result<RollbackOutcome, CommitError> {
        self.settle(name, head, operator, Way::Accept).await
    }

    /// Sets the frontier to what the head holds: what was rolled back is combined once more by the next combiner.
    ///
    /// Safe under concurrent callers, and harmless when called again.
    ///
    /// # Errors
    /// Those of [`Committer::accept_rollback`].
    pub async fn replay_rollback(
        &self,
        name: &TableName,
        head: Head,
        operator: &Operator,
    ) -> Result<RollbackOutcome, CommitError> {
        self.settle(name, head, operator, Way::Replay).await
    }

    async fn settle(
        &self,
        name: &TableName,
        shown: Head,
        operator: &Operator,
        way: Way,
    ) -> Result<RollbackOutcome, CommitError> {
        let mut race = Race::new(name, "settle", self.limits.tries_max);
        let id = self.ids.next_id();
        loop {
            let table = self.find_unjudged(name).await?;
            if acts(&table.metadata).iter().any(|act| act.id == id) {
                return Ok(RollbackOutcome::Settled);
            }
            let Some((state, head)) = self.moved(&table).await? else {
                return Ok(RollbackOutcome::NotRolledBack);
            };
            if head != shown {
                return Ok(RollbackOutcome::HeadMoved { head });
            }
            let partitions = match way {
                Way::Accept if is_ahead(&table) => return Ok(RollbackOutcome::HeadIsAhead),
                Way::Accept => table.state.partitions.clone(),
                Way::Replay => match self.replay_of(&table).await? {
                    Ok(replay) => replay.partitions,
                    Err(refusal) => return Ok(RollbackOutcome::NoReplay(refusal)),
                },
            };
            race.begin()?;
            let settled = TableState {
                partitions,
                ..table.state.belonging_to(&table.metadata, head)
            };
            let (state_snapshot_id, head_snapshot_id) = (state.0, head.0);
            let act = Act {
                id: id.clone(),
                at_ms: self.clock.now_ms(),
                operator: operator.clone(),
                kind: match way {
                    Way::Accept => ActKind::RollbackAccepted {
                        state_snapshot_id,
                        head_snapshot_id,
                    },
                    Way::Replay => ActKind::RollbackReplayed {
                        state_snapshot_id,
                        head_snapshot_id,
                    },
                },
            };
            race.note(self.publish_act(&table, &settled, act).await?);
        }
    }

    /// What the state and the head say, if they are not of one history, or nothing shows that they are.
    async fn moved(&self, table: &LoadedTable) -> Result<Option<(Head, Head)>, CommitError> {
        let (name, metadata) = (&table.name, &table.metadata);
        let checked = match table.state.check_history(name, metadata) {
            Ok(()) => self.check_expired(name, &table.state, metadata).await,
            moved => moved,
        };
        match checked {
            Ok(()) => Ok(None),
            Err(
                CommitError::RolledBack { state, head, .. }
                | CommitError::HistoryExpired { state, head, .. },
            ) => Ok(Some((state, head))),
            Err(other) => Err(other),
        }
    }

    /// The table with its state as it stands in the property, whatever its history says.
    async fn find_unjudged(&self, name: &TableName) -> Result<LoadedTable, CommitError> {
        let found = self.find_existing(name).await?;
        let state = TableState::of_property(name, &found.metadata)?;
        Ok(found.with_state(state))
    }

    /// What a replay would do, after a walk over all that it would combine.
    async fn replay_of(
        &self,
        table: &LoadedTable,
    ) -> Result<Result<Replay, ReplayRefusal>, CommitError> {
        let Some(starts) = starts(table) else {
            return Ok(Err(ReplayRefusal::NoState));
        };
        let mut replay = Replay {
            partitions: starts.clone(),
            ..Replay::default()
        };
        let mut files = HashSet::new();
        for (partition, target) in &table.state.partitions {
            let chain = table.chain(*partition);
            let passage = match starts.get(partition) {
                Some(start) if ahead(start, target) => Ok(Passage::at(*start)),
                Some(start) => self.passage(&chain, *start, target).await?,
                None => self.passage_from_first(&chain, target).await?,
            };
            match passage {
                Err(key) => {
                    let partition = *partition;
                    return Ok(Err(ReplayRefusal::SlotGone { partition, key }));
                }
                Ok(passage) => {
                    files.extend(passage.files);
                    replay.partitions.insert(*partition, passage.start);
                    replay.intent_count += passage.intent_count;
                    replay.row_count += passage.row_count;
                    replay.oldest_ms = earlier(replay.oldest_ms, passage.oldest_ms);
                }
            }
        }
        if let Some(path) = self.missing_file(table, files).await? {
            return Ok(Err(ReplayRefusal::FileGone { path }));
        }
        let now_ms = self.clock.now_ms();
        let wait_ms = table.metadata.last_updated_ms() + MAINTENANCE_MS - now_ms;
        let old = replay
            .oldest_ms
            .is_some_and(|oldest_ms| now_ms - oldest_ms > SURELY_KEPT_MS);
        if old && wait_ms > 0 {
            return Ok(Err(ReplayRefusal::TooEarly { wait_ms }));
        }
        Ok(Ok(replay))
    }

    /// A partition that was registered after the head: from the beginning, in the incarnation that its chain begins in, by the
    /// map that its first slot speaks of: with a barrier in it that is one too new, which only makes it wait.
    async fn passage_from_first(
        &self,
        chain: &Chain,
        target: &Frontier,
    ) -> Result<Result<Passage, String>, CommitError> {
        let mut gone = Err(chain.slot_key(&Frontier::start(target.incarnation)));
        for incarnation in 1..=target.incarnation {
            let start = Frontier::start(incarnation);
            let first = chain.next(self.store(), &start).await?;
            let start = Frontier {
                map_version: first.map_or(target.map_version, |first| {
                    first.after.map_version.min(target.map_version)
                }),
                ..start
            };
            match self.passage(chain, start, target).await? {
                Ok(passage) => return Ok(Ok(passage)),
                Err(key) if key != chain.slot_key(&start) => gone = Err(key),
                Err(_) => {}
            }
        }
        Ok(gone)
    }

    /// Walks from `start` to `target`, or to a slot that is not there: gives its key.
    async fn passage(
        &self,
        chain: &Chain,
        start: Frontier,
        target: &Frontier,
    ) -> Result<Result<Passage, String>, CommitError> {
        let mut passage = Passage::at(start);
        let mut tail = start;
        while tail != *target {
            let Some(intent) = chain.next(self.store(), &tail).await? else {
                return Ok(Err(chain.slot_key(&tail)));
            };
            passage.intent_count += 1;
            passage.row_count += intent.row_count;
            passage.oldest_ms = earlier(passage.oldest_ms, Some(intent.created_ms));
            passage
                .files
                .extend(intent.files.into_iter().map(|file| file.path));
            tail = intent.after;
        }
        Ok(Ok(passage))
    }

    /// One of these files that is not there.
    pub(crate) async fn missing_file(
        &self,
        table: &LoadedTable,
        files: HashSet<String>,
    ) -> Result<Option<String>, CommitError> {
        if files.is_empty() {
            return Ok(None);
        }
        let folder = format!("{}/", table.data_location());
        let prefix = key_of(self.store(), &folder)?;
        let objects = self.store().list(prefix).await?;
        let there: HashSet<String> = objects.into_iter().map(|object| object.key).collect();
        for path in files {
            if !there.contains(key_of(self.store(), &path)?) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// What lies between two frontiers of a chain.
#[derive(Debug)]
struct Passage {
    start: Frontier,
    intent_count: usize,
    row_count: u64,
    oldest_ms: Option<i64>,
    files: Vec<String>,
}

impl Passage {
    const fn at(start: Frontier) -> Self {
        Self {
            start,
            intent_count: 0,
            row_count: 0,
            oldest_ms: None,
            files: Vec::new(),
        }
    }
}

/// Frontiers that the head holds: of the newest snapshot up to it that says so; none of any partition without a head.
fn starts(table: &LoadedTable) -> Option<BTreeMap<u32, Frontier>> {
    match table.metadata.current_snapshot_id() {
        None => Some(BTreeMap::new()),
        Some(head) => {
            summarized_state(&table.name, &table.metadata, head).map(|state| state.partitions)
        }
    }
}

/// The state in the summary of the newest snapshot, from `head` back, that has one.
pub(crate) fn summarized_state(
    table: &TableName,
    metadata: &TableMetadata,
    head: i64,
) -> Option<TableState> {
    ancestors(metadata, head).find_map(|id| {
        let summary = &metadata.snapshot_by_id(id)?.summary().additional_properties;
        TableState::parse(table, summary.get(STATE_PROPERTY)?).ok()
    })
}

fn is_ahead(table: &LoadedTable) -> bool {
    let Some(starts) = starts(table) else {
        return false;
    };
    let partitions = &table.state.partitions;
    starts.iter().any(|(partition, start)| {
        partitions
            .get(partition)
            .is_none_or(|frontier| ahead(start, frontier))
    })
}

fn ahead(one: &Frontier, other: &Frontier) -> bool {
    let place = |frontier: &Frontier| {
        (
            frontier.incarnation,
            frontier.offset,
            frontier.gaps_accepted,
        )
    };
    place(one) > place(other)
}

fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}
