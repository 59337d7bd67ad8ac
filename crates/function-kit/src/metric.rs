//! Counters as lines of CloudWatch's embedded metric format: no call, no agent, the log is the transport.
//!
//! Shape: one line for each table and batch. The function is the only dimension, because every dimension value is a metric
//! of its own that costs money each month; the topic is a plain field, found by a log query.
//!
//! # Source
//! CloudWatch user guide, "Specification: Embedded metric format".

use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};

use change_event::Clock;
use serde_json::{Map, Value, json};

/// CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "firn";

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Records taken from topics, duplicates included.
    RecordsTotal,
    /// Rows staged.
    RowsTotal,
    /// Records that were known already and dropped.
    DuplicatesTotal,
    /// Records set aside in quarantine.
    QuarantinedTotal,
    /// Batches refused because records are missing before them.
    GapsTotal,
    /// Partitions whose batch failed and comes again.
    PartitionsFailedTotal,
    /// Intents won.
    IntentsTotal,
    /// Bytes of staged Parquet files.
    StagedBytes,
    /// Snapshots committed.
    CommitsTotal,
    /// Lost compare-and-sets.
    ConflictsTotal,
    /// Combines that failed.
    CombineFailuresTotal,
    /// Tables that must not go on.
    HaltsTotal,
    /// Schema versions applied.
    SchemaChangesTotal,
    /// Event source mappings created.
    MappingsCreatedTotal,
    /// Slots of committed intents removed.
    RemovedSlotsTotal,
    /// Files removed that nothing named.
    RemovedFilesTotal,
    /// Bytes of files that nothing names, as a run found them.
    OrphanBytes,
    /// Tables that could not be looked through.
    MaintainFailuresTotal,
}

impl Metric {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordsTotal => "records_total",
            Self::RowsTotal => "rows_total",
            Self::DuplicatesTotal => "duplicates_total",
            Self::QuarantinedTotal => "quarantined_total",
            Self::GapsTotal => "gaps_total",
            Self::PartitionsFailedTotal => "partitions_failed_total",
            Self::IntentsTotal => "intents_total",
            Self::StagedBytes => "staged_bytes",
            Self::CommitsTotal => "commits_total",
            Self::ConflictsTotal => "conflicts_total",
            Self::CombineFailuresTotal => "combine_failures_total",
            Self::HaltsTotal => "halts_total",
            Self::SchemaChangesTotal => "schema_changes_total",
            Self::MappingsCreatedTotal => "mappings_created_total",
            Self::RemovedSlotsTotal => "removed_slots_total",
            Self::RemovedFilesTotal => "removed_files_total",
            Self::OrphanBytes => "orphan_bytes",
            Self::MaintainFailuresTotal => "maintain_failures_total",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::StagedBytes | Self::OrphanBytes => "Bytes",
            Self::RecordsTotal
            | Self::RowsTotal
            | Self::DuplicatesTotal
            | Self::QuarantinedTotal
            | Self::GapsTotal
            | Self::PartitionsFailedTotal
            | Self::IntentsTotal
            | Self::CommitsTotal
            | Self::ConflictsTotal
            | Self::CombineFailuresTotal
            | Self::HaltsTotal
            | Self::SchemaChangesTotal
            | Self::MappingsCreatedTotal
            | Self::RemovedSlotsTotal
            | Self::RemovedFilesTotal
            | Self::MaintainFailuresTotal => "Count",
        }
    }
}

/// Where metric lines go.
pub trait LineSink: Debug + Send + Sync {
    /// Writes one line.
    fn write_line(&self, line: &str);
}

/// Standard output, which Lambda sends to CloudWatch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stdout;

impl LineSink for Stdout {
    fn write_line(&self, line: &str) {
        if let Err(error) = writeln!(std::io::stdout().lock(), "{line}") {
            tracing::warn!(%error, "metric line not written");
        }
    }
}

/// Lines kept for a test.
#[derive(Debug, Clone, Default)]
pub struct MemoryLines {
    lines: Arc<Mutex<Vec<String>>>,
}

impl MemoryLines {
    /// Sum of all values of a metric so far.
    #[must_use]
    pub fn sum(&self, metric: Metric) -> u64 {
        let lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        lines
            .iter()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line)
                    .ok()?
                    .get(metric.name())?
                    .as_u64()
            })
            .sum()
    }
}

impl LineSink for MemoryLines {
    fn write_line(&self, line: &str) {
        self.lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(line.to_owned());
    }
}

/// The metrics of one function.
#[derive(Debug, Clone)]
pub struct Metrics {
    function: &'static str,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn LineSink>,
}

impl Metrics {
    /// Metrics that go to `sink`.
    #[must_use]
    pub fn new(function: &'static str, clock: Arc<dyn Clock>, sink: Arc<dyn LineSink>) -> Self {
        Self {
            function,
            clock,
            sink,
        }
    }

    /// Counts what happened to a topic; zeros are left out, and nothing at all writes no line.
    pub fn count(&self, topic: &str, values: &[(Metric, u64)]) {
        let values: Vec<_> = values.iter().filter(|(_, value)| *value > 0).collect();
        if values.is_empty() {
            return;
        }
        let definitions: Vec<_> = values
            .iter()
            .map(|(metric, _)| json!({"Name": metric.name(), "Unit": metric.unit()}))
            .collect();
        let mut line = Map::new();
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": self.clock.now_ms(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["function"]],
                    "Metrics": definitions,
                }],
            }),
        );
        line.insert("function".to_owned(), Value::from(self.function));
        line.insert("topic".to_owned(), Value::from(topic));
        for (metric, value) in values {
            line.insert(metric.name().to_owned(), Value::from(*value));
        }
        self.sink.write_line(&Value::Object(line).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct At;
    impl Clock for At {
        fn now_us(&self) -> i64 {
            5_000
        }
    }

    #[test]
    fn line_follows_the_embedded_metric_format() {
        let lines = MemoryLines::default();
        let metrics = Metrics::new("ingest", Arc::new(At), Arc::new(lines.clone()));
        metrics.count(
            "shop.public.a",
            &[(Metric::RecordsTotal, 3), (Metric::GapsTotal, 0)],
        );
        metrics.count("shop.public.a", &[(Metric::GapsTotal, 0)]);
        let written = lines.lines.lock().expect("not poisoned").clone();
        let line: Value = serde_json::from_str(&written[0]).expect("it is JSON");
        assert_eq!(written.len(), 1);
        assert_eq!(
            line,
            json!({
                "_aws": {"Timestamp": 5, "CloudWatchMetrics": [{
                    "Namespace": "firn", "Dimensions": [["function"]],
                    "Metrics": [{"Name": "records_total", "Unit": "Count"}]}]},
                "function": "ingest", "topic": "shop.public.a", "records_total": 3
            })
        );
        assert_eq!(lines.sum(Metric::RecordsTotal), 3);
    }
}
