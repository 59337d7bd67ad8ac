//! What the agent knows of itself, for `/`, `/metrics` and `/healthz`.
//!
//! Flow: session, monitor -> **here** -> `page`, `metrics`.
//!
//! # Invariants
//! - Written once per Kafka transaction or rarer, never per row.
//! - Holds names, counts and positions, never a value of a row.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use change_event::{Lsn, TopicRegistration};

/// Seconds over which the rate is taken.
const RATE_WINDOW_MS: i64 = 10_000;

/// What the agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentState {
    /// Connecting, fencing, reading progress.
    #[default]
    Starting,
    /// Copying tables.
    Copying,
    /// Streaming changes.
    Streaming,
    /// Between two sessions, after a failure.
    Waiting,
    /// Ending in order.
    Stopping,
    /// Ended by a failure that needs a person.
    Halted,
}

impl AgentState {
    /// All states, for a metric per state.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Copying,
        Self::Streaming,
        Self::Waiting,
        Self::Stopping,
        Self::Halted,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Copying => "copying",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Halted => "halted",
        }
    }
}

/// One captured table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableStatus {
    /// `schema.table` in the source.
    pub table: String,
    /// Its topic.
    pub topic: String,
    /// `database.table` in the lake.
    pub lake_table: String,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Version of its schema; 0 before the first event.
    pub schema_version: u32,
    /// Records committed since the process began.
    pub records: u64,
    /// Rows copied by this process; `None` if the copy was done before.
    pub copied_rows: Option<u64>,
    /// Time of the last committed record, milliseconds since the epoch.
    pub last_record_ms: Option<i64>,
    /// What is wrong with it alone: some of its changes or rows are missing.
    pub problem: Option<String>,
    /// It was dropped at the source.
    pub dropped: bool,
}

impl TableStatus {
    /// Of a table of which nothing is written yet.
    #[must_use]
    pub fn of(registration: &TopicRegistration) -> Self {
        Self {
            table: format!("{}.{}", registration.table_schema, registration.table_name),
            topic: registration.topic.clone(),
            lake_table: format!("{}.{}", registration.lake_database, registration.lake_table),
            partitions: registration.partition_map.partitions,
            ..Self::default()
        }
    }
}

/// The slot at the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlotStatus {
    /// Name.
    pub slot: String,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes that may still be written before the slot is in danger; `None` without bound.
    pub safe_wal_size_bytes: Option<i64>,
    /// Bytes of log that it holds.
    pub retained_bytes: i64,
    /// Everything before it was acknowledged.
    pub confirmed_flush_lsn: Lsn,
    /// End of the server's log.
    pub current_wal_lsn: Lsn,
    /// Bytes of log written per second, over the last looks at it.
    pub wal_bytes_per_second: Option<f64>,
}

/// Counters since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records committed.
    pub records: u64,
    /// Bytes committed.
    pub bytes: u64,
    /// Kafka transactions committed.
    pub transactions: u64,
    /// Source transactions seen whole.
    pub source_transactions: u64,
    /// Records by reference.
    pub references: u64,
    /// Row changes set aside.
    pub quarantined: u64,
    /// Changes passed over because they were committed before.
    pub replayed: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Rows copied.
    pub copied_rows: u64,
}

/// A picture of the agent.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What it does.
    pub state: AgentState,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// When the process began, milliseconds since the epoch.
    pub started_ms: i64,
    /// Epoch of the session.
    pub epoch: u64,
    /// Last committed change.
    pub position: String,
    /// Position that the slot was acknowledged to.
    pub acknowledged: Lsn,
    /// Commit time of the last committed source transaction, microseconds since the epoch.
    pub committed_source_us: Option<i64>,
    /// When that was committed, milliseconds since the epoch.
    pub committed_ms: Option<i64>,
    /// A source transaction or Kafka transaction is in flight.
    pub busy: bool,
    /// Captured tables.
    pub tables: Vec<TableStatus>,
    /// Tables that match the configuration and are not captured, with the reason.
    pub not_captured: Vec<String>,
    /// The slot.
    pub slot: SlotStatus,
    /// Counters.
    pub totals: Totals,
    /// (time in ms, records so far), for the rate.
    samples: VecDeque<(i64, u64)>,
}

