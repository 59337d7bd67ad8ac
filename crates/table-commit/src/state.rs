//! How far a table is: the state that every commit writes into the same metadata as the data.
//!
//! It stands in the table property [`STATE_PROPERTY`] and in the summary of each of our snapshots. The property is what
//! counts: it survives the expiry of snapshots and other engines' commits. The summary is for people and for repair.
//!
//! # Invariants
//! - A frontier never goes back, by any commit of ours but the one that an operator asks for ([`crate::rollback`]).
//! - A partition is in the state before its first record is acknowledged.

use std::collections::BTreeMap;

use change_event::{Lane, Position, Predecessor};
use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::rollback::Head;
use crate::snapshot::ancestors;

/// Table property and summary key of the state.
pub const STATE_PROPERTY: &str = "firn.state";
/// Table property: the topic that feeds the table.
pub const TOPIC_PROPERTY: &str = "firn.topic";
/// Table property: version of the source schema that the table's schema holds.
pub const SCHEMA_VERSION_PROPERTY: &str = "firn.schema-version";
/// Table property: seconds between two commits; its owner may change it.
pub const FRESHNESS_PROPERTY: &str = "firn.freshness-seconds";
/// Table property: name of the source.
pub const SOURCE_PROPERTY: &str = "firn.source";

/// Format of the state.
pub const STATE_FORMAT: u32 = 1;

/// How far one partition of the topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontier {
    /// Topic incarnation that the offset counts in.
    pub incarnation: u32,
    /// The next Kafka offset.
    pub offset: i64,
    /// Epoch of the agent that wrote the last accepted record; 0 before the first.
    pub epoch: u64,
    /// Its dense number in that epoch; 0 before the first.
    pub pseq: u64,
    /// Last position in the stream lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Position>,
    /// Last position in the copy lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Position>,
    /// Gaps that an operator accepted in this partition. It is part of a slot's key, so that a gap without offsets in
    /// between (records that the broker lost) can be accepted too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps_accepted: u32,
    /// Version of the partition map that the partition has reached: what follows is written by it.
    #[serde(
        default = "first_map_version",
        skip_serializing_if = "is_first_map_version"
    )]
    pub map_version: u32,
}

const fn first_map_version() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
const fn is_first_map_version(version: &u32) -> bool {
    *version == first_map_version()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Frontier {
    /// Before the first record.
    #[must_use]
    pub const fn start(incarnation: u32) -> Self {
        Self {
            incarnation,
            offset: 0,
            epoch: 0,
            pseq: 0,
            stream: None,
            copy: None,
            gaps_accepted: 0,
            map_version: first_map_version(),
        }
    }

    /// Epoch and number of the last accepted record.
    #[must_use]
    pub const fn last_record(&self) -> Predecessor {
        Predecessor {
            epoch: self.epoch,
            pseq: self.pseq,
        }
    }

    /// The last position in a lane.
    #[must_use]
    pub const fn position(&self, lane: Lane) -> Option<Position> {
        match lane {
            Lane::Stream => self.stream,
            Lane::Copy => self.copy,
        }
    }

    /// The first frontier of the next topic incarnation: offsets start anew, everything else carries over.
    #[must_use]
    pub const fn reopened(&self, incarnation: u32) -> Self {
        Self {
            incarnation,
            offset: 0,
            ..*self
        }
    }
}

/// How far a table is, in all partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableState {
    /// [`STATE_FORMAT`].
    pub v: u32,
    /// The topic.
    pub topic: String,
    /// Newest topic incarnation that is registered.
    pub topic_incarnation: u32,
    /// Newest version of the partition map that is registered.
    pub partition_map_version: u32,
    /// Version of the source schema that the table's schema holds.
    pub schema_version: u32,
    /// First field id that no document up to `schema_version` has given: a field of the table from here on is foreign.
    pub next_field_id: i32,
    /// Sequence number of our last snapshot; 0 before the first.
    pub sequence_number: i64,
    /// Our last snapshot.
    pub snapshot_id: Option<i64>,
    /// Wall clock of our last snapshot, in milliseconds; 0 before the first.
    pub committed_ms: i64,
    /// Frontier of each registered partition.
    pub partitions: BTreeMap<u32, Frontier>,
}

