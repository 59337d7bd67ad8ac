//! Stages the batch of one partition: judge, write Parquet, win the slot.
//!
//! Flow: records -> [`crate::slice`] -> [`crate::rows`] -> data files -> **slot of the chain** -> acknowledged.
//!
//! # Invariants
//! - A batch is acknowledged up to the first record that failed; everything before it is in won slots or in quarantine.
//! - What lies before a failing record is staged first, so that a batch which fails for ever still moves as far as it can.
//! - A tail is forgotten whenever something failed: the next try walks the chain anew.
//! - A gap is believed only after the chain was walked on: another warm function may have taken what seems to be missing.
//!
//! Cost, warm: one PUT for each data file, one for the slot, no GET.

use std::sync::Arc;

use bytes::Bytes;
use change_event::{RecordHeader, RecordKind, layout};
use futures_util::future::try_join_all;
use object_io::failpoint;
use table_commit::{Chain, Frontier, GapPlace, Intent, LoadedTable, SlotOutcome};
use table_file::{EncodedFile, StagedFile};

use crate::error::{Reason, StageError};
use crate::failpoints::{AFTER_PARQUET_PUT, AFTER_SLOT_WON, BEFORE_SLOT_PUT};
use crate::ports::Ports;
use crate::quarantine::set_aside;
use crate::record::{PartitionBatch, Record};
use crate::reference;
use crate::rows::{Documents, Row, Staged, rows_to_files};
use crate::slice::{Found, Slice, Stop, slice};
use crate::tail;
use crate::topic::{Need, Tail, Topic, suits};

/// Slots lost to other writers, and records cut off, before a batch is left to come again.
const TRIES_MAX: u32 = 100;

/// What happened to a batch, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) rows: u64,
    pub(crate) duplicates: u64,
    pub(crate) quarantined: u64,
    pub(crate) intents: u64,
    pub(crate) staged_bytes: u64,
}

/// The offset from which a batch must come again, and why.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) offset: i64,
    pub(crate) error: StageError,
}

/// Stages one batch.
#[derive(Debug)]
pub(crate) struct Stager<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) topic: &'a Topic,
    pub(crate) batch: &'a PartitionBatch,
}

/// How far a batch is.
#[derive(Debug)]
struct Progress<'b> {
    /// What is left of its portion, without what lies behind a record that failed.
    records: &'b [Record],
    /// The portions after it.
    later: &'b [Record],
    table: Arc<LoadedTable>,
    chain: Chain,
    tail: Tail,
    /// The chain was walked on from the tail that was believed.
    caught_up: bool,
    /// The first record that failed.
    failed: Option<Failed>,
}

impl Progress<'_> {
    fn failed_at(&self, index: usize, error: StageError) -> Failed {
        let record = self.records.get(index).or(self.records.first());
        Failed {
            offset: record.map_or(0, |record| record.offset),
            error,
        }
    }
}

/// What a try led to.
enum Step {
    /// There is more to do.
    Again,
    /// All that is left of the portion is staged.
    Done,
    /// It must not go on.
    Stopped(Failed),
}

/// Rows of a slice that are ready, or the first record that is not.
enum Ready {
    All(
        Vec<(usize, RecordHeader, Bytes)>,
        Documents,
        Vec<(usize, Reason)>,
    ),
    Until {
        index: usize,
        error: StageError,
    },
}

