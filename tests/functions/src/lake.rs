//! Reads a table as any reader would: head, manifests, Parquet files.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use iceberg::spec::{Manifest, ManifestList, TableMetadata};
use object_io::ObjectStore;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// A row: column to value as the Parquet crate prints it.
pub type Row = BTreeMap<String, String>;

/// What a reader stumbles over, in words.
pub type Unreadable = String;

/// Manifests that were read before, each with its bytes: one that still has them is not decoded again.
#[derive(Debug, Default)]
pub struct Manifests(HashMap<String, (Bytes, Vec<String>)>);

impl Manifests {
    /// The data files that the head names, in the order of its manifests.
    ///
    /// # Errors
    /// [`Unreadable`] if a manifest is not there or cannot be read.
    pub async fn data_files(
        &mut self,
        store: &dyn ObjectStore,
        metadata: &TableMetadata,
    ) -> Result<Vec<String>, Unreadable> {
        let mut files = Vec::new();
        let Some(head) = metadata.current_snapshot() else {
            return Ok(files);
        };
        let list = read(store, head.manifest_list()).await?;
        let list = ManifestList::parse_with_version(&list, metadata.format_version())
            .map_err(|error| error.to_string())?;
        for manifest in list.entries() {
            let path = &manifest.manifest_path;
            let bytes = read(store, path).await?;
            match self.0.get(path) {
                Some((known, named)) if *known == bytes => files.extend(named.iter().cloned()),
                Some(_) | None => {
                    let named = live_files(&bytes)?;
                    files.extend(named.iter().cloned());
                    self.0.insert(path.clone(), (bytes, named));
                }
            }
        }
        Ok(files)
    }
}

fn live_files(manifest: &Bytes) -> Result<Vec<String>, Unreadable> {
    let manifest = Manifest::parse_avro(manifest).map_err(|error| error.to_string())?;
    let live = manifest.entries().iter().filter(|entry| entry.is_alive());
    Ok(live.map(|entry| entry.file_path().to_owned()).collect())
}

/// [`Manifests::data_files`], of manifests that were never read before.
///
/// # Errors
/// Those of [`Manifests::data_files`].
pub async fn data_files(
    store: &dyn ObjectStore,
    metadata: &TableMetadata,
) -> Result<Vec<String>, Unreadable> {
    Manifests::default().data_files(store, metadata).await
}

/// The rows of one data file.
///
/// # Errors
/// [`Unreadable`] if it is not there or no Parquet file.
pub async fn file_rows(store: &dyn ObjectStore, location: &str) -> Result<Vec<Row>, Unreadable> {
    let bytes = read(store, location).await?;
    let reader = SerializedFileReader::new(bytes).map_err(|error| error.to_string())?;
    let rows = reader
        .get_row_iter(None)
        .map_err(|error| error.to_string())?;
    let columns = |row: parquet::record::Row| -> Row {
        row.get_column_iter()
            .map(|(name, field)| (name.clone(), field.to_string()))
            .collect()
    };
    rows.map(|row| row.map(columns).map_err(|error| error.to_string()))
        .collect()
}

/// The rows of the head, by `_pos`.
///
/// # Errors
/// [`Unreadable`] if anything that it names is not there or cannot be read.
pub async fn rows(
    store: &dyn ObjectStore,
    metadata: &TableMetadata,
) -> Result<Vec<Row>, Unreadable> {
    let mut rows = Vec::new();
    for file in data_files(store, metadata).await? {
        rows.extend(file_rows(store, &file).await?);
    }
    rows.sort_by(|a, b| a.get("_pos").cmp(&b.get("_pos")));
    Ok(rows)
}

async fn read(store: &dyn ObjectStore, location: &str) -> Result<Bytes, Unreadable> {
    let key = location.strip_prefix(store.uri_prefix());
    let key = key.ok_or_else(|| format!("{location} is outside of the bucket"))?;
    let found = store.get(key).await.map_err(|error| error.to_string())?;
    found.ok_or_else(|| format!("{location} is named and is not there"))
}
