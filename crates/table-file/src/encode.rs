//! Columns to a Parquet file and its description.
//!
//! Flow: batch -> **bytes + [`StagedFile`]** -> object storage (the caller) -> intent.
//!
//! # Invariants
//! - Every leaf column has its field id; a UUID column is annotated as one, which Arrow's converter does not do by itself.
//! - The file holds no Arrow schema: it means what Iceberg's schema says.

use std::sync::Arc;

use arrow::array::{Array, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, LogicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::batch::DayBatch;
use crate::bounds::Range;
use crate::error::FileError;
use crate::staged::{ColumnStatistics, StagedFile};

/// The writer's time is the function's price, and compaction writes these rows again.
const ZSTD_LEVEL: i32 = 1;

/// A row group of a large copy file: a reader's unit of work. An ingest file has one.
const ROW_GROUP_BYTES_MAX: usize = 128 << 20;

/// Rows handed to the writer at once: it begins a new row group only between two calls.
const WRITE_ROWS: usize = 65_536;

/// A statistic of text this long still holds the 16 characters of an Iceberg bound, each of at most 4 bytes.
const STATISTICS_BYTES_MAX: usize = 64;

/// Leaf columns with bounds, the first of the file: a manifest entry of a wide table would otherwise outgrow its data
/// (Iceberg's `write.metadata.metrics.max-inferred-column-defaults`).
const BOUNDED_COLUMNS_MAX: usize = 100;

/// A file to store.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Its description; `path` is empty, for whoever stores it to fill.
    pub staged: StagedFile,
}

/// Writes the rows of a day as one Parquet file.
///
/// # Errors
/// [`FileError`] never in practice.
pub fn encode(batch: &DayBatch) -> Result<EncodedFile, FileError> {
    let schema = batch.rows.schema();
    let options = ArrowWriterOptions::new()
        .with_properties(properties()?)
        .with_skip_arrow_metadata(true)
        .with_parquet_schema(annotate_uuids(
            &ArrowSchemaConverter::new().convert(&schema)?,
        )?);
    let mut buffer = Vec::with_capacity(batch.rows.get_array_memory_size() / 4);
    let mut writer = ArrowWriter::try_new_with_options(&mut buffer, schema, options)?;
    let rows = batch.rows.num_rows();
    for start in (0..rows).step_by(WRITE_ROWS) {
        writer.write(&batch.rows.slice(start, WRITE_ROWS.min(rows - start)))?;
    }
    let metadata = writer.close()?;
    let staged = StagedFile {
        path: String::new(),
        size_bytes: to_u64(buffer.len()),
        row_count: to_u64(batch.rows.num_rows()),
        schema_version: batch.schema_version,
        day: batch.day,
        split_offsets: metadata
            .row_groups()
            .iter()
            .filter_map(parquet::file::metadata::RowGroupMetaData::file_offset)
            .collect(),
        columns: statistics(&metadata, &batch.rows),
    };
    Ok(EncodedFile {
        bytes: Bytes::from(buffer),
        staged,
    })
}

fn properties() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}

/// Only UUID columns are fixed 16 bytes.
fn annotate_uuids(schema: &SchemaDescriptor) -> Result<SchemaDescriptor, ParquetError> {
    let root = schema.root_schema();
    let annotate = |field: &TypePtr| match field.as_ref() {
        Type::PrimitiveType {
            basic_info,
            physical_type,
            type_length: 16,
            ..
        } if basic_info.logical_type_ref().is_none() => Ok(Arc::new(
            Type::primitive_type_builder(basic_info.name(), *physical_type)
                .with_repetition(basic_info.repetition())
                .with_id(basic_info.has_id().then(|| basic_info.id()))
                .with_length(16)
                .with_logical_type(Some(LogicalType::Uuid))
                .build()?,
        )),
        _ => Ok(Arc::clone(field)),
    };
    let fields = root
        .get_fields()
        .iter()
        .map(annotate)
        .collect::<Result<_, ParquetError>>()?;
    let root = Type::group_type_builder(root.name())
        .with_fields(fields)
        .build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

/// Statistics per leaf column, in file order.
fn statistics(metadata: &ParquetMetaData, rows: &RecordBatch) -> Vec<ColumnStatistics> {
    let schema = rows.schema();
    let leaves = metadata.file_metadata().schema_descr().columns();
    leaves
        .iter()
        .enumerate()
        .filter_map(|(at, leaf)| {
            let info = leaf.self_type().get_basic_info();
            let field_id = info.has_id().then(|| info.id())?;
            let chunks: Vec<&ColumnChunkMetaData> = metadata
                .row_groups()
                .iter()
                .filter_map(|group| group.columns().get(at))
                .collect();
            // A list's element has no bounds: they would say nothing about the rows.
            let field = match leaf.path().parts() {
                [name] => schema.column_with_name(name).map(|(_index, field)| field),
                _ => None,
            };
            let range = field
                .filter(|_field| at < BOUNDED_COLUMNS_MAX)
                .and_then(|field| Range::of_chunks(field.data_type(), &chunks));
            Some(ColumnStatistics {
                field_id,
                size_bytes: sum(&chunks, |chunk| u64::try_from(chunk.compressed_size()).ok()),
                value_count: sum(&chunks, |chunk| u64::try_from(chunk.num_values()).ok()),
                null_count: sum(&chunks, |chunk| chunk.statistics()?.null_count_opt()),
                nan_count: field.and_then(|field| nan_count(field, rows)),
                lower: range.as_ref().and_then(Range::lower),
                upper: range.as_ref().and_then(Range::upper),
            })
        })
        .collect()
}

fn sum(chunks: &[&ColumnChunkMetaData], of: fn(&ColumnChunkMetaData) -> Option<u64>) -> u64 {
    chunks.iter().filter_map(|chunk| of(chunk)).sum()
}

fn nan_count(field: &Field, rows: &RecordBatch) -> Option<u64> {
    let array = rows.column_by_name(field.name())?;
    let count = match array.data_type() {
        DataType::Float32 => {
            let array: &Float32Array = array.as_any().downcast_ref()?;
            array
                .iter()
                .flatten()
                .filter(|value| value.is_nan())
                .count()
        }
        DataType::Float64 => {
            let array: &Float64Array = array.as_any().downcast_ref()?;
            array
                .iter()
                .flatten()
                .filter(|value| value.is_nan())
                .count()
        }
        _ => return None,
    };
    Some(to_u64(count))
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