impl Snapshot {
    /// Bytes of the source log that are not yet durable downstream.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        self.slot
            .current_wal_lsn
            .0
            .saturating_sub(self.acknowledged.max(self.slot.confirmed_flush_lsn).0)
    }

    /// Age of the last committed source transaction when it was committed: how far behind the topics are.
    #[must_use]
    pub fn lag_seconds(&self, now_ms: i64) -> f64 {
        let Some(source_us) = self.committed_source_us else {
            return 0.0;
        };
        let until_ms = if self.busy {
            now_ms
        } else {
            self.committed_ms.unwrap_or(now_ms)
        };
        let lag_ms = until_ms.saturating_sub(source_us / 1000).max(0);
        lossy(u64::try_from(lag_ms).unwrap_or(0)) / 1000.0
    }

    /// Records per second over the last ten seconds.
    #[must_use]
    pub fn records_per_second(&self, now_ms: i64) -> f64 {
        let Some((since_ms, records)) = self
            .samples
            .iter()
            .find(|(at_ms, _)| now_ms - at_ms <= RATE_WINDOW_MS)
            .copied()
        else {
            return 0.0;
        };
        let elapsed_ms = u64::try_from(now_ms.saturating_sub(since_ms))
            .unwrap_or(0)
            .max(1000);
        lossy(self.totals.records.saturating_sub(records)) * 1000.0 / lossy(elapsed_ms)
    }

    /// Seconds until the slot is in danger if nothing more is acknowledged; `None` if it is not foreseeable.
    #[must_use]
    pub fn seconds_until_slot_is_lost(&self) -> Option<f64> {
        let (safe, rate) = (
            self.slot.safe_wal_size_bytes?,
            self.slot.wal_bytes_per_second?,
        );
        if rate <= 0.0 {
            None
        } else {
            Some(lossy(u64::try_from(safe).unwrap_or(0)) / rate)
        }
    }
}

/// A count as a number to divide: beyond 2^53 the last digits do not matter here.
#[expect(clippy::cast_precision_loss, reason = "for display only")]
#[must_use]
pub const fn lossy(count: u64) -> f64 {
    count as f64
}

/// The shared picture.
#[derive(Debug, Default)]
pub struct Status(Mutex<Snapshot>);

impl Status {
    /// Of a process that begins now.
    #[must_use]
    pub fn new(started_ms: i64) -> Self {
        Self(Mutex::new(Snapshot {
            started_ms,
            ..Snapshot::default()
        }))
    }

    /// A copy of it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
    }

    /// Counts a committed Kafka transaction.
    pub fn committed(&self, now_ms: i64, rows: &[u64], bytes: u64) {
        let mut snapshot = self.lock();
        let before = snapshot.totals.records;
        for (table, rows) in snapshot.tables.iter_mut().zip(rows) {
            if *rows > 0 {
                table.records += rows;
                table.last_record_ms = Some(now_ms);
            }
        }
        snapshot.totals.records += rows.iter().sum::<u64>();
        snapshot.totals.bytes += bytes;
        snapshot.totals.transactions += 1;
        snapshot.committed_ms = Some(now_ms);
        while snapshot
            .samples
            .front()
            .is_some_and(|(at_ms, _)| now_ms - at_ms > RATE_WINDOW_MS)
        {
            snapshot.samples.pop_front();
        }
        // At most one sample a quarter of a second.
        if snapshot
            .samples
            .back()
            .is_none_or(|(at_ms, _)| now_ms - at_ms >= 250)
        {
            snapshot.samples.push_back((now_ms, before));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_last_ten_seconds() {
        let status = Status::new(0);
        for second in 0..20 {
            status.committed(second * 1000, &[100], 10);
        }
        let rate = status.snapshot().records_per_second(19_000);
        assert!((90.0..=115.0).contains(&rate), "{rate}");
        assert!(status.snapshot().records_per_second(60_000) < 1.0);
    }

    #[test]
    fn lag_counts_on_only_while_something_is_in_flight() {
        let status = Status::new(0);
        status.update(|snapshot| {
            snapshot.committed_source_us = Some(5_000_000);
            snapshot.committed_ms = Some(5_200);
        });
        let lag = status.snapshot().lag_seconds(60_000);
        assert!((lag - 0.2).abs() < 1e-9, "{lag}");
        status.update(|snapshot| snapshot.busy = true);
        let lag = status.snapshot().lag_seconds(60_000);
        assert!((lag - 55.0).abs() < 1e-9, "{lag}");
    }

    #[test]
    fn time_until_the_slot_is_lost_needs_a_bound_and_a_rate() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.seconds_until_slot_is_lost(), None);
        snapshot.slot.safe_wal_size_bytes = Some(1_000);
        snapshot.slot.wal_bytes_per_second = Some(10.0);
        assert_eq!(snapshot.seconds_until_slot_is_lost(), Some(100.0));
    }
}
