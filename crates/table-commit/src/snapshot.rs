//! One snapshot from staged files: manifest, manifest list, and the table metadata that names them.
//!
//! Flow: [`crate::combine`] -> **here** -> compare-and-set.
//!
//! # Invariants
//! - Pure apart from reading: what is built is returned as bytes, and written by the caller.
//! - Entries of a merged manifest keep snapshot id and sequence numbers; deleted entries are not carried on.
//! - The state stands in the summary and in the table property, byte for byte the same.
//! - Only snapshots are expired, never files, and none that a branch or tag names.
//!
//! # Source
//! Iceberg specification, "Manifests", "Snapshots"; merging and expiring keep the bytes of a commit flat.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestEntryRef, ManifestFile,
    ManifestList, ManifestListWriter, ManifestWriterBuilder, Operation, Snapshot, Summary,
    TableMetadata,
};
use object_io::ObjectStore;
use table_file::StagedFile;

use crate::error::CommitError;
use crate::metadata_file::fetch;
use crate::state::{STATE_PROPERTY, TableState};
use crate::table::{Limits, LoadedTable};

/// Partition spec that staged files are written by (`table_file::partition_spec`).
const SPEC_ID: i32 = 0;

/// What a snapshot is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) base: &'a LoadedTable,
    pub(crate) files: Vec<&'a StagedFile>,
    pub(crate) state: TableState,
    pub(crate) snapshot_id: i64,
    /// Names the files of this attempt.
    pub(crate) attempt_id: String,
    pub(crate) timestamp_ms: i64,
}

/// A snapshot that nobody knows yet.
#[derive(Debug)]
pub(crate) struct BuiltSnapshot {
    pub(crate) metadata: TableMetadata,
    /// Manifest and manifest list, by full address.
    pub(crate) objects: Vec<(String, Bytes)>,
}

/// Manifests that stay, and the entries of the one that is merged.
struct Carried {
    kept: Vec<ManifestFile>,
    merged: Vec<ManifestEntryRef>,
}

