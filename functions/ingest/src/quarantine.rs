//! Sets records aside that can never succeed, with their place, the reason, and everything they hold.
//!
//! # Invariants
//! - The object is stored before the slot of the batch is won: an acknowledged record is in the table or here.
//! - A record's object has the same key whenever it is delivered.
//! - The values stand in the object and nowhere else: not in a log, not in a metric.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use change_event::naming::escape;
use change_event::{TopicRegistration, layout};
use object_io::ObjectError;
use serde::Serialize;

use crate::error::Reason;
use crate::ports::Ports;
use crate::record::{PartitionBatch, Record, Unplaced};
use crate::slice::Found;

/// Folder in place of the source, for topics that no agent announced.
const UNREGISTERED: &str = "unregistered";

/// What the object says.
#[derive(Debug, Serialize)]
struct Quarantined<'a> {
    topic: Option<&'a str>,
    partition: Option<u32>,
    offset: Option<i64>,
    /// Order key in hexadecimal, if the header can be read.
    position: Option<String>,
    schema_version: Option<u32>,
    reason: String,
    /// Base64, as are value and header.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// The record as Lambda delivered it, if it could not be taken apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a str>,
}

/// Stores one record of a partition.
pub(crate) async fn set_aside(
    ports: &Ports,
    registration: Option<&TopicRegistration>,
    batch: &PartitionBatch,
    record: &Record,
    reason: &Reason,
) -> Result<(), ObjectError> {
    let header = match &record.found {
        Found::Firn(header) => Some(header),
        Found::Bare | Found::Poison(_) => None,
    };
    let (source, table) = folders(registration, &batch.topic);
    let key = layout::quarantine(
        &source,
        &table,
        &batch.topic,
        batch.partition,
        record.offset,
    );
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    let object = Quarantined {
        topic: Some(&batch.topic),
        partition: Some(batch.partition),
        offset: Some(record.offset),
        position: header.map(|header| header.position.to_hex()),
        schema_version: header.map(|header| header.schema_version),
        reason: reason.to_string(),
        key: record.key.as_deref().map(base64),
        value: record.value.as_deref().map(base64),
        header: record.header.as_deref().map(base64),
        record: record.raw.as_deref(),
    };
    tracing::error!(
        topic = %batch.topic,
        partition = batch.partition,
        offset = record.offset,
        position = object.position,
        reason = object.reason,
        object = %key,
        "record set aside in quarantine"
    );
    store(ports, &key, &object).await
}

/// Stores a record without a place.
pub(crate) async fn set_aside_unplaced(
    ports: &Ports,
    registration: Option<&TopicRegistration>,
    record: &Unplaced,
) -> Result<(), ObjectError> {
    let topic = record.topic.as_deref();
    let (source, table) = folders(registration, topic.unwrap_or(&record.name));
    let key = format!(
        "quarantine/{}/{}/unplaced-{}.json",
        escape(&source),
        escape(&table),
        ports.ids.next_id()
    );
    let object = Quarantined {
        topic,
        partition: None,
        offset: None,
        position: None,
        schema_version: None,
        reason: record.reason.to_string(),
        key: None,
        value: None,
        header: None,
        record: record.raw.as_deref(),
    };
    tracing::error!(group = %record.name, reason = object.reason, object = %key, "record set aside in quarantine");
    store(ports, &key, &object).await
}

fn folders(registration: Option<&TopicRegistration>, topic: &str) -> (String, String) {
    match registration {
        Some(known) => (
            known.source.clone(),
            format!("{}.{}", known.table_schema, known.table_name),
        ),
        None => (UNREGISTERED.to_owned(), topic.to_owned()),
    }
}

async fn store(ports: &Ports, key: &str, object: &Quarantined<'_>) -> Result<(), ObjectError> {
    let body = serde_json::to_vec(object).map_err(|source| ObjectError::Refused {
        operation: "put",
        key: key.to_owned(),
        source: Box::new(source),
    })?;
    ports.store.put(key, Bytes::from(body)).await
}
