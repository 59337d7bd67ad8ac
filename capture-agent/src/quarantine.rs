//! Sets aside what cannot be written, with its position and the reason.
//!
//! # Invariants
//! - The values go into the object only, encoded as they came; logs and markers hold names and positions.
//! - The object's name is its position: a replay writes the same object again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use change_event::{Cell, Operation, Position, RecordKind, layout};
use serde::Serialize;

use crate::context::Context;
use crate::error::AgentError;
use crate::transaction::LaneRecord;

/// A change that cannot be written.
#[derive(Debug, Clone)]
pub struct RefusedChange<'a> {
    /// `schema.table` in the source.
    pub table: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// Version of its schema.
    pub schema_version: u32,
    /// Order key.
    pub position: Position,
    /// What happened to the row; `None` if the message could not be read.
    pub operation: Option<Operation>,
    /// Why it cannot be written; never a value.
    pub reason: String,
}

/// What is known of the row.
#[derive(Debug, Clone, Copy)]
pub enum RefusedRow<'a> {
    /// Its cells.
    Cells(&'a [Cell<'a>]),
    /// The message as the source sent it.
    Message(&'a [u8]),
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    source: &'a str,
    table: &'a str,
    topic: &'a str,
    schema_version: u32,
    position: Position,
    operation: Option<&'a str>,
    reason: &'a str,
    /// One per column: base64 of the text, null, or `unavailable`.
    cells: Option<Vec<Option<EncodedCell>>>,
    /// Base64 of the message.
    message: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum EncodedCell {
    Base64(String),
    Unavailable,
}

/// Value of the record that stands in the place of a change set aside.
#[derive(Debug, Serialize)]
struct Marker<'a> {
    firn_quarantine: &'a str,
}

/// Writes the object; gives the value of the marker record.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn put(
    context: &Context,
    refused: &RefusedChange<'_>,
    row: RefusedRow<'_>,
) -> Result<Vec<u8>, AgentError> {
    let key = layout::source_quarantine(
        context.source_name(),
        refused.table,
        refused.topic,
        refused.position,
    );
    let encode_cell = |cell: &Cell<'_>| match cell {
        Cell::Null => None,
        Cell::Unavailable => Some(EncodedCell::Unavailable),
        Cell::Text(text) => Some(EncodedCell::Base64(STANDARD.encode(text))),
    };
    let (cells, message) = match row {
        RefusedRow::Cells(cells) => (Some(cells.iter().map(encode_cell).collect()), None),
        RefusedRow::Message(bytes) => (None, Some(STANDARD.encode(bytes))),
    };
    let document = Document {
        source: context.source_name(),
        table: refused.table,
        topic: refused.topic,
        schema_version: refused.schema_version,
        position: refused.position,
        operation: refused.operation.map(Operation::letter),
        reason: &refused.reason,
        cells,
        message,
    };
    let encode = |source| AgentError::Document {
        key: key.clone(),
        source,
    };
    let body = serde_json::to_vec(&document).map_err(encode)?;
    let marker = serde_json::to_vec(&Marker {
        firn_quarantine: &key,
    })
    .map_err(encode)?;
    context.store.put(&key, Bytes::from(body)).await?;
    tracing::error!(
        table = refused.table,
        position = %refused.position,
        reason = refused.reason,
        key,
        "row change set aside"
    );
    Ok(marker)
}

/// The record that stands in the place of a change set aside.
#[must_use]
pub const fn marker_record<'a>(
    lane: usize,
    refused: &RefusedChange<'_>,
    marker: &'a [u8],
) -> LaneRecord<'a> {
    LaneRecord {
        lane,
        // Its key may be what is wrong: the first partition stands in for the unknown one.
        partition: 0,
        kind: RecordKind::Marker,
        schema_version: refused.schema_version,
        position: refused.position,
        key: None,
        value: marker,
    }
}
