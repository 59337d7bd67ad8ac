//! Writes envelopes and keys: the agent's hot path.
//!
//! Flow: row images -> **here** -> bytes for the producer.
//!
//! # Invariants
//! - No allocation per row: the caller's buffer is cleared and filled, and the constant parts are written once per schema.
//! - Text that the lake type does not announce as a number or a boolean is a JSON string, byte for byte.

use std::io::Write as _;

use crate::envelope::inline::InlineSchema;
use crate::envelope::{Cell, Operation};
use crate::position::Lsn;
use crate::schema::{ColumnType, SourceSchema};

/// An image that does not fit its schema: the record cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriteError {
    /// The image has another number of columns than the schema.
    #[error("row image has {found} columns, the schema has {expected}")]
    ColumnCount {
        /// Columns in the schema.
        expected: usize,
        /// Columns in the image.
        found: usize,
    },
    /// A key column is NULL or unavailable.
    #[error("key column {column:?} has no value")]
    KeyWithoutValue {
        /// Name of the column.
        column: String,
    },
    /// A number or boolean column holds a text that is none.
    #[error("column {column:?} of type {source_type} holds text that is no such value")]
    MalformedValue {
        /// Name of the column.
        column: String,
        /// Its type in the source.
        source_type: String,
    },
}

/// Where a change comes from: the variable part of `source` and `transaction`.
#[derive(Debug, Clone, Copy)]
pub struct ChangeOrigin {
    /// Commit time of the transaction, microseconds since the epoch.
    pub commit_us: i64,
    /// Commit position of the transaction.
    pub commit_lsn: Lsn,
    /// Transaction id in the source.
    pub transaction_id: u32,
    /// Number of the row change in its transaction, from 1.
    pub ordinal: u64,
    /// When the agent handled it, milliseconds since the epoch.
    pub handled_ms: i64,
}

#[derive(Debug)]
struct ColumnText {
    /// `"name":` with the name escaped.
    label: Vec<u8>,
    column_type: ColumnType,
    key: bool,
}

/// Writes the records of one table at one schema version.
#[derive(Debug)]
pub struct EnvelopeWriter {
    columns: Vec<ColumnText>,
    names: Vec<(String, String)>,
    /// `,"source":{"version":…,"connector":…,"name":…` up to the variable part.
    source_head: Vec<u8>,
    /// `,"schema":…,"table":…` and what follows in `source`.
    source_table: Vec<u8>,
    /// What stands around each record, if schemas travel with them.
    inline: Option<InlineSchema>,
}