impl Stager<'_> {
    /// Stages the batch as far as it goes, and keeps the chain's tail warm.
    ///
    /// # Errors
    /// [`Failed`], from the first record that is not staged.
    pub(crate) async fn run(&self, counts: &mut Counts) -> Result<(), Failed> {
        let partition = self.batch.partition;
        let ended = self.stage(counts).await;
        match &ended {
            Ok(Some((chain, tail))) => self.topic.keep_tail(chain, *tail),
            Ok(None) | Err(_) => self.topic.forget_tail(partition),
        }
        if let Err(Failed { error, .. }) = &ended
            && error.is_sealed()
        {
            self.topic.forget_table().await;
        }
        ended.map(|_tail| ())
    }

    async fn stage(&self, counts: &mut Counts) -> Result<Option<(Chain, Tail)>, Failed> {
        let records = &self.batch.records[..];
        let Some(first) = records.first() else {
            return Ok(None);
        };
        let at_first = |error| Failed {
            offset: first.offset,
            error,
        };
        let Some(schema_version) = records.iter().find_map(schema_version) else {
            self.strangers(counts).await.map_err(at_first)?;
            return Ok(None);
        };
        let need = Need {
            partition: self.batch.partition,
            schema_version,
            map_version: 1,
        };
        let table = self.topic.table(self.ports, need).await.map_err(at_first)?;
        let chain = table.chain(self.batch.partition);
        let tail = tail::find(self.ports, self.topic, &chain)
            .await
            .map_err(at_first)?;
        let (records, later) = reference::portion(records);
        let mut progress = Progress {
            records,
            later,
            table,
            chain,
            tail,
            caught_up: false,
            failed: None,
        };
        let mut tries = 0;
        while let Some(from) = progress.records.first() {
            let offset = from.offset;
            tries += 1;
            if tries > TRIES_MAX {
                let error = StageError::SlotsLost { tries: TRIES_MAX };
                return Err(Failed { offset, error });
            }
            let step = self.step(&mut progress, counts).await;
            match step.map_err(|error| Failed { offset, error })? {
                Step::Again => {}
                Step::Done if progress.failed.is_some() => break,
                Step::Done => {
                    (progress.records, progress.later) = reference::portion(progress.later);
                    tries = 0;
                }
                Step::Stopped(failed) => return Err(failed),
            }
        }
        match progress.failed {
            Some(failed) => Err(failed),
            None => Ok(Some((progress.chain, progress.tail))),
        }
    }

    /// Nothing of the batch was written by an agent: no table is needed to say so.
    async fn strangers(&self, counts: &mut Counts) -> Result<(), StageError> {
        for record in &self.batch.records {
            if let Found::Poison(reason) = &record.found {
                self.set_aside(record, reason, counts).await?;
            }
        }
        Ok(())
    }

    /// One try: from the chain's tail as it is believed to be, to a won slot.
    async fn step(
        &self,
        progress: &mut Progress<'_>,
        counts: &mut Counts,
    ) -> Result<Step, StageError> {
        let records = progress.records;
        let judged = records.iter().map(|record| (record.offset, &record.found));
        let slice = slice(&progress.tail.frontier, judged);
        if matches!(slice.stop, Stop::Gap { .. }) && !progress.caught_up {
            let from = progress.tail.frontier;
            let reached = tail::catch_up(self.ports, self.topic, &progress.chain, &from).await?;
            progress.tail.frontier = reached;
            progress.caught_up = true;
            return Ok(Step::Again);
        }
        let (rows, documents, poison) = match self.ready(records, &slice).await? {
            Ready::All(rows, documents, poison) => (rows, documents, poison),
            Ready::Until { index, error } => {
                progress.failed = Some(progress.failed_at(index, error));
                progress.records = records.get(..index).unwrap_or_default();
                return Ok(Step::Again);
            }
        };
        let state = &progress.table.state;
        let newest = documents.keys().max().copied().unwrap_or(0);
        let need = Need {
            partition: self.batch.partition,
            schema_version: newest.max(state.schema_version),
            map_version: slice.after.map_version,
        };
        if !suits(&progress.table, need) {
            progress.table = self.topic.table(self.ports, need).await?;
        }
        let staged = encode(&rows, &documents, &progress.table)?;
        if !self.win(progress, &slice, (staged, poison), counts).await? {
            // The tail moved behind one slot; there may be more.
            progress.caught_up = false;
            return Ok(Step::Again);
        }
        Ok(match slice.stop {
            Stop::End => Step::Done,
            Stop::Gap { index, gap } => {
                let topic = self.batch.topic.clone();
                let place = GapPlace::of(self.batch.partition, &gap);
                Step::Stopped(progress.failed_at(index, StageError::Gap { topic, place }))
            }
            Stop::TopicReplaced { index } => {
                let offset = records.get(index).map_or(0, |record| record.offset);
                Step::Stopped(progress.failed_at(index, StageError::TopicReplaced { offset }))
            }
            Stop::NewIncarnation { index, incarnation } => {
                progress.records = records.get(index..).unwrap_or_default();
                self.close(&progress.chain, &mut progress.tail, incarnation)
                    .await?;
                progress.caught_up = false;
                Step::Again
            }
            Stop::Barrier { index } => {
                progress.records = records.get(index..).unwrap_or_default();
                Step::Again
            }
        })
    }

    /// Collects values and documents of a slice's rows, up to the first that is not to be had.
    async fn ready(&self, records: &[Record], slice: &Slice) -> Result<Ready, StageError> {
        let mut rows = Vec::with_capacity(slice.rows.len());
        let mut documents = Documents::new();
        let mut poison = Vec::new();
        for (index, header) in &slice.rows {
            let (index, header) = (*index, *header);
            let Some(record) = records.get(index) else {
                continue;
            };
            // A tombstone with a header: its number counts, there is no row.
            let Some(value) = record.value.clone() else {
                continue;
            };
            let offset = record.offset;
            let needs_document = header.kind != RecordKind::CopyAnnouncement;
            if needs_document && !documents.contains_key(&header.schema_version) {
                let version = header.schema_version;
                let Some(document) = self.topic.document(self.ports, version).await? else {
                    return Ok(Ready::Until {
                        index,
                        error: StageError::NoDocument { version, offset },
                    });
                };
                documents.insert(version, document);
            }
            let value = match header.kind {
                RecordKind::Change
                | RecordKind::CopyAnnouncement
                | RecordKind::Marker
                | RecordKind::Barrier { .. } => value,
                RecordKind::Reference => match reference::key(&value) {
                    Err(reason) => {
                        poison.push((index, reason));
                        continue;
                    }
                    Ok(key) => match self.ports.store.get(&key).await? {
                        Some(envelope) => envelope,
                        None => {
                            return Ok(Ready::Until {
                                index,
                                error: StageError::NoObject { key, offset },
                            });
                        }
                    },
                },
            };
            rows.push((index, header, value));
        }
        Ok(Ready::All(rows, documents, poison))
    }

    /// Stores what is staged and races for the slot. Gives false if another writer was first: the tail is moved behind it.
    async fn win(
        &self,
        progress: &mut Progress<'_>,
        slice: &Slice,
        (staged, mut poison): (Staged, Vec<(usize, Reason)>),
        counts: &mut Counts,
    ) -> Result<bool, StageError> {
        let records = progress.records;
        let row_count = staged.row_count;
        poison.extend(staged.poison);
        for index in &slice.poison {
            if let Some(Found::Poison(reason)) = records.get(*index).map(|record| &record.found) {
                poison.push((*index, reason.clone()));
            }
        }
        let stored = self.store_files(&progress.table, staged.encoded).await?;
        for (index, reason) in &poison {
            if let Some(record) = records.get(*index) {
                self.set_aside(record, reason, counts).await?;
            }
        }
        if progress.tail.frontier.needs_slot(&slice.after) {
            failpoint::hit(BEFORE_SLOT_PUT);
            let staged_bytes: u64 = stored.iter().map(|file| file.size_bytes).sum();
            let files = stored.iter().cloned().chain(staged.announced).collect();
            if !self
                .race(&progress.chain, &mut progress.tail, &slice.after, files)
                .await?
            {
                self.remove_files(&stored).await;
                return Ok(false);
            }
            counts.intents += 1;
            counts.staged_bytes += staged_bytes;
        }
        counts.rows += row_count;
        counts.duplicates += slice.duplicate_count;
        Ok(true)
    }

    async fn race(
        &self,
        chain: &Chain,
        tail: &mut Tail,
        after: &Frontier,
        files: Vec<StagedFile>,
    ) -> Result<bool, StageError> {
        let now_ms = self.ports.clock.now_ms();
        let intent = Intent::new(
            self.ports.ids.next_id(),
            &tail.frontier,
            after,
            files,
            now_ms,
        );
        match chain
            .win(self.ports.store.as_ref(), &tail.frontier, &intent)
            .await?
        {
            SlotOutcome::Won => {
                failpoint::hit(AFTER_SLOT_WON);
                tail.frontier = *after;
                Ok(true)
            }
            SlotOutcome::Taken(other) => {
                self.topic.note_shared(self.ports.clock.now_ms());
                tail.frontier = other.after;
                Ok(false)
            }
        }
    }

    /// Ends the chain of the old topic incarnation. Whoever was first moved the chain, to its end or a step on.
    async fn close(
        &self,
        chain: &Chain,
        tail: &mut Tail,
        incarnation: u32,
    ) -> Result<(), StageError> {
        let now_ms = self.ports.clock.now_ms();
        let closing = Intent::closing(
            self.ports.ids.next_id(),
            &tail.frontier,
            incarnation,
            now_ms,
        );
        tail.frontier = match chain
            .win(self.ports.store.as_ref(), &tail.frontier, &closing)
            .await?
        {
            SlotOutcome::Won => closing.after,
            SlotOutcome::Taken(other) => other.after,
        };
        Ok(())
    }

    async fn store_files(
        &self,
        table: &LoadedTable,
        encoded: Vec<EncodedFile>,
    ) -> Result<Vec<StagedFile>, StageError> {
        let folder = table.data_location();
        let prefix = self.ports.store.uri_prefix();
        try_join_all(
            encoded
                .into_iter()
                .map(|EncodedFile { bytes, mut staged }| {
                    let name = layout::batch_file(&self.ports.ids.next_id());
                    staged.path = format!("{folder}/{name}");
                    async move {
                        let key = staged.path.strip_prefix(prefix).unwrap_or(&staged.path);
                        self.ports.store.put(key, bytes).await?;
                        failpoint::hit(AFTER_PARQUET_PUT);
                        Ok(staged)
                    }
                }),
        )
        .await
    }

    /// Best effort: files that nothing names are found by maintenance, too.
    async fn remove_files(&self, files: &[StagedFile]) {
        let prefix = self.ports.store.uri_prefix();
        for file in files {
            let key = file.path.strip_prefix(prefix).unwrap_or(&file.path);
            if let Err(error) = self.ports.store.delete(key).await {
                tracing::debug!(key, %error, "file of a lost slot stays");
            }
        }
    }

    async fn set_aside(
        &self,
        record: &Record,
        reason: &Reason,
        counts: &mut Counts,
    ) -> Result<(), StageError> {
        set_aside(
            self.ports,
            Some(&self.topic.registration),
            self.batch,
            record,
            reason,
        )
        .await?;
        counts.quarantined += 1;
        Ok(())
    }
}

fn schema_version(record: &Record) -> Option<u32> {
    match &record.found {
        Found::Firn(header) => Some(header.schema_version),
        Found::Bare | Found::Poison(_) => None,
    }
}

fn encode(
    rows: &[(usize, RecordHeader, Bytes)],
    documents: &Documents,
    table: &LoadedTable,
) -> Result<Staged, StageError> {
    let rows: Vec<_> = rows
        .iter()
        .map(|(index, header, value)| Row {
            index: *index,
            header: *header,
            value: value.clone(),
            schema: documents.get(&header.schema_version).map(AsRef::as_ref),
        })
        .collect();
    Ok(rows_to_files(&rows, &table.data_location())?)
}
