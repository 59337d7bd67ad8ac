//! A deployment in memory: bucket, catalog, queue and the functions.

use std::sync::Arc;

use bytes::Bytes;
use change_event::partition::PartitionMap;
use change_event::{Clock, IdSource, Lsn, SourceSchema, TopicRegistration, layout};
use commit::{Answer, Commit};
use ddl::Ddl;
use function_kit::ddl::DdlClient;
use function_kit::metric::MemoryLines;
use function_kit::{
    Deadline, DelayedQueue, FunctionInvoker, KafkaBatchResponse, Metric, Metrics, Registry,
};
use ingest::Ingest;
use maintain::{Ages, Maintain, Settings, Summary};
use object_io::{MemoryStore, ObjectStore};
use serde_json::Value;
use table_commit::{Catalog, Committer, LoadedTable, MemoryCatalog, TableName};
use test_kit::{FaultyCatalog, FaultyStore, ManualClock, Meter, MeteredCatalog, SeededIds};

use crate::lake::{self, Row};
use crate::ports::{CountingStore, InProcess, MemoryQueue};
use crate::topic::event;

/// When tests begin: a moment in 2026.
pub const NOW_MS: i64 = 1_770_000_000_000;

/// A deadline so many minutes ahead is far.
#[must_use]
pub const fn minutes(count: i64) -> i64 {
    count * 60_000
}

/// So many hours in milliseconds.
#[must_use]
pub const fn hours(count: i64) -> i64 {
    minutes(count * 60)
}

/// So many days in milliseconds.
#[must_use]
pub const fn days(count: i64) -> i64 {
    hours(count * 24)
}

/// A deployment in memory.
#[derive(Debug)]
pub struct World {
    /// The bucket, counted.
    pub store: Arc<CountingStore>,
    /// Time.
    pub clock: Arc<ManualClock>,
    /// The queue of functions/commit.
    pub queue: Arc<MemoryQueue>,
    /// functions/ddl as others call it.
    pub ddl: Arc<InProcess>,
    /// Metric lines of all functions.
    pub metrics: MemoryLines,
    /// The protocol, for a look at tables.
    pub committer: Committer,
    metered: Arc<MeteredCatalog>,
    /// The catalog.
    pub catalog: Arc<MemoryCatalog>,
    ids: Arc<SeededIds>,
}

