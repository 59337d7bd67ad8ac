//! One row change of the stream to its records: key, envelope, partition.
//!
//! Flow: decoded message -> **here** -> `transaction` (headers, numbers, queue).
//!
//! # Invariants
//! - A change of key is two records, `d` with the old key and `c` with the new row, with two ordinals.
//! - Under REPLICA IDENTITY FULL an unchanged TOAST value is filled in from the old row; else it is unavailable, never null.
//! - A change that cannot be written is set aside with its position, and a marker stands in its place: order and numbers hold.

use change_event::envelope::{ChangeOrigin, Reference, WriteError};
use change_event::{Cell, Lsn, Operation, Position, RecordKind, layout};
use object_io::failpoint;
use source_postgres::{OldTuple, Tuple};

use crate::broker::TransactionalProducer;
use crate::context::Context;
use crate::error::AgentError;
use crate::failpoints;
use crate::quarantine::{self, RefusedChange, RefusedRow};
use crate::tables::Shape;
use crate::transaction::{LaneRecord, Outbox};

/// The source transaction that a change belongs to.
#[derive(Debug, Clone, Copy)]
pub struct SourceTransaction {
    /// Commit position.
    pub commit_lsn: Lsn,
    /// Commit time, microseconds since the epoch.
    pub commit_us: i64,
    /// Transaction id.
    pub transaction_id: u32,
    /// When the agent met it, milliseconds since the epoch.
    pub handled_ms: i64,
    /// Row changes counted so far.
    pub ordinal: u64,
}

/// A row change as the stream tells it.
#[derive(Debug, Clone, Copy)]
pub enum RowChange<'a> {
    /// INSERT.
    Insert(Tuple<'a>),
    /// UPDATE.
    Update(Option<OldTuple<'a>>, Tuple<'a>),
    /// DELETE.
    Delete(OldTuple<'a>),
}

/// Buffers that are used again for each row.
#[derive(Debug, Default)]
pub struct RowWriter {
    key: Vec<u8>,
    old_key: Vec<u8>,
    value: Vec<u8>,
}

/// What was written for one change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Records by reference.
    pub references: u64,
    /// Changes set aside.
    pub quarantined: u64,
    /// Changes passed over because they were committed before.
    pub replayed: u64,
}

/// One record to be written.
struct Half<'a, B, A> {
    operation: Operation,
    before: Option<(B, bool)>,
    after: Option<A>,
    key: &'a [u8],
}

type NoCells<'a> = std::iter::Empty<Cell<'a>>;

impl RowWriter {
    /// Writes the records of one change, and counts its ordinals in `transaction`.
    ///
    /// # Errors
    /// Those of [`Outbox::send`] and of object storage: the session is over.
    pub async fn write<P: TransactionalProducer>(
        &mut self,
        context: &Context,
        outbox: &mut Outbox<P>,
        transaction: &mut SourceTransaction,
        shape: &Shape,
        lane: usize,
        change: RowChange<'_>,
    ) -> Result<Written, AgentError> {
        let mut at = Place {
            context,
            outbox,
            transaction,
            shape,
            lane,
            written: Written::default(),
        };
        let Self {
            key,
            old_key,
            value,
        } = self;
        match change {
            RowChange::Insert(new) => {
                let keyed = shape.writer.write_key(key, new.cells());
                let half: Half<'_, NoCells<'_>, _> = Half {
                    operation: Operation::Create,
                    before: None,
                    after: Some(new.cells()),
                    key,
                };
                at.half(keyed, value, half, new).await?;
            }
            RowChange::Delete(old) => {
                let tuple = old.tuple();
                let keyed = shape.writer.write_key(key, tuple.cells());
                let before = Some((tuple.cells(), is_key_only(&old)));
                let half: Half<'_, _, NoCells<'_>> = Half {
                    operation: Operation::Delete,
                    before,
                    after: None,
                    key,
                };
                at.half(keyed, value, half, tuple).await?;
            }
            RowChange::Update(None, new) => {
                let keyed = shape.writer.write_key(key, new.cells());
                let half: Half<'_, NoCells<'_>, _> = Half {
                    operation: Operation::Update,
                    before: None,
                    after: Some(new.cells()),
                    key,
                };
                at.half(keyed, value, half, new).await?;
            }
            RowChange::Update(Some(old), new) => {
                at.update_of(old, new, key, old_key, value).await?;
            }
        }
        Ok(at.written)
    }
}

/// Whether the old tuple holds nothing but the key.
const fn is_key_only(old: &OldTuple<'_>) -> bool {
    match old {
        OldTuple::Key(_) => true,
        OldTuple::Full(_) => false,
    }
}

/// The new row, with what the old one knows filled in for what was not sent.
fn filled<'a>(shape: &Shape, old: &OldTuple<'a>, new: Tuple<'a>) -> Vec<Cell<'a>> {
    let key_only = is_key_only(old);
    let old_cells = old.tuple().cells().map(Some).chain(std::iter::repeat(None));
    new.cells()
        .zip(old_cells)
        .enumerate()
        .map(|(place, (now, before))| match (now, before) {
            (Cell::Unavailable, Some(before))
                if !key_only || shape.key_columns.contains(&place) =>
            {
                before
            }
            (now, _) => now,
        })
        .collect()
}

struct Place<'p, P> {
    context: &'p Context,
    outbox: &'p mut Outbox<P>,
    transaction: &'p mut SourceTransaction,
    shape: &'p Shape,
    lane: usize,
    written: Written,
}

