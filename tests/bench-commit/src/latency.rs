//! Ports as slow as S3 and Glue, over memory; time is the runtime's, which may be paused.
//!
//! # Source
//! Assumptions, not measurements: medians as published for S3 and as the design study took them (PUT 30 ms, GET 15 ms,
//! Glue 60 ms), with tails of a log-normal distribution whose 99th percentile is four to five times the median.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use change_event::Clock;
use iceberg::spec::TableMetadata;
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use table_commit::{Catalog, CatalogError, CreateOutcome, Pointer, SwapOutcome, TableName};
use test_kit::Seed;

/// The time of the runtime.
#[derive(Debug)]
pub(crate) struct RuntimeClock {
    start: tokio::time::Instant,
    start_ms: i64,
}

impl RuntimeClock {
    pub(crate) fn new(start_ms: i64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            start_ms,
        }
    }
}

impl Clock for RuntimeClock {
    fn now_us(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.start_ms * 1000 + elapsed
    }
}

/// How long an answer takes: median and 99th percentile of a log-normal distribution, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
}

pub(crate) const PUT: Latency = Latency::new(30.0, 150.0);
pub(crate) const GET: Latency = Latency::new(15.0, 60.0);
pub(crate) const GLUE: Latency = Latency::new(60.0, 250.0);
pub(crate) const QUEUE: Latency = Latency::new(15.0, 60.0);
pub(crate) const INVOKE: Latency = Latency::new(10.0, 40.0);

impl Latency {
    const fn new(median_ms: f64, p99_ms: f64) -> Self {
        Self { median_ms, p99_ms }
    }

    pub(crate) fn draw(self, seed: &Seed) -> Duration {
        let spread = (self.p99_ms / self.median_ms).ln() / 2.326;
        let milliseconds = self.median_ms * (spread * normal(seed)).exp();
        Duration::from_secs_f64(milliseconds / 1000.0)
    }

    pub(crate) async fn pass(self, seed: &Seed) {
        tokio::time::sleep(self.draw(seed)).await;
    }
}

/// A number of the standard normal distribution (Box and Muller).
fn normal(seed: &Seed) -> f64 {
    let unit = || {
        let word = u32::try_from(seed.next() >> 32).unwrap_or(u32::MAX);
        (f64::from(word) + 1.0) / (f64::from(u32::MAX) + 2.0)
    };
    let (first, second) = (unit(), unit());
    (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos()
}

/// A store whose requests take their time: half before they take effect, half after.
#[derive(Debug)]
pub(crate) struct SlowStore {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) seed: Arc<Seed>,
}

impl SlowStore {
    async fn slowly<T>(&self, latency: Latency, work: impl Future<Output = T>) -> T {
        let half = latency.draw(&self.seed) / 2;
        tokio::time::sleep(half).await;
        let done = work.await;
        tokio::time::sleep(half).await;
        done
    }
}

#[async_trait]
impl ObjectStore for SlowStore {
    fn uri_prefix(&self) -> &str {
        self.inner.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.slowly(GET, self.inner.get(key)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        self.slowly(PUT, self.inner.put_if_absent(key, body)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.slowly(PUT, self.inner.put(key, body)).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.slowly(PUT, self.inner.list_page(prefix, after, limit))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.slowly(PUT, self.inner.delete(key)).await
    }
}

/// A commit as the catalog saw it.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) at_ms: i64,
    /// Next offset of each partition.
    pub(crate) offsets: BTreeMap<u32, i64>,
}

/// A catalog whose calls take their time, and that remembers the moves of tables.
#[derive(Debug)]
pub(crate) struct SlowCatalog {
    pub(crate) inner: Arc<dyn Catalog>,
    pub(crate) seed: Arc<Seed>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) moves: Mutex<Vec<Moved>>,
    pub(crate) attempts: Mutex<u64>,
}

impl SlowCatalog {
    fn note(&self, metadata: &TableMetadata) {
        let state = &metadata.properties()[table_commit::state::STATE_PROPERTY];
        let state: table_commit::TableState = serde_json::from_str(state).expect("a state");
        let offsets = state.partitions.into_iter();
        self.moves.lock().unwrap().push(Moved {
            at_ms: self.clock.now_ms(),
            offsets: offsets
                .map(|(partition, frontier)| (partition, frontier.offset))
                .collect(),
        });
    }
}

#[async_trait]
impl Catalog for SlowCatalog {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        GLUE.pass(&self.seed).await;
        self.inner.pointer(table).await
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        GLUE.pass(&self.seed).await;
        self.inner.create(table, metadata_location, metadata).await
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        let half = GLUE.draw(&self.seed) / 2;
        tokio::time::sleep(half).await;
        *self.attempts.lock().unwrap() += 1;
        let outcome = self
            .inner
            .swap(table, from, metadata_location, metadata)
            .await?;
        if outcome == SwapOutcome::Swapped {
            self.note(metadata);
        }
        tokio::time::sleep(half).await;
        Ok(outcome)
    }
}
