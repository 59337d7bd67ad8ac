//! Where records come from: the port that a poller reads, and its Kafka adapter.
//!
//! # Invariants
//! - A consumer of this crate never joins its group: partitions are assigned by the one process that owns all pollers, and the
//!   group only stores offsets.
//! - Reading starts at the committed offset, without one at the oldest record (`TRIM_HORIZON`).
//!
//! # Source
//! librdkafka 2.12.1: an application's position moves past transaction markers when they are polled (`rdkafka_op.c`), so the
//! position at the end of a partition can be held against its high watermark. `fetch.queue.backoff.ms` of 1,000, the default,
//! stalls fast readers for a second at a time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Isolation;
use crate::error::EventSourceError;
use crate::payload::{RecordRenderer, RenderedRecord, TimestampKind, TopicRecord};

/// How long a question to the broker may take.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a read gave.
#[derive(Debug)]
pub enum Fetched {
    /// The next record of its partition.
    Record(RenderedRecord),
    /// The partition has no more for now; everything before `position` is read, if the client knows it.
    End {
        /// The partition.
        partition: i32,
        /// The offset after the last record or marker.
        position: Option<i64>,
    },
    /// The client has trouble and goes on by itself.
    Trouble(KafkaError),
}

/// The records of a poller's partitions.
#[async_trait]
pub trait RecordSource: Send {
    /// The next thing; safe to cancel.
    async fn next(&mut self) -> Fetched;

    /// Stores the offset to go on from for each partition, in the background.
    fn commit(&mut self, next_offsets: &BTreeMap<i32, i64>);

    /// Stores them once more and waits for it, at a clean end.
    async fn commit_and_wait(&mut self, next_offsets: &BTreeMap<i32, i64>);
}

/// The broker and how to read from it.
#[derive(Debug, Clone)]
pub struct Broker {
    /// `host:port,…`
    pub bootstrap_servers: String,
    /// What becomes of records of open and aborted transactions.
    pub isolation: Isolation,
    /// A topic's consumer group is this and its name.
    pub group_prefix: String,
}

impl Broker {
    fn client(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("group.id", group)
            .set("isolation.level", self.isolation.as_str())
            .set("reconnect.backoff.max.ms", "1000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "true")
            // Half a second of the whole pipeline's freshness would be lost in the default wait.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            // Per partition: two payloads' worth, not the 64 MB that a lone consumer takes.
            .set("queued.max.messages.kbytes", "16384")
            // Pollers wait for a function longer than a group's member may; nobody here is a member.
            .set("max.poll.interval.ms", "86400000");
        config
    }
}

/// [`RecordSource`] on Kafka.
pub struct KafkaRecords {
    consumer: Arc<StreamConsumer>,
    topic: String,
    renderer: RecordRenderer,
    /// Offsets from which reading started, where the group had one.
    started_at: BTreeMap<i32, i64>,
}

impl Debug for KafkaRecords {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaRecords")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaRecords {
    /// Starts to read `partitions` of `topic` where its group stands.
    ///
    /// # Errors
    /// [`EventSourceError::Kafka`] (Retry) if the group's coordinator does not answer.
    pub async fn open(
        broker: &Broker,
        topic: &str,
        partitions: &[i32],
        renderer: RecordRenderer,
    ) -> Result<Self, EventSourceError> {
        let config = broker.client(&format!("{}{topic}", broker.group_prefix));
        let failed = |operation| move |source| EventSourceError::Kafka { operation, source };
        let consumer: Arc<StreamConsumer> =
            Arc::new(config.create().map_err(failed("create a consumer"))?);
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted.add_partition(topic, *partition);
        }
        let asking = Arc::clone(&consumer);
        let committed =
            tokio::task::spawn_blocking(move || asking.committed_offsets(wanted, BROKER_TIMEOUT))
                .await
                .map_err(|_error| EventSourceError::Cancelled)?
                .map_err(failed("read committed offsets"))?;
        let mut started_at = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for element in committed.elements() {
            let start = match element.offset() {
                Offset::Offset(offset) => {
                    started_at.insert(element.partition(), offset);
                    Offset::Offset(offset)
                }
                _ => Offset::Beginning,
            };
            assignment
                .add_partition_offset(topic, element.partition(), start)
                .map_err(failed("assign partitions"))?;
        }
        consumer
            .assign(&assignment)
            .map_err(failed("assign partitions"))?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            renderer,
            started_at,
        })
    }

    fn position(&self, partition: i32) -> Option<i64> {
        let positions = self.consumer.position().ok()?;
        match positions.find_partition(&self.topic, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => self.started_at.get(&partition).copied(),
        }
    }

    fn list(&self, next_offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next_offsets {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }
}

