//! Decodes the event by which Lambda hands over Kafka records.
//!
//! Flow: Lambda payload (JSON, values in base64) -> **here** -> accept rule -> batch.
//!
//! # Invariants
//! - One bad record never fails the event: it is given as a [`BadRecord`] in its place, the rest beside it.
//! - Names are borrowed from the payload; key, value and header of a group's records are decoded once, into one buffer.
//! - A group's name is only handed back to Lambda, never taken apart: a topic's name may hold a `-`.
//! - Errors name places, never content.
//!
//! # Source
//! AWS Lambda developer guide, "Using Lambda with Amazon MSK" and "… self-managed Apache Kafka". `aws_lambda_events` 1.2.1 is unfit:
//! a header byte above 127 or a record without `headers` fails its whole batch, which Lambda then delivers for ever.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use change_event::header::HEADER_NAME;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The two kinds of cluster that Lambda reads.
const EVENT_SOURCES: [&str; 2] = ["aws:kafka", "aws:SelfManagedKafka"];

/// An event that is none of ours: fails as a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// Not JSON, or not in the shape of a Kafka event.
    #[error("no Kafka event at line {line} column {column}")]
    Malformed {
        /// Line of the payload, from 1.
        line: usize,
        /// Column in it.
        column: usize,
    },
    /// Sent by another event source.
    #[error("event of another source than Kafka")]
    WrongSource,
}

impl From<serde_json::Error> for EventError {
    /// The source's own text may quote the payload, so only its place is kept.
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed {
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Why a record cannot be read: Quarantine.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Members missing or of the wrong type.
    #[error("record of unknown shape")]
    Malformed,
    /// No such partition can be.
    #[error("partition out of range")]
    Partition,
    /// No such offset can be.
    #[error("offset out of range")]
    Offset,
    /// Key or value is no base64.
    #[error("{member} is no base64")]
    Base64 {
        /// `key` or `value`.
        member: &'static str,
    },
    /// The firn header holds what is no byte.
    #[error("header holds what is no byte")]
    HeaderByte,
    /// More than one firn header.
    #[error("firn header twice")]
    HeaderTwice,
}

/// A record, its names borrowed from the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Topic.
    pub topic: Cow<'a, str>,
    /// Partition.
    pub partition: u32,
    /// Offset in it.
    pub offset: i64,
    /// Key, if it has one.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The firn header, if it has one.
    pub header: Option<Vec<u8>>,
}

/// A record that cannot be read, with what is known of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord<'a> {
    /// Topic, if it can be read.
    pub topic: Option<Cow<'a, str>>,
    /// Partition as it says, if it can be read.
    pub partition: Option<i64>,
    /// Offset as it says, if it can be read.
    pub offset: Option<i64>,
    /// What is wrong.
    pub error: RecordError,
}

/// The records of one partition, in the order of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordGroup<'a> {
    /// Lambda's name for it, `<topic>-<partition>`: what a partial failure is reported under.
    pub name: Cow<'a, str>,
    /// Its records.
    pub records: Vec<Result<RawRecord<'a>, BadRecord<'a>>>,
}

/// Reads an event.
///
/// Shape: groups and records in the order of the payload; an event without records gives no groups.
///
/// # Errors
/// [`EventError`] if it is no Kafka event; Lambda delivers it again.
pub fn decode(payload: &[u8]) -> Result<Vec<RecordGroup<'_>>, EventError> {
    if let Ok(event) = serde_json::from_slice::<Event<'_, RecordText<'_>>>(payload) {
        return event.into_groups(Ok);
    }
    // Some record has an odd shape: read again, each record for itself.
    let event: Event<'_, &RawValue> = serde_json::from_slice(payload)?;
    event.into_groups(|raw| serde_json::from_str(raw.get()).map_err(|_source| place_of(raw.get())))
}

/// A record of which only the place is of use.
fn place_of(text: &str) -> BadRecord<'static> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let number = |member| value.get(member).and_then(serde_json::Value::as_i64);
    BadRecord {
        topic: value
            .get("topic")
            .and_then(|topic| topic.as_str())
            .map(|t| Cow::Owned(t.to_owned())),
        partition: number("partition"),
        offset: number("offset"),
        error: RecordError::Malformed,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "R: Deserialize<'de>"))]
struct Event<'a, R> {
    #[serde(borrow)]
    event_source: Cow<'a, str>,
    #[serde(borrow)]
    records: Groups<'a, R>,
}

impl<'a, R> Event<'a, R> {
    fn into_groups(
        self,
        read: impl Fn(R) -> Result<RecordText<'a>, BadRecord<'a>>,
    ) -> Result<Vec<RecordGroup<'a>>, EventError> {
        if !EVENT_SOURCES.contains(&&*self.event_source) {
            return Err(EventError::WrongSource);
        }
        let group = |(name, records): (Cow<'a, str>, Vec<R>)| {
            let records: Vec<_> = records.into_iter().map(&read).collect();
            RecordGroup {
                name,
                records: decode_group(records),
            }
        };
        Ok(self.records.0.into_iter().map(group).collect())
    }
}

/// The members of `records`, in their order.
struct Groups<'a, R>(Vec<(Cow<'a, str>, Vec<R>)>);

