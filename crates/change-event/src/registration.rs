//! What the agent announces about a topic before its first record: enough for a function to find the table.

use serde::{Deserialize, Serialize};

use crate::partition::PartitionMap;

/// Seconds between two commits of a table unless its owner says otherwise.
pub const FRESHNESS_DEFAULT_SECONDS: u32 = 60;

/// One topic and the lake table that it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRegistration {
    /// The topic.
    pub topic: String,
    /// Name of the source (the agent's topic prefix).
    pub source: String,
    /// Schema of the table in the source.
    pub table_schema: String,
    /// Name of the table in the source.
    pub table_name: String,
    /// Glue database.
    pub lake_database: String,
    /// Glue table.
    pub lake_table: String,
    /// Rises when the topic is made anew.
    pub topic_incarnation: u32,
    /// How keys map to partitions.
    pub partition_map: PartitionMap,
    /// Seconds between two commits of the table; 0 commits each batch.
    pub freshness_seconds: u32,
}
