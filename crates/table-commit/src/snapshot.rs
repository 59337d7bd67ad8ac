//! One snapshot from staged files: manifest, manifest list, and the table metadata that names them.
//!
//! Flow: [`crate::combine`] -> **here** -> compare-and-set.
//!
//! # Invariants
//! - Pure apart from reading: what is built is returned as bytes, and written by the caller.
//! - Neither the list nor the work of a commit grows with history ([`crate::manifests`]).
//! - The state stands in the summary and in the table property, byte for byte the same.
//! - Only snapshots are expired, never files, and none that a branch or tag names.
//!
//! # Source
//! Iceberg specification, "Manifests", "Snapshots"; merging and expiring keep the bytes of a commit flat.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use futures_util::future::try_join_all;
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, ManifestFile, ManifestList, ManifestListWriter, Operation,
    Snapshot, Summary, TableMetadata, TableMetadataBuilder,
};
use table_file::StagedFile;

use crate::act::{ACTS_PROPERTY, Act, with_acts};
use crate::error::CommitError;
use crate::manifest_file::{Entries, NewManifest, read_entries, read_scratch};
use crate::manifests::{Choice, choose};
use crate::names;
use crate::state::{STATE_PROPERTY, TableState};
use crate::table::{Committer, Limits, LoadedTable};

/// What a snapshot is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) base: &'a LoadedTable,
    pub(crate) files: Vec<&'a StagedFile>,
    pub(crate) state: TableState,
    /// What operators did, by the intents of this commit.
    pub(crate) acts: Vec<Act>,
    pub(crate) snapshot_id: i64,
    /// Names the files of this attempt.
    pub(crate) attempt_id: String,
    pub(crate) timestamp_ms: i64,
}

/// A snapshot that nobody knows yet.
#[derive(Debug)]
pub(crate) struct BuiltSnapshot {
    pub(crate) metadata: TableMetadata,
    /// Manifests and manifest list, by full address.
    pub(crate) objects: Vec<(String, Bytes)>,
}

/// A parent's manifests: those that stay, and the entries of those that this commit writes anew.
#[derive(Debug, Default)]
struct Carried {
    kept: Vec<ManifestFile>,
    hot: Vec<Entries>,
    merged: Vec<Entries>,
}

impl Plan<'_> {
    /// Builds manifests, list and metadata.
    pub(crate) async fn build(&self, committer: &Committer) -> Result<BuiltSnapshot, CommitError> {
        let metadata = &self.base.metadata;
        let carried = self.carry(committer).await?;
        let mut objects = Vec::with_capacity(3);
        let mut manifests = Vec::new();
        let written = [(self.files.as_slice(), carried.hot), (&[], carried.merged)];
        for (number, (files, existing)) in written.into_iter().enumerate() {
            if files.is_empty() && existing.is_empty() {
                continue;
            }
            let location = names::manifest(metadata.location(), &self.attempt_id, number);
            let manifest = NewManifest {
                base: self.base,
                snapshot_id: self.snapshot_id,
                location: location.clone(),
                files,
                existing,
            };
            let (manifest, bytes) = manifest.write().await?;
            manifests.push(manifest);
            objects.push((location, bytes));
        }
        manifests.extend(carried.kept);

        let list = names::manifest_list(metadata.location(), self.snapshot_id, &self.attempt_id);
        let scratch = FileIO::new_with_memory();
        let row_range = self.write_list(&scratch, &list, manifests).await?;
        objects.push((list.clone(), read_scratch(&scratch, &list).await?));

        let metadata = self.metadata(list, row_range, &committer.limits)?;
        Ok(BuiltSnapshot { metadata, objects })
    }

    /// Reads the parent's manifest list, and the manifests that are written anew.
    async fn carry(&self, committer: &Committer) -> Result<Carried, CommitError> {
        let failed = CommitError::iceberg("reading a manifest list");
        let metadata = &self.base.metadata;
        let Some(parent) = metadata.current_snapshot() else {
            return Ok(Carried::default());
        };
        let bytes = committer
            .read(&self.base.name, parent.manifest_list())
            .await?;
        let list =
            ManifestList::parse_with_version(&bytes, metadata.format_version()).map_err(&failed)?;
        let list: Vec<ManifestFile> = list.consume_entries().into_iter().collect();
        // Row ids of v3 are inherited from a manifest: merging would change them.
        let choice = if self.files.is_empty() || metadata.format_version() != FormatVersion::V2 {
            Choice::default()
        } else {
            choose(&list, &committer.limits)
        };
        let read = |index: usize| {
            let manifest = list.get(index);
            async move {
                let Some(manifest) = manifest else {
                    return Ok(None);
                };
                let bytes = committer
                    .read(&self.base.name, &manifest.manifest_path)
                    .await?;
                read_entries(self.base, manifest, bytes).await.map(Some)
            }
        };
        let hot = try_join_all(choice.hot.into_iter().map(read)).await?;
        let merged = try_join_all(choice.merge.iter().copied().map(read)).await?;
        let rewritten = |index: usize| choice.hot == Some(index) || choice.merge.contains(&index);
        let kept = list.iter().enumerate();
        Ok(Carried {
            kept: kept
                .filter(|(index, _)| !rewritten(*index))
                .map(|(_, manifest)| manifest.clone())
                .collect(),
            hot: hot.into_iter().flatten().collect(),
            merged: merged.into_iter().flatten().collect(),
        })
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
        let mut properties = HashMap::from([(STATE_PROPERTY.to_owned(), state)]);
        if !self.acts.is_empty() {
            properties.insert(ACTS_PROPERTY.to_owned(), with_acts(base, &self.acts));
        }
        let builder = self
            .base
            .builder()
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .map_err(&failed)?
            .remove_snapshots(&expired);
        without_stale_statistics(builder, base, &expired)
            .set_properties(properties)
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

/// Lets go of statistics of snapshots that are gone: whoever computes some for each snapshot would make metadata grow.
fn without_stale_statistics(
    builder: TableMetadataBuilder,
    metadata: &TableMetadata,
    expired: &[i64],
) -> TableMetadataBuilder {
    let gone = |id: &i64| expired.contains(id) || metadata.snapshot_by_id(*id).is_none();
    let table = metadata.statistics_iter().map(|file| file.snapshot_id);
    let partitions = metadata
        .partition_statistics_iter()
        .map(|file| file.snapshot_id);
    let builder = table
        .filter(gone)
        .fold(builder, TableMetadataBuilder::remove_statistics);
    partitions
        .filter(gone)
        .fold(builder, TableMetadataBuilder::remove_partition_statistics)
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
