//! Decodes the event by which Lambda hands over Kafka records.
//!
//! Flow: Lambda payload (JSON, values in base64) -> **here** -> accept rule -> batch.
//!
//! # Invariants
//! - One bad record never fails the event: it is given as a [`BadRecord`] in its place, the rest beside it.
//! - One pass over the payload; names are borrowed from it; key, value and header of a group's records are decoded once, into one buffer.
//! - A group's name is only handed back to Lambda, never taken apart: a topic's name may hold a `-`.
//! - Errors name places, never content.
//!
//! # Source
//! AWS Lambda developer guide, "Using Lambda with Amazon MSK" and "… self-managed Apache Kafka". `aws_lambda_events` 1.2.1 is unfit:
//! a header byte above 127 or a record without `headers` fails its whole batch, which Lambda then delivers for ever.

use std::borrow::Cow;

use base64_simd::{Out, STANDARD};
use bytes::Bytes;

use change_event::header::HEADER_NAME;
use change_event::json::{JsonError, RawCell, RawString, Scanner, Value};

/// A firn header of a streamed change takes 48 bytes, the longest one 72.
const HEADER_CAPACITY: usize = 72;

/// The two kinds of cluster that Lambda reads.
const EVENT_SOURCES: [&str; 2] = ["aws:kafka", "aws:SelfManagedKafka"];

/// An event that is none of ours: fails as a whole.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// Not JSON, or not in the shape of a Kafka event.
    #[error("no Kafka event")]
    Json(#[from] JsonError),
    /// It has no member `records`.
    #[error("event without records")]
    NoRecords,
    /// Sent by another event source.
    #[error("event of another source than Kafka")]
    WrongSource,
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
    let mut scanner = Scanner::of_bytes(payload)?;
    let (mut source, mut groups) = (None, None);
    open(&mut scanner, b'{')?;
    let mut first = true;
    while let Some(name) = scanner.member(first)? {
        first = false;
        if name.matches("eventSource") {
            source = Some(scan_text(&mut scanner, 1)?.ok_or(EventError::WrongSource)?);
        } else if name.matches("records") {
            groups = Some(scan_groups(&mut scanner)?);
        } else {
            scanner.skip(1)?;
        }
    }
    if !scanner.at_end() {
        return Err(scanner.malformed().into());
    }
    let source = source.ok_or(EventError::WrongSource)?;
    if !EVENT_SOURCES.iter().any(|known| source.matches(known)) {
        return Err(EventError::WrongSource);
    }
    let groups = groups.ok_or(EventError::NoRecords)?;
    Ok(groups.into_iter().map(ScannedGroup::decode).collect())
}

/// Takes an opening bracket; what else stands there makes no Kafka event.
fn open(scanner: &mut Scanner<'_>, bracket: u8) -> Result<(), EventError> {
    scanner.expect(bracket).map_err(EventError::Json)
}

type Scanned<'a> = Result<RecordText<'a>, BadRecord<'a>>;

struct ScannedGroup<'a> {
    name: Cow<'a, str>,
    records: Vec<Scanned<'a>>,
}

impl<'a> ScannedGroup<'a> {
    fn decode(self) -> RecordGroup<'a> {
        RecordGroup {
            name: self.name,
            records: decode_group(self.records),
        }
    }
}

fn scan_groups<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<ScannedGroup<'a>>, EventError> {
    let mut groups = Vec::new();
    open(scanner, b'{')?;
    while let Some(name) = scanner.member(groups.is_empty())? {
        let mut records = Vec::new();
        open(scanner, b'[')?;
        while scanner.element(records.is_empty())? {
            records.push(scan_record(scanner)?);
        }
        groups.push(ScannedGroup {
            name: name.to_text(),
            records,
        });
    }
    Ok(groups)
}

/// A record as the payload has it.
#[derive(Default)]
struct RecordText<'a> {
    topic: Option<RawString<'a>>,
    partition: Option<i64>,
    offset: Option<i64>,
    key: Option<RawString<'a>>,
    value: Option<RawString<'a>>,
    header: Option<Vec<u8>>,
    error: Option<RecordError>,
}

impl RecordText<'_> {
    /// Notes what is wrong; the first fault is told.
    fn blame(&mut self, error: RecordError) {
        self.error.get_or_insert(error);
    }
}

/// Scans a record; members that we do not use are passed over, those of the wrong type are noted.
fn scan_record<'a>(scanner: &mut Scanner<'a>) -> Result<Scanned<'a>, EventError> {
    let mut record = RecordText::default();
    if scanner.peek() != Some(b'{') {
        scanner.skip(4)?;
        return Ok(Err(record.bad(RecordError::Malformed)));
    }
    scanner.expect(b'{')?;
    let mut first = true;
    while let Some(name) = scanner.member(first)? {
        first = false;
        match &*name.to_text() {
            "topic" => match scan_text(scanner, 5)? {
                Some(text) => record.topic = Some(text),
                None => record.blame(RecordError::Malformed),
            },
            "partition" => match scan_integer(scanner)? {
                Some(number) => record.partition = Some(number),
                None => record.blame(RecordError::Malformed),
            },
            "offset" => match scan_integer(scanner)? {
                Some(number) => record.offset = Some(number),
                None => record.blame(RecordError::Malformed),
            },
            "key" => record.key = scan_optional_text(scanner, &mut record.error)?,
            "value" => record.value = scan_optional_text(scanner, &mut record.error)?,
            "headers" => scan_headers(scanner, &mut record)?,
            _ => scanner.skip(5)?,
        }
    }
    let complete = record.topic.is_some() && record.partition.is_some() && record.offset.is_some();
    if !complete {
        record.blame(RecordError::Malformed);
    }
    Ok(match record.error {
        None => Ok(record),
        Some(error) => Err(record.bad(error)),
    })
}

