//! How far a table is: the state that every commit writes into the same metadata as the data.
//!
//! It stands in the table property [`STATE_PROPERTY`] and in the summary of each of our snapshots. The property is what
//! counts: it survives the expiry of snapshots and other engines' commits. The summary is for people and for repair.
//!
//! # Invariants
//! - A frontier never goes back, by any commit of ours.
//! - A partition is in the state before its first record is acknowledged.

use std::collections::BTreeMap;

use change_event::{Lane, Position};
use serde::{Deserialize, Serialize};

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
}

impl Frontier {
    /// Before the first record.
    #[must_use]
    pub const fn start(incarnation: u32) -> Self {
        Self { incarnation, offset: 0, epoch: 0, pseq: 0, stream: None, copy: None }
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
        Self { incarnation, offset: 0, ..*self }
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
    /// Sequence number of our last snapshot; 0 before the first.
    pub sequence_number: i64,
    /// Our last snapshot.
    pub snapshot_id: Option<i64>,
    /// Wall clock of our last snapshot, in milliseconds; 0 before the first.
    pub committed_ms: i64,
    /// Frontier of each registered partition.
    pub partitions: BTreeMap<u32, Frontier>,
}
