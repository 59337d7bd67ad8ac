//! The adapters that need nothing.

use std::sync::Arc;

use contract::{catalog_suite, store_suite};
use iceberg::TableCreation;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use object_io::{FolderStore, MemoryStore, ObjectStore};
use table_commit::{MemoryCatalog, TableName};

pub(crate) fn metadata(location: &str) -> TableMetadata {
    let creation = TableCreation::builder()
        .name("t".to_owned())
        .location(location.to_owned())
        .schema(table_file::base_schema().unwrap())
        .build();
    TableMetadataBuilder::from_table_creation(creation)
        .unwrap()
        .build()
        .unwrap()
        .metadata
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_store_keeps_the_contract() {
    store_suite(Arc::new(MemoryStore::new("b")), "contract/")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn folder_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    store_suite(Arc::new(FolderStore::new(folder.path())), "contract/")
        .await
        .unwrap();
}

#[tokio::test]
async fn folder_store_refuses_keys_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    for key in ["../out", "/etc/hosts", "a/../../out"] {
        assert!(store.get(key).await.is_err(), "{key}");
        assert!(store.put_if_absent(key, "x".into()).await.is_err(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_catalog_keeps_the_contract() {
    let table = TableName {
        database: "d".to_owned(),
        table: "t".to_owned(),
    };
    let catalog = Arc::new(MemoryCatalog::default());
    catalog_suite(catalog, &table, &metadata("s3://b/tables/d/t"))
        .await
        .unwrap();
}
