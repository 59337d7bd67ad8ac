//! `bench-commit load`: a hundred batches a second on one table of 32 partitions, through the handlers that ship.
//!
//! The functions run over ports in memory as slow as S3 and Glue ([`crate::latency`]), under what AWS does around them
//! ([`crate::service`]). Time is simulated: the runtime's clock stands while something computes and jumps when everything
//! waits. On Lambda each process has a processor of its own, and here all share one, so that real time would measure this
//! machine. What is computed is counted apart, as CPU time: a batch's share has to be added to its latency.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use change_event::{TopicRegistration, layout, partition::PartitionMap};
use function_kit::Metric;
use functions::{TopicWriter, event, schema};
use serde_json::Value;
use test_kit::{Requests, Seed};
use tokio::time::Instant;

use crate::figures::Figures;
use crate::latency::Moved;
use crate::service::Cloud;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Batches a second that arrive, over all partitions: two that wait together are staged as one.
    #[arg(long, default_value_t = 105.0)]
    pub(crate) rate: f64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 32)]
    pub(crate) partitions: u32,
    /// Pollers, each with its share of the partitions and one invocation at a time.
    #[arg(long, default_value_t = 32)]
    pub(crate) pollers: u32,
    /// Invocations of functions/commit that the queue feeds at once.
    #[arg(long, default_value_t = 2)]
    pub(crate) combiners: usize,
    /// Freshness of the table, in seconds.
    #[arg(long, default_value_t = 1)]
    pub(crate) freshness: u32,
    /// Records in a batch.
    #[arg(long, default_value_t = 10)]
    pub(crate) records: u32,
    /// Simulated seconds.
    #[arg(long, default_value_t = 120)]
    pub(crate) seconds: u32,
    /// Of latencies and arrivals.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

pub(crate) const START_MS: i64 = 1_770_000_000_000;
const TOPIC: &str = "shop.public.orders";

/// A batch and what became of it, in milliseconds since the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) partition: u32,
    pub(crate) end_offset: i64,
    pub(crate) arrived_ms: i64,
    pub(crate) invoked_ms: i64,
    pub(crate) acknowledged_ms: i64,
}

/// Runs and prints. Gives what is above its bar.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> std::io::Result<Vec<String>> {
    let making = generation_seconds(options);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let cpu = thread_seconds();
    // The handlers run on one thread, as in their processes.
    let measured = tokio::task::LocalSet::new().block_on(&runtime, simulate(options));
    let cpu = thread_seconds() - cpu;
    let figures = Figures::of(options, &measured, cpu, making);
    figures.print(options, &measured, out)?;
    Ok(figures.above(options, &measured))
}

/// What a run left to count.
pub(crate) struct Measured {
    pub(crate) batches: Vec<Batch>,
    pub(crate) moves: Vec<Moved>,
    pub(crate) requests: Requests,
    pub(crate) attempts: u64,
    pub(crate) conflicts: u64,
    pub(crate) commits: u64,
    pub(crate) intents: u64,
    pub(crate) messages: u64,
    pub(crate) ingests: u32,
    pub(crate) commit_functions: u32,
    /// When everything was in the table.
    pub(crate) end_ms: i64,
    pub(crate) missing: usize,
}

