//! A poller against a scripted topic and a scripted function, on paused time.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use function_kit::{FunctionInvoker, InvokeError};
use tokio::sync::mpsc;

use super::*;
use crate::batch::BatchLimits;
use crate::fault::FaultOptions;
use crate::payload::PayloadFrame;

const TOPIC: &str = "t-x";

/// A topic that is written by the test; commits are kept in order.
#[derive(Debug)]
struct ScriptedRecords {
    records: mpsc::UnboundedReceiver<Fetched>,
    commits: Arc<Mutex<Vec<BTreeMap<i32, i64>>>>,
}

#[async_trait]
impl RecordSource for ScriptedRecords {
    async fn next(&mut self) -> Fetched {
        match self.records.recv().await {
            Some(fetched) => fetched,
            None => std::future::pending().await,
        }
    }

    fn commit(&mut self, next_offsets: &BTreeMap<i32, i64>) {
        self.commits
            .lock()
            .expect("not poisoned")
            .push(next_offsets.clone());
    }

    async fn commit_and_wait(&mut self, next_offsets: &BTreeMap<i32, i64>) {
        self.commit(next_offsets);
    }
}

#[derive(Debug, Clone)]
enum Answer {
    Say(&'static str),
    Fail,
    Hang,
}

/// A function that answers from a list, then with success; it keeps the places of every delivery.
#[derive(Debug, Default)]
struct ScriptedFunction {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Vec<(i64, i64)>>>,
}

fn places(payload: &[u8]) -> Vec<(i64, i64)> {
    let event: serde_json::Value = serde_json::from_slice(payload).expect("valid JSON");
    let groups = event["records"].as_object().expect("an object").values();
    let place = |record: &serde_json::Value| {
        (
            record["partition"].as_i64().expect("a number"),
            record["offset"].as_i64().expect("a number"),
        )
    };
    groups
        .flat_map(|group| group.as_array().expect("an array"))
        .map(place)
        .collect()
}

#[async_trait]
impl FunctionInvoker for ScriptedFunction {
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        self.seen
            .lock()
            .expect("not poisoned")
            .push(places(&payload));
        let answer = self.answers.lock().expect("not poisoned").pop_front();
        match answer.unwrap_or(Answer::Say("{}")) {
            Answer::Say(text) => Ok(text.as_bytes().to_vec()),
            Answer::Hang => std::future::pending().await,
            Answer::Fail => Err(InvokeError::Failed {
                function: function.to_owned(),
                error_type: "Some".to_owned(),
                message: String::new(),
            }),
        }
    }
}

struct Bench {
    write: mpsc::UnboundedSender<Fetched>,
    function: Arc<ScriptedFunction>,
    commits: Arc<Mutex<Vec<BTreeMap<i32, i64>>>>,
    metrics: Arc<Metrics>,
    progress: BTreeMap<i32, Arc<PartitionProgress>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(records_max: usize, faults: &str, answers: &[Answer]) -> Self {
        let (write, records) = mpsc::unbounded_channel();
        let commits = Arc::new(Mutex::new(Vec::new()));
        let function = Arc::new(ScriptedFunction {
            answers: Mutex::new(answers.iter().cloned().collect()),
            seen: Mutex::default(),
        });
        let metrics = Arc::new(Metrics::default());
        let invoker: Arc<dyn FunctionInvoker> = Arc::<ScriptedFunction>::clone(&function);
        let timeout = Duration::from_secs(60);
        let deliverer = Deliverer::new(invoker, "f", timeout, 8, Arc::clone(&metrics));
        let progress: BTreeMap<_, _> = [0, 1]
            .into_iter()
            .map(|p| (p, metrics.begin_partition(TOPIC, p)))
            .collect();
        let faults: FaultOptions = faults.parse().expect("valid");
        let poller = Poller {
            topic: TOPIC.to_owned(),
            source: ScriptedRecords {
                records,
                commits: Arc::clone(&commits),
            },
            pending: PendingRecords::new(
                BatchLimits {
                    records_max,
                    payload_bytes_max: 2_000,
                },
                PayloadFrame::new(TOPIC, "arn", "b"),
            ),
            deliverer: Arc::new(deliverer),
            times: PollerTimes {
                window: Duration::from_millis(500),
                retry_min: Duration::from_millis(100),
                retry_max: Duration::from_secs(1),
            },
            faults: FaultSchedule::new(faults, 7, ""),
            metrics: Arc::clone(&metrics),
            progress: progress.clone(),
        };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(poller.run(stopped));
        Self {
            write,
            function,
            commits,
            metrics,
            progress,
            stop,
            task,
        }
    }

