//! The ports of production code, each method a call that the simulator completes.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use change_event::Clock;
use function_kit::metric::LineSink;
use function_kit::{DelayedQueue, FunctionInvoker, InvokeError, Metric, QueueError};
use iceberg::spec::TableMetadata;
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use table_commit::{Catalog, CatalogError, CreateOutcome, Pointer, SwapOutcome, TableName};
use test_kit::ManualClock;

use crate::calls::{Answer, Calls, Op, ProcessId};

/// Name of the bucket, as its addresses begin.
pub(crate) const URI_PREFIX: &str = "s3://lake/";

/// The ports of one process: object storage, catalog, functions/ddl and queue.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    calls: Arc<Calls>,
    process: ProcessId,
}

impl Ports {
    /// Of this process.
    #[must_use]
    pub(crate) const fn new(calls: Arc<Calls>, process: ProcessId) -> Self {
        Self { calls, process }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(&self, op: Op) -> Answer {
        self.calls.call(self.process, op).await
    }
}

fn unavailable(operation: &'static str, key: &str) -> ObjectError {
    ObjectError::Unavailable {
        operation,
        key: key.to_owned(),
        source: "no answer".into(),
    }
}

#[async_trait]
impl ObjectStore for Ports {
    fn uri_prefix(&self) -> &str {
        URI_PREFIX
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        match self.call(Op::Get(key.to_owned())).await {
            Answer::Object(found) => Ok(found),
            _ => Err(unavailable("get", key)),
        }
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        match self.call(Op::PutNew(key.to_owned(), body)).await {
            Answer::Put(outcome) => Ok(outcome),
            _ => Err(unavailable("put", key)),
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        match self.call(Op::Put(key.to_owned(), body)).await {
            Answer::Done => Ok(()),
            _ => Err(unavailable("put", key)),
        }
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        let op = Op::List(prefix.to_owned(), after.map(str::to_owned), limit);
        match self.call(op).await {
            Answer::Page(page) => Ok(page),
            _ => Err(unavailable("list", prefix)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match self.call(Op::Delete(key.to_owned())).await {
            Answer::Done => Ok(()),
            _ => Err(unavailable("delete", key)),
        }
    }
}

fn no_catalog(operation: &'static str, table: &TableName) -> CatalogError {
    CatalogError::Unavailable {
        operation,
        table: table.clone(),
        source: "no answer".into(),
    }
}

#[async_trait]
impl Catalog for Ports {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        match self.call(Op::Pointer(table.clone())).await {
            Answer::Pointer(found) => Ok(found),
            _ => Err(no_catalog("get", table)),
        }
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        let (location, metadata) = (metadata_location.to_owned(), Arc::new(metadata.clone()));
        let op = Op::Create(table.clone(), location, metadata);
        match self.call(op).await {
            Answer::Created(outcome) => Ok(outcome),
            _ => Err(no_catalog("create", table)),
        }
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        let (from, location) = (Box::new(from.clone()), metadata_location.to_owned());
        let op = Op::Swap(table.clone(), from, location, Arc::new(metadata.clone()));
        match self.call(op).await {
            Answer::Swapped(outcome) => Ok(outcome),
            _ => Err(no_catalog("swap", table)),
        }
    }
}

#[async_trait]
impl FunctionInvoker for Ports {
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        match self.call(Op::Invoke(payload)).await {
            Answer::Invoked(answer) => answer,
            _ => Err(InvokeError::Unknown {
                function: function.to_owned(),
                source: "no answer".into(),
            }),
        }
    }
}

#[async_trait]
impl DelayedQueue for Ports {
    async fn send(&self, body: &str, delay_seconds: u32) -> Result<(), QueueError> {
        match self.call(Op::Send(body.to_owned(), delay_seconds)).await {
            Answer::Done => Ok(()),
            _ => Err(QueueError {
                source: "no answer".into(),
            }),
        }
    }
}

/// A machine's clock: right but for its skew.
#[derive(Debug)]
pub(crate) struct SkewedClock {
    base: Arc<ManualClock>,
    skew_us: i64,
}

impl SkewedClock {
    /// The world's time and so many milliseconds.
    #[must_use]
    pub(crate) const fn new(base: Arc<ManualClock>, skew_ms: i64) -> Self {
        Self {
            base,
            skew_us: skew_ms * 1000,
        }
    }
}

impl Clock for SkewedClock {
    fn now_us(&self) -> i64 {
        self.base.now_us() + self.skew_us
    }
}

/// Metric lines: keeps those that would raise an alarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarms(Arc<Mutex<Vec<String>>>);

const ALARMING: [Metric; 3] = [
    Metric::GapsTotal,
    Metric::HaltsTotal,
    Metric::QuarantinedTotal,
];

impl Alarms {
    /// The first alarm, if any was raised.
    #[must_use]
    pub(crate) fn first(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.first().cloned()
    }
}

impl LineSink for Alarms {
    fn write_line(&self, line: &str) {
        if ALARMING.iter().any(|metric| line.contains(metric.name())) {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line.to_owned());
        }
    }
}
