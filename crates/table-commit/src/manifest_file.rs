//! The bytes of manifests: entries read, and entries written under the table's current schema.
//!
//! # Invariants
//! - Entries keep snapshot id and sequence numbers; deleted entries are not carried on.
//! - Bounds are written in the types of the schema that the manifest names: a column that was widened since the entry was
//!   written gets wide bounds, because not every reader widens them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, DataFileBuilder, Datum, FormatVersion, ManifestEntryRef, ManifestFile,
    ManifestWriterBuilder, Schema,
};
use table_file::StagedFile;

use crate::error::CommitError;
use crate::table::LoadedTable;

/// Partition spec that staged files are written by (`table_file::partition_spec`).
pub(crate) const SPEC_ID: i32 = 0;

/// Entries that stay alive, of one manifest.
#[derive(Debug)]
pub(crate) struct Entries {
    entries: Vec<ManifestEntryRef>,
    /// Written by another schema than the table's current one.
    older_schema: bool,
}

/// Reads a manifest's live entries, with the sequence numbers that they inherit.
pub(crate) async fn read_entries(
    base: &LoadedTable,
    manifest: &ManifestFile,
    bytes: Bytes,
) -> Result<Entries, CommitError> {
    let failed = CommitError::iceberg("reading a manifest");
    let scratch = FileIO::new_with_memory();
    let output = scratch
        .new_output(&manifest.manifest_path)
        .map_err(&failed)?;
    output.write(bytes).await.map_err(&failed)?;
    let (entries, metadata) = manifest
        .load_manifest(&scratch)
        .await
        .map_err(&failed)?
        .into_parts();
    Ok(Entries {
        entries: entries
            .into_iter()
            .filter(|entry| entry.is_alive())
            .collect(),
        older_schema: metadata.schema_id() != base.metadata.current_schema_id(),
    })
}

/// What goes into one manifest.
#[derive(Debug)]
pub(crate) struct NewManifest<'a> {
    pub(crate) base: &'a LoadedTable,
    pub(crate) snapshot_id: i64,
    pub(crate) location: String,
    /// Files that the snapshot adds.
    pub(crate) files: &'a [&'a StagedFile],
    /// Entries of manifests that it replaces.
    pub(crate) existing: Vec<Entries>,
}

impl NewManifest<'_> {
    /// Its entry in the manifest list, and its bytes.
    pub(crate) async fn write(self) -> Result<(ManifestFile, Bytes), CommitError> {
        let failed = CommitError::iceberg("writing a manifest");
        let metadata = &self.base.metadata;
        let schema = metadata.current_schema();
        let spec =
            metadata
                .partition_spec_by_id(SPEC_ID)
                .ok_or_else(|| CommitError::NoPartitionSpec {
                    table: self.base.name.clone(),
                })?;
        let scratch = FileIO::new_with_memory();
        let output = scratch.new_output(&self.location).map_err(&failed)?;
        let builder = ManifestWriterBuilder::new(
            output,
            Some(self.snapshot_id),
            Arc::clone(schema),
            spec.as_ref().clone(),
        );
        let mut writer = match metadata.format_version() {
            FormatVersion::V1 | FormatVersion::V2 => builder.build_v2_data(),
            FormatVersion::V3 => builder.build_v3_data(),
        };
        for file in self.files {
            // A negative sequence number is inherited from the commit.
            writer
                .add_file(new_data_file(self.base, file)?, -1)
                .map_err(&failed)?;
        }
        for read in &self.existing {
            for entry in &read.entries {
                let sequence_number = entry.sequence_number.unwrap_or(0);
                let file = if read.older_schema {
                    widened(&entry.data_file, schema)?
                } else {
                    entry.data_file.clone()
                };
                writer
                    .add_existing_file(
                        file,
                        entry.snapshot_id.unwrap_or(self.snapshot_id),
                        sequence_number,
                        Some(entry.file_sequence_number.unwrap_or(sequence_number)),
                    )
                    .map_err(&failed)?;
            }
        }
        let manifest = writer.write_manifest_file().await.map_err(&failed)?;
        let bytes = read_scratch(&scratch, &self.location).await?;
        Ok((manifest, bytes))
    }
}

fn new_data_file(base: &LoadedTable, file: &StagedFile) -> Result<DataFile, CommitError> {
    let schema = base.metadata.current_schema();
    file.to_data_file(schema, SPEC_ID)
        .map_err(|error| match error {
            table_file::FileError::UnknownField { field_id } => CommitError::ColumnDropped {
                table: base.name.clone(),
                column: name_in_any_schema(base, field_id),
                field_id,
            },
            other => CommitError::File {
                doing: "describing a staged file",
                source: Box::new(other),
            },
        })
}

fn name_in_any_schema(base: &LoadedTable, field_id: i32) -> String {
    let mut schemas = base.metadata.schemas_iter();
    let name = schemas.find_map(|schema| schema.name_by_field_id(field_id).map(str::to_owned));
    name.unwrap_or_else(|| "(unknown)".to_owned())
}

/// The same file with bounds in the types of `schema`. The library changes no field of a file, so that it is made anew.
fn widened(file: &DataFile, schema: &Schema) -> Result<DataFile, CommitError> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(SPEC_ID)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(wide_bounds(file.lower_bounds(), schema))
        .upper_bounds(wide_bounds(file.upper_bounds(), schema))
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(file.first_row_id())
        .referenced_data_file(file.referenced_data_file());
    if let Some(sort_order_id) = file.sort_order_id() {
        builder.sort_order_id(sort_order_id);
    }
    builder.build().map_err(|error| CommitError::File {
        doing: "copying an entry of a manifest",
        source: Box::new(error),
    })
}

/// A bound that cannot be told in the type of its column is left out: none is always right.
fn wide_bounds(bounds: &HashMap<i32, Datum>, schema: &Schema) -> HashMap<i32, Datum> {
    bounds
        .iter()
        .filter_map(|(field_id, bound)| {
            let field = schema.field_by_id(*field_id);
            let Some(wide) = field.and_then(|field| field.field_type.as_primitive_type()) else {
                return Some((*field_id, bound.clone()));
            };
            if bound.data_type() == wide {
                return Some((*field_id, bound.clone()));
            }
            let bytes = bound.to_bytes().ok()?;
            let bound = Datum::try_from_bytes(&bytes, wide.clone()).ok()?;
            Some((*field_id, bound))
        })
        .collect()
}

/// The bytes of a file that the library wrote into memory.
pub(crate) async fn read_scratch(scratch: &FileIO, location: &str) -> Result<Bytes, CommitError> {
    let failed = CommitError::iceberg("reading back a scratch file");
    scratch
        .new_input(location)
        .map_err(&failed)?
        .read()
        .await
        .map_err(&failed)
}