    fn put(&self, partition: i32, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            let json = format!("{{\"partition\":{partition},\"offset\":{offset}}}");
            self.write
                .send(Fetched::Record(RenderedRecord {
                    partition,
                    offset,
                    json,
                }))
                .expect("read");
        }
    }

    fn end(&self, partition: i32, position: i64) {
        self.write
            .send(Fetched::End {
                partition,
                position: Some(position),
            })
            .expect("read");
    }

    /// Lets the poller run on paused time.
    async fn pass(&self, time_ms: u64) {
        tokio::time::sleep(Duration::from_millis(time_ms)).await;
    }

    fn seen(&self) -> Vec<Vec<(i64, i64)>> {
        self.function.seen.lock().expect("not poisoned").clone()
    }

    fn next_offset(&self, partition: i32) -> Option<i64> {
        self.progress[&partition].next_offset()
    }

    async fn finish(self) -> BTreeMap<i32, i64> {
        self.stop.send_replace(true);
        self.task.await.expect("ends");
        self.commits
            .lock()
            .expect("not poisoned")
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

fn of_zero(offsets: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    offsets.into_iter().map(|offset| (0, offset)).collect()
}

#[tokio::test(start_paused = true)]
async fn full_batch_goes_at_once_and_the_rest_when_the_window_is_over() {
    let bench = Bench::new(3, "", &[]);
    bench.put(0, 0..4);
    bench.pass(1).await;
    assert_eq!(bench.seen(), [of_zero(0..3)]);
    bench.pass(450).await;
    bench.put(0, [9]);
    assert_eq!(bench.seen().len(), 1);
    bench.pass(60).await;
    assert_eq!(bench.seen()[1..], [of_zero([3, 9])]);
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 10)]));
}

#[tokio::test(start_paused = true)]
async fn failed_batch_comes_again_as_it_was_and_nothing_is_committed_before() {
    let answers = [
        Answer::Fail,
        Answer::Say("nonsense"),
        Answer::Hang,
        Answer::Say("null"),
    ];
    let bench = Bench::new(10, "", &answers);
    bench.put(0, 0..2);
    bench.pass(501).await;
    bench.put(0, 2..4);
    bench.pass(10_000).await;
    assert_eq!(bench.seen(), [of_zero(0..2), of_zero(0..2), of_zero(0..2)]);
    assert_eq!(bench.next_offset(0), None);
    assert!(bench.commits.lock().expect("not poisoned").is_empty());
    bench.pass(70_000).await;
    assert_eq!(bench.seen()[3..], [of_zero(0..2), of_zero(2..4)]);
    assert_eq!(bench.metrics.value(Counter::Failures, "timed_out"), 1);
    assert_eq!(bench.metrics.value(Counter::Redeliveries, TOPIC), 3);
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 4)]));
}

#[tokio::test(start_paused = true)]
async fn partial_failure_commits_the_rest_and_brings_back_its_partition() {
    let partial = r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"t-x-0","offset":5}}]}"#;
    let bench = Bench::new(10, "", &[Answer::Say(partial), Answer::Say(partial)]);
    bench.put(0, [4, 5]);
    bench.put(1, [8]);
    bench.put(0, [6]);
    bench.pass(501).await;
    assert_eq!(
        (bench.next_offset(0), bench.next_offset(1)),
        (Some(5), Some(9))
    );
    bench.pass(1_000).await;
    let all = vec![(0, 4), (0, 5), (0, 6), (1, 8)];
    assert_eq!(bench.seen(), [all, of_zero([5, 6]), of_zero([5, 6])]);
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 7), (1, 9)]));
}

#[tokio::test(start_paused = true)]
async fn end_of_partition_moves_progress_past_markers_only_when_nothing_waits() {
    let bench = Bench::new(10, "", &[]);
    bench.end(1, 3);
    bench.put(0, [0]);
    bench.end(0, 2);
    bench.pass(1).await;
    assert_eq!(
        (bench.next_offset(0), bench.next_offset(1)),
        (None, Some(3))
    );
    bench.pass(500).await;
    assert_eq!(bench.next_offset(0), Some(2));
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 1)]));
}

#[tokio::test(start_paused = true)]
async fn oversize_record_is_dropped_counted_and_passed() {
    let bench = Bench::new(10, "", &[]);
    let json = "x".repeat(3_000);
    bench
        .write
        .send(Fetched::Record(RenderedRecord {
            partition: 0,
            offset: 0,
            json,
        }))
        .expect("read");
    bench.pass(501).await;
    assert_eq!((bench.seen().len(), bench.next_offset(0)), (0, Some(1)));
    assert_eq!(bench.metrics.value(Counter::DroppedOversize, TOPIC), 1);
    bench.put(0, [1]);
    bench.pass(501).await;
    assert_eq!(bench.seen(), [of_zero([1])]);
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 2)]));
}

#[tokio::test(start_paused = true)]
async fn faults_add_deliveries_and_lose_none() {
    let faults = "duplicate=0.3,recut=0.3,late=0.3,abandon=0.3";
    let bench = Bench::new(5, faults, &vec![Answer::Hang; 10]);
    for start in 0..60 {
        bench.put(0, start * 5..start * 5 + 5);
        bench.pass(600).await;
    }
    bench.pass(700_000).await;
    assert_eq!(bench.next_offset(0), Some(300));
    assert_eq!(bench.metrics.strays(), 0);
    let seen = bench.seen();
    let mut offsets: Vec<i64> = seen.iter().flatten().map(|(_, offset)| *offset).collect();
    assert!(offsets.len() > 350, "{}", offsets.len());
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    for kind in ["duplicate", "recut", "late", "abandon"] {
        assert!(bench.metrics.value(Counter::Faults, kind) > 0, "{kind}");
    }
    let cuts = seen.iter().filter(|batch| batch.len() < 5).count();
    let backward = seen
        .windows(2)
        .filter(|pair| pair[1][0] < pair[0][0])
        .count();
    assert!(cuts > 0 && backward > 0, "{cuts} {backward}");
    let committed = bench.commits.lock().expect("not poisoned").clone();
    assert!(committed.windows(2).all(|pair| pair[0][&0] < pair[1][&0]));
    assert_eq!(bench.finish().await, BTreeMap::from([(0, 300)]));
}
