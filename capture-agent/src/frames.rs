//! What becomes of the frames of a stream: records out, and acknowledgements once they are committed.
//!
//! Flow: `capture` (the stream, the clock) -> **here** -> `rows` -> `transaction` -> commit -> acknowledgement.
//!
//! # Invariants
//! - The slot is acknowledged only after the Kafka commit that holds everything before, and only up to whole source transactions.
//! - While nothing is in flight, what the server says it has sent is acknowledged too, so that an idle table holds no log.
//! - Nothing is acknowledged that no committed position record says: a slot that is ahead of progress is not ours any more.
//! - Before the first change of a larger partition map stands its barrier, and before that everything is committed.
//! - A Kafka transaction may end inside of a source transaction, but never inside of one message.

use change_event::{Lsn, Position, layout};
use object_io::failpoint;
use source_postgres::{
    Acknowledger, Catalog, DecodeError, Frame, Message, RelationMessage, SourceError, decode,
};

use crate::broker::TransactionalProducer;
use crate::context::Context;
use crate::error::AgentError;
use crate::failpoints;
use crate::kafka::Producer;
use crate::quarantine::{self, RefusedChange, RefusedRow};
use crate::rows::{RowChange, RowWriter, SourceTransaction, Written};
use crate::source::TableLookup;
use crate::tables::Tables;
use crate::transaction::{Committed, Outbox};
use crate::truncates::{Events, TruncateOptions};

/// The frames of one stream.
#[derive(Debug)]
pub struct Frames<P = Producer, C = Catalog> {
    pub(crate) context: Context,
    pub(crate) outbox: Outbox<P>,
    pub(crate) tables: Tables,
    events: Events,
    catalog: C,
    acknowledger: Acknowledger,
    flow: Flow,
}

/// What is carried from frame to frame.
#[derive(Debug, Default)]
struct Flow {
    transaction: Option<SourceTransaction>,
    rows: RowWriter,
    source_transactions: u64,
    written: Written,
    last_commit_us: Option<i64>,
}

impl<P: TransactionalProducer, C: TableLookup> Frames<P, C> {
    /// Of a stream that begins where the outbox stands; `catalog` answers at a relation message.
    #[must_use]
    pub fn new(
        context: Context,
        outbox: Outbox<P>,
        tables: Tables,
        events: Events,
        catalog: C,
        acknowledger: Acknowledger,
    ) -> Self {
        acknowledger.acknowledge(outbox.reached().end_lsn);
        Self {
            context,
            outbox,
            tables,
            events,
            catalog,
            acknowledger,
            flow: Flow::default(),
        }
    }

    /// Where they are handed over.
    #[must_use]
    pub const fn outbox(&self) -> &Outbox<P> {
        &self.outbox
    }

    /// Gives the session's producer up.
    pub async fn abandon(self) {
        self.outbox.abandon().await;
    }

    /// Handles one frame.
    ///
    /// # Errors
    /// Whatever ends the session.
    pub async fn handle(&mut self, frame: Frame) -> Result<(), AgentError> {
        match frame {
            Frame::KeepAlive { wal_end, .. } => {
                if self.flow.transaction.is_none() {
                    self.outbox.whole_until(wal_end);
                    self.barriers(wal_end).await?;
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
                    Ok(message) => {
                        if let Message::Begin { final_lsn, .. } = &message {
                            self.barriers(*final_lsn).await?;
                        }
                        self.message(message).await?;
                    }
                    Err(DecodeError::MalformedText { relation_oid, .. }) => {
                        self.unreadable(relation_oid, &payload).await?;
                    }
                    Err(error) => return Err(SourceError::from(error).into()),
                }
                if self.outbox.is_full() {
                    self.commit().await?;
                }
                Ok(())
            }
        }
    }

