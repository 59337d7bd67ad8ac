//! One broker, several topics: what arrives at the function, and what is committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use change_event::partition::PartitionMap;
use change_event::{TopicRegistration, layout};
use clap::Parser;
use event_source::Options;
use event_source::invoke::Deliverer;
use event_source::metrics::{Counter, Metrics};
use event_source::records::{Broker, KafkaTopics};
use event_source::supervisor::Supervisor;
use function_kit::{FunctionInvoker, InvokeError};
use object_io::{FolderStore, ObjectStore};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use test_kit::kafka::KafkaBroker;
use tokio::sync::{Notify, watch};

/// Longest that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Takes everything; keeps partition and key of each record by topic, in the order of arrival.
#[derive(Debug)]
struct Recorder {
    records: Mutex<BTreeMap<String, Vec<(i64, String)>>>,
    count: watch::Sender<usize>,
    hangs: bool,
}

#[async_trait]
impl FunctionInvoker for Recorder {
    async fn invoke(&self, _function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        let event: serde_json::Value = serde_json::from_slice(&payload).expect("valid JSON");
        let mut count = 0;
        {
            let mut seen = self.records.lock().expect("not poisoned");
            for record in event["records"]
                .as_object()
                .unwrap()
                .values()
                .flat_map(|group| group.as_array().unwrap())
            {
                let topic = record["topic"].as_str().unwrap().to_owned();
                let key = record["key"].as_str().unwrap_or_default().to_owned();
                assert_eq!(
                    record["headers"][0]["firn"][0], 1,
                    "the header's first byte"
                );
                seen.entry(topic)
                    .or_default()
                    .push((record["partition"].as_i64().unwrap(), key));
                count += 1;
            }
        }
        self.count.send_modify(|seen| *seen += count);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(b"{\"batchItemFailures\":[]}".to_vec())
    }
}

struct Running {
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    topics: KafkaTopics,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// Where everything lies.
struct Place {
    servers: String,
    store: Arc<dyn ObjectStore>,
}

impl Place {
    fn run(&self, hangs: bool, arguments: &[&str]) -> Running {
        let all = [
            "event-source",
            "--bootstrap-servers",
            &self.servers,
            "--registry-interval-ms",
            "100",
        ];
        let options = Options::parse_from(all.iter().chain(arguments));
        let recorder = Arc::new(Recorder {
            records: Mutex::default(),
            count: watch::Sender::new(0),
            hangs,
        });
        let metrics = Arc::new(Metrics::default());
        let invoker: Arc<dyn FunctionInvoker> = Arc::<Recorder>::clone(&recorder);
        let broker = Broker {
            bootstrap_servers: self.servers.clone(),
            isolation: options.isolation,
            group_prefix: options.group_prefix.clone(),
        };
        let topics = KafkaTopics::new(&broker).unwrap();
        let deliverer = Arc::new(Deliverer::new(
            invoker,
            "f",
            PATIENCE,
            8,
            Arc::clone(&metrics),
        ));
        let supervisor = Supervisor {
            options,
            seed: 7,
            store: Arc::clone(&self.store),
            broker,
            topics: topics.clone(),
            deliverer,
            metrics: Arc::clone(&metrics),
        };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(supervisor.run(Arc::new(Notify::new()), stopped));
        Running {
            recorder,
            metrics,
            topics,
            stop,
            task,
        }
    }

    async fn register(&self, topic: &str) {
        let registration = TopicRegistration {
            topic: topic.to_owned(),
            source: "shop".to_owned(),
            table_schema: "public".to_owned(),
            table_name: topic.to_owned(),
            lake_database: "lake".to_owned(),
            lake_table: topic.to_owned(),
            topic_incarnation: 1,
            partition_map: PartitionMap::first(2),
            freshness_seconds: 2,
        };
        let body = serde_json::to_vec(&registration).unwrap();
        self.store
            .put(&layout::registration(topic), body.into())
            .await
            .unwrap();
    }

