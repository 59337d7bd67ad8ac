//! Ports that count, that fail on demand, and that call the next function in the same process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ddl::Ddl;
use function_kit::{DelayedQueue, FunctionInvoker, InvokeError, QueueError};
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use test_kit::{Meter, MeteredStore, Requests};

/// A store that counts its requests, and refuses keys on demand.
#[derive(Debug)]
pub struct CountingStore {
    inner: MeteredStore,
    meter: Arc<Meter>,
    refused: Mutex<Option<String>>,
    gives_way: AtomicBool,
}

impl CountingStore {
    /// A store over `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, meter: Arc<Meter>) -> Self {
        Self {
            inner: MeteredStore::new(inner, Arc::clone(&meter)),
            meter,
            refused: Mutex::default(),
            gives_way: AtomicBool::new(false),
        }
    }

    /// From now on each read lets other tasks go first, or no longer.
    pub fn give_way(&self, gives_way: bool) {
        self.gives_way.store(gives_way, Ordering::Relaxed);
    }

    /// Gives the count of the store's and the catalog's requests and begins anew.
    pub fn take(&self) -> Requests {
        self.meter.take()
    }

    /// From now on every request whose key holds `part` gets no answer.
    pub fn silence(&self, part: Option<&str>) {
        *self.refused.lock().unwrap() = part.map(str::to_owned);
    }

    fn check(&self, operation: &'static str, key: &str) -> Result<(), ObjectError> {
        match &*self.refused.lock().unwrap() {
            Some(part) if key.contains(part.as_str()) => Err(ObjectError::Unavailable {
                operation,
                key: key.to_owned(),
                source: "silenced".into(),
            }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    fn uri_prefix(&self) -> &str {
        self.inner.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.check("get", key)?;
        if self.gives_way.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        self.inner.get(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        self.check("put", key)?;
        self.inner.put_if_absent(key, body).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.check("put", key)?;
        self.inner.put(key, body).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.check("list", prefix)?;
        self.inner.list_page(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.check("delete", key)?;
        self.inner.delete(key).await
    }
}

/// functions/ddl, called in this process.
#[derive(Debug)]
pub struct InProcess {
    ddl: Ddl,
    calls: Mutex<u32>,
    down: AtomicBool,
}

impl InProcess {
    /// Calls go to this handler.
    #[must_use]
    pub fn new(ddl: Ddl) -> Self {
        Self {
            ddl,
            calls: Mutex::default(),
            down: AtomicBool::new(false),
        }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u32 {
        *self.calls.lock().unwrap()
    }

    /// From now on calls get no answer, or get one again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
}

#[async_trait]
impl FunctionInvoker for InProcess {
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        *self.calls.lock().unwrap() += 1;
        let function = function.to_owned();
        if self.down.load(Ordering::Relaxed) {
            return Err(InvokeError::Unknown {
                function,
                source: "down".into(),
            });
        }
        match self.ddl.handle(&payload).await {
            Ok(answer) => Ok(serde_json::to_vec(&answer).unwrap()),
            Err(failure) => Err(InvokeError::Failed {
                function,
                error_type: failure.error_type.to_owned(),
                message: failure.message,
            }),
        }
    }
}

/// A queue that keeps what is sent: body and delay in seconds.
#[derive(Debug, Default)]
pub struct MemoryQueue {
    sent: Mutex<Vec<(String, u32)>>,
}

impl MemoryQueue {
    /// What was sent since the last look.
    pub fn take(&self) -> Vec<(String, u32)> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

#[async_trait]
impl DelayedQueue for MemoryQueue {
    async fn send(&self, body: &str, delay_seconds: u32) -> Result<(), QueueError> {
        self.sent
            .lock()
            .unwrap()
            .push((body.to_owned(), delay_seconds));
        Ok(())
    }
}