impl EnvelopeWriter {
    /// A writer for `schema`; `source_name` and `database` go into the `source` block.
    #[must_use]
    pub fn new(schema: &SourceSchema, source_name: &str, database: &str) -> Self {
        let quoted = |text: &str| {
            let mut out = Vec::new();
            write_string(&mut out, text);
            out
        };
        let columns = schema
            .columns
            .iter()
            .map(|column| {
                let mut label = quoted(&column.name);
                label.push(b':');
                ColumnText {
                    label,
                    column_type: column.column_type,
                    key: column.key,
                }
            })
            .collect();
        let mut source_head = format!(
            ",\"source\":{{\"version\":\"{}\",\"connector\":\"postgresql\",\"name\":",
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes();
        source_head.extend_from_slice(&quoted(source_name));
        let mut source_table = b",\"snapshot\":\"false\",\"db\":".to_vec();
        source_table.extend_from_slice(&quoted(database));
        source_table.extend_from_slice(b",\"schema\":");
        source_table.extend_from_slice(&quoted(&schema.table_schema));
        source_table.extend_from_slice(b",\"table\":");
        source_table.extend_from_slice(&quoted(&schema.table_name));
        Self {
            columns,
            names: schema
                .columns
                .iter()
                .map(|c| (c.name.clone(), c.source_type.clone()))
                .collect(),
            source_head,
            source_table,
            inline: None,
        }
    }

    /// The same writer with Debezium's schemas in each envelope and record key, for the topic that they go to.
    ///
    /// In this form `source.unavailable` lists the columns of `after` that are unavailable: a consumer that reads by the schema
    /// sees them as null.
    #[must_use]
    pub fn with_inline_schema(mut self, schema: &SourceSchema, topic: &str) -> Self {
        self.inline = Some(InlineSchema::new(schema, topic));
        self
    }

    /// The key of a record, from the bare key of [`Self::write_key`] by which its partition is found: the bare key itself, or
    /// with its schema in `out`, whose content is replaced.
    #[must_use]
    pub fn record_key<'k>(&self, bare_key: &'k [u8], out: &'k mut Vec<u8>) -> &'k [u8] {
        let Some(inline) = &self.inline else {
            return bare_key;
        };
        out.clear();
        out.extend_from_slice(&inline.key_head);
        out.extend_from_slice(bare_key);
        out.push(b'}');
        out
    }

    /// Replaces `out` with the key of a row, `{"id":1}`; gives false, and an empty `out`, for a table without a key.
    ///
    /// Shape: `row` holds one cell per column of the schema, in its order; cells of other columns are not looked at.
    ///
    /// # Errors
    /// [`WriteError`] if a key column has no value, or the row another shape (Quarantine).
    pub fn write_key<'a>(
        &self,
        out: &mut Vec<u8>,
        row: impl IntoIterator<Item = Cell<'a>>,
    ) -> Result<bool, WriteError> {
        out.clear();
        let mut found = 0;
        for (index, cell) in row.into_iter().enumerate() {
            found = index + 1;
            let Some(column) = self.columns.get(index).filter(|column| column.key) else {
                continue;
            };
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(&column.label);
            let Cell::Text(text) = cell else {
                return Err(WriteError::KeyWithoutValue {
                    column: self.name(index),
                });
            };
            self.write_value(out, index, column.column_type, text)?;
        }
        self.check_count(found)?;
        if out.is_empty() {
            return Ok(false);
        }
        out.push(b'}');
        Ok(true)
    }