async fn simulate(options: &Options) -> Measured {
    let cloud = Cloud::new(options.seed, START_MS);
    announce(&cloud, options).await;
    let queue = tokio::task::spawn_local(Arc::clone(&cloud).serve_queue(options.combiners));
    let batches = Arc::new(Mutex::new(Vec::new()));
    let mut pollers = tokio::task::JoinSet::new();
    for poller in 0..options.pollers {
        let partitions: Vec<u32> = (0..options.partitions)
            .filter(|partition| partition % options.pollers == poller)
            .collect();
        pollers.spawn_local(poll(
            Arc::clone(&cloud),
            options.clone(),
            partitions,
            Arc::clone(&batches),
        ));
    }
    while let Some(ended) = pollers.join_next().await {
        ended.expect("a poller");
    }
    let batches = batches.lock().unwrap().clone();
    let mut ends: BTreeMap<u32, i64> = BTreeMap::new();
    for batch in &batches {
        let end = ends.entry(batch.partition).or_default();
        *end = (*end).max(batch.end_offset);
    }
    let in_table = |moved: &Moved| {
        ends.iter()
            .all(|(partition, end)| moved.offsets[partition] >= *end)
    };
    // The tail has to come by itself.
    for _ in 0..u64::from(options.freshness) + 30 {
        if cloud
            .catalog
            .moves
            .lock()
            .unwrap()
            .last()
            .is_some_and(in_table)
        {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    queue.abort();
    let moves = cloud.catalog.moves.lock().unwrap().clone();
    let last = moves.last().cloned();
    let reached = |batch: &&Batch| {
        let last = last.as_ref();
        last.is_some_and(|moved| moved.offsets[&batch.partition] >= batch.end_offset)
    };
    Measured {
        missing: batches.len() - batches.iter().filter(reached).count(),
        end_ms: last.as_ref().map_or(0, |moved| moved.at_ms - START_MS),
        moves,
        batches,
        requests: cloud.meter.read(),
        attempts: *cloud.catalog.attempts.lock().unwrap(),
        conflicts: cloud.metrics.sum(Metric::ConflictsTotal),
        commits: cloud.metrics.sum(Metric::CommitsTotal),
        intents: cloud.metrics.sum(Metric::IntentsTotal),
        messages: cloud.queue.sent(),
        ingests: cloud.ingests.made(),
        commit_functions: cloud.commits.made(),
    }
}

async fn announce(cloud: &Cloud, options: &Options) {
    let registration = TopicRegistration {
        topic: TOPIC.to_owned(),
        source: "shop".to_owned(),
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        lake_database: "lake".to_owned(),
        lake_table: "public__orders".to_owned(),
        topic_incarnation: 1,
        partition_map: PartitionMap::first(options.partitions),
        freshness_seconds: options.freshness,
    };
    let body = serde_json::to_vec(&registration).expect("it serializes");
    let key = layout::registration(TOPIC);
    let announced = cloud.plain.put(&key, Bytes::from(body));
    announced.await.expect("memory takes everything");
    let document = serde_json::to_vec(&schema(1)).expect("it serializes");
    let key = layout::schema_document("shop", TOPIC, 1);
    let published = cloud.plain.put(&key, Bytes::from(document));
    published.await.expect("memory takes everything");
}

/// A partition's next batch.
struct Source {
    writer: TopicWriter,
    next: Instant,
}

/// One poller: hands over whatever has arrived in its partitions, one invocation at a time.
async fn poll(
    cloud: Arc<Cloud>,
    options: Options,
    partitions: Vec<u32>,
    batches: Arc<Mutex<Vec<Batch>>>,
) {
    let start = Instant::now();
    let end = start + Duration::from_secs(u64::from(options.seconds));
    let seed = Seed::new(options.seed * 1_000 + u64::from(partitions[0]));
    let interval = f64::from(options.partitions) / options.rate;
    // From half to one and a half of the mean, so that arrivals drift apart.
    let wait = || {
        let share = u32::try_from(seed.below(1_001)).expect("small");
        Duration::from_secs_f64(interval * (0.5 + f64::from(share) / 1_000.0))
    };
    let mut sources: Vec<Source> = partitions
        .iter()
        .map(|partition| Source {
            writer: TopicWriter::new(TOPIC, *partition),
            next: start + wait(),
        })
        .collect();
    let milliseconds = |at: Instant| i64::try_from((at - start).as_millis()).expect("a short run");
    loop {
        let first = sources.iter().map(|source| source.next).min().expect("one");
        if first >= end {
            break;
        }
        tokio::time::sleep_until(first).await;
        let now = Instant::now();
        let mut records = Vec::new();
        let mut taken = Vec::new();
        for source in &mut sources {
            while source.next <= now && source.next < end {
                records.extend(records_of(&mut source.writer, options.records));
                taken.push(Batch {
                    partition: source.writer.partition,
                    end_offset: source.writer.offset,
                    arrived_ms: milliseconds(source.next),
                    invoked_ms: milliseconds(now),
                    acknowledged_ms: 0,
                });
                source.next += wait();
            }
        }
        let failed = cloud.ingest(&event(&records)).await;
        assert_eq!(failed, 0, "nothing fails here");
        let acknowledged_ms = milliseconds(Instant::now());
        let done = taken.into_iter().map(|batch| Batch {
            acknowledged_ms,
            ..batch
        });
        batches.lock().unwrap().extend(done);
    }
}

fn records_of(writer: &mut TopicWriter, count: u32) -> Vec<Value> {
    (0..count)
        .map(|_| {
            let id = writer.offset % 1_000_000;
            writer.insert(id, "left at the door")
        })
        .collect()
}

/// CPU seconds of making one batch's records: the bench's own work, not firn's.
fn generation_seconds(options: &Options) -> f64 {
    const BATCHES: u32 = 200;
    let mut writer = TopicWriter::new(TOPIC, 0);
    let start = thread_seconds();
    for _ in 0..BATCHES {
        std::hint::black_box(event(&records_of(&mut writer, options.records)));
    }
    (thread_seconds() - start) / f64::from(BATCHES)
}

/// CPU time of this thread (Linux).
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number")).as_secs_f64()
}