impl TableState {
    /// The state of a table as its metadata says it. Whether the table's history holds it, `history` says.
    ///
    /// # Errors
    /// Those of [`TableState::of_property`]; [`CommitError::RolledBack`] (Halt).
    pub(crate) fn of(table: &TableName, metadata: &TableMetadata) -> Result<Self, CommitError> {
        let state = Self::of_property(table, metadata)?;
        state.check_history(table, metadata)?;
        Ok(state)
    }

    /// The state of a table as its property says it.
    ///
    /// # Errors
    /// All Halt: [`CommitError::MalformedState`]; [`CommitError::NoState`] if there are snapshots and no state;
    /// [`CommitError::ForeignTable`] if there is neither.
    pub(crate) fn of_property(
        table: &TableName,
        metadata: &TableMetadata,
    ) -> Result<Self, CommitError> {
        match metadata.properties().get(STATE_PROPERTY) {
            Some(json) => Self::parse(table, json),
            None if metadata.snapshots().len() > 0 => Err(CommitError::NoState {
                table: table.clone(),
            }),
            None => Err(CommitError::ForeignTable {
                table: table.clone(),
                topic: String::new(),
                found: metadata.properties().get(TOPIC_PROPERTY).cloned(),
            }),
        }
    }

    /// The same state, as that of another head.
    pub(crate) fn belonging_to(&self, metadata: &TableMetadata, head: Head) -> Self {
        let snapshot = head.0.and_then(|id| metadata.snapshot_by_id(id));
        Self {
            snapshot_id: head.0,
            sequence_number: snapshot.map_or(0, |snapshot| snapshot.sequence_number()),
            ..self.clone()
        }
    }

    /// Reads what [`TableState::to_json`] gave.
    ///
    /// # Errors
    /// [`CommitError::MalformedState`] (Halt).
    pub(crate) fn parse(table: &TableName, json: &str) -> Result<Self, CommitError> {
        serde_json::from_str(json).map_err(|source| CommitError::MalformedState {
            table: table.clone(),
            source,
        })
    }

    /// Its JSON.
    ///
    /// # Errors
    /// [`CommitError::MalformedState`] if it has no JSON form, which no state lacks.
    pub(crate) fn to_json(&self, table: &TableName) -> Result<String, CommitError> {
        let malformed = |source| CommitError::MalformedState {
            table: table.clone(),
            source,
        };
        serde_json::to_string(self).map_err(malformed)
    }

    /// Checks that our last snapshot is the head or an ancestor of it, with no other snapshot of ours in between, as far as
    /// this metadata shows; what it does not, [`crate::history`] finds out.
    ///
    /// # Errors
    /// [`CommitError::RolledBack`] (Halt).
    pub(crate) fn check_history(
        &self,
        table: &TableName,
        metadata: &TableMetadata,
    ) -> Result<(), CommitError> {
        let head = metadata.current_snapshot_id();
        let moved = || CommitError::RolledBack {
            table: table.clone(),
            state: Head(self.snapshot_id),
            head: Head(head),
        };
        if head == self.snapshot_id {
            return Ok(());
        }
        let Some(head) = head else {
            return Err(moved());
        };
        let mut oldest = head;
        for id in ancestors(metadata, head) {
            if Some(id) == self.snapshot_id {
                return Ok(());
            }
            if self.is_of_other(table, metadata, id) {
                return Err(moved());
            }
            oldest = id;
        }
        if self.snapshot_id.is_none() {
            return Ok(());
        }
        // The walk ended before ours. If it ended at a snapshot whose parent was expired, ours may lie behind that, as long
        // as nothing older than it was walked over. It may be there still, for a tag's sake.
        let oldest = metadata.snapshot_by_id(oldest);
        let parent_expired = oldest.is_some_and(|snapshot| {
            snapshot.parent_snapshot_id().is_some()
                && snapshot.sequence_number() > self.sequence_number
        });
        if parent_expired {
            return Ok(());
        }
        Err(moved())
    }

    /// Whether a snapshot holds rows by a state that is not this one's: after a replay somebody moved the head forward to
    /// what was rolled back, and to go on would bring those rows twice.
    pub(crate) fn is_of_other(
        &self,
        table: &TableName,
        metadata: &TableMetadata,
        snapshot_id: i64,
    ) -> bool {
        let snapshot = metadata.snapshot_by_id(snapshot_id);
        let json = snapshot.and_then(|s| s.summary().additional_properties.get(STATE_PROPERTY));
        json.is_some_and(|json| {
            Self::parse(table, json).is_ok_and(|state| state.snapshot_id != self.snapshot_id)
        })
    }
}
