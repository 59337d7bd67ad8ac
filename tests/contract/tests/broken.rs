//! Adapters that are wrong in the way that matters: the suites must find it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use contract::{catalog_suite, store_suite};
use iceberg::spec::TableMetadata;
use object_io::{ListPage, MemoryStore, ObjectError, ObjectStore, PutOutcome};
use table_commit::{
    Catalog, CatalogError, CreateOutcome, MemoryCatalog, Pointer, SwapOutcome, TableName,
};

use crate::local::metadata;

/// Looks, then writes, and lets others run in between.
#[derive(Debug)]
struct CheckThenPut(MemoryStore);

#[async_trait]
impl ObjectStore for CheckThenPut {
    fn uri_prefix(&self) -> &str {
        self.0.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.0.get(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        if self.0.get(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        tokio::task::yield_now().await;
        self.0.put(key, body).await?;
        Ok(PutOutcome::Created)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.0.put(key, body).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.0.list_page(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.delete(key).await
    }
}

/// Compares with what it just read, then moves from there.
#[derive(Debug)]
struct CompareThenSwap(MemoryCatalog);

#[async_trait]
impl Catalog for CompareThenSwap {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        self.0.pointer(table).await
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        self.0.create(table, metadata_location, metadata).await
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        let unmoved = |now: &Pointer| now.version == from.version;
        if !self.0.pointer(table).await?.as_ref().is_some_and(unmoved) {
            return Ok(SwapOutcome::Conflict);
        }
        tokio::task::yield_now().await;
        let now = self.0.pointer(table).await?.unwrap();
        self.0.swap(table, &now, metadata_location, metadata).await
    }
}

#[tokio::test]
async fn store_that_yields_between_check_and_put_fails_the_suite() {
    let breach = store_suite(Arc::new(CheckThenPut(MemoryStore::new("b"))), "contract/")
        .await
        .unwrap_err();
    assert!(breach.contains("created"), "{breach}");
}

#[tokio::test]
async fn catalog_that_yields_between_compare_and_swap_fails_the_suite() {
    let table = TableName {
        database: "d".to_owned(),
        table: "t".to_owned(),
    };
    let catalog = Arc::new(CompareThenSwap(MemoryCatalog::default()));
    let breach = catalog_suite(catalog, &table, &metadata("s3://b/tables/d/t"))
        .await
        .unwrap_err();
    assert!(breach.contains("moves"), "{breach}");
}
