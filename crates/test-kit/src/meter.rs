//! Ports that count what they are asked for: requests are the bill.
//!
//! # Invariants
//! - A request counts when it is made, whatever comes of it.

use std::ops::{Add, Sub};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::spec::TableMetadata;
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use table_commit::{Catalog, CatalogError, CreateOutcome, Pointer, SwapOutcome, TableName};

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Objects read, found or not.
    pub gets: u64,
    /// Bytes of objects that were found.
    pub get_bytes: u64,
    /// Objects written, conditionally or not.
    pub puts: u64,
    /// Bytes sent with them.
    pub put_bytes: u64,
    /// Listings.
    pub lists: u64,
    /// Removals, which cost nothing.
    pub deletes: u64,
    /// Calls to the catalog: reads, creations, moves.
    pub catalog: u64,
}

impl Requests {
    /// Without bytes and removals: what is paid for by the piece.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.gets + self.puts + self.lists + self.catalog
    }
}

impl Add for Requests {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            gets: self.gets + other.gets,
            get_bytes: self.get_bytes + other.get_bytes,
            puts: self.puts + other.puts,
            put_bytes: self.put_bytes + other.put_bytes,
            lists: self.lists + other.lists,
            deletes: self.deletes + other.deletes,
            catalog: self.catalog + other.catalog,
        }
    }
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            gets: self.gets - before.gets,
            get_bytes: self.get_bytes - before.get_bytes,
            puts: self.puts - before.puts,
            put_bytes: self.put_bytes - before.put_bytes,
            lists: self.lists - before.lists,
            deletes: self.deletes - before.deletes,
            catalog: self.catalog - before.catalog,
        }
    }
}

/// Counts for several ports.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Requests>);

impl Meter {
    /// The count so far.
    #[must_use]
    pub fn read(&self) -> Requests {
        *self.count()
    }

    /// Gives the count and begins anew.
    pub fn take(&self) -> Requests {
        std::mem::take(&mut *self.count())
    }

    fn count(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that counts.
#[derive(Debug)]
pub struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

impl MeteredStore {
    /// Counts what is asked of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

fn length(body: &Bytes) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ObjectStore for MeteredStore {
    fn uri_prefix(&self) -> &str {
        self.inner.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.meter.count().gets += 1;
        let found = self.inner.get(key).await?;
        self.meter.count().get_bytes += found.as_ref().map_or(0, length);
        Ok(found)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        self.meter.count().puts += 1;
        self.meter.count().put_bytes += length(&body);
        self.inner.put_if_absent(key, body).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.meter.count().puts += 1;
        self.meter.count().put_bytes += length(&body);
        self.inner.put(key, body).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.meter.count().lists += 1;
        self.inner.list_page(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.meter.count().deletes += 1;
        self.inner.delete(key).await
    }
}

/// A catalog that counts.
#[derive(Debug)]
pub struct MeteredCatalog {
    inner: Arc<dyn Catalog>,
    meter: Arc<Meter>,
}

impl MeteredCatalog {
    /// Counts what is asked of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Catalog>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

#[async_trait]
impl Catalog for MeteredCatalog {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        self.meter.count().catalog += 1;
        self.inner.pointer(table).await
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        self.meter.count().catalog += 1;
        self.inner.create(table, metadata_location, metadata).await
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        self.meter.count().catalog += 1;
        self.inner
            .swap(table, from, metadata_location, metadata)
            .await
    }
}
