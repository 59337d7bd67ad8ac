//! What AWS does around the functions: warm processes, pollers' invocations, a queue with delays.
//!
//! # Invariants
//! - A process handles one invocation at a time; the one that was busy last is taken first, and a new one made if none is idle.
//! - What was sent to the queue is handed over once, ten messages at a time, to a bounded number of invocations at once.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use commit::Commit;
use ddl::Ddl;
use function_kit::ddl::DdlClient;
use function_kit::metric::MemoryLines;
use function_kit::{Deadline, DelayedQueue, Metrics, QueueError, Registry};
use functions::InProcess;
use ingest::Ingest;
use object_io::{MemoryStore, ObjectStore};
use table_commit::{Catalog, Committer, MemoryCatalog};
use test_kit::{Meter, MeteredCatalog, MeteredStore, Seed, SeededIds};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use change_event::{Clock, IdSource};

use crate::latency::{INVOKE, QUEUE, RuntimeClock, SlowCatalog, SlowStore};

/// Partitions of a payload that a function stages at a time, and tables that it combines: the functions' defaults.
const CONCURRENCY: usize = 8;
const QUEUE_BATCH: usize = 10;
const FUNCTION_MS: i64 = 60_000;

/// Processes of a function.
#[derive(Debug)]
pub(crate) struct Pool<F> {
    idle: Mutex<Vec<F>>,
    made: Mutex<u32>,
}

impl<F> Default for Pool<F> {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            made: Mutex::default(),
        }
    }
}

impl<F> Pool<F> {
    fn take(&self, make: impl FnOnce() -> F) -> F {
        self.idle.lock().unwrap().pop().unwrap_or_else(|| {
            *self.made.lock().unwrap() += 1;
            make()
        })
    }

    fn give_back(&self, process: F) {
        self.idle.lock().unwrap().push(process);
    }

    pub(crate) fn made(&self) -> u32 {
        *self.made.lock().unwrap()
    }
}

/// A deployment over slow ports in memory.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// Without latency and uncounted: for setting up and looking.
    pub(crate) plain: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Arc<SlowCatalog>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) metrics: MemoryLines,
    pub(crate) queue: Arc<Queue>,
    pub(crate) ingests: Pool<Ingest>,
    pub(crate) commits: Pool<Commit>,
    store: Arc<dyn ObjectStore>,
    metered: Arc<dyn Catalog>,
    seed: Arc<Seed>,
}

