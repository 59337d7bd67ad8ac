//! The loop of a session: frames of the source in, records out, acknowledgements back.
//!
//! Flow: replication stream -> **here** -> `rows` -> `transaction` -> commit -> acknowledgement.
//!
//! # Invariants
//! - The slot is acknowledged only after the Kafka commit that holds everything before, and only up to whole source transactions.
//! - While nothing is in flight, what the server says it has sent is acknowledged too, so that an idle table holds no log.
//! - Nothing is acknowledged that no committed position record says: a slot that is ahead of progress is not ours any more.
//! - A Kafka transaction may end inside of a source transaction, but never inside of one message.

use std::time::Duration;

use change_event::{Position, layout};
use object_io::failpoint;
use source_postgres::{
    Acknowledger, Catalog, DecodeError, Frame, Message, ReplicationStream, SourceError, decode,
};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::AgentError;
use crate::failpoints;
use crate::quarantine::{self, RefusedChange, RefusedRow};
use crate::rows::{RowChange, RowWriter, SourceTransaction, Written};
use crate::status::AgentState;
use crate::tables::Tables;
use crate::transaction::{Committed, Outbox};
use crate::truncates::{Events, TruncateOptions};

/// Frames handled between two looks at the clock.
const FRAMES_PER_CLOCK: u32 = 64;
/// How often an idle session looks whether a successor claimed an epoch: one read of one object.
const OWNERSHIP_INTERVAL: Duration = Duration::from_secs(10);

/// How often a position without rows of ours is committed and acknowledged, while the log moves on.
const IDLE_POSITION_INTERVAL: Duration = Duration::from_secs(2);

/// Why the loop ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The agent is to stop; everything handed over is committed and acknowledged.
    Stopped,
}

/// A session that streams.
#[derive(Debug)]
pub struct Capture {
    /// The agent's surroundings.
    pub context: Context,
    /// The session's topics.
    pub outbox: Outbox,
    /// The captured tables.
    pub tables: Tables,
    /// Where TRUNCATE is told.
    pub events: Events,
    /// For questions at a relation message.
    pub catalog: Catalog,
    /// Epoch of the session.
    pub epoch: u64,
}

/// What the loop carries from frame to frame.
#[derive(Debug, Default)]
struct Flow {
    transaction: Option<SourceTransaction>,
    rows: RowWriter,
    source_transactions: u64,
    written: Written,
    last_commit_us: Option<i64>,
}

impl Capture {
    /// Runs until the agent is to stop.
    ///
    /// # Errors
    /// Whatever ended the session; its disposition says whether another one is begun.
    pub async fn run(&mut self, mut stream: ReplicationStream) -> Result<Ended, AgentError> {
        let acknowledger = stream.acknowledger();
        acknowledger.acknowledge(self.outbox.reached().end_lsn);
        let mut flow = Flow::default();
        let mut next_look = Instant::now() + OWNERSHIP_INTERVAL;
        let mut next_say = Instant::now() + IDLE_POSITION_INTERVAL;
        let mut successor = self.epoch + 1;
        self.context
            .status
            .update(|snapshot| snapshot.state = AgentState::Streaming);
        loop {
            let ended = self
                .handle_buffered(&mut stream, &mut flow, &acknowledger)
                .await?;
            if ended || self.context.is_stopping() {
                break;
            }
            // Nothing is buffered: wait for a frame, the end of the transaction, or the signal to stop.
            let unsaid = self.outbox.has_unsaid();
            let idle = if unsaid {
                next_say.min(next_look)
            } else {
                next_look
            };
            let wake = self.outbox.deadline().unwrap_or(idle);
            let mut stopping = self.context.clone();
            tokio::select! {
                biased;
                () = stopping.stopping() => break,
                frame = stream.next() => self.handle(frame?, &mut flow, &acknowledger).await?,
                () = tokio::time::sleep_until(wake) => {
                    if self.outbox.is_open() {
                        self.commit(&mut flow, &acknowledger).await?;
                    } else if unsaid && Instant::now() >= next_say {
                        self.say_position(&mut flow, &acknowledger).await?;
                        next_say = Instant::now() + IDLE_POSITION_INTERVAL;
                    } else {
                        successor = self.look_for_successor(successor).await?;
                        next_look = Instant::now() + OWNERSHIP_INTERVAL;
                    }
                }
            }
        }
        self.context
            .status
            .update(|snapshot| snapshot.state = AgentState::Stopping);
        self.commit(&mut flow, &acknowledger).await?;
        if self.outbox.has_unsaid() {
            self.say_position(&mut flow, &acknowledger).await?;
        }
        stream.stop().await;
        Ok(Ended::Stopped)
    }

