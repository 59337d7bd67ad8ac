//! A data file that stands in the bucket and in no snapshot yet, with all that a manifest says about it.
//!
//! Flow: encode -> **staged file** (JSON, in an intent or a copy announcement) -> manifest entry.
//!
//! # Invariants
//! - A commit needs nothing but the staged file: it never opens the Parquet file.
//! - Bounds are Iceberg's single-value binary of the type *the file was written with*. A table whose column was widened since
//!   reads them in the wide type: 4 bytes for a long are an int, 4 for a double are a float, a decimal's bytes say the same
//!   number under any precision (Iceberg specification, "Schema Evolution"). They are written to the manifest wide.

use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal, PrimitiveType,
    Schema, Struct,
};
use serde::{Deserialize, Serialize};

use crate::error::FileError;

/// A data file and its manifest statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedFile {
    /// Full address, `s3://…`; empty until the file is stored.
    pub path: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Rows in it.
    pub row_count: u64,
    /// Version of the source schema that its rows have.
    pub schema_version: u32,
    /// UTC day of its rows' `_source_ts`, days since the epoch: its partition.
    pub day: i32,
    /// Where its row groups begin, ascending.
    pub split_offsets: Vec<i64>,
    /// Statistics of its leaf columns, in file order.
    pub columns: Vec<ColumnStatistics>,
}

/// What a manifest says about one leaf column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnStatistics {
    /// Identity of the column.
    pub field_id: i32,
    /// Compressed size of its chunks.
    pub size_bytes: u64,
    /// Values, nulls among them.
    pub value_count: u64,
    /// Nulls.
    pub null_count: u64,
    /// NaNs, for float columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan_count: Option<u64>,
    /// At or below every value, if known.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_base64"
    )]
    pub lower: Option<Vec<u8>>,
    /// At or above every value, if known.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_base64"
    )]
    pub upper: Option<Vec<u8>>,
}

/// The value of a copy announcement record: the files of one partition's share of a finished table copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyAnnouncement {
    /// Number of the copy of this table, rising.
    pub copy_id: u32,
    /// The files; empty for a partition without rows.
    pub files: Vec<StagedFile>,
}

impl StagedFile {
    /// The manifest's description of this file, for a table whose current schema is `schema`.
    ///
    /// # Errors
    /// [`FileError`] (Halt) if `schema` lacks a column of the file: the table was not brought to `schema_version` before.
    pub fn to_data_file(
        &self,
        schema: &Schema,
        partition_spec_id: i32,
    ) -> Result<DataFile, FileError> {
        let per_column = |value: fn(&ColumnStatistics) -> Option<u64>| -> HashMap<i32, u64> {
            self.columns
                .iter()
                .filter_map(|c| Some((c.field_id, value(c)?)))
                .collect()
        };
        let bounds = |bound: fn(&ColumnStatistics) -> Option<&Vec<u8>>| {
            self.columns
                .iter()
                .filter_map(|column| Some((column.field_id, bound(column)?)))
                .map(|(field_id, bytes)| Ok((field_id, datum(schema, field_id, bytes)?)))
                .collect::<Result<HashMap<i32, Datum>, FileError>>()
        };
        if let Some(column) = self
            .columns
            .iter()
            .find(|c| schema.field_by_id(c.field_id).is_none())
        {
            return Err(FileError::UnknownField {
                field_id: column.field_id,
            });
        }
        DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(self.path.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::from_iter([Some(Literal::date(self.day))]))
            .partition_spec_id(partition_spec_id)
            .record_count(self.row_count)
            .file_size_in_bytes(self.size_bytes)
            .column_sizes(per_column(|c| Some(c.size_bytes)))
            .value_counts(per_column(|c| Some(c.value_count)))
            .null_value_counts(per_column(|c| Some(c.null_count)))
            .nan_value_counts(per_column(|c| c.nan_count))
            .lower_bounds(bounds(|c| c.lower.as_ref())?)
            .upper_bounds(bounds(|c| c.upper.as_ref())?)
            .split_offsets(Some(self.split_offsets.clone()))
            .build()
            .map_err(|error| FileError::DataFile {
                reason: error.to_string(),
            })
    }
}

fn datum(schema: &Schema, field_id: i32, bytes: &[u8]) -> Result<Datum, FileError> {
    let field = schema
        .field_by_id(field_id)
        .ok_or(FileError::UnknownField { field_id })?;
    let bound = FileError::Bound { field_id };
    let Some(primitive) = field.field_type.as_primitive_type() else {
        return Err(bound);
    };
    // try_from_bytes takes any length for a boolean and an empty slice for a decimal.
    let plausible = match primitive {
        PrimitiveType::Boolean => bytes.len() == 1,
        PrimitiveType::Decimal { .. } => (1..=16).contains(&bytes.len()),
        _ => true,
    };
    if !plausible {
        return Err(bound);
    }
    Datum::try_from_bytes(bytes, primitive.clone()).map_err(|_source| bound)
}

mod optional_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize as _;

    pub(super) fn serialize<S: serde::Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom))
            .transpose()
    }
}
