//! One poller: reads its partitions, cuts batches, delivers them one at a time, commits what was taken.
//!
//! Flow: records -> **here** -> deliver -> response -> commit of offsets.
//!
//! # Invariants
//! - One delivery at a time: the next batch of a partition is sent after the answer to the last, so order per partition holds.
//!   (What seeded faults add runs beside it and never moves an offset.)
//! - An offset is committed only when the function took every record before it.
//! - A failed batch comes again as it was, without end, after a wait that doubles up to a bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::batch::PendingRecords;
use crate::fault::{DeliveryFaults, FaultSchedule};
use crate::invoke::{Deliverer, DeliveryError};
use crate::metrics::{Counter, Living, Metrics, PartitionProgress};
use crate::payload::RenderedRecord;
use crate::records::{Fetched, RecordSource};
use crate::response::{first_failures, next_offsets, split};

/// A late delivery stops waiting for newer batches after this: a quiet topic must have an end.
const LATE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a poller waits.
#[derive(Debug, Clone, Copy)]
pub struct PollerTimes {
    /// How long a batch fills, from its first record.
    pub window: Duration,
    /// Wait after the first failure of a batch.
    pub retry_min: Duration,
    /// Longest wait between two tries.
    pub retry_max: Duration,
}

/// What a poller is made of.
#[derive(Debug)]
pub struct Poller<S> {
    /// Its topic.
    pub topic: String,
    /// Its records.
    pub source: S,
    /// What waits.
    pub pending: PendingRecords,
    /// The way to the function.
    pub deliverer: Arc<Deliverer>,
    /// How it waits.
    pub times: PollerTimes,
    /// What goes wrong on purpose.
    pub faults: FaultSchedule,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// How far each of its partitions is.
    pub progress: BTreeMap<i32, Arc<PartitionProgress>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Go,
    Stop,
}

/// State between two deliveries.
#[derive(Debug)]
struct Between {
    /// The next batch is cut at this size without waiting for more: a batch that comes again, or a re-cut.
    batch_records: Option<usize>,
    /// Wait before the next try after a failure.
    backoff: Duration,
    /// Ends of partitions, reached while records still waited.
    ends: BTreeMap<i32, i64>,
    /// Offsets committed so far.
    committed: BTreeMap<i32, i64>,
    /// Batches that were taken.
    batches: watch::Sender<u64>,
}

