//! Reads a table as any reader would: head, manifests, Parquet files.

use std::collections::BTreeMap;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{ManifestList, TableMetadata};
use object_io::ObjectStore;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// A row: column to value as the Parquet crate prints it.
pub type Row = BTreeMap<String, String>;

/// The rows of the head, by `_pos`.
pub(crate) async fn rows(store: &dyn ObjectStore, metadata: &TableMetadata) -> Vec<Row> {
    let Some(head) = metadata.current_snapshot() else {
        return Vec::new();
    };
    let list = ManifestList::parse_with_version(
        &read(store, head.manifest_list()).await,
        metadata.format_version(),
    );
    let scratch = FileIO::new_with_memory();
    let mut rows = Vec::new();
    for file in list.unwrap().entries() {
        let bytes = read(store, &file.manifest_path).await;
        scratch
            .new_output(&file.manifest_path)
            .unwrap()
            .write(bytes)
            .await
            .unwrap();
        let manifest = file.load_manifest(&scratch).await.unwrap();
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let bytes = read(store, entry.file_path()).await;
            let found = parquet_rows(bytes);
            assert_eq!(u64::try_from(found.len()).unwrap(), entry.record_count());
            rows.extend(found);
        }
    }
    rows.sort_by(|a, b| a["_pos"].cmp(&b["_pos"]));
    rows
}

fn parquet_rows(bytes: Bytes) -> Vec<Row> {
    let reader = SerializedFileReader::new(bytes).unwrap();
    reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            row.get_column_iter()
                .map(|(name, field)| (name.clone(), field.to_string()))
                .collect()
        })
        .collect()
}

async fn read(store: &dyn ObjectStore, location: &str) -> Bytes {
    let key = location
        .strip_prefix(store.uri_prefix())
        .expect("in the bucket");
    store
        .get(key)
        .await
        .unwrap()
        .unwrap_or_else(|| panic!("{location} is not there"))
}