    async fn message(&mut self, message: Message<'_>) -> Result<(), AgentError> {
        match message {
            Message::Begin {
                final_lsn,
                commit_us,
                xid,
            } => {
                self.flow.transaction = Some(SourceTransaction {
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
                self.flow.transaction = None;
                self.flow.source_transactions += 1;
                self.flow.last_commit_us = Some(commit_us);
                self.outbox.whole_until(end_lsn);
            }
            Message::Insert { relation_oid, new } => {
                self.row(relation_oid, RowChange::Insert(new)).await?;
            }
            Message::Update {
                relation_oid,
                old,
                new,
            } => {
                self.row(relation_oid, RowChange::Update(old, new)).await?;
            }
            Message::Delete { relation_oid, old } => {
                self.row(relation_oid, RowChange::Delete(old)).await?;
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
                self.truncate(&relation_oids, options).await?;
            }
            Message::Relation(relation) => {
                let transaction = self.flow.transaction.ok_or(OUT_OF_ORDER)?;
                let position = self
                    .outbox
                    .position_of(transaction.commit_lsn, transaction.ordinal + 1);
                self.relation(&relation, position).await?;
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(())
    }

    pub(crate) async fn relation(
        &mut self,
        relation: &RelationMessage,
        position: Position,
    ) -> Result<(), AgentError> {
        let (tables, catalog) = (&mut self.tables, &mut self.catalog);
        let known = tables
            .relation(&self.context, catalog, relation, position)
            .await?;
        if let Some((lane, version)) = known {
            self.context.status.update(|snapshot| {
                if let Some(table) = snapshot.tables.get_mut(lane) {
                    table.schema_version = version;
                }
            });
        }
        Ok(())
    }

    async fn row(&mut self, oid: u32, change: RowChange<'_>) -> Result<(), AgentError> {
        let transaction = self.flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        let Some(table) = self.tables.find(oid) else {
            // Counted all the same: ordinals do not depend on what is captured.
            transaction.ordinal += 1;
            return Ok(());
        };
        let shape = table.shape().ok_or(OUT_OF_ORDER)?;
        let written = self
            .flow
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
        self.flow.written.references += written.references;
        self.flow.written.quarantined += written.quarantined;
        self.flow.written.replayed += written.replayed;
        Ok(())
    }

    /// A row whose text is not UTF-8: set aside whole, as one change.
    async fn unreadable(&mut self, oid: u32, message: &[u8]) -> Result<(), AgentError> {
        let transaction = self.flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        transaction.ordinal += 1;
        let Some(table) = self.tables.find(oid) else {
            return Ok(());
        };
        let shape = table.shape().ok_or(OUT_OF_ORDER)?;
        let (commit_lsn, ordinal) = (transaction.commit_lsn, transaction.ordinal);
        let position = self.outbox.position_of(commit_lsn, ordinal);
        if position <= self.outbox.position() {
            return Ok(());
        }
        self.flow.written.quarantined += 1;
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

    async fn truncate(&mut self, oids: &[u32], options: TruncateOptions) -> Result<(), AgentError> {
        let transaction = self.flow.transaction.as_mut().ok_or(OUT_OF_ORDER)?;
        for oid in oids {
            match self.tables.find(*oid) {
                Some(table) => {
                    let told = self
                        .events
                        .truncate(&mut self.outbox, transaction, table, options)
                        .await?;
                    self.flow.written.replayed += u64::from(!told);
                }
                None => transaction.ordinal += 1,
            }
        }
        Ok(())
    }

    /// Writes the barriers that stand before what commits at `lsn`, if they are not there yet, in a transaction of their own:
    /// so nothing of the older map can come behind one, whether or not readers see what was aborted.
    pub(crate) async fn barriers(&mut self, lsn: Lsn) -> Result<(), AgentError> {
        if !self.outbox.has_due_barrier(lsn) {
            return Ok(());
        }
        self.commit().await?;
        let (tables, position) = (&self.tables, self.outbox.position());
        self.outbox
            .send_barriers(lsn, |lane| tables.version_of_lane(lane, position))
            .await?;
        self.commit().await?;
        failpoint::hit(failpoints::AFTER_BARRIERS_COMMIT);
        Ok(())
    }

    /// Commits the open transaction, if one is, and acknowledges what it makes durable.
    ///
    /// # Errors
    /// Those of [`Outbox::commit`].
    pub async fn commit(&mut self) -> Result<(), AgentError> {
        if let Some(committed) = self.outbox.commit().await? {
            self.committed(&committed);
        }
        Ok(())
    }

    /// Commits and acknowledges where the source stands although it had no row for us.
    ///
    /// # Errors
    /// Those of [`Outbox::say_position`].
    pub async fn say_position(&mut self) -> Result<(), AgentError> {
        if let Some(committed) = self.outbox.say_position().await? {
            self.committed(&committed);
        }
        Ok(())
    }

    fn committed(&mut self, committed: &Committed) {
        self.acknowledger.acknowledge(committed.acknowledge);
        failpoint::hit(failpoints::AFTER_ACKNOWLEDGE);
        let now_ms = self.context.clock.now_ms();
        self.context
            .status
            .committed(now_ms, &committed.rows, committed.bytes);
        let written = std::mem::take(&mut self.flow.written);
        let source_transactions = std::mem::take(&mut self.flow.source_transactions);
        let position = self.outbox.position();
        self.context.status.update(|snapshot| {
            snapshot.totals.source_transactions += source_transactions;
            snapshot.totals.references += written.references;
            snapshot.totals.quarantined += written.quarantined;
            snapshot.totals.replayed += written.replayed;
            snapshot.acknowledged = snapshot.acknowledged.max(committed.acknowledge);
            snapshot.position = position.to_string();
            snapshot.busy = self.flow.transaction.is_some();
            if let Some(commit_us) = self.flow.last_commit_us {
                snapshot.committed_source_us = Some(commit_us);
            }
        });
    }

    /// Looks whether a successor claimed an epoch, and if so asks the broker whose the source is. Gives the epoch to look for next.
    ///
    /// # Errors
    /// [`AgentError::Objects`]; [`AgentError::Fenced`] if the source is the successor's.
    pub async fn look_for_successor(&mut self, successor: u64) -> Result<u64, AgentError> {
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