impl<S: RecordSource> Poller<S> {
    /// Polls until `stop` becomes true (or its sender is gone); an invocation that runs is waited for.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut between = Between {
            batch_records: None,
            backoff: self.times.retry_min,
            ends: BTreeMap::new(),
            committed: BTreeMap::new(),
            batches: watch::Sender::new(0),
        };
        loop {
            if between.batch_records.is_none()
                && self.fill(&mut between, &mut stop).await == Step::Stop
            {
                break;
            }
            let batch = self.pending.cut(between.batch_records.take());
            if self.deliver(batch, &mut between).await {
                between.backoff = self.times.retry_min;
                continue;
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(between.backoff) => {}
            }
            between.backoff = (between.backoff * 2).min(self.times.retry_max);
        }
        self.source.commit_and_wait(&between.committed).await;
    }

    /// Reads until a batch is full or the window of its first record is over.
    async fn fill(&mut self, between: &mut Between, stop: &mut watch::Receiver<bool>) -> Step {
        // What was left by the last cut has waited long enough; only what is here already joins it.
        let mut window_end = (!self.pending.is_empty()).then(Instant::now);
        while !self.pending.fills_a_batch() {
            let window_over = async {
                match window_end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let fetched = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Step::Stop,
                fetched = self.source.next() => fetched,
                () = window_over => return Step::Go,
            };
            self.take(fetched, between);
            if window_end.is_none() && !self.pending.is_empty() {
                window_end = Some(Instant::now() + self.times.window);
            }
        }
        Step::Go
    }

    fn take(&mut self, fetched: Fetched, between: &mut Between) {
        match fetched {
            Fetched::Record(record) => {
                let (partition, offset, size_bytes) =
                    (record.partition, record.offset, record.json.len());
                between.ends.remove(&partition);
                if !self.pending.push(record) {
                    self.metrics.add(Counter::DroppedOversize, &self.topic, 1);
                    tracing::error!(
                        topic = self.topic,
                        partition,
                        offset,
                        size_bytes,
                        "record dropped: its event is larger than a Lambda payload may be"
                    );
                }
            }
            Fetched::End {
                partition,
                position: Some(position),
            } => {
                between.ends.insert(partition, position);
                self.pass_ends(&mut between.ends);
            }
            Fetched::End { position: None, .. } => {}
            Fetched::Trouble(error) => {
                self.metrics.add(Counter::KafkaErrors, &self.topic, 1);
                tracing::warn!(topic = self.topic, %error, "kafka client has trouble and goes on");
            }
        }
    }

    /// Moves partitions of which nothing waits to their ends: behind the last record there may be markers.
    fn pass_ends(&self, ends: &mut BTreeMap<i32, i64>) {
        ends.retain(|partition, position| {
            let waits = self.pending.holds_partition(*partition);
            if !waits {
                self.advance(*partition, *position);
            }
            waits
        });
    }

    fn advance(&self, partition: i32, next_offset: i64) {
        if let Some(progress) = self.progress.get(&partition) {
            progress.advance(next_offset);
        }
    }

    /// Delivers a batch; false if nothing of it was taken.
    async fn deliver(&mut self, batch: Vec<RenderedRecord>, between: &mut Between) -> bool {
        let delivered = batch
            .iter()
            .filter(|record| !record.json.is_empty())
            .count();
        if delivered == 0 {
            self.settle(batch, between);
            return true;
        }
        let payload = self.pending.payload(&batch);
        let faults = self.faults.draw(batch.len());
        self.begin_strays(&payload, &faults, &between.batches);
        let answer = self
            .deliverer
            .deliver(&self.topic, payload, faults.abandon_after)
            .await;
        let failures = answer.and_then(|answer| Ok(first_failures(&self.topic, &batch, &answer)?));
        match failures {
            Ok(failures) => {
                let settlement = split(batch, &failures);
                let taken = !settlement.done.is_empty();
                if !failures.is_empty() {
                    self.count_partial_failure(&failures, settlement.again.len());
                    between.batch_records = Some(settlement.again.len());
                }
                self.pending.put_back(settlement.again);
                let done = self.recut(settlement.done, &faults, between);
                self.settle(done, between);
                taken
            }
            Err(error) => {
                self.count_failure(&error);
                between.batch_records = Some(batch.len());
                self.pending.put_back(batch);
                false
            }
        }
    }

    /// Takes records as done: counts them, commits their offsets.
    fn settle(&mut self, done: Vec<RenderedRecord>, between: &mut Between) {
        if done.is_empty() {
            return;
        }
        let offsets = next_offsets(&done);
        for (partition, offset) in &offsets {
            self.advance(*partition, *offset);
        }
        let delivered = done.iter().filter(|record| !record.json.is_empty()).count();
        self.metrics
            .add(Counter::RecordsDelivered, &self.topic, delivered);
        self.source.commit(&offsets);
        between.committed.extend(offsets);
        between.batches.send_modify(|batches| *batches += 1);
        self.pass_ends(&mut between.ends);
    }

    /// Seeded fault: only the front of what was taken counts, the rest comes again with other boundaries.
    fn recut(
        &mut self,
        mut done: Vec<RenderedRecord>,
        faults: &DeliveryFaults,
        between: &mut Between,
    ) -> Vec<RenderedRecord> {
        let Some(recut) = faults.recut.filter(|recut| recut.keep_records < done.len()) else {
            return done;
        };
        self.metrics.add(Counter::Faults, "recut", 1);
        self.metrics.add(Counter::Redeliveries, &self.topic, 1);
        self.pending.put_back(done.split_off(recut.keep_records));
        between.batch_records = Some(recut.next_batch_records);
        done
    }

    fn count_failure(&self, error: &DeliveryError) {
        self.metrics.add(Counter::Failures, error.reason(), 1);
        self.metrics.add(Counter::Redeliveries, &self.topic, 1);
        if matches!(error, DeliveryError::Abandoned) {
            self.metrics.add(Counter::Faults, "abandon", 1);
            return;
        }
        let cause = std::error::Error::source(error)
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::warn!(topic = self.topic, %error, cause, "batch failed and comes again");
    }

    fn count_partial_failure(&self, failures: &BTreeMap<i32, i64>, record_count: usize) {
        self.metrics.add(Counter::PartialFailures, &self.topic, 1);
        self.metrics.add(Counter::Redeliveries, &self.topic, 1);
        for (partition, offset) in failures {
            tracing::warn!(
                topic = self.topic,
                partition,
                offset,
                record_count,
                "partition failed from this offset on and comes again"
            );
        }
    }

    /// Starts the deliveries that faults add; their answers move nothing.
    fn begin_strays(&self, payload: &[u8], faults: &DeliveryFaults, batches: &watch::Sender<u64>) {
        if let Some(wait) = faults.duplicate_after {
            self.metrics.add(Counter::Faults, "duplicate", 1);
            self.begin_stray(payload, tokio::time::sleep(wait));
        }
        if let Some(count) = faults.late_after_batches {
            self.metrics.add(Counter::Faults, "late", 1);
            let mut batches = batches.subscribe();
            let due = *batches.borrow() + count;
            self.begin_stray(payload, async move {
                let newer = batches.wait_for(|batches| *batches >= due);
                // Both ends of the wait are good: enough newer batches, or too long a quiet.
                let _late_enough = tokio::time::timeout(LATE_WAIT_MAX, newer).await.is_ok();
            });
        }
    }

    fn begin_stray(&self, payload: &[u8], wait: impl Future<Output = ()> + Send + 'static) {
        let (deliverer, topic) = (Arc::clone(&self.deliverer), self.topic.clone());
        let (payload, living): (_, Living) = (payload.to_vec(), self.metrics.begin_stray());
        tokio::spawn(async move {
            wait.await;
            if let Err(error) = deliverer.deliver(&topic, payload, None).await {
                tracing::debug!(topic, %error, "a delivery that a fault added failed");
            }
            drop(living);
        });
    }
}

#[cfg(test)]
mod tests;
