//! Which files a table's metadata still names.
//!
//! Flow: loaded table -> manifest lists -> manifests -> **here** -> functions/maintain, which keeps them.
//!
//! # Invariants
//! - Whatever cannot be read is an error: "not named" is never concluded from what was not seen.
//! - Files are known by their last part, because other engines spell addresses in other ways (`s3a://`). Names hold ids, so
//!   that a foreign file of the same name only keeps one more.

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{FormatVersion, Manifest, ManifestList, TableMetadata};
use object_io::ObjectStore;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::metadata_file::{decode, fetch};
use crate::table::{Committer, LoadedTable};

/// Manifests read at a time.
const READS_AT_ONCE: usize = 16;

/// Names of the files that metadata names; it only grows.
#[derive(Debug, Default)]
pub struct Referenced {
    names: HashSet<Box<str>>,
    /// Manifest lists and manifests that were read to their end.
    read: HashSet<String>,
}

impl Referenced {
    /// Whether a file of this name is named.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds everything that a table names: its metadata and what is in its log, and for each snapshot that it holds, manifest
    /// list, manifests, data and delete files. What was read before is not read again.
    ///
    /// # Errors
    /// [`CommitError::MissingObject`], [`CommitError::Iceberg`] (Halt); Retry from the store.
    pub async fn add(
        &mut self,
        store: &dyn ObjectStore,
        table: &LoadedTable,
    ) -> Result<(), CommitError> {
        let location = &table.pointer.metadata_location;
        self.add_metadata(store, &table.name, location, &table.metadata)
            .await
    }

    /// The same for metadata in a file that the pointer need not name.
    ///
    /// # Errors
    /// Those of [`Referenced::add`].
    pub async fn add_metadata(
        &mut self,
        store: &dyn ObjectStore,
        table: &TableName,
        location: &str,
        metadata: &TableMetadata,
    ) -> Result<(), CommitError> {
        for former in metadata.metadata_log() {
            self.insert(&former.metadata_file);
        }
        let lists: BTreeSet<&str> = metadata
            .snapshots()
            .map(|snapshot| snapshot.manifest_list())
            .filter(|list| !self.read.contains(*list))
            .collect();
        let version = metadata.format_version();
        let manifests: Vec<Vec<String>> = stream::iter(&lists)
            .map(|list| manifests_of(store, table, list, version))
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let manifests: BTreeSet<&String> = manifests
            .iter()
            .flatten()
            .filter(|manifest| !self.read.contains(*manifest))
            .collect();
        let mut files = stream::iter(&manifests)
            .map(|manifest| files_of(store, table, manifest))
            .buffer_unordered(READS_AT_ONCE);
        while let Some(files) = files.try_next().await? {
            files.iter().for_each(|file| self.insert(file));
        }
        drop(files);
        // Only now: what failed half-way is read again.
        for location in lists
            .into_iter()
            .chain(manifests.into_iter().map(String::as_str))
        {
            self.insert(location);
            self.read.insert(location.to_owned());
        }
        self.insert(location);
        Ok(())
    }

    fn insert(&mut self, location: &str) {
        self.names.insert(file_name(location).into());
    }
}

impl Committer {
    /// The metadata in a file that no pointer names.
    ///
    /// # Errors
    /// [`CommitError::MissingObject`], [`CommitError::Iceberg`] (Halt); Retry from the store.
    pub async fn read_metadata(
        &self,
        table: &TableName,
        location: &str,
    ) -> Result<TableMetadata, CommitError> {
        let bytes = fetch(self.store.as_ref(), table, location).await?;
        decode(bytes, location).await
    }
}

/// The last part of an address or key.
#[must_use]
pub fn file_name(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or(location)
}

async fn manifests_of(
    store: &dyn ObjectStore,
    table: &TableName,
    list: &str,
    version: FormatVersion,
) -> Result<Vec<String>, CommitError> {
    let bytes = fetch(store, table, list).await?;
    let list = ManifestList::parse_with_version(&bytes, version)
        .map_err(CommitError::iceberg("reading a manifest list"))?;
    let manifests = list.entries().iter();
    Ok(manifests
        .map(|manifest| manifest.manifest_path.clone())
        .collect())
}

async fn files_of(
    store: &dyn ObjectStore,
    table: &TableName,
    manifest: &str,
) -> Result<Vec<String>, CommitError> {
    let bytes = fetch(store, table, manifest).await?;
    let manifest =
        Manifest::parse_avro(&bytes).map_err(CommitError::iceberg("reading a manifest"))?;
    let live = manifest.entries().iter().filter(|entry| entry.is_alive());
    Ok(live.map(|entry| entry.file_path().to_owned()).collect())
}