    async fn create(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .create()
            .unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let results = admin
            .create_topics([&new], &AdminOptions::new())
            .await
            .unwrap();
        results[0].as_ref().unwrap();
        self.register(topic).await;
    }

    /// Writes records `from..to` in one transaction, key = number, partition = number % partitions.
    fn write(
        &self,
        topic: &str,
        partitions: i32,
        numbers: std::ops::Range<i32>,
        value: &[u8],
        commit: bool,
    ) {
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("transactional.id", format!("writer-{topic}"))
            .set("linger.ms", "5")
            .set("message.max.bytes", "8000000")
            .set("queue.buffering.max.messages", "1000000")
            .create::<ThreadedProducer<rdkafka::producer::DefaultProducerContext>>()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for number in numbers {
            let key = number.to_string();
            let firn = Header {
                key: "firn",
                value: Some(&[1_u8, 200][..]),
            };
            let record = BaseRecord::to(topic)
                .partition(number % partitions)
                .key(&key)
                .payload(value)
                .headers(OwnedHeaders::new().insert(firn));
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(Timeout::Never).unwrap();
        } else {
            producer.abort_transaction(Timeout::Never).unwrap();
        }
    }

    fn committed(&self, topic: &str, partitions: i32) -> Vec<Offset> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", format!("firn-{topic}"))
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
        committed
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::offset)
            .collect()
    }
}

