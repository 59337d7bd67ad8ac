//! How far this source is, kept in a compacted topic and written in the same Kafka transaction as the records.
//!
//! Flow: transaction -> **progress records**, last of each transaction -> read back by the next session.
//!
//! # Invariants
//! - What is read back is exactly what is committed: it is read after `init_transactions`, with `read_committed`, up to the end
//!   that a `read_uncommitted` client saw. Control records take offsets, so the reader's *position* is compared, not the
//!   last record's offset.
//! - A position record exists only once the first table copy was announced.
//!
//! # Source
//! Materialize, `src/storage/src/sink/kafka.rs` (progress topic); KIP-98.

use std::collections::HashMap;
use std::time::Duration;

use change_event::{Lsn, Position, Predecessor, TopicRegistration};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::AgentError;
use crate::kafka::client_config;

/// Longest time to read the whole topic: it is compacted and holds a record per partition.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for one answer while reading.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Where the source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRecord {
    /// Server's system identifier, as text: JSON numbers lose digits in some readers.
    pub system_id: String,
    /// Server's timeline.
    pub timeline: u32,
    /// Incarnation of the source log, first part of every position.
    pub incarnation: u32,
    /// The logs that it was before, oldest first: each until a standby was promoted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastLog>,
    /// Commit position of the last change that is on its topic.
    pub commit_lsn: Lsn,
    /// Its number in the source transaction; 0 right after the table copy.
    pub ordinal: u64,
    /// End of the last whole source transaction: the slot may be acknowledged up to here.
    pub end_lsn: Lsn,
    /// Epoch that wrote this.
    pub epoch: u64,
    /// Number of the last table copy that was announced.
    pub copy_id: u32,
}

/// A source log that a promoted standby went on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastLog {
    /// Its timeline.
    pub timeline: u32,
    /// Incarnation of the positions in it.
    pub incarnation: u32,
    /// Where the next timeline begins.
    pub until: Lsn,
}

impl PositionRecord {
    /// The last change that is on its topic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position_of(self.commit_lsn, self.ordinal)
    }

    /// The position of a change, in the incarnation of the log that its commit lies in.
    #[must_use]
    pub fn position_of(&self, commit_lsn: Lsn, ordinal: u64) -> Position {
        let past = self.past.iter().find(|past| {
            // A copy that ended with the log: its position is the end of what it holds.
            commit_lsn < past.until || (ordinal == 0 && commit_lsn == past.until)
        });
        let incarnation = past.map_or(self.incarnation, |past| past.incarnation);
        Position::stream(incarnation, commit_lsn, ordinal)
    }
}

/// The partition map by which a topic is written: its barrier is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRecord {
    /// Incarnation of the topic in which the barrier stands.
    pub topic_incarnation: u32,
    /// Version of the map.
    pub version: u32,
}

/// All that the progress topic says about one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where the source stands; absent before the first copy was announced.
    pub position: Option<PositionRecord>,
    /// Last committed record of each topic-partition.
    pub partitions: HashMap<(String, u32), Predecessor>,
    /// Newest partition map of each topic that was raised.
    pub maps: HashMap<String, MapRecord>,
}

/// Key of the position record of a source.
#[must_use]
pub fn position_key(source_name: &str) -> String {
    source_name.to_owned()
}

/// Key of a partition's record.
#[must_use]
pub fn partition_key(source_name: &str, topic: &str, partition: u32) -> String {
    format!("{source_name}/{topic}/{partition}")
}

/// Key of a topic's map record.
#[must_use]
pub fn map_key(source_name: &str, topic: &str) -> String {
    format!("{source_name}/{topic}/map")
}

impl Progress {
    /// The version of the partition map that was written last to a topic, as it is now: 1 before the first barrier.
    #[must_use]
    pub fn map_version(&self, registration: &TopicRegistration) -> u32 {
        self.maps
            .get(&registration.topic)
            .filter(|map| map.topic_incarnation == registration.topic_incarnation)
            .map_or(1, |map| map.version)
    }