impl World {
    /// An empty deployment.
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let store = MemoryStore::new("lake").with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let catalog = Arc::new(MemoryCatalog::default());
        let over = (
            Arc::new(store) as Arc<dyn ObjectStore>,
            Arc::clone(&catalog) as Arc<dyn Catalog>,
        );
        Self::over(over, clock, catalog, 7)
    }

    /// The same deployment, seen through a store and a catalog that fail by plan. Ids are of another seed.
    #[must_use]
    pub fn through(&self, store: Arc<FaultyStore>, catalog: Arc<FaultyCatalog>, seed: u64) -> Self {
        let (clock, memory) = (Arc::clone(&self.clock), Arc::clone(&self.catalog));
        Self::over((store, catalog), clock, memory, seed)
    }

    fn over(
        (store, ports_catalog): (Arc<dyn ObjectStore>, Arc<dyn Catalog>),
        clock: Arc<ManualClock>,
        catalog: Arc<MemoryCatalog>,
        seed: u64,
    ) -> Self {
        let meter = Arc::new(Meter::default());
        let store = Arc::new(CountingStore::new(store, Arc::clone(&meter)));
        let ids = Arc::new(SeededIds::new(seed));
        let metrics = MemoryLines::default();
        let metered = Arc::new(MeteredCatalog::new(ports_catalog, meter));
        let committer = || {
            Committer::new(
                Arc::clone(&store) as Arc<dyn ObjectStore>,
                Arc::clone(&metered) as Arc<dyn Catalog>,
                Arc::clone(&clock) as Arc<dyn Clock>,
                Arc::clone(&ids) as Arc<dyn IdSource>,
            )
        };
        let registry = Registry::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let ddl_metrics = Metrics::new(
            "ddl",
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(metrics.clone()),
        );
        let ddl = Arc::new(InProcess::new(Ddl::new(registry, committer(), ddl_metrics)));
        let queue = Arc::new(MemoryQueue::default());
        Self {
            committer: committer(),
            store,
            clock,
            queue,
            ddl,
            metrics,
            metered,
            catalog,
            ids,
        }
    }

    /// The agent announces a topic with `partitions`, and schema version 1.
    pub async fn announce(&self, table: &str, partitions: u32, freshness_seconds: u32) -> String {
        let topic = format!("shop.public.{table}");
        let registration = TopicRegistration {
            topic: topic.clone(),
            source: "shop".to_owned(),
            table_schema: "public".to_owned(),
            table_name: table.to_owned(),
            lake_database: "lake".to_owned(),
            lake_table: format!("public__{table}"),
            topic_incarnation: 1,
            partition_map: PartitionMap::first(partitions),
            freshness_seconds,
        };
        self.register(&registration).await;
        self.publish(&topic, &crate::topic::schema(1)).await;
        topic
    }

    /// The agent announces a topic as it is by now.
    pub async fn register(&self, registration: &TopicRegistration) {
        let key = layout::registration(&registration.topic);
        let body = serde_json::to_vec(registration).unwrap();
        self.store.put(&key, Bytes::from(body)).await.unwrap();
    }

    /// What the agent announced about the topic of a table.
    pub async fn registration(&self, table: &str) -> TopicRegistration {
        let key = layout::registration(&format!("shop.public.{table}"));
        let body = self.store.get(&key).await.unwrap().expect("announced");
        serde_json::from_slice(&body).unwrap()
    }

    /// The agent announces more partitions for a topic; their barrier is the test's to write.
    pub async fn raise(&self, topic: &str, partitions: u32) {
        let key = layout::registration(topic);
        let body = self.store.get(&key).await.unwrap().unwrap();
        let mut registration: TopicRegistration = serde_json::from_slice(&body).unwrap();
        registration.partition_map = registration.partition_map.raised(partitions, Lsn(200));
        let body = serde_json::to_vec(&registration).unwrap();
        self.store.put(&key, Bytes::from(body)).await.unwrap();
    }

    /// The agent publishes a schema document.
    pub async fn publish(&self, topic: &str, schema: &SourceSchema) {
        let key = layout::schema_document("shop", topic, schema.version);
        self.store
            .put(&key, Bytes::from(serde_json::to_vec(schema).unwrap()))
            .await
            .unwrap();
    }

    /// functions/ingest, cold.
    #[must_use]
    pub fn ingest(&self) -> Ingest {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        let ports = ingest::Ports {
            registry: Registry::new(Arc::clone(&store)),
            store,
            committer: self.cold_committer(),
            ddl: self.ddl_client(),
            queue: Arc::clone(&self.queue) as Arc<dyn DelayedQueue>,
            clock: Arc::clone(&clock),
            ids: Arc::clone(&self.ids) as Arc<dyn IdSource>,
            metrics: Metrics::new("ingest", clock, Arc::new(self.metrics.clone())),
        };
        Ingest::new(ports, 4)
    }

    /// functions/commit, cold.
    #[must_use]
    pub fn committing(&self) -> Commit {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ports = commit::Ports {
            registry: Registry::new(Arc::clone(&self.store) as Arc<dyn ObjectStore>),
            committer: self.cold_committer(),
            ddl: self.ddl_client(),
            queue: Arc::clone(&self.queue) as Arc<dyn DelayedQueue>,
            clock: Arc::clone(&clock),
            metrics: Metrics::new("commit", clock, Arc::new(self.metrics.clone())),
        };
        Commit::new(ports, 4)
    }

    /// functions/commit, cold, answering one event.
    pub async fn commit(&self, payload: &str) -> Answer {
        self.commit_by(&self.committing(), payload).await
    }

    /// A function answers one event.
    pub async fn commit_by(&self, function: &Commit, payload: &str) -> Answer {
        let deadline = self.deadline(minutes(5));
        function
            .handle(payload.as_bytes(), deadline)
            .await
            .expect("an answer")
    }

    /// A process of its own keeps nothing warm of another's.
    fn cold_committer(&self) -> Committer {
        Committer::new(
            Arc::clone(&self.store) as Arc<dyn ObjectStore>,
            Arc::clone(&self.metered) as Arc<dyn Catalog>,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.ids) as Arc<dyn IdSource>,
        )
    }

    /// functions/maintain with default settings, answering one event.
    pub async fn maintain(&self, payload: &str) -> Summary {
        let settings = Settings {
            ages: Ages::default(),
            removals_max: 100_000,
        };
        let deadline = self.deadline(minutes(14));
        self.maintainer(settings)
            .handle(payload.as_bytes(), deadline)
            .await
            .expect("an answer")
    }

    /// functions/maintain.
    #[must_use]
    pub fn maintainer(&self, settings: Settings) -> Maintain {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        let ports = maintain::Ports {
            registry: Registry::new(Arc::clone(&store)),
            store,
            committer: self.cold_committer(),
            clock: Arc::clone(&clock),
            metrics: Metrics::new("maintain", clock, Arc::new(self.metrics.clone())),
        };
        Maintain::new(ports, settings)
    }

    fn ddl_client(&self) -> DdlClient {
        DdlClient::new(
            Arc::clone(&self.ddl) as Arc<dyn FunctionInvoker>,
            "firn-ddl".to_owned(),
        )
    }

    /// A deadline so many milliseconds ahead.
    #[must_use]
    pub fn deadline(&self, length_ms: i64) -> Deadline {
        Deadline::after(length_ms, self.clock.as_ref())
    }

    /// Hands records to an ingest function; gives partition and offset of what must come again.
    pub async fn deliver(&self, ingest: &Ingest, records: &[Value]) -> Vec<(String, i64)> {
        let response = ingest
            .handle(&event(records), self.deadline(minutes(5)))
            .await
            .expect("an answer");
        failures(&response)
    }

    /// A table.
    pub async fn table(&self, table: &str) -> LoadedTable {
        let name = TableName {
            database: "lake".to_owned(),
            table: format!("public__{table}"),
        };
        self.committer
            .load(&name)
            .await
            .unwrap()
            .expect("the table")
    }

    /// Somebody drops a table.
    pub fn drop_table(&self, table: &str) {
        let table = format!("public__{table}");
        self.catalog.drop_table(&TableName {
            database: "lake".to_owned(),
            table,
        });
    }

    /// Rows of a table's head.
    pub async fn rows(&self, table: &str) -> Vec<Row> {
        let metadata = self.table(table).await.metadata;
        lake::rows(self.store.as_ref(), &metadata).await.unwrap()
    }

    /// Values of `id` in a table, in the order of `_pos`.
    pub async fn ids_in(&self, table: &str) -> Vec<String> {
        self.rows(table)
            .await
            .iter()
            .map(|row| row["id"].clone())
            .collect()
    }

    /// Keys below a prefix.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.store.list(prefix).await.unwrap();
        objects.into_iter().map(|object| object.key).collect()
    }

    /// Objects in quarantine: key and content.
    pub async fn quarantine(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for object in self.store.list("quarantine/").await.unwrap() {
            let body = self.store.get(&object.key).await.unwrap().unwrap();
            found.push((object.key, serde_json::from_slice(&body).unwrap()));
        }
        found
    }

    /// Sum of a metric over all functions.
    #[must_use]
    pub fn sum(&self, metric: Metric) -> u64 {
        self.metrics.sum(metric)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn failures(response: &KafkaBatchResponse) -> Vec<(String, i64)> {
    let of = |failure: &function_kit::batch::KafkaItemFailure| {
        (
            failure.item_identifier.partition.clone(),
            failure.item_identifier.offset,
        )
    };
    response.batch_item_failures.iter().map(of).collect()
}
