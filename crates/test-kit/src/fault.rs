//! Ports that fail: for each write, whether it happened and whether the caller is told are drawn apart.
//!
//! A write that did not happen and of which nobody was told may still happen later: it is kept, and lands before some later
//! call. Every call first yields a drawn number of times, so that tasks interleave in ways that the seed decides.
//!
//! # Source
//! The four outcomes are those of Materialize's `persist` tests (`unreliable.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::spec::TableMetadata;
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use table_commit::{Catalog, CatalogError, CreateOutcome, Pointer, SwapOutcome, TableName};

use crate::seed::Seed;

/// What to draw faults from, shared by the ports of one test.
#[derive(Debug)]
pub struct FaultPlan {
    seed: Seed,
    percent: u64,
    calm: AtomicBool,
}

/// The fate of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Happens, and the caller is told.
    Done,
    /// Happens, and the caller hears nothing.
    DoneInSilence,
    /// Does not happen, and the caller is told.
    Refused,
    /// Has not happened when the caller hears nothing; may land later.
    Late,
}

impl FaultPlan {
    /// Faults in `percent` of a hundred calls.
    #[must_use]
    pub fn new(seed: u64, percent: u64) -> Arc<Self> {
        Arc::new(Self {
            seed: Seed::new(seed),
            percent,
            calm: AtomicBool::new(false),
        })
    }

    /// No faults from here on; what is late may still land.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    async fn interleave(&self) {
        for _ in 0..self.seed.below(4) {
            tokio::task::yield_now().await;
        }
    }

    fn fails(&self) -> bool {
        self.seed.chance(self.percent) && !self.calm.load(Ordering::Relaxed)
    }

    fn fate(&self) -> Fate {
        if !self.fails() {
            return Fate::Done;
        }
        match (self.seed.chance(50), self.seed.chance(50)) {
            (true, true) => Fate::Done,
            (true, false) => Fate::DoneInSilence,
            (false, true) => Fate::Refused,
            (false, false) => Fate::Late,
        }
    }

    /// Takes a late write that is due now, if one is.
    fn due<T>(&self, late: &Mutex<Vec<T>>) -> Option<T> {
        let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
        if late.is_empty() || !self.seed.chance(30) {
            return None;
        }
        let index = usize::try_from(self.seed.below(late.len() as u64)).unwrap_or(0);
        Some(late.swap_remove(index))
    }
}

fn push<T>(late: &Mutex<Vec<T>>, write: T) {
    late.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(write);
}

fn clear<T>(late: &Mutex<Vec<T>>) {
    late.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A store that fails by plan.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<FaultPlan>,
    late: Mutex<Vec<(String, Bytes)>>,
}

impl FaultyStore {
    /// Wraps a store.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, plan: Arc<FaultPlan>) -> Self {
        Self {
            inner,
            plan,
            late: Mutex::default(),
        }
    }

    /// What is late will not land: no request lives for days.
    pub fn abandon(&self) {
        clear(&self.late);
    }

    async fn before(&self, operation: &'static str, key: &str) -> Result<(), ObjectError> {
        self.plan.interleave().await;
        if let Some((key, body)) = self.plan.due(&self.late) {
            // All late writes are of create-only keys or of keys with a fresh id.
            self.inner.put_if_absent(&key, body).await.map(drop)?;
        }
        let read = operation != "put";
        if read && self.plan.fails() {
            Err(unavailable(operation, key))
        } else {
            Ok(())
        }
    }
}

fn unavailable(operation: &'static str, key: &str) -> ObjectError {
    ObjectError::Unavailable {
        operation,
        key: key.to_owned(),
        source: "drawn fault".into(),
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    fn uri_prefix(&self) -> &str {
        self.inner.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.before("get", key).await?;
        self.inner.get(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        self.before("put", key).await?;
        match self.plan.fate() {
            Fate::Done => self.inner.put_if_absent(key, body).await,
            Fate::DoneInSilence => {
                self.inner.put_if_absent(key, body).await.map(drop)?;
                Ok(PutOutcome::Unknown)
            }
            Fate::Refused => Err(unavailable("put", key)),
            Fate::Late => {
                push(&self.late, (key.to_owned(), body));
                Ok(PutOutcome::Unknown)
            }
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.before("put", key).await?;
        match self.plan.fate() {
            Fate::Done => self.inner.put(key, body).await,
            Fate::DoneInSilence => {
                self.inner.put(key, body).await?;
                Err(unavailable("put", key))
            }
            Fate::Refused => Err(unavailable("put", key)),
            Fate::Late => {
                push(&self.late, (key.to_owned(), body));
                Err(unavailable("put", key))
            }
        }
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.before("list", prefix).await?;
        self.inner.list_page(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.before("delete", key).await?;
        self.inner.delete(key).await
    }
}

#[derive(Debug)]
struct LateSwap {
    table: TableName,
    from: Pointer,
    metadata_location: String,
    metadata: Box<TableMetadata>,
}

/// A catalog that fails by plan.
#[derive(Debug)]
pub struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    plan: Arc<FaultPlan>,
    late: Mutex<Vec<LateSwap>>,
}

impl FaultyCatalog {
    /// Wraps a catalog.
    #[must_use]
    pub fn new(inner: Arc<dyn Catalog>, plan: Arc<FaultPlan>) -> Self {
        Self {
            inner,
            plan,
            late: Mutex::default(),
        }
    }

    /// What is late will not land: no request lives for days.
    pub fn abandon(&self) {
        clear(&self.late);
    }

    async fn before(&self) -> Result<(), CatalogError> {
        self.plan.interleave().await;
        if let Some(late) = self.plan.due(&self.late) {
            let swap = self.inner.swap(
                &late.table,
                &late.from,
                &late.metadata_location,
                &late.metadata,
            );
            swap.await.map(drop)?;
        }
        Ok(())
    }
}

fn catalog_unavailable(operation: &'static str, table: &TableName) -> CatalogError {
    CatalogError::Unavailable {
        operation,
        table: table.clone(),
        source: "drawn fault".into(),
    }
}

#[async_trait]
impl Catalog for FaultyCatalog {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        self.before().await?;
        if self.plan.fails() {
            return Err(catalog_unavailable("get", table));
        }
        self.inner.pointer(table).await
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        self.before().await?;
        match self.plan.fate() {
            Fate::Done => self.inner.create(table, metadata_location, metadata).await,
            Fate::DoneInSilence => {
                self.inner
                    .create(table, metadata_location, metadata)
                    .await
                    .map(drop)?;
                Ok(CreateOutcome::Unknown)
            }
            Fate::Refused => Err(catalog_unavailable("create", table)),
            Fate::Late => Ok(CreateOutcome::Unknown),
        }
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        self.before().await?;
        match self.plan.fate() {
            Fate::Done => {
                self.inner
                    .swap(table, from, metadata_location, metadata)
                    .await
            }
            Fate::DoneInSilence => {
                self.inner
                    .swap(table, from, metadata_location, metadata)
                    .await
                    .map(drop)?;
                Ok(SwapOutcome::Unknown)
            }
            Fate::Refused => Err(catalog_unavailable("swap", table)),
            Fate::Late => {
                let late = LateSwap {
                    table: table.clone(),
                    from: from.clone(),
                    metadata_location: metadata_location.to_owned(),
                    metadata: Box::new(metadata.clone()),
                };
                push(&self.late, late);
                Ok(SwapOutcome::Unknown)
            }
        }
    }
}