    /// Takes one record in; those of other sources are passed over.
    ///
    /// # Errors
    /// [`serde_json::Error`] if a record of this source cannot be read.
    pub fn apply(
        &mut self,
        source_name: &str,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), serde_json::Error> {
        if key == source_name {
            self.position = value.map(serde_json::from_slice).transpose()?;
            return Ok(());
        }
        let Some((topic, partition)) = key
            .strip_prefix(source_name)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.rsplit_once('/'))
        else {
            return Ok(());
        };
        if partition == "map" {
            let topic = topic.to_owned();
            match value {
                Some(value) => self.maps.insert(topic, serde_json::from_slice(value)?),
                None => self.maps.remove(&topic),
            };
            return Ok(());
        }
        let Ok(partition) = partition.parse::<u32>() else {
            return Ok(());
        };
        let place = (topic.to_owned(), partition);
        match value {
            Some(value) => self
                .partitions
                .insert(place, serde_json::from_slice(value)?),
            None => self.partitions.remove(&place),
        };
        Ok(())
    }

    /// Reads the topic. To be called after the producer has fenced its predecessor.
    ///
    /// # Errors
    /// [`AgentError::Kafka`], [`AgentError::KafkaTimeout`] (Verify), [`AgentError::Document`] (Halt).
    pub async fn load(config: &Config, topic: &str) -> Result<Self, AgentError> {
        let (kafka, source_name, topic) = (
            config.kafka.clone(),
            config.source.name.clone(),
            topic.to_owned(),
        );
        tokio::task::spawn_blocking(move || {
            let end = {
                let uncommitted = consumer(&kafka, &source_name, "read_uncommitted")?;
                let (low, high) = uncommitted
                    .fetch_watermarks(&topic, 0, READ_TIMEOUT)
                    .map_err(|source| AgentError::Kafka {
                        operation: "list offsets",
                        source,
                    })?;
                if low == high {
                    return Ok(Self::default());
                }
                high
            };
            let committed = consumer(&kafka, &source_name, "read_committed")?;
            read_to(&committed, &source_name, &topic, end)
        })
        .await?
    }
}

fn consumer(
    kafka: &crate::config::KafkaConfig,
    source_name: &str,
    isolation: &str,
) -> Result<BaseConsumer, AgentError> {
    client_config(kafka)
        .set("group.id", format!("firn-{source_name}-progress"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .map_err(|source| AgentError::Kafka {
            operation: "create consumer",
            source,
        })
}

fn read_to(
    consumer: &BaseConsumer,
    source_name: &str,
    topic: &str,
    end: i64,
) -> Result<Progress, AgentError> {
    let failed = |source| AgentError::Kafka {
        operation: "read progress",
        source,
    };
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, 0, Offset::Beginning)
        .map_err(failed)?;
    consumer.assign(&assignment).map_err(failed)?;
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut progress = Progress::default();
    while Instant::now() < deadline {
        match consumer.poll(POLL_TIMEOUT) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(source)) => return Err(failed(source)),
            Some(Ok(message)) => {
                let key = message
                    .key()
                    .and_then(|key| std::str::from_utf8(key).ok())
                    .unwrap_or_default();
                progress
                    .apply(source_name, key, message.payload())
                    .map_err(|source| AgentError::Document {
                        key: topic.to_owned(),
                        source,
                    })?;
            }
        }
        let position = consumer.position().map_err(failed)?;
        let reached = position
            .find_partition(topic, 0)
            .map(|partition| partition.offset());
        if let Some(Offset::Offset(offset)) = reached
            && offset >= end
        {
            return Ok(progress);
        }
    }
    Err(AgentError::KafkaTimeout {
        operation: "read progress",
        seconds: READ_TIMEOUT.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_this_source_are_read_and_others_passed_over() {
        let mut progress = Progress::default();
        let record = PositionRecord {
            system_id: "7".to_owned(),
            timeline: 1,
            incarnation: 1,
            past: Vec::new(),
            commit_lsn: Lsn(10),
            ordinal: 2,
            end_lsn: Lsn(9),
            epoch: 4,
            copy_id: 1,
        };
        let value = serde_json::to_vec(&record).unwrap();
        progress
            .apply("shop", &position_key("shop"), Some(&value))
            .unwrap();
        let value = br#"{"epoch":4,"pseq":17}"#;
        progress
            .apply(
                "shop",
                &partition_key("shop", "shop.public.a", 3),
                Some(value),
            )
            .unwrap();
        progress
            .apply(
                "shop",
                &partition_key("shop2", "shop2.public.a", 0),
                Some(value),
            )
            .unwrap();
        progress
            .apply("shop", "shop2", Some(b"not even JSON"))
            .unwrap();
        let value = br#"{"topic_incarnation":1,"version":2}"#;
        progress
            .apply("shop", &map_key("shop", "shop.public.a"), Some(value))
            .unwrap();
        assert_eq!(progress.maps["shop.public.a"].version, 2);
        assert_eq!(progress.position.as_ref(), Some(&record));
        let expected = (
            ("shop.public.a".to_owned(), 3),
            Predecessor { epoch: 4, pseq: 17 },
        );
        assert_eq!(
            progress.partitions.into_iter().collect::<Vec<_>>(),
            [expected]
        );
    }

    #[test]
    fn malformed_record_of_this_source_is_an_error() {
        assert!(
            Progress::default()
                .apply("shop", "shop", Some(b"{}"))
                .is_err()
        );
    }
}
