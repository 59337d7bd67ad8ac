//! The Kafka transaction: records of many source transactions, or a part of a large one, and the progress that goes with them.
//!
//! Flow: rows -> **[`Outbox::send`] … [`Outbox::commit`]** -> topics and progress topic.
//!
//! # Invariants
//! - A record has its `pseq` only once the queue accepted it: numbers are dense in what may ever be read.
//! - The progress records are the last of a transaction, so that who sees them sees all before.
//! - No transaction is open while nothing is to be said: an open one holds back every reader of its partitions.
//! - A lane is written by one version of its partition map; the barrier of the next one stands between.
//! - [`Outbox::commit`] gives the position that the slot may be acknowledged to: the end of a whole source transaction.

use std::time::Duration;

use change_event::envelope::without_row;
use change_event::{Lsn, Position, Predecessor, RecordHeader, RecordKind, TopicRegistration};
use object_io::failpoint;
use tokio::time::Instant;

use crate::broker::{Outgoing, TransactionalProducer};
use crate::config::LimitsConfig;
use crate::error::AgentError;
use crate::failpoints;
use crate::kafka::Producer;
use crate::progress::{MapRecord, PositionRecord, Progress, map_key, partition_key, position_key};

/// One topic as a session writes it.
#[derive(Debug)]
pub struct TopicLane {
    /// What is announced of it.
    pub registration: TopicRegistration,
    /// Version of the partition map by which records are written: that of the last barrier.
    map_version: u32,
    /// What progress says of it.
    map_said: u32,
    partitions: Vec<PartitionCounter>,
    /// Row changes handed over and not yet committed.
    pending_rows: u64,
}

impl TopicLane {
    /// The partition of a record with this key, written now.
    #[must_use]
    pub fn partition_of(&self, key: Option<&[u8]>) -> u32 {
        let map = &self.registration.partition_map;
        map.partition_by(self.map_version, key)
    }

    /// Number of partitions that records are written to now.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.registration
            .partition_map
            .partitions_by(self.map_version)
    }

    /// The next version of the map whose barrier stands before what commits at `lsn`, if it is not written yet.
    fn due(&self, lsn: Lsn) -> Option<u32> {
        let next = self.map_version + 1;
        let map = &self.registration.partition_map;
        (next <= map.version && next <= map.version_at(lsn)).then_some(next)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct PartitionCounter {
    pseq: u64,
    predecessor: Option<Predecessor>,
    touched: bool,
}

/// A record for one lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneRecord<'a> {
    /// Index of the lane.
    pub lane: usize,
    /// Partition.
    pub partition: u32,
    /// What it stands for.
    pub kind: RecordKind,
    /// Version of the schema of its value.
    pub schema_version: u32,
    /// Order key.
    pub position: Position,
    /// Key, if the table has one.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: &'a [u8],
}

/// What a commit made durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The slot may be acknowledged up to here.
    pub acknowledge: Lsn,
    /// Row changes by lane, in the order of the lanes.
    pub rows: Vec<u64>,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// How long the transaction was open.
    pub open_for: Duration,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    records: u64,
    bytes: u64,
}

/// All topics of a session, and the one transaction that may be open on them.
#[derive(Debug)]
pub struct Outbox<P = Producer> {
    producer: P,
    source_name: String,
    progress_topic: String,
    limits: LimitsConfig,
    epoch: u64,
    lanes: Vec<TopicLane>,
    open: Option<Open>,
    /// Where the source will stand once the open transaction is committed.
    reached: PositionRecord,
    /// The `end_lsn` of the last committed position record.
    said: Lsn,
    header: Vec<u8>,
    /// Whether values without a row are written so that Debezium's consumers pass them by.
    inline_schema: bool,
}

impl<P: TransactionalProducer> Outbox<P> {
    /// For a session of this epoch that goes on from `progress`.
    #[must_use]
    pub fn new(
        producer: P,
        source_name: &str,
        progress_topic: &str,
        limits: LimitsConfig,
        start: PositionRecord,
    ) -> Self {
        Self {
            producer,
            source_name: source_name.to_owned(),
            progress_topic: progress_topic.to_owned(),
            limits,
            epoch: start.epoch,
            lanes: Vec::new(),
            open: None,
            said: start.end_lsn,
            reached: start,
            header: Vec::with_capacity(80),
            inline_schema: false,
        }
    }

    /// The same outbox for topics whose envelopes have inline schemas, or not.
    #[must_use]
    pub fn with_inline_schema(mut self, inline_schema: bool) -> Self {
        self.inline_schema = inline_schema;
        self
    }