/// A name that borrows if it can.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a, R: Deserialize<'de>> Deserialize<'de> for Groups<'a, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GroupsVisitor<'a, R>(std::marker::PhantomData<(&'a str, R)>);
        impl<'de: 'a, 'a, R: Deserialize<'de>> Visitor<'de> for GroupsVisitor<'a, R> {
            type Value = Groups<'a, R>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("records by topic and partition")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut groups = Vec::new();
                while let Some((Name(name), records)) = map.next_entry()? {
                    groups.push((name, records));
                }
                Ok(Groups(groups))
            }
        }
        deserializer.deserialize_map(GroupsVisitor(std::marker::PhantomData))
    }
}

/// A record as the payload has it; members that we do not use are passed over.
#[derive(Deserialize)]
struct RecordText<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: i64,
    offset: i64,
    #[serde(borrow, default)]
    key: Option<Name<'a>>,
    #[serde(borrow, default)]
    value: Option<Name<'a>>,
    #[serde(default)]
    headers: Option<Headers>,
}

/// The firn header among all headers.
#[derive(Default)]
enum Headers {
    #[default]
    None,
    Bytes(Vec<u8>),
    Bad(RecordError),
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("headers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Headers, A::Error> {
                let mut headers = Headers::None;
                while seq.next_element_seed(OneHeader(&mut headers))?.is_some() {}
                Ok(headers)
            }
        }
        deserializer.deserialize_seq(HeadersVisitor)
    }
}

/// One `{"name":[bytes]}`.
struct OneHeader<'h>(&'h mut Headers);

impl<'de> DeserializeSeed<'de> for OneHeader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneHeader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if name != HEADER_NAME {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let next = map.next_value::<HeaderBytes>()?.0;
            *self.0 = match self.0 {
                Headers::None => next,
                Headers::Bytes(_) | Headers::Bad(_) => Headers::Bad(RecordError::HeaderTwice),
            };
        }
        Ok(())
    }
}

/// The bytes of one header.
struct HeaderBytes(Headers);

impl<'de> Deserialize<'de> for HeaderBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = HeaderBytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("header bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HeaderBytes, A::Error> {
                let mut bytes = Vec::with_capacity(80);
                let mut good = true;
                while let Some(number) = seq.next_element::<i64>()? {
                    // Java's bytes are signed; other senders write them unsigned.
                    let byte = i8::try_from(number)
                        .map(i8::cast_unsigned)
                        .or_else(|_source| u8::try_from(number));
                    match byte {
                        Ok(byte) => bytes.push(byte),
                        Err(_) => good = false,
                    }
                }
                Ok(HeaderBytes(match good {
                    true => Headers::Bytes(bytes),
                    false => Headers::Bad(RecordError::HeaderByte),
                }))
            }
        }
        deserializer.deserialize_seq(BytesVisitor)
    }
}

/// Decodes keys and values of a group into one buffer.
fn decode_group<'a>(
    records: Vec<Result<RecordText<'a>, BadRecord<'a>>>,
) -> Vec<Result<RawRecord<'a>, BadRecord<'a>>> {
    let length =
        |text: &Option<Name<'_>>| text.as_ref().map_or(0, |Name(text)| text.len() / 4 * 3 + 3);
    let capacity = records
        .iter()
        .flatten()
        .map(|r| length(&r.key) + length(&r.value))
        .sum();
    let mut arena = Arena {
        buffer: vec![0; capacity],
        used: 0,
    };
    let placed: Vec<_> = records
        .into_iter()
        .map(|record| {
            let record = record?;
            let key = arena.place(record.key.as_ref(), "key");
            let value = arena.place(record.value.as_ref(), "value");
            Ok((record, key, value))
        })
        .collect();
    let bytes = Bytes::from(arena.buffer);
    placed
        .into_iter()
        .map(|placed| checked(placed?, &bytes))
        .collect()
}

type Place = Result<Option<(usize, usize)>, RecordError>;

struct Arena {
    buffer: Vec<u8>,
    used: usize,
}

impl Arena {
    fn place(&mut self, text: Option<&Name<'_>>, member: &'static str) -> Place {
        let Some(Name(text)) = text else {
            return Ok(None);
        };
        let start = self.used;
        let rest = self.buffer.get_mut(start..).unwrap_or_default();
        let length = STANDARD
            .decode_slice(text.as_bytes(), rest)
            .map_err(|_source| RecordError::Base64 { member })?;
        self.used = start + length;
        Ok(Some((start, self.used)))
    }
}

fn checked<'a>(
    (record, key, value): (RecordText<'a>, Place, Place),
    bytes: &Bytes,
) -> Result<RawRecord<'a>, BadRecord<'a>> {
    let RecordText {
        topic,
        partition,
        offset,
        headers,
        ..
    } = record;
    let header = match headers {
        None | Some(Headers::None) => Ok(None),
        Some(Headers::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Headers::Bad(error)) => Err(error),
    };
    let slice = |place: Option<(usize, usize)>| place.map(|(start, end)| bytes.slice(start..end));
    let parts = || -> Result<_, RecordError> {
        // Kafka's partitions are signed 32-bit numbers.
        let number = i32::try_from(partition)
            .ok()
            .and_then(|number| u32::try_from(number).ok());
        let number = number.ok_or(RecordError::Partition)?;
        if offset < 0 {
            return Err(RecordError::Offset);
        }
        Ok((number, slice(key?), slice(value?), header?))
    };
    match parts() {
        Ok((partition, key, value, header)) => Ok(RawRecord {
            topic,
            partition,
            offset,
            key,
            value,
            header,
        }),
        Err(error) => Err(BadRecord {
            topic: Some(topic),
            partition: Some(partition),
            offset: Some(offset),
            error,
        }),
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
