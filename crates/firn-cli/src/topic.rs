//! A topic read from its beginning, as payloads like those of an event source mapping.
//!
//! # Invariants
//! - Each partition's records come in their order, none is left out, and nothing is committed to a consumer group.
//! - Only what is committed is read: who stages it may see the rest at another time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Timestamp};
use serde_json::{Value, json};

use crate::arguments::KafkaArguments;
use crate::desk::CliError;

/// Records of one payload.
const PAYLOAD_RECORDS: usize = 10_000;
/// Bytes of their keys and values, about.
const PAYLOAD_BYTES: usize = 16 << 20;
/// The broker must answer in this time.
const ANSWER: Duration = Duration::from_secs(30);

/// A topic that is read from its beginning.
pub(crate) struct TopicReader {
    consumer: BaseConsumer<DefaultConsumerContext>,
    topic: String,
    /// The next offset to hand out, of each partition.
    next: BTreeMap<i32, i64>,
}

/// The offsets that a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: i64,
    pub(crate) end: i64,
}

impl TopicReader {
    /// Connects, and begins before the first record of each partition.
    pub(crate) fn open(kafka: &KafkaArguments, topic: &str) -> Result<Self, CliError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.bootstrap_servers);
        for property in &kafka.kafka_property {
            config.set(&property.name, &property.value);
        }
        for secret in &kafka.kafka_secret {
            config.set(&secret.name, secret_of(&secret.value)?);
        }
        // Assigned by hand: the group's name is asked for, and never used.
        config
            .set("group.id", "firn-rebuild")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error");
        let consumer: BaseConsumer<DefaultConsumerContext> = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        let mut reader = Self {
            consumer,
            topic: topic.to_owned(),
            next: BTreeMap::new(),
        };
        for (partition, extent) in reader.extents_of(&partitions)? {
            reader.next.insert(partition, extent.first);
        }
        if reader.next.is_empty() {
            return Err(CliError::NoTopic {
                topic: topic.to_owned(),
            });
        }
        reader.assign()?;
        Ok(reader)
    }

    /// What each partition holds.
    pub(crate) fn extents(&self) -> Result<BTreeMap<i32, Extent>, CliError> {
        let partitions: Vec<i32> = self.next.keys().copied().collect();
        self.extents_of(&partitions)
    }

    fn extents_of(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Extent>, CliError> {
        let mut extents = BTreeMap::new();
        for partition in partitions {
            let (first, end) = self
                .consumer
                .fetch_watermarks(&self.topic, *partition, ANSWER)?;
            extents.insert(*partition, Extent { first, end });
        }
        Ok(extents)
    }

    /// Goes on from the offsets that were handed out; also: asks anew for the ends.
    fn assign(&self) -> Result<(), CliError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in &self.next {
            assignment.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&assignment)?;
        Ok(())
    }

    /// Hands over every record up to the ends as they are now, payload by payload.
    pub(crate) async fn read<E: From<CliError>>(
        &mut self,
        mut take: impl AsyncFnMut(Vec<u8>, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.assign()?;
        let mut open: BTreeSet<i32> = self.next.keys().copied().collect();
        while !open.is_empty() {
            let (records, count) = self.payload(&mut open)?;
            if count > 0 {
                let event = json!({
                    "eventSource": "aws:kafka", "eventSourceArn": "",
                    "bootstrapServers": "",
                    "records": records,
                });
                let payload = serde_json::to_vec(&event).map_err(CliError::Payload)?;
                take(payload, count).await?;
            }
        }
        Ok(())
    }

    /// Records until a payload is full or every partition is at its end.
    fn payload(
        &mut self,
        open: &mut BTreeSet<i32>,
    ) -> Result<(BTreeMap<String, Vec<Value>>, usize), CliError> {
        let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        while !open.is_empty() && count < PAYLOAD_RECORDS && bytes < PAYLOAD_BYTES {
            match self.consumer.poll(ANSWER) {
                None => return Err(CliError::KafkaSilent),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => {
                    count += 1;
                    bytes += message.payload_len() + message.key_len();
                    self.next.insert(message.partition(), message.offset() + 1);
                    let name = format!("{}-{}", self.topic, message.partition());
                    records.entry(name).or_default().push(rendered(&message));
                }
            }
        }
        Ok((records, count))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the variable that holds the secret"
)]
fn secret_of(variable: &str) -> Result<String, CliError> {
    std::env::var(variable).map_err(|_unset| CliError::NoSecret {
        variable: variable.to_owned(),
    })
}

/// A record as Lambda renders it.
fn rendered(message: &BorrowedMessage<'_>) -> Value {
    let headers: Vec<Value> = message
        .headers()
        .into_iter()
        .flat_map(Headers::iter)
        .map(|header| json!({ header.key: header.value.unwrap_or_default() }))
        .collect();
    let (kind, timestamp) = match message.timestamp() {
        Timestamp::LogAppendTime(ms) => ("LOG_APPEND_TIME", ms),
        Timestamp::CreateTime(ms) => ("CREATE_TIME", ms),
        Timestamp::NotAvailable => ("CREATE_TIME", 0),
    };
    json!({
        "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
        "timestamp": timestamp, "timestampType": kind,
        "key": message.key().map(|key| STANDARD.encode(key)),
        "value": message.payload().map(|value| STANDARD.encode(value)),
        "headers": headers,
    })
}