impl Plan<'_> {
    /// Builds manifest, list and metadata.
    pub(crate) async fn build(
        &self,
        store: &dyn ObjectStore,
        limits: &Limits,
    ) -> Result<BuiltSnapshot, CommitError> {
        let metadata = &self.base.metadata;
        let scratch = FileIO::new_with_memory();
        let carried = self.carry(store, &scratch, limits).await?;
        let mut objects = Vec::with_capacity(2);
        let mut manifests = Vec::new();
        if !self.files.is_empty() {
            let location = format!(
                "{}/metadata/{}-m0.avro",
                metadata.location(),
                self.attempt_id
            );
            manifests.push(
                self.write_manifest(&scratch, &location, &carried.merged)
                    .await?,
            );
            objects.push((location.clone(), read_scratch(&scratch, &location).await?));
        }
        manifests.extend(carried.kept);

        let list = format!(
            "{}/metadata/snap-{}-1-{}.avro",
            metadata.location(),
            self.snapshot_id,
            self.attempt_id
        );
        let row_range = self.write_list(&scratch, &list, manifests).await?;
        objects.push((list.clone(), read_scratch(&scratch, &list).await?));

        let metadata = self.metadata(list, row_range, limits)?;
        Ok(BuiltSnapshot { metadata, objects })
    }

    /// Reads the parent's manifest list and picks the manifest to merge with.
    async fn carry(
        &self,
        store: &dyn ObjectStore,
        scratch: &FileIO,
        limits: &Limits,
    ) -> Result<Carried, CommitError> {
        let failed = CommitError::iceberg("reading manifests");
        let metadata = &self.base.metadata;
        let Some(parent) = metadata.current_snapshot() else {
            return Ok(Carried {
                kept: Vec::new(),
                merged: Vec::new(),
            });
        };
        let bytes = fetch(store, &self.base.name, parent.manifest_list()).await?;
        let list =
            ManifestList::parse_with_version(&bytes, metadata.format_version()).map_err(&failed)?;
        let mut kept: Vec<ManifestFile> = list.consume_entries().into_iter().collect();
        // Row ids of v3 are inherited from a manifest: merging would change them.
        if self.files.is_empty() || metadata.format_version() != FormatVersion::V2 {
            return Ok(Carried {
                kept,
                merged: Vec::new(),
            });
        }
        let Some(hot) = kept.iter().position(|manifest| is_hot(manifest, limits)) else {
            return Ok(Carried {
                kept,
                merged: Vec::new(),
            });
        };
        let manifest = kept.remove(hot);
        let bytes = fetch(store, &self.base.name, &manifest.manifest_path).await?;
        let output = scratch
            .new_output(&manifest.manifest_path)
            .map_err(&failed)?;
        output.write(bytes).await.map_err(&failed)?;
        let (entries, hot_metadata) = manifest
            .load_manifest(scratch)
            .await
            .map_err(&failed)?
            .into_parts();
        // Of an older schema: left as it is, so that its bounds are never written by other types.
        if hot_metadata.schema_id() != metadata.current_schema_id() {
            kept.insert(hot, manifest);
            return Ok(Carried {
                kept,
                merged: Vec::new(),
            });
        }
        let merged = entries
            .into_iter()
            .filter(|entry| entry.is_alive())
            .collect();
        Ok(Carried { kept, merged })
    }

    async fn write_manifest(
        &self,
        scratch: &FileIO,
        location: &str,
        merged: &[ManifestEntryRef],
    ) -> Result<ManifestFile, CommitError> {
        let failed = CommitError::iceberg("writing a manifest");
        let metadata = &self.base.metadata;
        let schema = metadata.current_schema();
        let spec =
            metadata
                .partition_spec_by_id(SPEC_ID)
                .ok_or_else(|| CommitError::NoPartitionSpec {
                    table: self.base.name.clone(),
                })?;
        let output = scratch.new_output(location).map_err(&failed)?;
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
        for file in &self.files {
            // A negative sequence number is inherited from the commit.
            writer
                .add_file(self.data_file(file)?, -1)
                .map_err(&failed)?;
        }
        for entry in merged {
            let sequence_number = entry.sequence_number.unwrap_or(0);
            writer
                .add_existing_file(
                    entry.data_file.clone(),
                    entry.snapshot_id.unwrap_or(self.snapshot_id),
                    sequence_number,
                    Some(entry.file_sequence_number.unwrap_or(sequence_number)),
                )
                .map_err(&failed)?;
        }
        writer.write_manifest_file().await.map_err(&failed)
    }

    fn data_file(&self, file: &StagedFile) -> Result<DataFile, CommitError> {
        let schema = self.base.metadata.current_schema();
        file.to_data_file(schema, SPEC_ID)
            .map_err(|error| match error {
                table_file::FileError::UnknownField { field_id } => CommitError::ColumnDropped {
                    table: self.base.name.clone(),
                    column: self.name_in_any_schema(field_id),
                    field_id,
                },
                other => CommitError::File {
                    doing: "describing a staged file",
                    source: Box::new(other),
                },
            })
    }

    fn name_in_any_schema(&self, field_id: i32) -> String {
        let mut schemas = self.base.metadata.schemas_iter();
        let name = schemas.find_map(|schema| schema.name_by_field_id(field_id).map(str::to_owned));
        name.unwrap_or_else(|| "(unknown)".to_owned())
    }

    /// Writes the manifest list. Gives the rows' range for a v3 table: first id, number of ids given.
    async fn write_list(
        &self,
        scratch: &FileIO,
        location: &str,
        manifests: Vec<ManifestFile>,
    ) -> Result<Option<(u64, u64)>, CommitError> {
        let failed = CommitError::iceberg("writing a manifest list");
        let metadata = &self.base.metadata;
        let output = scratch
            .new_output(location)
            .map_err(&failed)?
            .writer()
            .await
            .map_err(&failed)?;
        let (parent, sequence) = (
            metadata.current_snapshot_id(),
            metadata.next_sequence_number(),
        );
        let first_row_id = metadata.next_row_id();
        let mut writer = match metadata.format_version() {
            FormatVersion::V1 | FormatVersion::V2 => {
                ManifestListWriter::v2(output, self.snapshot_id, parent, sequence)
            }
            FormatVersion::V3 => ManifestListWriter::v3(
                output,
                self.snapshot_id,
                parent,
                sequence,
                Some(first_row_id),
            ),
        };
        writer
            .add_manifests(manifests.into_iter())
            .map_err(&failed)?;
        let row_range = writer
            .next_row_id()
            .map(|next| (first_row_id, next.saturating_sub(first_row_id)));
        writer.close().await.map_err(&failed)?;
        Ok(row_range)
    }

    fn metadata(
        &self,
        manifest_list: String,
        row_range: Option<(u64, u64)>,
        limits: &Limits,
    ) -> Result<TableMetadata, CommitError> {
        let failed = CommitError::iceberg("building table metadata");
        let base = &self.base.metadata;
        let state = self.state.to_json(&self.base.name)?;
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(base.current_snapshot_id())
            .with_sequence_number(base.next_sequence_number())
            .with_timestamp_ms(self.timestamp_ms)
            .with_manifest_list(manifest_list)
            .with_schema_id(base.current_schema_id())
            .with_summary(self.summary(state.clone()));
        let snapshot = match row_range {
            Some((first, added)) => snapshot.with_row_range(first, added).build(),
            None => snapshot.build(),
        };
        let expired = expired_snapshots(base, limits.snapshots_kept);
        base.as_ref()
            .clone()
            .into_builder(Some(self.base.pointer.metadata_location.clone()))
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .map_err(&failed)?
            .remove_snapshots(&expired)
            .set_properties(HashMap::from([(STATE_PROPERTY.to_owned(), state)]))
            .map_err(&failed)?
            .build()
            .map(|built| built.metadata)
            .map_err(&failed)
    }

    fn summary(&self, state: String) -> Summary {
        let rows: u64 = self.files.iter().map(|file| file.row_count).sum();
        let size_bytes: u64 = self.files.iter().map(|file| file.size_bytes).sum();
        let days: HashSet<i32> = self.files.iter().map(|file| file.day).collect();
        let file_count = u64::try_from(self.files.len()).unwrap_or(u64::MAX);
        let mut properties = HashMap::from([
            (STATE_PROPERTY.to_owned(), state),
            ("changed-partition-count".to_owned(), days.len().to_string()),
        ]);
        let parent = self
            .base
            .metadata
            .current_snapshot()
            .map(|parent| parent.summary());
        let counts = [
            ("data-files", file_count),
            ("records", rows),
            ("files-size", size_bytes),
            ("delete-files", 0),
            ("position-deletes", 0),
            ("equality-deletes", 0),
        ];
        for (name, added) in counts {
            if added > 0 {
                properties.insert(format!("added-{name}"), added.to_string());
            }
            let key = format!("total-{name}");
            // A parent that does not know its total leaves ours unknown too.
            let before = match parent {
                None => Some(0),
                Some(summary) => summary
                    .additional_properties
                    .get(&key)
                    .and_then(|total| total.parse::<u64>().ok()),
            };
            if let Some(before) = before {
                properties.insert(key, before.saturating_add(added).to_string());
            }
        }
        Summary {
            operation: Operation::Append,
            additional_properties: properties,
        }
    }
}

