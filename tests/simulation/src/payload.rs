//! A payload as Lambda's Kafka poller builds it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use change_event::header::HEADER_NAME;

use crate::kafka::{Place, Record};

/// When the records were written, as the payload says.
const TIMESTAMP_MS: i64 = 1_770_000_000_000;

/// Name of a partition's group.
#[must_use]
pub(crate) fn group(place: &Place) -> String {
    format!("{}-{}", place.0, place.1)
}

/// The payload of one batch.
#[must_use]
pub(crate) fn payload(batch: &[(Place, Vec<(usize, &Record)>)]) -> Vec<u8> {
    let mut text = String::from(
        "{\"eventSource\":\"aws:kafka\",\"eventSourceArn\":\"arn:aws:kafka:x\",\"bootstrapServers\":\"b:9092\",\"records\":{",
    );
    for (number, (place, records)) in batch.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        push(&mut text, format_args!("{comma}\"{}\":[", group(place)));
        for (number, (offset, record)) in records.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            push(
                &mut text,
                format_args!("{comma}{{\"topic\":\"{}\",", place.0),
            );
            push(
                &mut text,
                format_args!("\"partition\":{},\"offset\":{offset},", place.1),
            );
            push(
                &mut text,
                format_args!("\"timestamp\":{TIMESTAMP_MS},\"timestampType\":\"CREATE_TIME\","),
            );
            if let Some(key) = &record.key {
                push(
                    &mut text,
                    format_args!("\"key\":\"{}\",", STANDARD.encode(key)),
                );
            }
            push(
                &mut text,
                format_args!(
                    "\"value\":\"{}\",\"headers\":[",
                    STANDARD.encode(&record.value)
                ),
            );
            if let Some(header) = &record.header {
                push(&mut text, format_args!("{{\"{HEADER_NAME}\":["));
                for (number, byte) in header.iter().enumerate() {
                    let comma = if number > 0 { "," } else { "" };
                    // As Java spells bytes.
                    push(&mut text, format_args!("{comma}{}", byte.cast_signed()));
                }
                text.push_str("]}");
            }
            text.push_str("]}");
        }
        text.push(']');
    }
    text.push_str("}}");
    text.into_bytes()
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    let _written = text.write_fmt(arguments);
}
