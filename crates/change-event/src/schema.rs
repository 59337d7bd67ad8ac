//! The shape of a source table at one version, with the identity of each of its columns in the lake.
//!
//! The agent publishes one [`SourceSchema`] document per version ([`crate::layout::schema_document`]) before the first
//! event that needs it. Agent, ingest and ddl read the same document, so they agree about field ids and types.
//!
//! # Invariants
//! - A document stands alone: live columns plus every column that the lake still keeps (`retired`).
//! - A field id, once given, means the same column for ever; ids below [`FIRST_FIELD_ID`] belong to firn's own columns.
//! - Lake names are unique in a document, ignoring case.

use serde::{Deserialize, Serialize};

/// Field ids of source columns start here; those below are firn's own columns (`_op`, `_pos`, …).
pub const FIRST_FIELD_ID: i32 = 100;

/// The lake type of a column, and so the way its text is read.
///
/// The text is PostgreSQL's output under `DateStyle=ISO`, `IntervalStyle=postgres`, `extra_float_digits=1`,
/// `TimeZone=UTC`, `bytea_output=hex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ColumnType {
    /// `t` or `f`; a JSON boolean in the envelope.
    Boolean,
    /// 32-bit integer; a JSON number.
    Int,
    /// 64-bit integer; a JSON number.
    Long,
    /// 32-bit float; a JSON number, or one of the strings `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// 64-bit float; likewise.
    Double,
    /// Exact decimal; its text as a JSON string. `NaN` does not fit and is carried exactly.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u32,
        /// Digits behind the point, 0 to `precision`.
        scale: u32,
    },
    /// Text of a text type.
    String,
    /// `\x` and hexadecimal digits.
    Binary,
    /// `2024-02-29`, `0044-03-15 BC`; `infinity` does not fit.
    Date,
    /// `23:59:59.999999`; `24:00:00` does not fit.
    Time,
    /// `2024-02-29 23:59:59.999999`, without a zone.
    Timestamp,
    /// `2024-02-29 23:59:59.999999+00`.
    TimestampTz,
    /// 36 characters.
    Uuid,
    /// The exact text of a type that the lake has no exact equal for: a declared carrier, stored as a string.
    Carrier,
}

impl ColumnType {
    /// Whether values of `self` can be read as values of `wider` in the same lake column (Iceberg type promotion).
    #[must_use]
    pub fn promotes_to(self, wider: Self) -> bool {
        match (self, wider) {
            (Self::Int, Self::Long)
            | (Self::Float, Self::Double)
            | (Self::String | Self::Carrier, Self::String | Self::Carrier) => true,
            (
                Self::Decimal { precision, scale },
                Self::Decimal {
                    precision: wider_precision,
                    scale: wider_scale,
                },
            ) => scale == wider_scale && wider_precision >= precision,
            (from, to) => from == to,
        }
    }
}

/// A live column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Stable identity in the source (PostgreSQL: `attnum`).
    pub id: i32,
    /// Name in the source, and in the envelope.
    pub name: String,
    /// Identity in the lake.
    pub field_id: i32,
    /// Name in the lake.
    pub lake_name: String,
    /// Type in the lake.
    pub column_type: ColumnType,
    /// Type in the source, as the source prints it: `numeric(10,2)`.
    pub source_type: String,
    /// Part of the key by which a row is identified.
    pub key: bool,
}

/// A column that the source no longer has, or whose type moved on; the lake keeps it and nothing writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredColumn {
    /// Its last identity in the source.
    pub id: i32,
    /// Identity in the lake.
    pub field_id: i32,
    /// Name in the lake.
    pub lake_name: String,
    /// Type in the lake.
    pub column_type: ColumnType,
    /// Its last type in the source.
    pub source_type: String,
}

/// One version of the shape of a source table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSchema {
    /// Rises by one with each change of shape, from 1.
    pub version: u32,
    /// Schema of the table in the source.
    pub table_schema: String,
    /// Name of the table in the source.
    pub table_name: String,
    /// Where in the source log this shape was first seen, as a hexadecimal [`crate::Position`].
    pub position: crate::Position,
    /// Column identities were concluded from names and order, because the source's catalog had moved on.
    pub inferred: bool,
    /// Live columns, in source order.
    pub columns: Vec<Column>,
    /// Columns that only the lake still has, oldest first.
    pub retired: Vec<RetiredColumn>,
    /// The next field id that nothing has had.
    pub next_field_id: i32,
}

impl SourceSchema {
    /// The key columns, in source order; empty for a table without a key.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.key)
    }

    /// Whether both describe the same shape, whatever their version and position.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        self.columns == other.columns && self.retired == other.retired
    }
}