fn view<'a>(message: &'a BorrowedMessage<'_>) -> TopicRecord<'a> {
    let (timestamp_ms, timestamp_kind) = match message.timestamp() {
        Timestamp::CreateTime(ms) => (ms, TimestampKind::Create),
        Timestamp::LogAppendTime(ms) => (ms, TimestampKind::LogAppend),
        Timestamp::NotAvailable => (-1, TimestampKind::Create),
    };
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|h| (h.key, h.value)).collect());
    TopicRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms,
        timestamp_kind,
        key: message.key(),
        value: message.payload(),
        headers: headers.unwrap_or_default(),
    }
}

#[async_trait]
impl RecordSource for KafkaRecords {
    async fn next(&mut self) -> Fetched {
        match self.consumer.recv().await {
            Ok(message) => Fetched::Record(self.renderer.render(&view(&message))),
            Err(KafkaError::PartitionEOF(partition)) => Fetched::End {
                partition,
                position: self.position(partition),
            },
            Err(error) => Fetched::Trouble(error),
        }
    }

    fn commit(&mut self, next_offsets: &BTreeMap<i32, i64>) {
        let outcome = self
            .list(next_offsets)
            .and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = outcome {
            tracing::warn!(topic = self.topic, %error, "offsets not committed; the next commit covers them");
        }
    }

    async fn commit_and_wait(&mut self, next_offsets: &BTreeMap<i32, i64>) {
        if next_offsets.is_empty() {
            return;
        }
        let (consumer, list) = (Arc::clone(&self.consumer), self.list(next_offsets));
        let commit = move || list.and_then(|list| consumer.commit(&list, CommitMode::Sync));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(commit).await {
            tracing::warn!(topic = self.topic, %error, "last offsets not committed; they are delivered again");
        }
    }
}

/// How far behind its end a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Offsets that are not delivered; none if the broker did not answer.
    pub records: Option<i64>,
}

/// What the broker says of topics: partitions and ends.
#[derive(Clone)]
pub struct KafkaTopics {
    consumer: Arc<BaseConsumer>,
}

impl Debug for KafkaTopics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KafkaTopics")
    }
}

impl KafkaTopics {
    /// A client that reads no records.
    ///
    /// # Errors
    /// [`EventSourceError::Kafka`] (Halt) if the settings are refused.
    pub fn new(broker: &Broker) -> Result<Self, EventSourceError> {
        let consumer = broker
            .client(&format!("{}(metadata)", broker.group_prefix))
            .create();
        let consumer = consumer.map_err(|source| EventSourceError::Kafka {
            operation: "create a consumer",
            source,
        })?;
        Ok(Self {
            consumer: Arc::new(consumer),
        })
    }

    /// Number of partitions of every topic.
    ///
    /// # Errors
    /// [`EventSourceError::Kafka`] (Retry) if the broker does not answer.
    pub async fn partition_counts(&self) -> Result<BTreeMap<String, i32>, EventSourceError> {
        let consumer = Arc::clone(&self.consumer);
        let ask = move || consumer.fetch_metadata(None, BROKER_TIMEOUT);
        let metadata = tokio::task::spawn_blocking(ask)
            .await
            .map_err(|_error| EventSourceError::Cancelled)?
            .map_err(|source| EventSourceError::Kafka {
                operation: "read metadata",
                source,
            })?;
        let count = |topic: &rdkafka::metadata::MetadataTopic| {
            (
                topic.name().to_owned(),
                i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
            )
        };
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(count)
            .collect())
    }

    /// How many offsets lie between what is delivered and the end that this isolation level sees; markers count until the
    /// poller has passed them. None where the broker gives no answer.
    pub async fn lags(&self, partitions: Vec<(String, i32, Option<i64>)>) -> Vec<PartitionLag> {
        let consumer = Arc::clone(&self.consumer);
        let ask = move || {
            let lag = |(topic, partition, next_offset): (String, i32, Option<i64>)| {
                let ends = consumer
                    .fetch_watermarks(&topic, partition, BROKER_TIMEOUT)
                    .ok();
                let records = ends.map(|(low, high)| (high - next_offset.unwrap_or(low)).max(0));
                PartitionLag {
                    topic,
                    partition,
                    records,
                }
            };
            partitions.into_iter().map(lag).collect()
        };
        tokio::task::spawn_blocking(ask).await.unwrap_or_default()
    }
}