    /// Replaces `out` with the envelope of a change.
    ///
    /// Shape: an image holds one cell per column of the schema, in its order. In `before`, unavailable cells are left out; with
    /// `before_key_only`, so is everything but the key.
    ///
    /// # Errors
    /// [`WriteError`] if an image has another shape or a value is malformed (Quarantine).
    pub fn write_envelope<'a, B, A>(
        &self,
        out: &mut Vec<u8>,
        operation: Operation,
        origin: &ChangeOrigin,
        before: Option<(B, bool)>,
        after: Option<A>,
    ) -> Result<(), WriteError>
    where
        B: IntoIterator<Item = Cell<'a>>,
        A: IntoIterator<Item = Cell<'a>>,
    {
        out.clear();
        if let Some(inline) = &self.inline {
            out.extend_from_slice(&inline.value_head);
        }
        let mut unavailable = Vec::new();
        out.extend_from_slice(b"{\"before\":");
        match before {
            Some((cells, key_only)) => self.write_image(out, cells, key_only, |_index| {})?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"after\":");
        match after {
            Some(cells) => self.write_image(out, cells, false, |index| unavailable.push(index))?,
            None => out.extend_from_slice(b"null"),
        }
        self.write_tail(out, operation, origin, &unavailable);
        if self.inline.is_some() {
            out.push(b'}');
        }
        Ok(())
    }

    fn write_image<'a>(
        &self,
        out: &mut Vec<u8>,
        cells: impl IntoIterator<Item = Cell<'a>>,
        key_only: bool,
        mut is_unavailable: impl FnMut(usize),
    ) -> Result<(), WriteError> {
        out.push(b'{');
        let mut first = true;
        let mut found = 0;
        for (index, cell) in cells.into_iter().enumerate() {
            found = index + 1;
            let Some(column) = self.columns.get(index) else {
                continue;
            };
            if cell == Cell::Unavailable {
                is_unavailable(index);
                continue;
            }
            if key_only && !column.key {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(&column.label);
            match cell {
                Cell::Text(text) => self.write_value(out, index, column.column_type, text)?,
                Cell::Null | Cell::Unavailable => out.extend_from_slice(b"null"),
            }
        }
        self.check_count(found)?;
        out.push(b'}');
        Ok(())
    }

    fn write_value(
        &self,
        out: &mut Vec<u8>,
        index: usize,
        column_type: ColumnType,
        text: &str,
    ) -> Result<(), WriteError> {
        match column_type {
            ColumnType::Boolean => match text {
                "t" => out.extend_from_slice(b"true"),
                "f" => out.extend_from_slice(b"false"),
                _ => return Err(self.malformed(index)),
            },
            ColumnType::Int | ColumnType::Long => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(self.malformed(index));
                }
                out.extend_from_slice(text.as_bytes());
            }
            ColumnType::Float | ColumnType::Double => match text {
                "NaN" | "Infinity" | "-Infinity" => write_string(out, text),
                _ if text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e')) =>
                {
                    out.extend_from_slice(text.as_bytes());
                }
                _ => return Err(self.malformed(index)),
            },
            ColumnType::Decimal { .. }
            | ColumnType::String
            | ColumnType::Binary
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Uuid
            | ColumnType::Carrier => write_string(out, text),
        }
        Ok(())
    }

    fn write_tail(
        &self,
        out: &mut Vec<u8>,
        operation: Operation,
        origin: &ChangeOrigin,
        unavailable: &[usize],
    ) {
        let ChangeOrigin {
            commit_us,
            commit_lsn,
            transaction_id,
            ordinal,
            handled_ms,
        } = *origin;
        out.extend_from_slice(&self.source_head);
        out.extend_from_slice(b",\"ts_ms\":");
        write_signed(out, commit_us.div_euclid(1000));
        out.extend_from_slice(b",\"ts_us\":");
        write_signed(out, commit_us);
        out.extend_from_slice(&self.source_table);
        out.extend_from_slice(b",\"txId\":");
        write_unsigned(out, u64::from(transaction_id));
        out.extend_from_slice(b",\"lsn\":");
        write_unsigned(out, commit_lsn.0);
        if self.inline.is_some() && !unavailable.is_empty() {
            self.write_unavailable(out, unavailable);
        }
        out.extend_from_slice(b"},\"transaction\":{\"id\":\"");
        write_unsigned(out, u64::from(transaction_id));
        out.push(b':');
        write_unsigned(out, commit_lsn.0);
        out.extend_from_slice(b"\",\"total_order\":");
        write_unsigned(out, ordinal);
        out.extend_from_slice(b"},\"op\":\"");
        out.extend_from_slice(operation.letter().as_bytes());
        out.extend_from_slice(b"\",\"ts_ms\":");
        write_signed(out, handled_ms);
        out.push(b'}');
    }

    fn write_unavailable(&self, out: &mut Vec<u8>, unavailable: &[usize]) {
        let mut opening: &[u8] = b",\"unavailable\":[";
        for index in unavailable {
            out.extend_from_slice(opening);
            write_string(out, self.names.get(*index).map_or("", |(name, _)| name));
            opening = b",";
        }
        out.push(b']');
    }

    fn check_count(&self, found: usize) -> Result<(), WriteError> {
        let expected = self.columns.len();
        if found == expected {
            Ok(())
        } else {
            Err(WriteError::ColumnCount { expected, found })
        }
    }

    fn name(&self, index: usize) -> String {
        self.names
            .get(index)
            .map_or_else(String::new, |(name, _)| name.clone())
    }

    fn malformed(&self, index: usize) -> WriteError {
        let (column, source_type) = self.names.get(index).cloned().unwrap_or_default();
        WriteError::MalformedValue {
            column,
            source_type,
        }
    }
}

/// Appends a number, without the way through a formatter, which each record would take eight times.
fn write_unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut used = 0;
    for (place, count) in digits.iter_mut().rev().zip(1..) {
        // Below ten: the conversion cannot fail.
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        used = count;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

fn write_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_unsigned(out, number.unsigned_abs());
}

/// Appends a JSON string. Only `"`, `\` and control characters need an escape (RFC 8259, section 7).
fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    // Most texts need none, and a look at all bytes at once is a fraction of a look at each.
    let escapes = bytes.iter().fold(false, |found, byte| {
        found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\')
    });
    if escapes {
        write_escaped(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut clean_from = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(clean_from..index).unwrap_or_default());
        clean_from = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                // Writing into a Vec cannot fail.
                let _infallible = write!(out, "\\u{other:04x}");
            }
        }
    }
    out.extend_from_slice(bytes.get(clean_from..).unwrap_or_default());
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