    /// Handles all frames that are here; gives true if the agent is to stop meanwhile.
    async fn handle_buffered(
        &mut self,
        stream: &mut ReplicationStream,
        flow: &mut Flow,
        acknowledger: &Acknowledger,
    ) -> Result<bool, AgentError> {
        let mut frames = 0u32;
        while let Some(frame) = stream.try_next_buffered()? {
            self.handle(frame, flow, acknowledger).await?;
            frames += 1;
            if frames.is_multiple_of(FRAMES_PER_CLOCK) {
                if self
                    .outbox
                    .deadline()
                    .is_some_and(|deadline| Instant::now() >= deadline)
                {
                    self.commit(flow, acknowledger).await?;
                }
                if self.context.is_stopping() {
                    return Ok(true);
                }
            }
        }
        if self
            .outbox
            .deadline()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.commit(flow, acknowledger).await?;
        }
        Ok(false)
    }

    async fn handle(
        &mut self,
        frame: Frame,
        flow: &mut Flow,
        acknowledger: &Acknowledger,
    ) -> Result<(), AgentError> {
        match frame {
            Frame::KeepAlive { wal_end, .. } => {
                if flow.transaction.is_none() {
                    self.outbox.whole_until(wal_end);
                    if !self.outbox.is_open() {
                        // Everything sent is durable: nothing lags.
                        self.context
                            .status
                            .update(|snapshot| snapshot.committed_source_us = None);
                    }
                }
                Ok(())
            }
            Frame::Data { payload, .. } => {
                match decode::decode(&payload) {
                    Ok(message) => self.message(message, flow).await?,
                    Err(DecodeError::MalformedText { relation_oid, .. }) => {
                        self.unreadable(flow, relation_oid, &payload).await?;
                    }
                    Err(error) => return Err(SourceError::from(error).into()),
                }
                if self.outbox.is_full() {
                    self.commit(flow, acknowledger).await?;
                }
                Ok(())
            }
        }
    }

    async fn message(&mut self, message: Message<'_>, flow: &mut Flow) -> Result<(), AgentError> {
        match message {
            Message::Begin {
                final_lsn,
                commit_us,
                xid,
            } => {
                flow.transaction = Some(SourceTransaction {
                    commit_lsn: final_lsn,
                    commit_us,
                    transaction_id: xid,
                    handled_ms: self.context.clock.now_ms(),
                    ordinal: 0,
                });
            }
            Message::Commit {
                end_lsn, commit_us, ..
            } => {
                flow.transaction = None;
                flow.source_transactions += 1;
                flow.last_commit_us = Some(commit_us);
                self.outbox.whole_until(end_lsn);
            }
            Message::Insert { relation_oid, new } => {
                self.row(flow, relation_oid, RowChange::Insert(new)).await?;
            }
            Message::Update {
                relation_oid,
                old,
                new,
            } => {
                self.row(flow, relation_oid, RowChange::Update(old, new))
                    .await?;
            }
            Message::Delete { relation_oid, old } => {
                self.row(flow, relation_oid, RowChange::Delete(old)).await?;
            }
            Message::Truncate {
                relation_oids,
                cascade,
                restart_identity,
            } => {
                let options = TruncateOptions {
                    cascade,
                    restart_identity,
                };
                self.truncate(flow, &relation_oids, options).await?;
            }
            Message::Relation(relation) => {
                let transaction = flow.transaction.ok_or(OUT_OF_ORDER)?;
                let incarnation = self.outbox.reached().incarnation;
                let position =
                    Position::stream(incarnation, transaction.commit_lsn, transaction.ordinal + 1);
                let (tables, catalog) = (&mut self.tables, &mut self.catalog);
                let known = tables
                    .relation(&self.context, catalog, &relation, position)
                    .await?;
                if let Some((lane, version)) = known {
                    self.context.status.update(|snapshot| {
                        if let Some(table) = snapshot.tables.get_mut(lane) {
                            table.schema_version = version;
                        }
                    });
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(())
    }

    async fn row(
        &mut self,
        flow: &mut Flow,
        oid: u32,
        change: RowChange<'_>,
    ) -> Result<(), AgentError> {
        let transaction = flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        let Some(table) = self.tables.find(oid) else {
            // Counted all the same: ordinals do not depend on what is captured.
            transaction.ordinal += 1;
            return Ok(());
        };
        let shape = table.shape().ok_or(OUT_OF_ORDER)?;
        let written = flow
            .rows
            .write(
                &self.context,
                &mut self.outbox,
                transaction,
                shape,
                table.lane,
                change,
            )
            .await?;
        flow.written.references += written.references;
        flow.written.quarantined += written.quarantined;
        flow.written.replayed += written.replayed;
        Ok(())
    }

    /// A row whose text is not UTF-8: set aside whole, as one change.
    async fn unreadable(
        &mut self,
        flow: &mut Flow,
        oid: u32,
        message: &[u8],
    ) -> Result<(), AgentError> {
        let transaction = flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        transaction.ordinal += 1;
        let Some(table) = self.tables.find(oid) else {
            return Ok(());
        };
        let shape = table.shape().ok_or(OUT_OF_ORDER)?;
        let (commit_lsn, ordinal) = (transaction.commit_lsn, transaction.ordinal);
        let position = Position::stream(self.outbox.reached().incarnation, commit_lsn, ordinal);
        if position <= self.outbox.position() {
            return Ok(());
        }
        flow.written.quarantined += 1;
        let refused = RefusedChange {
            table: &table.name.table().to_string(),
            topic: &table.topic,
            schema_version: shape.schema.version,
            position,
            operation: None,
            reason: "a text is not UTF-8".to_owned(),
        };
        let marker = quarantine::put(&self.context, &refused, RefusedRow::Message(message)).await?;
        let record = quarantine::marker_record(table.lane, &refused, &marker);
        self.outbox.send(&record).await?;
        self.outbox.change_done(commit_lsn, ordinal);
        Ok(())
    }

    async fn truncate(
        &mut self,
        flow: &mut Flow,
        oids: &[u32],
        options: TruncateOptions,
    ) -> Result<(), AgentError> {
        let transaction = flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        for oid in oids {
            match self.tables.find(*oid) {
                Some(table) => {
                    let told = self
                        .events
                        .truncate(&mut self.outbox, transaction, table, options)
                        .await?;
                    flow.written.replayed += u64::from(!told);
                }
                None => transaction.ordinal += 1,
            }
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        flow: &mut Flow,
        acknowledger: &Acknowledger,
    ) -> Result<(), AgentError> {
        if let Some(committed) = self.outbox.commit().await? {
            self.committed(&committed, flow, acknowledger);
        }
        Ok(())
    }

    /// Commits and acknowledges where the source stands although it had no row for us.
    async fn say_position(
        &mut self,
        flow: &mut Flow,
        acknowledger: &Acknowledger,
    ) -> Result<(), AgentError> {
        if let Some(committed) = self.outbox.say_position().await? {
            self.committed(&committed, flow, acknowledger);
        }
        Ok(())
    }

    fn committed(&self, committed: &Committed, flow: &mut Flow, acknowledger: &Acknowledger) {
        acknowledger.acknowledge(committed.acknowledge);
        failpoint::hit(failpoints::AFTER_ACKNOWLEDGE);
        let now_ms = self.context.clock.now_ms();
        self.context
            .status
            .committed(now_ms, &committed.rows, committed.bytes);
        let written = std::mem::take(&mut flow.written);
        let source_transactions = std::mem::take(&mut flow.source_transactions);
        let position = self.outbox.position();
        self.context.status.update(|snapshot| {
            snapshot.totals.source_transactions += source_transactions;
            snapshot.totals.references += written.references;
            snapshot.totals.quarantined += written.quarantined;
            snapshot.totals.replayed += written.replayed;
            snapshot.acknowledged = snapshot.acknowledged.max(committed.acknowledge);
            snapshot.position = position.to_string();
            snapshot.busy = flow.transaction.is_some();
            if let Some(commit_us) = flow.last_commit_us {
                snapshot.committed_source_us = Some(commit_us);
            }
        });
    }

    /// Looks whether a successor claimed an epoch, and if so asks the broker whose the source is.
    async fn look_for_successor(&mut self, successor: u64) -> Result<u64, AgentError> {
        let key = layout::epoch_claim(self.context.source_name(), successor);
        if self.context.store.get(&key).await?.is_none() {
            return Ok(successor);
        }
        // A claim alone is no proof: a fenced agent may have made it late.
        self.outbox.prove_ownership().await?;
        Ok(successor + 1)
    }
}

const OUT_OF_ORDER: AgentError = AgentError::StreamOrder {
    what: "a row outside of a transaction or before its relation",
};