    /// Adds a topic; gives the index of its lane.
    pub fn add_lane(&mut self, registration: TopicRegistration, progress: &Progress) -> usize {
        let partitions = (0..registration.partition_map.partitions)
            .map(|partition| PartitionCounter {
                predecessor: progress
                    .partitions
                    .get(&(registration.topic.clone(), partition))
                    .copied(),
                ..PartitionCounter::default()
            })
            .collect();
        let map_version = progress.map_version(&registration);
        self.lanes.push(TopicLane {
            registration,
            map_version,
            map_said: map_version,
            partitions,
            pending_rows: 0,
        });
        self.lanes.len() - 1
    }

    /// A lane.
    #[must_use]
    pub fn lane(&self, lane: usize) -> Option<&TopicLane> {
        self.lanes.get(lane)
    }

    /// Index of the lane of a topic.
    #[must_use]
    pub fn lane_of(&self, topic: &str) -> Option<usize> {
        self.lanes
            .iter()
            .position(|lane| lane.registration.topic == topic)
    }

    /// The last change handed over: everything up to it is on its topic, or will be with the next commit.
    #[must_use]
    pub fn position(&self) -> Position {
        self.reached.position()
    }

    /// The position of a change of the source log.
    #[must_use]
    pub fn position_of(&self, commit_lsn: Lsn, ordinal: u64) -> Position {
        self.reached.position_of(commit_lsn, ordinal)
    }

    /// Where the source will stand once the open transaction is committed.
    #[must_use]
    pub const fn reached(&self) -> &PositionRecord {
        &self.reached
    }