impl Running {
    async fn wait_for(&self, count: usize) {
        let mut seen = self.recorder.count.subscribe();
        tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= count))
            .await
            .unwrap()
            .unwrap();
    }

    /// Waits until the broker's ends are reached on every partition.
    async fn wait_for_tail(&self) {
        let reached = async {
            loop {
                let lags = self.topics.lags(self.metrics.partitions()).await;
                if !lags.is_empty() && lags.iter().all(|lag| lag.records == Some(0)) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the tail is reached");
    }

    /// Keys of a topic's partition in the order of arrival.
    fn keys(&self, topic: &str, partition: i64) -> Vec<i32> {
        let records = self.recorder.records.lock().expect("not poisoned");
        let of_topic = records.get(topic).map(Vec::as_slice).unwrap_or_default();
        let keys = of_topic
            .iter()
            .filter(|(p, _)| *p == partition)
            .map(|(_, key)| number(key));
        keys.collect()
    }

    async fn finish(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// The number in a base64 key.
fn number(key: &str) -> i32 {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(key)
        .unwrap();
    String::from_utf8(bytes).unwrap().parse().unwrap()
}

fn every(partition: i32, partitions: i32, numbers: std::ops::Range<i32>) -> Vec<i32> {
    numbers
        .filter(|number| number % partitions == partition)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_broker_gives_each_record_in_order_at_both_levels_and_across_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut broker) = KafkaBroker::start(folder.path()).await.unwrap() else {
        return;
    };
    let store = FolderStore::new(&folder.path().join("bucket"));
    let place = Place {
        servers: broker.bootstrap_servers(),
        store: Arc::new(store),
    };
    both_isolation_levels(&place).await;
    crash_before_the_commit(&place).await;
    merged_partitions_and_a_large_record(&place).await;
    broker_crash(&place, &mut broker).await;
    throughput(&place).await;
}

/// Committed records arrive at both levels, aborted ones only uncommitted; progress passes the markers; a second run has
/// nothing to deliver.
async fn both_isolation_levels(place: &Place) {
    place.create("levels", 2).await;
    place.write("levels", 2, 0..10, b"x", true);
    place.write("levels", 2, 10..20, b"x", false);
    place.write("levels", 2, 20..30, b"x", true);
    place.write("levels", 2, 30..34, b"x", false);
    let run = place.run(false, &[]);
    run.wait_for(20).await;
    run.wait_for_tail().await;
    for partition in 0..2 {
        let expected = [every(partition, 2, 0..10), every(partition, 2, 20..30)].concat();
        assert_eq!(run.keys("levels", i64::from(partition)), expected);
    }
    run.finish().await;
    // 5 records, 1 marker; 5 aborted, 1 marker; 5 records: the offset after the last record taken.
    assert_eq!(
        place.committed("levels", 2),
        [Offset::Offset(17), Offset::Offset(17)]
    );
    let again = place.run(false, &[]);
    again.wait_for_tail().await;
    assert!(again.keys("levels", 0).is_empty());
    again.finish().await;
    let uncommitted = [
        "--isolation",
        "read_uncommitted",
        "--group-prefix",
        "other-",
    ];
    let run = place.run(false, &uncommitted);
    run.wait_for(34).await;
    run.wait_for_tail().await;
    assert_eq!(run.keys("levels", 1), every(1, 2, 0..34));
    run.finish().await;
}

/// A process that dies while the function runs has committed nothing: the next delivers all of it.
async fn crash_before_the_commit(place: &Place) {
    place.create("crash", 1).await;
    place.write("crash", 1, 0..50, b"x", true);
    let run = place.run(true, &[]);
    run.wait_for(50).await;
    run.task.abort();
    assert!(run.task.await.unwrap_err().is_cancelled());
    assert_eq!(place.committed("crash", 1), [Offset::Invalid]);
    let run = place.run(false, &[]);
    run.wait_for(50).await;
    run.finish().await;
    assert_eq!(place.committed("crash", 1), [Offset::Offset(50)]);
}

/// One payload holds several partitions; a record above the cap is dropped, counted and passed.
async fn merged_partitions_and_a_large_record(place: &Place) {
    place.create("merged", 3).await;
    place.write("merged", 3, 0..9, b"x", true);
    place.write("merged", 3, 9..10, &vec![b'x'; 5_000_000], true);
    place.write("merged", 3, 10..19, b"x", true);
    let run = place.run(false, &["--merge-partitions"]);
    run.wait_for(18).await;
    run.wait_for_tail().await;
    assert_eq!(run.metrics.value(Counter::DroppedOversize, "merged"), 1);
    assert_eq!(run.keys("merged", 0), [0, 3, 6, 12, 15, 18]);
    assert!(run.metrics.value(Counter::Deliveries, "merged") <= 2);
    run.finish().await;
}

/// The broker dies and comes back: reading goes on, and topics that appear meanwhile are found.
async fn broker_crash(place: &Place, broker: &mut KafkaBroker) {
    place.create("outage", 1).await;
    place.write("outage", 1, 0..10, b"x", true);
    let run = place.run(false, &["--window-ms", "10"]);
    run.wait_for(10).await;
    broker.kill().unwrap();
    broker.restart().await.unwrap();
    place.write("outage", 1, 10..20, b"x", true);
    place.create("later", 1).await;
    place.write("later", 1, 0..5, b"x", true);
    run.wait_for(25).await;
    run.wait_for_tail().await;
    assert_eq!(run.keys("outage", 0), every(0, 1, 0..20));
    assert_eq!(run.keys("later", 0), every(0, 1, 0..5));
    run.finish().await;
}

/// Prints how fast records of 300 bytes become payloads.
async fn throughput(place: &Place) {
    const COUNT: i32 = 200_000;
    place.create("fast", 2).await;
    let value = [b'x'; 300];
    place.write("fast", 2, 0..COUNT, &value, true);
    let run = place.run(false, &["--window-ms", "50"]);
    let begin = tokio::time::Instant::now();
    run.wait_for(usize::try_from(COUNT).unwrap()).await;
    let seconds = begin.elapsed().as_secs_f64();
    let value_mb = f64::from(COUNT) * 300.0 / 1e6;
    eprintln!("{value_mb} MB of values in {seconds:.1} s, function (JSON parse) included");
    run.wait_for_tail().await;
    assert_eq!(run.keys("fast", 1), every(1, 2, 0..COUNT));
    run.finish().await;
}