/// Whether a manifest is still small enough to be merged with a commit's new entries.
fn is_hot(manifest: &ManifestFile, limits: &Limits) -> bool {
    let entries = [
        manifest.added_files_count,
        manifest.existing_files_count,
        manifest.deleted_files_count,
    ]
    .into_iter()
    .try_fold(0usize, |sum, count| {
        Some(sum + usize::try_from(count?).ok()?)
    });
    manifest.content == ManifestContentType::Data
        && manifest.partition_spec_id == SPEC_ID
        && manifest.key_metadata.is_none()
        && entries.is_some_and(|entries| entries < limits.manifest_entries_max)
}

/// Snapshots of the main branch beyond the newest `kept` (the one being made among them) that nothing else names.
fn expired_snapshots(metadata: &TableMetadata, kept: usize) -> Vec<i64> {
    let Some(head) = metadata.current_snapshot_id() else {
        return Vec::new();
    };
    let mut expired: Vec<i64> = ancestors(metadata, head)
        .skip(kept.saturating_sub(1).max(1))
        .collect();
    if !expired.is_empty() {
        let named = named_snapshots(metadata);
        expired.retain(|id| !named.contains(id));
    }
    expired
}

/// Snapshots that a tag names, or that a branch other than the main one needs.
fn named_snapshots(metadata: &TableMetadata) -> BTreeSet<i64> {
    let mut named = BTreeSet::new();
    // The library gives no way to list references but the metadata's own JSON.
    let json = serde_json::to_value(metadata).unwrap_or_default();
    let references = json.get("refs").and_then(|refs| refs.as_object());
    for (name, reference) in references.into_iter().flatten() {
        let Some(id) = reference
            .get("snapshot-id")
            .and_then(serde_json::Value::as_i64)
        else {
            continue;
        };
        if name == MAIN_BRANCH {
            continue;
        }
        named.insert(id);
        if reference.get("type").and_then(|kind| kind.as_str()) == Some("branch") {
            named.extend(ancestors(metadata, id));
        }
    }
    named
}

/// A snapshot and what came before it, newest first, as far as the metadata still knows.
pub(crate) fn ancestors(metadata: &TableMetadata, from: i64) -> impl Iterator<Item = i64> + '_ {
    let first = metadata.snapshot_by_id(from);
    std::iter::successors(first, |snapshot| {
        snapshot
            .parent_snapshot_id()
            .and_then(|parent| metadata.snapshot_by_id(parent))
    })
    .map(|snapshot| snapshot.snapshot_id())
}

async fn read_scratch(scratch: &FileIO, location: &str) -> Result<Bytes, CommitError> {
    let failed = CommitError::iceberg("reading back a scratch file");
    scratch
        .new_input(location)
        .map_err(&failed)?
        .read()
        .await
        .map_err(&failed)
}