    /// Whether a transaction is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the open transaction has to end.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        Some(open.since + Duration::from_millis(self.limits.transaction_max_ms))
    }

    /// Whether the open transaction holds as many records or bytes as it may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.records >= self.limits.transaction_max_rows
                || open.bytes >= self.limits.transaction_max_bytes
        })
    }

    /// Opens a transaction at the beginning of a stream: what is committed with it stands at `start`.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::begin`].
    pub fn begin_at(&mut self, start: PositionRecord) -> Result<(), AgentError> {
        self.reached = start;
        self.open_transaction()
    }

    fn open_transaction(&mut self) -> Result<(), AgentError> {
        if self.open.is_none() {
            self.producer.begin()?;
            self.open = Some(Open {
                since: Instant::now(),
                records: 0,
                bytes: 0,
            });
        }
        Ok(())
    }

    /// Hands over a record, opening a transaction if none is.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::send`]: the session is over.
    pub async fn send(&mut self, record: &LaneRecord<'_>) -> Result<(), AgentError> {
        const NO_LANE: AgentError = AgentError::StreamOrder {
            what: "a record for no topic",
        };
        self.open_transaction()?;
        let lane = self.lanes.get_mut(record.lane).ok_or(NO_LANE)?;
        let counter = usize::try_from(record.partition)
            .ok()
            .and_then(|partition| lane.partitions.get_mut(partition))
            .ok_or(NO_LANE)?;
        let pseq = counter.pseq + 1;
        let header = RecordHeader {
            kind: record.kind,
            topic_incarnation: lane.registration.topic_incarnation,
            schema_version: record.schema_version,
            epoch: self.epoch,
            pseq,
            predecessor: if pseq == 1 { counter.predecessor } else { None },
            position: record.position,
        };
        header.encode(&mut self.header);
        // What is no envelope (a reference, an announcement, a change set aside) gets the form of one without a row.
        let wrapped = (self.inline_schema && !record.value.starts_with(b"{\"schema\":"))
            .then(|| without_row(record.value));
        let outgoing = Outgoing {
            topic: &lane.registration.topic,
            partition: record.partition,
            key: record.key,
            value: wrapped.as_deref().unwrap_or(record.value),
            header: Some(&self.header),
        };
        self.producer.send(&outgoing).await?;
        counter.pseq = pseq;
        counter.touched = true;
        lane.pending_rows += 1;
        let size = record.key.map_or(0, <[u8]>::len) + record.value.len() + self.header.len();
        if let Some(open) = &mut self.open {
            open.records += 1;
            open.bytes += u64::try_from(size).unwrap_or(u64::MAX);
        }
        failpoint::hit(failpoints::AFTER_PRODUCE);
        Ok(())
    }

    /// Whether a barrier stands before what commits at `lsn`.
    #[must_use]
    pub fn has_due_barrier(&self, lsn: Lsn) -> bool {
        self.lanes.iter().any(|lane| lane.due(lsn).is_some())
    }

    /// Hands over the barriers that stand before what commits at `lsn`: one record in each partition of the older map. From
    /// now on records are written by the newer one.
    ///
    /// `schema_version` gives a version of a lane's schema that was published.
    ///
    /// # Errors
    /// Those of [`Outbox::send`].
    pub async fn send_barriers(
        &mut self,
        lsn: Lsn,
        schema_version: impl Fn(usize) -> u32,
    ) -> Result<(), AgentError> {
        if !self.has_due_barrier(lsn) {
            return Ok(());
        }
        for index in 0..self.lanes.len() {
            while let Some((lane, map_version)) = self
                .lanes
                .get_mut(index)
                .and_then(|lane| lane.due(lsn).map(|due| (lane, due)))
            {
                let partitions = lane.partition_count();
                lane.map_version = map_version;
                let topic = lane.registration.topic.clone();
                tracing::info!(topic, map_version, "barrier: keys move to more partitions");
                let value = format!("{{\"firn_barrier\":{map_version}}}");
                for partition in 0..partitions {
                    let record = LaneRecord {
                        lane: index,
                        partition,
                        kind: RecordKind::Barrier { map_version },
                        schema_version: schema_version(index),
                        position: self.reached.position(),
                        key: None,
                        value: value.as_bytes(),
                    };
                    self.send(&record).await?;
                }
            }
        }
        failpoint::hit(failpoints::AFTER_BARRIERS_SENT);
        Ok(())
    }

    /// Says that every record of the change at `position` is handed over.
    pub fn change_done(&mut self, commit_lsn: Lsn, ordinal: u64) {
        self.reached.commit_lsn = commit_lsn;
        self.reached.ordinal = ordinal;
    }

    /// Says that everything before `end_lsn` is handed over, and no source transaction is in flight there.
    pub fn whole_until(&mut self, end_lsn: Lsn) {
        self.reached.end_lsn = self.reached.end_lsn.max(end_lsn);
    }

    /// Ends the open transaction with its progress records and commits it; `None` if none is open.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::commit`]: the session is over, and the next one reads back what became of it.
    pub async fn commit(&mut self) -> Result<Option<Committed>, AgentError> {
        let Some(open) = self.open.take() else {
            return Ok(None);
        };
        for lane in &mut self.lanes {
            let map = MapRecord {
                topic_incarnation: lane.registration.topic_incarnation,
                version: lane.map_version,
            };
            if lane.map_said != map.version {
                lane.map_said = map.version;
                let key = map_key(&self.source_name, &lane.registration.topic);
                send_progress(&self.producer, &self.progress_topic, &key, &map).await?;
            }
            for (partition, counter) in (0u32..).zip(&mut lane.partitions) {
                if !std::mem::take(&mut counter.touched) {
                    continue;
                }
                let last = Predecessor {
                    epoch: self.epoch,
                    pseq: counter.pseq,
                };
                let key = partition_key(&self.source_name, &lane.registration.topic, partition);
                send_progress(&self.producer, &self.progress_topic, &key, &last).await?;
            }
        }
        let key = position_key(&self.source_name);
        send_progress(&self.producer, &self.progress_topic, &key, &self.reached).await?;
        self.producer.delivered().await?;
        failpoint::hit(failpoints::BEFORE_COMMIT);
        self.producer.commit().await?;
        failpoint::hit(failpoints::AFTER_COMMIT);
        self.said = self.reached.end_lsn;
        Ok(Some(Committed {
            acknowledge: self.reached.end_lsn,
            rows: self
                .lanes
                .iter_mut()
                .map(|lane| std::mem::take(&mut lane.pending_rows))
                .collect(),
            bytes: open.bytes,
            open_for: open.since.elapsed(),
        }))
    }

    /// Whether the source moved on, without a row of ours, past what the last position record says.
    #[must_use]
    pub fn has_unsaid(&self) -> bool {
        self.open.is_none() && self.reached.end_lsn > self.said
    }

    /// Commits a position record, also where no transaction is open; what it says may then be acknowledged.
    ///
    /// # Errors
    /// Those of [`Outbox::commit`].
    pub async fn say_position(&mut self) -> Result<Option<Committed>, AgentError> {
        self.open_transaction()?;
        self.commit().await
    }

    /// Waits until the broker has everything that was handed over; nothing is committed by that.
    ///
    /// # Errors
    /// Those of [`TransactionalProducer::delivered`].
    pub async fn delivered(&self) -> Result<(), AgentError> {
        self.producer.delivered().await
    }

    /// Writes the position once more, to hear from the broker whether this session still owns the source.
    ///
    /// # Errors
    /// [`AgentError::Fenced`] if it does not.
    pub async fn prove_ownership(&mut self) -> Result<(), AgentError> {
        self.say_position().await.map(|_committed| ())
    }

    /// Gives the session's producer up.
    pub async fn abandon(self) {
        if self.open.is_some() {
            self.producer.abandon().await;
        } else {
            self.producer.close().await;
        }
    }
}

async fn send_progress<P: TransactionalProducer, T: serde::Serialize + Sync>(
    producer: &P,
    topic: &str,
    key: &str,
    value: &T,
) -> Result<(), AgentError> {
    let value = serde_json::to_vec(value).map_err(|source| AgentError::Document {
        key: topic.to_owned(),
        source,
    })?;
    let outgoing = Outgoing {
        topic,
        partition: 0,
        key: Some(key.as_bytes()),
        value: &value,
        header: None,
    };
    producer.send(&outgoing).await
}
