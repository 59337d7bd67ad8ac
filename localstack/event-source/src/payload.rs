//! A Kafka record as the JSON that Lambda makes of it, and the event around a batch of them.
//!
//! Flow: topic -> **here** (one record, rendered once) -> batch -> invocation.
//!
//! # Invariants
//! - A record is rendered once, when it is fetched; every later delivery of it joins the same bytes. So sizes are exact, and a
//!   payload costs a copy.
//! - `"<topic>-<partition>"` is made here and never taken apart.
//!
//! # Source
//! AWS Lambda developer guide, "Example event" of Amazon MSK. Header bytes are numbers; both Java's signed bytes and unsigned
//! ones have been seen, so both are drawn.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::HeaderBytes;
use crate::fault::SeededRandom;

/// Largest event that Lambda sends to a function, bytes of its JSON: the service's own limit message names it.
pub const PAYLOAD_BYTES_MAX: usize = 6_291_556;

/// How a record got its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// The producer set it.
    Create,
    /// The broker set it.
    LogAppend,
}

/// What the topic holds at one offset.
#[derive(Debug)]
pub struct TopicRecord<'a> {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Who set the time.
    pub timestamp_kind: TimestampKind,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in their order.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// A record that is ready to be delivered any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Its JSON; empty for a record above the cap, which moves the offset and is not delivered.
    pub json: String,
}

/// Renders the records of one topic.
#[derive(Debug)]
pub struct RecordRenderer {
    /// `{"topic":"…","partition":`
    head: String,
    header_bytes: HeaderBytes,
    random: SeededRandom,
    /// Size of the last rendered record, for the next allocation.
    size_hint: usize,
}

impl RecordRenderer {
    /// A renderer for `topic`, whose name holds no character that JSON escapes (Kafka allows none).
    #[must_use]
    pub fn new(topic: &str, header_bytes: HeaderBytes, random: SeededRandom) -> Self {
        let head = format!("{{\"topic\":\"{topic}\",\"partition\":");
        Self {
            head,
            header_bytes,
            random,
            size_hint: 512,
        }
    }

    /// The record's JSON.
    pub fn render(&mut self, record: &TopicRecord<'_>) -> RenderedRecord {
        let mut out = String::with_capacity(self.size_hint + 64);
        let TopicRecord {
            partition,
            offset,
            timestamp_ms,
            ..
        } = *record;
        let timestamp_type = match record.timestamp_kind {
            TimestampKind::Create => "CREATE_TIME",
            TimestampKind::LogAppend => "LOG_APPEND_TIME",
        };
        out.push_str(&self.head);
        // Writing into a String cannot fail.
        let _infallible = write!(
            out,
            "{partition},\"offset\":{offset},\"timestamp\":{timestamp_ms},\"timestampType\":\"{timestamp_type}\",\"key\":"
        );
        push_base64(&mut out, record.key);
        out.push_str(",\"value\":");
        push_base64(&mut out, record.value);
        out.push_str(",\"headers\":[");
        for (index, (name, value)) in record.headers.iter().enumerate() {
            out.push_str(if index == 0 { "{" } else { ",{" });
            // A string is always JSON.
            out.push_str(&serde_json::to_string(name).unwrap_or_default());
            out.push_str(":[");
            let signed = self.draw_signed();
            push_numbers(&mut out, value.unwrap_or_default(), signed);
            out.push_str("]}");
        }
        out.push_str("]}");
        self.size_hint = out.len();
        RenderedRecord {
            partition,
            offset,
            json: out,
        }
    }

    fn draw_signed(&mut self) -> bool {
        match self.header_bytes {
            HeaderBytes::Signed => true,
            HeaderBytes::Unsigned => false,
            HeaderBytes::Mixed => self.random.chance(0.5),
        }
    }
}

fn push_base64(out: &mut String, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.push_str("null");
        return;
    };
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

fn push_numbers(out: &mut String, bytes: &[u8], signed: bool) {
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let number = if signed {
            i16::from(i8::from_ne_bytes([*byte]))
        } else {
            i16::from(*byte)
        };
        if number < 0 {
            out.push('-');
        }
        let magnitude = number.unsigned_abs();
        let mut digit =
            |value: u16| out.push(char::from(b'0' + u8::try_from(value % 10).unwrap_or(0)));
        if magnitude >= 100 {
            digit(magnitude / 100);
        }
        if magnitude >= 10 {
            digit(magnitude / 10);
        }
        digit(magnitude);
    }
}

/// The event around the records of one topic.
#[derive(Debug, Clone)]
pub struct PayloadFrame {
    topic: String,
    /// `{"eventSource":…,"records":{`
    head: String,
}

impl PayloadFrame {
    /// A frame for `topic`; the cluster is named by its ARN and its brokers.
    #[must_use]
    pub fn new(topic: &str, event_source_arn: &str, bootstrap_servers: &str) -> Self {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let head = format!(
            "{{\"eventSource\":\"aws:kafka\",\"eventSourceArn\":{},\"bootstrapServers\":{},\"records\":{{",
            quoted(event_source_arn),
            quoted(bootstrap_servers)
        );
        Self {
            topic: topic.to_owned(),
            head,
        }
    }