impl<'a> RecordText<'a> {
    fn bad(&self, error: RecordError) -> BadRecord<'a> {
        BadRecord {
            topic: self.topic.map(|topic| topic.to_text()),
            partition: self.partition,
            offset: self.offset,
            error,
        }
    }
}

/// A string; `None` if the value is something else, and is passed over.
fn scan_text<'a>(
    scanner: &mut Scanner<'a>,
    depth: usize,
) -> Result<Option<RawString<'a>>, EventError> {
    if scanner.peek() != Some(b'"') {
        scanner.skip(depth)?;
        return Ok(None);
    }
    match scanner.value()? {
        Value::Scalar(RawCell::String(text)) => Ok(Some(text)),
        Value::Scalar(_) | Value::Nested => Ok(None),
    }
}

/// Base64, whose content its decoder checks.
fn scan_optional_text<'a>(
    scanner: &mut Scanner<'a>,
    error: &mut Option<RecordError>,
) -> Result<Option<RawString<'a>>, EventError> {
    let text = scanner.opaque_string()?;
    if text.is_none() {
        if scanner.peek() != Some(b'n') {
            error.get_or_insert(RecordError::Malformed);
        }
        scanner.skip(5)?;
    }
    Ok(text)
}

fn scan_integer(scanner: &mut Scanner<'_>) -> Result<Option<i64>, EventError> {
    match scanner.value()? {
        Value::Scalar(RawCell::Number(text)) => Ok(text.parse().ok()),
        Value::Scalar(_) => Ok(None),
        Value::Nested => {
            scanner.skip(5)?;
            Ok(None)
        }
    }
}

/// Scans `[{"name":[bytes]}, …]` for the firn header.
fn scan_headers(scanner: &mut Scanner<'_>, record: &mut RecordText<'_>) -> Result<(), EventError> {
    match scanner.peek() {
        Some(b'[') => scanner.expect(b'[')?,
        next => {
            if next != Some(b'n') {
                record.blame(RecordError::Malformed);
            }
            return Ok(scanner.skip(5)?);
        }
    }
    let mut first = true;
    while scanner.element(first)? {
        first = false;
        if scanner.peek() != Some(b'{') {
            record.blame(RecordError::Malformed);
            scanner.skip(6)?;
            continue;
        }
        scanner.expect(b'{')?;
        let mut first_name = true;
        while let Some(name) = scanner.member(first_name)? {
            first_name = false;
            if !name.matches(HEADER_NAME) {
                scanner.skip(7)?;
                continue;
            }
            let mut bytes = Vec::with_capacity(HEADER_CAPACITY);
            match scanner.byte_array(7, &mut bytes)? {
                Some(true) if record.header.is_none() => record.header = Some(bytes),
                Some(true) => record.blame(RecordError::HeaderTwice),
                Some(false) => record.blame(RecordError::HeaderByte),
                None => record.blame(RecordError::Malformed),
            }
        }
    }
    Ok(())
}

/// Decodes keys and values of a group into one buffer.
fn decode_group<'a>(records: Vec<Scanned<'a>>) -> Vec<Result<RawRecord<'a>, BadRecord<'a>>> {
    let length =
        |text: &Option<RawString<'_>>| text.as_ref().map_or(0, |text| text.raw().len() / 4 * 3 + 3);
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
    fn place(&mut self, text: Option<&RawString<'_>>, member: &'static str) -> Place {
        let Some(text) = text else { return Ok(None) };
        let start = self.used;
        let text = text.to_text();
        // As much room as this text can need is there: the buffer was made for all of them.
        let rest = self.buffer.get_mut(start..).unwrap_or_default();
        let decoded = STANDARD
            .decode(text.as_bytes(), Out::from_slice(rest))
            .map_err(|_source| RecordError::Base64 { member })?;
        self.used = start + decoded.len();
        Ok(Some((start, self.used)))
    }
}

fn checked<'a>(
    (record, key, value): (RecordText<'a>, Place, Place),
    bytes: &Bytes,
) -> Result<RawRecord<'a>, BadRecord<'a>> {
    let slice = |place: Option<(usize, usize)>| place.map(|(start, end)| bytes.slice(start..end));
    let parts = || -> Result<_, RecordError> {
        let topic = record.topic.ok_or(RecordError::Malformed)?;
        // Kafka's partitions are signed 32-bit numbers.
        let partition = record
            .partition
            .and_then(|number| i32::try_from(number).ok());
        let partition = partition.and_then(|number| u32::try_from(number).ok());
        let partition = partition.ok_or(RecordError::Partition)?;
        let offset = record
            .offset
            .filter(|offset| *offset >= 0)
            .ok_or(RecordError::Offset)?;
        Ok((topic, partition, offset, slice(key?), slice(value?)))
    };
    match parts() {
        Ok((topic, partition, offset, key, value)) => {
            let topic = topic.to_text();
            Ok(RawRecord {
                topic,
                partition,
                offset,
                key,
                value,
                header: record.header,
            })
        }
        Err(error) => Err(record.bad(error)),
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
