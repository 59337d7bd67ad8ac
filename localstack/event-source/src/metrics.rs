//! Counters of the event source, and how far each partition is delivered.
//!
//! # Invariants
//! - Counters only rise; their names end in `_total`.
//! - A partition's `next_offset` moves only after the function took everything before it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::records::PartitionLag;

/// A counter, by topic or by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Invocations, by topic.
    Deliveries,
    /// Records in invocations that succeeded, by topic.
    RecordsDelivered,
    /// Bytes of payloads sent, by topic.
    PayloadBytes,
    /// Batches that came again after a failure, by topic.
    Redeliveries,
    /// Invocations that failed, by reason.
    Failures,
    /// Partial batch responses, by topic.
    PartialFailures,
    /// Seeded faults, by kind.
    Faults,
    /// Records above the payload cap, by topic.
    DroppedOversize,
    /// Errors of the Kafka client, by topic.
    KafkaErrors,
}

impl Counter {
    const fn name_and_label(self) -> (&'static str, &'static str) {
        match self {
            Self::Deliveries => ("deliveries_total", "topic"),
            Self::RecordsDelivered => ("records_delivered_total", "topic"),
            Self::PayloadBytes => ("payload_bytes_total", "topic"),
            Self::Redeliveries => ("redeliveries_total", "topic"),
            Self::Failures => ("failures_total", "reason"),
            Self::PartialFailures => ("partial_failures_total", "topic"),
            Self::Faults => ("faults_total", "kind"),
            Self::DroppedOversize => ("dropped_oversize_total", "topic"),
            Self::KafkaErrors => ("kafka_errors_total", "topic"),
        }
    }
}

/// How far one partition is delivered.
#[derive(Debug)]
pub struct PartitionProgress {
    next_offset: AtomicI64,
}

impl PartitionProgress {
    /// The offset before which everything is delivered; none until the poller knows.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        Some(self.next_offset.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
    }

    /// Moves on; never back.
    pub fn advance(&self, next_offset: i64) {
        self.next_offset.fetch_max(next_offset, Ordering::AcqRel);
    }
}

/// A gauge that counts what lives.
#[derive(Debug)]
pub struct Living(Arc<AtomicU64>);

impl Living {
    fn of(gauge: &Arc<AtomicU64>) -> Self {
        gauge.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(gauge))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All numbers of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    counters: Mutex<BTreeMap<(Counter, String), u64>>,
    partitions: Mutex<BTreeMap<(String, i32), Arc<PartitionProgress>>>,
    in_flight: Arc<AtomicU64>,
    strays: Arc<AtomicU64>,
    topics_waiting: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Adds to a counter; `label` is the topic, kind or reason.
    pub fn add(&self, counter: Counter, label: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let mut counters = lock(&self.counters);
        *counters.entry((counter, label.to_owned())).or_default() += count;
    }

    /// The value of a counter; 0 if it never moved.
    #[must_use]
    pub fn value(&self, counter: Counter, label: &str) -> u64 {
        lock(&self.counters)
            .get(&(counter, label.to_owned()))
            .copied()
            .unwrap_or(0)
    }

    /// Counts an invocation while the result lives.
    #[must_use]
    pub fn begin_invocation(&self) -> Living {
        Living::of(&self.in_flight)
    }

    /// Counts a delivery that a fault added, from its draw to its end.
    #[must_use]
    pub fn begin_stray(&self) -> Living {
        Living::of(&self.strays)
    }

    /// Deliveries that faults added and that are not over yet.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Acquire)
    }

    /// Invocations that run now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Registered topics of which some partition has no poller yet.
    #[must_use]
    pub fn topics_waiting(&self) -> u64 {
        self.topics_waiting.load(Ordering::Acquire)
    }

    /// See [`Self::topics_waiting`].
    pub fn set_topics_waiting(&self, count: usize) {
        self.topics_waiting
            .store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// A partition whose poller starts (anew): nothing is known of it.
    #[must_use]
    pub fn begin_partition(&self, topic: &str, partition: i32) -> Arc<PartitionProgress> {
        let progress = Arc::new(PartitionProgress {
            next_offset: AtomicI64::new(-1),
        });
        lock(&self.partitions).insert((topic.to_owned(), partition), Arc::clone(&progress));
        progress
    }

    /// Topic, partition and delivered offset of every partition that has or had a poller.
    #[must_use]
    pub fn partitions(&self) -> Vec<(String, i32, Option<i64>)> {
        let partitions = lock(&self.partitions);
        let row = |((topic, partition), progress): (&(String, i32), &Arc<PartitionProgress>)| {
            (topic.clone(), *partition, progress.next_offset())
        };
        partitions.iter().map(row).collect()
    }

    /// Everything in Prometheus' text form.
    #[must_use]
    pub fn render(&self, lags: &[PartitionLag]) -> String {
        let mut out = String::new();
        let mut last = None;
        for ((counter, label), value) in &*lock(&self.counters) {
            let (name, label_name) = counter.name_and_label();
            if last.replace(*counter) != Some(*counter) {
                let _infallible = writeln!(out, "# TYPE firn_event_source_{name} counter");
            }
            let _infallible = writeln!(
                out,
                "firn_event_source_{name}{{{label_name}=\"{label}\"}} {value}"
            );
        }
        let gauges = [
            ("in_flight", self.in_flight()),
            ("strays", self.strays()),
            ("topics_waiting", self.topics_waiting()),
        ];
        for (name, value) in gauges {
            let _infallible = writeln!(
                out,
                "# TYPE firn_event_source_{name} gauge\nfirn_event_source_{name} {value}"
            );
        }
        out.push_str("# TYPE firn_event_source_lag_records gauge\n");
        for PartitionLag {
            topic,
            partition,
            records,
        } in lags
        {
            let lag = records.map_or_else(|| "NaN".to_owned(), |records| records.to_string());
            let _infallible = writeln!(
                out,
                "firn_event_source_lag_records{{topic=\"{topic}\",partition=\"{partition}\"}} {lag}"
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_lags_are_rendered_once_per_name() {
        let metrics = Metrics::default();
        metrics.add(Counter::Deliveries, "a", 1);
        metrics.add(Counter::Deliveries, "b", 2);
        metrics.add(Counter::Deliveries, "a", 1);
        let stray = metrics.begin_stray();
        let text = metrics.render(&[
            PartitionLag {
                topic: "a".to_owned(),
                partition: 0,
                records: Some(7),
            },
            PartitionLag {
                topic: "a".to_owned(),
                partition: 1,
                records: None,
            },
        ]);
        assert!(text.contains(
            "deliveries_total{topic=\"a\"} 2\nfirn_event_source_deliveries_total{topic=\"b\"} 2\n"
        ));
        assert_eq!(
            text.matches("# TYPE firn_event_source_deliveries_total counter")
                .count(),
            1
        );
        assert!(text.contains("firn_event_source_strays 1\n"));
        assert!(text.contains("lag_records{topic=\"a\",partition=\"0\"} 7\n"));
        drop(stray);
        assert_eq!(metrics.strays(), 0);
    }

    #[test]
    fn progress_never_goes_back_and_starts_unknown() {
        let metrics = Metrics::default();
        let progress = metrics.begin_partition("a", 0);
        assert_eq!(metrics.partitions(), [("a".to_owned(), 0, None)]);
        progress.advance(5);
        progress.advance(3);
        assert_eq!(metrics.partitions(), [("a".to_owned(), 0, Some(5))]);
    }
}
