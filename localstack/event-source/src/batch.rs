//! Records that wait for a delivery, and how a batch is cut from them.
//!
//! Flow: records (Kafka) -> **here** -> one invocation.
//!
//! # Invariants
//! - A batch is the front of what waits; each partition keeps its order, whatever came back.
//! - The event of a batch is at most `payload_bytes_max` long.
//! - A batch is never empty while something waits.

use std::collections::{BTreeSet, VecDeque};

use crate::payload::{PayloadFrame, RenderedRecord};

/// What bounds a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Records at most.
    pub records_max: usize,
    /// Bytes of the event's JSON at most.
    pub payload_bytes_max: usize,
}

/// Records in the order in which they will be delivered.
#[derive(Debug)]
pub struct PendingRecords {
    limits: BatchLimits,
    frame: PayloadFrame,
    records: VecDeque<RenderedRecord>,
    /// Bytes of all that wait, with a comma each.
    records_bytes: usize,
}

impl PendingRecords {
    /// Nothing waits.
    #[must_use]
    pub fn new(limits: BatchLimits, frame: PayloadFrame) -> Self {
        Self {
            limits,
            frame,
            records: VecDeque::new(),
            records_bytes: 0,
        }
    }

    /// Adds a fetched record behind all others; false if it alone is above the cap, so that only its offset is kept.
    pub fn push(&mut self, mut record: RenderedRecord) -> bool {
        let alone = self.frame.frame_bytes()
            + self.frame.partition_bytes(record.partition)
            + record.json.len()
            + 1;
        let fits = alone <= self.limits.payload_bytes_max;
        if !fits {
            record.json = String::new();
        }
        self.records_bytes += cost(&record);
        self.records.push_back(record);
        fits
    }

    /// Puts records back before all others; `records` must be older than what waits of their partitions.
    pub fn put_back(&mut self, records: Vec<RenderedRecord>) {
        for record in records.into_iter().rev() {
            self.records_bytes += cost(&record);
            self.records.push_front(record);
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a record of this partition waits.
    #[must_use]
    pub fn holds_partition(&self, partition: i32) -> bool {
        self.records
            .iter()
            .any(|record| record.partition == partition)
    }

    /// Whether waiting longer would not make the next batch larger.
    #[must_use]
    pub fn fills_a_batch(&self) -> bool {
        self.records.len() >= self.limits.records_max
            || self.records_bytes >= self.limits.payload_bytes_max
    }

    /// Takes the next batch: at most `records_max` of the limits, and of the argument.
    pub fn cut(&mut self, records_max: Option<usize>) -> Vec<RenderedRecord> {
        let count_max = self
            .limits
            .records_max
            .min(records_max.unwrap_or(usize::MAX))
            .max(1);
        let mut bytes = self.frame.frame_bytes();
        let mut partitions = BTreeSet::new();
        let mut count = 0;
        for record in self.records.iter().take(count_max) {
            if partitions.insert(record.partition) {
                bytes += self.frame.partition_bytes(record.partition);
            }
            bytes += cost(record);
            if bytes > self.limits.payload_bytes_max && count > 0 {
                break;
            }
            count += 1;
        }
        let batch: Vec<_> = self.records.drain(..count).collect();
        self.records_bytes -= batch.iter().map(cost).sum::<usize>();
        batch
    }

    /// The event of a batch.
    #[must_use]
    pub fn payload(&self, batch: &[RenderedRecord]) -> Vec<u8> {
        self.frame.payload(batch)
    }
}

/// Bytes that a record adds to a payload: itself and a comma; nothing if it is not delivered.
fn cost(record: &RenderedRecord) -> usize {
    if record.json.is_empty() {
        0
    } else {
        record.json.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(records_max: usize, payload_bytes_max: usize) -> PendingRecords {
        PendingRecords::new(
            BatchLimits {
                records_max,
                payload_bytes_max,
            },
            PayloadFrame::new("t", "arn", "b"),
        )
    }

    fn record(partition: i32, offset: i64, bytes: usize) -> RenderedRecord {
        RenderedRecord {
            partition,
            offset,
            json: format!("\"{}\"", "x".repeat(bytes - 2)),
        }
    }

    fn offsets(batch: &[RenderedRecord]) -> Vec<i64> {
        batch.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn payload_never_exceeds_the_cap_and_uses_it() {
        let mut waiting = pending(10_000, 1_000);
        let mut left = 200;
        for offset in 0..left {
            let partition = i32::try_from(offset % 11).expect("small");
            let bytes = usize::try_from(20 + offset % 97).expect("small");
            assert!(waiting.push(record(partition, offset, bytes)));
        }
        let mut sizes = Vec::new();
        while !waiting.is_empty() {
            assert_eq!(waiting.fills_a_batch(), waiting.records_bytes >= 1_000);
            let batch = waiting.cut(None);
            left -= i64::try_from(batch.len()).expect("small");
            let size = waiting.payload(&batch).len();
            assert!(size <= 1_000, "{size}");
            sizes.push(size);
        }
        assert_eq!((left, waiting.records_bytes), (0, 0));
        sizes.pop();
        assert!(sizes.iter().all(|size| *size > 850), "{sizes:?}");
    }

    #[test]
    fn record_at_the_cap_passes_and_one_byte_more_is_dropped() {
        let frame = PayloadFrame::new("t", "arn", "b");
        let overhead = frame.frame_bytes() + frame.partition_bytes(0) + 1;
        let mut waiting = pending(10, 1_000);
        assert!(waiting.push(record(0, 1, 1_000 - overhead)));
        assert!(!waiting.push(record(0, 2, 1_001 - overhead)));
        assert!(waiting.push(record(0, 3, 10)));
        let batch = waiting.cut(None);
        assert_eq!(offsets(&batch), [1, 2]);
        assert!((998..=1_000).contains(&waiting.payload(&batch).len()));
        assert_eq!(offsets(&waiting.cut(None)), [3]);
    }

    #[test]
    fn what_comes_back_goes_first_and_is_cut_elsewhere() {
        let mut waiting = pending(4, 100_000);
        for offset in 0..6 {
            waiting.push(record(0, offset, 10));
        }
        assert!(waiting.fills_a_batch());
        let batch = waiting.cut(None);
        assert_eq!(offsets(&batch), [0, 1, 2, 3]);
        waiting.put_back(batch[1..].to_vec());
        assert_eq!(offsets(&waiting.cut(Some(2))), [1, 2]);
        assert_eq!(offsets(&waiting.cut(Some(0))), [3]);
        assert!(waiting.holds_partition(0));
        assert_eq!(offsets(&waiting.cut(None)), [4, 5]);
        assert!(!waiting.holds_partition(0));
        assert_eq!(waiting.cut(None), []);
    }
}
