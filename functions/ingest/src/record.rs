//! The records of a payload by topic and partition, with what their headers say.
//!
//! Flow: [`crate::event`] -> **here** -> [`crate::slice`].
//!
//! # Invariants
//! - A record belongs to the topic and partition that it names itself; Lambda's name of its group is only for the answer.
//! - A record that cannot be read keeps its place among the others, if it has one.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use change_event::RecordHeader;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Reason;
use crate::event::{self, BadRecord, EventError, RawRecord};
use crate::slice::Found;

/// One record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its offset.
    pub(crate) offset: i64,
    /// What its headers say.
    pub(crate) found: Found<Reason>,
    /// Its key.
    pub(crate) key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub(crate) value: Option<Bytes>,
    /// Its firn header.
    pub(crate) header: Option<Vec<u8>>,
    /// As the payload has it, if the rest could not be read.
    pub(crate) raw: Option<String>,
}

/// The records of one partition, by offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionBatch {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: u32,
    /// Lambda's name for its group.
    pub(crate) name: String,
    /// Its records.
    pub(crate) records: Vec<Record>,
}

/// A record without a place: no topic, partition or offset that can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaced {
    /// Lambda's name for its group.
    pub(crate) name: String,
    /// The topic, if it names one.
    pub(crate) topic: Option<String>,
    /// What is wrong.
    pub(crate) reason: Reason,
    /// As the payload has it.
    pub(crate) raw: Option<String>,
}

/// What a payload holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batches {
    /// By topic and partition.
    pub(crate) partitions: Vec<PartitionBatch>,
    /// The rest.
    pub(crate) unplaced: Vec<Unplaced>,
}

/// Reads a payload.
///
/// # Errors
/// [`EventError`] if it is no Kafka event.
pub(crate) fn batches(payload: &[u8]) -> Result<Batches, EventError> {
    let mut partitions: BTreeMap<(String, u32), PartitionBatch> = BTreeMap::new();
    let mut unplaced = Vec::new();
    let mut raw = RawRecords {
        payload,
        groups: None,
    };
    for group in event::decode(payload)? {
        for (index, record) in group.records.into_iter().enumerate() {
            let placed = match record {
                Ok(record) => Ok(good(record)),
                Err(bad) => bad_record(bad, raw.get(&group.name, index)),
            };
            match placed {
                Ok((topic, partition, record)) => {
                    partitions
                        .entry((topic.clone(), partition))
                        .or_insert_with(|| PartitionBatch {
                            topic,
                            partition,
                            name: group.name.to_string(),
                            records: Vec::new(),
                        })
                        .records
                        .push(record);
                }
                Err((topic, reason, raw)) => {
                    unplaced.push(Unplaced {
                        name: group.name.to_string(),
                        topic,
                        reason,
                        raw,
                    });
                }
            }
        }
    }
    let mut partitions: Vec<_> = partitions.into_values().collect();
    for batch in &mut partitions {
        batch.records.sort_by_key(|record| record.offset);
    }
    Ok(Batches {
        partitions,
        unplaced,
    })
}

fn good(record: RawRecord<'_>) -> (String, u32, Record) {
    let found = match (&record.header, &record.value) {
        (Some(bytes), _) => match RecordHeader::decode(bytes) {
            Ok(header) => Found::Firn(header),
            Err(error) => Found::Poison(Reason::Header(error)),
        },
        (None, None) => Found::Bare,
        (None, Some(_)) => Found::Poison(Reason::NoHeader),
    };
    let RawRecord {
        topic,
        partition,
        offset,
        key,
        value,
        header,
    } = record;
    (
        topic.into_owned(),
        partition,
        Record {
            offset,
            found,
            key,
            value,
            header,
            raw: None,
        },
    )
}

type Misplaced = (Option<String>, Reason, Option<String>);