impl<P: TransactionalProducer> Place<'_, P> {
    /// An UPDATE of which the source sent the old row too: of one key, or from one key to another.
    async fn update_of(
        &mut self,
        old: OldTuple<'_>,
        new: Tuple<'_>,
        key: &mut Vec<u8>,
        old_key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<(), AgentError> {
        let (shape, tuple) = (self.shape, old.tuple());
        let cells = filled(shape, &old, new);
        let old_keyed = shape.writer.write_key(old_key, tuple.cells());
        let keyed = shape.writer.write_key(key, cells.iter().copied());
        let before = Some((tuple.cells(), is_key_only(&old)));
        let after = Some(cells.iter().copied());
        if old_keyed.is_err() || old_key == key {
            let half = Half {
                operation: Operation::Update,
                before,
                after,
                key,
            };
            return self.half(keyed.and(old_keyed), value, half, new).await;
        }
        let half: Half<'_, _, NoCells<'_>> = Half {
            operation: Operation::Delete,
            before,
            after: None,
            key: old_key,
        };
        self.half(old_keyed, value, half, tuple).await?;
        let half: Half<'_, NoCells<'_>, _> = Half {
            operation: Operation::Create,
            before: None,
            after,
            key,
        };
        self.half(keyed, value, half, new).await
    }

    /// Counts an ordinal and writes one record for it, unless it was committed before.
    async fn half<'a, B, A>(
        &mut self,
        keyed: Result<bool, WriteError>,
        value: &mut Vec<u8>,
        half: Half<'_, B, A>,
        cells: Tuple<'a>,
    ) -> Result<(), AgentError>
    where
        B: IntoIterator<Item = Cell<'a>>,
        A: IntoIterator<Item = Cell<'a>>,
    {
        self.transaction.ordinal += 1;
        let ordinal = self.transaction.ordinal;
        let commit_lsn = self.transaction.commit_lsn;
        let position = self.outbox.position_of(commit_lsn, ordinal);
        if position <= self.outbox.position() {
            self.written.replayed += 1;
            return Ok(());
        }
        let origin = ChangeOrigin {
            commit_us: self.transaction.commit_us,
            commit_lsn,
            transaction_id: self.transaction.transaction_id,
            ordinal,
            handled_ms: self.transaction.handled_ms,
        };
        let operation = half.operation;
        let written = keyed.and_then(|keyed| {
            self.shape
                .writer
                .write_envelope(value, operation, &origin, half.before, half.after)
                .map(|()| keyed)
        });
        match written {
            Ok(keyed) => {
                self.record(position, keyed.then_some(half.key), value)
                    .await?;
            }
            Err(reason) => self.set_aside(position, operation, &reason, cells).await?,
        }
        self.outbox.change_done(commit_lsn, ordinal);
        Ok(())
    }

    async fn record(
        &mut self,
        position: Position,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), AgentError> {
        let Some(lane) = self.outbox.lane(self.lane) else {
            return Err(AgentError::StreamOrder {
                what: "a change for no topic",
            });
        };
        let partition = lane.partition_of(key);
        let mut key_buffer = Vec::new();
        let key = key.map(|key| self.shape.writer.record_key(key, &mut key_buffer));
        let size_bytes =
            u64::try_from(value.len() + key.map_or(0, <[u8]>::len)).unwrap_or(u64::MAX);
        let by_reference = size_bytes > self.context.config.limits.record_max_bytes;
        let reference = if by_reference {
            self.written.references += 1;
            Some(put_reference(self.context, &lane.registration.topic, value).await?)
        } else {
            None
        };
        let kind = if by_reference {
            RecordKind::Reference
        } else {
            RecordKind::Change
        };
        let record = LaneRecord {
            lane: self.lane,
            partition,
            kind,
            schema_version: self.shape.schema.version,
            position,
            key,
            value: reference.as_deref().unwrap_or(value),
        };
        self.outbox.send(&record).await
    }

    async fn set_aside(
        &mut self,
        position: Position,
        operation: Operation,
        reason: &WriteError,
        cells: Tuple<'_>,
    ) -> Result<(), AgentError> {
        self.written.quarantined += 1;
        let Some(lane) = self.outbox.lane(self.lane) else {
            return Err(AgentError::StreamOrder {
                what: "a change for no topic",
            });
        };
        let table = format!(
            "{}.{}",
            self.shape.schema.table_schema, self.shape.schema.table_name
        );
        let refused = RefusedChange {
            table: &table,
            topic: &lane.registration.topic,
            schema_version: self.shape.schema.version,
            position,
            operation: Some(operation),
            reason: reason.to_string(),
        };
        let cells: Vec<Cell<'_>> = cells.cells().collect();
        let marker = quarantine::put(self.context, &refused, RefusedRow::Cells(&cells)).await?;
        let record = quarantine::marker_record(self.lane, &refused, &marker);
        self.outbox.send(&record).await
    }
}

/// Stores an envelope that is too large for the topic; gives the value of its reference record.
async fn put_reference(
    context: &Context,
    topic: &str,
    envelope: &[u8],
) -> Result<Vec<u8>, AgentError> {
    let key = layout::reference(context.source_name(), topic, &context.ids.next_id());
    context
        .store
        .put(&key, bytes::Bytes::copy_from_slice(envelope))
        .await?;
    failpoint::hit(failpoints::AFTER_REFERENCE_PUT);
    let reference = Reference {
        firn_reference: key.clone(),
        size_bytes: u64::try_from(envelope.len()).unwrap_or(u64::MAX),
    };
    serde_json::to_vec(&reference).map_err(|source| AgentError::Document { key, source })
}