    /// Bytes of an event without records.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.head.len() + 2
    }

    /// Bytes that the first record of a partition adds to its own: `"<topic>-<partition>":[…],`.
    #[must_use]
    pub fn partition_bytes(&self, partition: i32) -> usize {
        self.topic.len() + 1 + decimal_length(partition) + 6
    }

    /// The event.
    ///
    /// Shape: records in any mixture of partitions; each partition keeps their order.
    #[must_use]
    pub fn payload(&self, records: &[RenderedRecord]) -> Vec<u8> {
        let mut partitions: Vec<i32> = records.iter().map(|record| record.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let records_bytes: usize = records.iter().map(|record| record.json.len() + 1).sum();
        let labels_bytes: usize = partitions.iter().map(|p| self.partition_bytes(*p)).sum();
        let mut out = String::with_capacity(self.frame_bytes() + records_bytes + labels_bytes);
        out.push_str(&self.head);
        let mut first_partition = true;
        for partition in partitions {
            let mut of_partition = records
                .iter()
                .filter(|r| r.partition == partition && !r.json.is_empty())
                .peekable();
            if of_partition.peek().is_none() {
                continue;
            }
            out.push_str(if first_partition { "\"" } else { ",\"" });
            first_partition = false;
            let _infallible = write!(out, "{}-{partition}\":[", self.topic);
            for (index, record) in of_partition.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&record.json);
            }
            out.push(']');
        }
        out.push_str("}}");
        out.into_bytes()
    }
}

fn decimal_length(number: i32) -> usize {
    number
        .checked_ilog10()
        .map_or(1, |log| usize::try_from(log).unwrap_or(9) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64) -> TopicRecord<'static> {
        TopicRecord {
            partition,
            offset,
            timestamp_ms: 1_545_084_650_987,
            timestamp_kind: TimestampKind::Create,
            key: Some(b"{\"id\":1}"),
            value: Some(b"Hello, this is a test."),
            headers: vec![("firn", Some(&[1, 0, 127, 128, 255]))],
        }
    }

    fn renderer(header_bytes: HeaderBytes) -> RecordRenderer {
        RecordRenderer::new("shop.public.a-2eb", header_bytes, SeededRandom::new(1, ""))
    }

    #[test]
    fn event_is_spelled_as_lambda_spells_it() {
        let mut renderer = renderer(HeaderBytes::Unsigned);
        let frame = PayloadFrame::new(
            "shop.public.a-2eb",
            "arn:aws:kafka:r:1:cluster/c/u",
            "b-1:9092",
        );
        let tombstone = TopicRecord {
            key: None,
            value: None,
            headers: Vec::new(),
            ..record(10, 3)
        };
        let records = [renderer.render(&record(0, 15)), renderer.render(&tombstone)];
        let payload = String::from_utf8(frame.payload(&records)).expect("UTF-8");
        assert_eq!(
            payload,
            concat!(
                r#"{"eventSource":"aws:kafka","eventSourceArn":"arn:aws:kafka:r:1:cluster/c/u","bootstrapServers":"b-1:9092","records":{"#,
                r#""shop.public.a-2eb-0":[{"topic":"shop.public.a-2eb","partition":0,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","#,
                r#""key":"eyJpZCI6MX0=","value":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==","headers":[{"firn":[1,0,127,128,255]}]}],"#,
                r#""shop.public.a-2eb-10":[{"topic":"shop.public.a-2eb","partition":10,"offset":3,"timestamp":1545084650987,"timestampType":"CREATE_TIME","#,
                r#""key":null,"value":null,"headers":[]}]}}"#
            )
        );
    }

    #[test]
    fn header_bytes_are_signed_or_not_and_mixed_draws_both() {
        let signed = renderer(HeaderBytes::Signed).render(&record(0, 1)).json;
        assert!(signed.contains("[1,0,127,-128,-1]"), "{signed}");
        let mut mixed = renderer(HeaderBytes::Mixed);
        let negative =
            (0..100).filter(|offset| mixed.render(&record(0, *offset)).json.contains("-128"));
        assert!((20..80).contains(&negative.count()));
        let all: Vec<u8> = (0..=255).collect();
        for signed in [true, false] {
            let mut out = "[".to_owned();
            push_numbers(&mut out, &all, signed);
            let numbers: Vec<i16> = serde_json::from_str(&(out + "]")).expect("JSON");
            let back: Vec<u8> = numbers.iter().map(|n| n.to_le_bytes()[0]).collect();
            assert_eq!(back, all);
        }
    }

    #[test]
    fn records_of_several_partitions_keep_their_order() {
        let mut renderer = renderer(HeaderBytes::Signed);
        let frame = PayloadFrame::new("shop.public.a-2eb", "arn", "b");
        let order = [(2, 7), (0, 1), (2, 8), (0, 2)];
        let mut records: Vec<_> = order
            .iter()
            .map(|(p, o)| renderer.render(&record(*p, *o)))
            .collect();
        records.push(RenderedRecord {
            partition: 5,
            offset: 9,
            json: String::new(),
        });
        let payload: serde_json::Value =
            serde_json::from_slice(&frame.payload(&records)).expect("valid JSON");
        let groups = payload["records"].as_object().expect("an object");
        assert_eq!(
            groups.keys().collect::<Vec<_>>(),
            ["shop.public.a-2eb-0", "shop.public.a-2eb-2"]
        );
        assert_eq!(groups["shop.public.a-2eb-2"][1]["offset"], 8);
        assert_eq!(decimal_length(0), 1);
        assert_eq!(decimal_length(10), 2);
    }
}