fn bad_record(bad: BadRecord<'_>, raw: Option<String>) -> Result<(String, u32, Record), Misplaced> {
    let reason = Reason::Record(bad.error);
    let topic = bad.topic.map(std::borrow::Cow::into_owned);
    // Kafka's partitions are signed 32-bit numbers.
    let partition = bad
        .partition
        .and_then(|number| i32::try_from(number).ok())
        .and_then(|n| u32::try_from(n).ok());
    match (topic, partition, bad.offset) {
        (Some(topic), Some(partition), Some(offset)) if offset >= 0 => {
            let found = Found::Poison(reason);
            Ok((
                topic,
                partition,
                Record {
                    offset,
                    found,
                    key: None,
                    value: None,
                    header: None,
                    raw,
                },
            ))
        }
        (topic, _, _) => Err((topic, reason, raw)),
    }
}

/// The payload read once more, when a record could not be read: quarantine keeps it as it came.
struct RawRecords<'a> {
    payload: &'a [u8],
    groups: Option<HashMap<String, Vec<&'a RawValue>>>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    records: HashMap<String, Vec<&'a RawValue>>,
}

impl RawRecords<'_> {
    fn get(&mut self, name: &str, index: usize) -> Option<String> {
        let groups = self.groups.get_or_insert_with(|| {
            serde_json::from_slice::<RawEvent<'_>>(self.payload)
                .map(|event| event.records)
                .unwrap_or_default()
        });
        groups.get(name)?.get(index).map(|raw| raw.get().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RecordError;

    fn event(records: &str) -> String {
        format!(r#"{{"eventSource":"aws:kafka","records":{{"g":[{records}]}}}}"#)
    }

    #[test]
    fn records_go_by_the_topic_and_partition_that_they_name() {
        let payload = event(
            r#"{"topic":"b","partition":1,"offset":7},{"topic":"a","partition":0,"offset":3},
               {"topic":"b","partition":1,"offset":5}"#,
        );
        let batches = batches(payload.as_bytes()).expect("an event");
        let found: Vec<_> = batches
            .partitions
            .iter()
            .map(|batch| {
                let offsets: Vec<_> = batch.records.iter().map(|record| record.offset).collect();
                (
                    batch.topic.as_str(),
                    batch.partition,
                    batch.name.as_str(),
                    offsets,
                )
            })
            .collect();
        assert_eq!(found, [("a", 0, "g", vec![3]), ("b", 1, "g", vec![5, 7])]);
    }

    #[test]
    fn unreadable_record_keeps_its_place_and_its_text() {
        let payload = event(r#"{"topic":"a","partition":0,"offset":3,"value":"%"}"#);
        let batches = batches(payload.as_bytes()).expect("an event");
        let record = &batches.partitions[0].records[0];
        assert_eq!(
            record.found,
            Found::Poison(Reason::Record(RecordError::Base64 { member: "value" }))
        );
        assert!(
            record
                .raw
                .as_deref()
                .is_some_and(|raw| raw.contains("\"%\""))
        );
    }

    #[test]
    fn record_without_a_place_is_given_apart() {
        for members in [
            r#""topic":"a","partition":0"#,
            r#""topic":"a","partition":-1,"offset":1"#,
            r#""topic":"a","partition":0,"offset":-1"#,
            r#""topic":"a","partition":99999999999,"offset":1"#,
        ] {
            let payload = event(&format!("{{{members}}}"));
            let batches = batches(payload.as_bytes()).expect("an event");
            assert_eq!(
                (batches.partitions.len(), batches.unplaced.len()),
                (0, 1),
                "{members}"
            );
            assert_eq!(batches.unplaced[0].topic.as_deref(), Some("a"));
        }
    }

    #[test]
    fn headers_tell_rows_tombstones_and_strangers() {
        let payload = event(
            r#"{"topic":"a","partition":0,"offset":0,"value":null},{"topic":"a","partition":0,"offset":1,"value":""},
               {"topic":"a","partition":0,"offset":2,"value":"","headers":[{"firn":[9]}]}"#,
        );
        let batches = batches(payload.as_bytes()).expect("an event");
        let records = &batches.partitions[0].records;
        assert_eq!(records[0].found, Found::Bare);
        assert_eq!(records[1].found, Found::Poison(Reason::NoHeader));
        assert!(matches!(records[2].found, Found::Poison(Reason::Header(_))));
    }
}