impl Cloud {
    pub(crate) fn new(seed: u64, start_ms: i64) -> Arc<Self> {
        let seed = Arc::new(Seed::new(seed));
        let meter = Arc::new(Meter::default());
        let plain: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("lake"));
        let slow = SlowStore {
            inner: Arc::clone(&plain),
            seed: Arc::clone(&seed),
        };
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::new(start_ms));
        let catalog = Arc::new(SlowCatalog {
            inner: Arc::new(MemoryCatalog::default()),
            seed: Arc::clone(&seed),
            clock: Arc::clone(&clock),
            moves: Mutex::default(),
            attempts: Mutex::default(),
        });
        Arc::new(Self {
            plain,
            clock,
            store: Arc::new(MeteredStore::new(Arc::new(slow), Arc::clone(&meter))),
            metered: Arc::new(MeteredCatalog::new(
                Arc::clone(&catalog) as Arc<dyn Catalog>,
                Arc::clone(&meter),
            )),
            catalog,
            meter,
            metrics: MemoryLines::default(),
            queue: Arc::new(Queue {
                seed: Arc::clone(&seed),
                waiting: Mutex::default(),
                sent: Mutex::default(),
                changed: Notify::new(),
            }),
            ingests: Pool::default(),
            commits: Pool::default(),
            seed,
        })
    }

    /// An invocation of functions/ingest. Gives the partitions that must come again.
    pub(crate) async fn ingest(&self, payload: &[u8]) -> usize {
        INVOKE.pass(&self.seed).await;
        let function = self.ingests.take(|| self.make_ingest());
        let deadline = Deadline::after(FUNCTION_MS, self.clock.as_ref());
        let answer = function.handle(payload, deadline).await.expect("an answer");
        self.ingests.give_back(function);
        answer.batch_item_failures.len()
    }

    /// Hands messages to functions/commit, until the task is dropped.
    pub(crate) async fn serve_queue(self: Arc<Self>, concurrency: usize) {
        let pollers = Arc::new(Semaphore::new(concurrency));
        loop {
            let permit = Arc::clone(&pollers).acquire_owned().await.expect("open");
            let bodies = self.queue.next().await;
            let cloud = Arc::clone(&self);
            tokio::task::spawn_local(async move {
                INVOKE.pass(&cloud.seed).await;
                let function = cloud.commits.take(|| cloud.make_commit());
                let records: Vec<_> = bodies
                    .iter()
                    .map(|body| serde_json::json!({"messageId": "m", "body": body}))
                    .collect();
                let event = serde_json::json!({"Records": records}).to_string();
                let deadline = Deadline::after(FUNCTION_MS, cloud.clock.as_ref());
                let answer = function.handle(event.as_bytes(), deadline).await;
                drop(answer.expect("an answer"));
                cloud.commits.give_back(function);
                drop(permit);
            });
        }
    }

    /// The protocol in a process of its own.
    fn committer(&self) -> Committer {
        Committer::new(
            Arc::clone(&self.store),
            Arc::clone(&self.metered),
            Arc::clone(&self.clock),
            self.ids(),
        )
    }

    fn ids(&self) -> Arc<dyn IdSource> {
        Arc::new(SeededIds::new(self.seed.next()))
    }

    fn metrics(&self, function: &'static str) -> Metrics {
        Metrics::new(
            function,
            Arc::clone(&self.clock),
            Arc::new(self.metrics.clone()),
        )
    }

    fn ddl(&self) -> DdlClient {
        let registry = Registry::new(Arc::clone(&self.store));
        let ddl = Ddl::new(registry, self.committer(), self.metrics("ddl"));
        DdlClient::new(Arc::new(InProcess::new(ddl)), "firn-ddl".to_owned())
    }

    fn make_ingest(&self) -> Ingest {
        let ports = ingest::Ports {
            registry: Registry::new(Arc::clone(&self.store)),
            store: Arc::clone(&self.store),
            committer: self.committer(),
            ddl: self.ddl(),
            queue: Arc::clone(&self.queue) as Arc<dyn DelayedQueue>,
            clock: Arc::clone(&self.clock),
            ids: self.ids(),
            metrics: self.metrics("ingest"),
        };
        Ingest::new(ports, CONCURRENCY)
    }

    fn make_commit(&self) -> Commit {
        let ports = commit::Ports {
            registry: Registry::new(Arc::clone(&self.store)),
            committer: self.committer(),
            ddl: self.ddl(),
            queue: Arc::clone(&self.queue) as Arc<dyn DelayedQueue>,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics("commit"),
        };
        Commit::new(ports, CONCURRENCY)
    }
}

/// A queue whose messages appear after their delay.
#[derive(Debug)]
pub(crate) struct Queue {
    seed: Arc<Seed>,
    waiting: Mutex<Vec<(Instant, String)>>,
    sent: Mutex<u64>,
    changed: Notify,
}

impl Queue {
    pub(crate) fn sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }

    /// The messages that are there, when some are.
    async fn next(&self) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            let first = {
                let mut waiting = self.waiting.lock().unwrap();
                waiting.sort_by_key(|(at, _)| *at);
                let there = waiting.iter().take_while(|(at, _)| *at <= now).count();
                if there > 0 {
                    let taken = waiting.drain(..there.min(QUEUE_BATCH));
                    return taken.map(|(_, body)| body).collect();
                }
                waiting.first().map(|(at, _)| *at)
            };
            match first {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }
}

#[async_trait]
impl DelayedQueue for Queue {
    async fn send(&self, body: &str, delay_seconds: u32) -> Result<(), QueueError> {
        QUEUE.pass(&self.seed).await;
        let at = Instant::now() + Duration::from_secs(u64::from(delay_seconds));
        self.waiting.lock().unwrap().push((at, body.to_owned()));
        *self.sent.lock().unwrap() += 1;
        self.changed.notify_one();
        Ok(())
    }
}
