//! TRUNCATE: a marker on every partition of the table's topic, and a row in the lake table of the pseudo table `firn.events`.
//!
//! A changelog's key columns are required, and a TRUNCATE has no key: so the fact itself is a row elsewhere, and on the table's
//! own topic only the order and the frontier move.
//!
//! # Invariants
//! - The event's position is the TRUNCATE's: both lie at the same place in the stream.

use change_event::envelope::ChangeOrigin;
use change_event::evolution::{ObservedColumn, ObservedTable};
use change_event::naming::{EVENTS_SCHEMA, EVENTS_TABLE};
use change_event::{Cell, ColumnType, Operation, Position, RecordKind};

use crate::broker::TransactionalProducer;
use crate::error::AgentError;
use crate::rows::SourceTransaction;
use crate::tables::{CapturedTable, Shape};
use crate::transaction::{LaneRecord, Outbox};

/// Shape of the pseudo table.
#[must_use]
pub fn events_shape() -> ObservedTable {
    let columns = [
        ("event", ColumnType::String, "text"),
        ("table_schema", ColumnType::String, "text"),
        ("table_name", ColumnType::String, "text"),
        ("cascade", ColumnType::Boolean, "boolean"),
        ("restart_identity", ColumnType::Boolean, "boolean"),
        ("transaction_id", ColumnType::Long, "bigint"),
    ];
    ObservedTable {
        table_schema: EVENTS_SCHEMA.to_owned(),
        table_name: EVENTS_TABLE.to_owned(),
        columns: (1..)
            .zip(columns)
            .map(|(id, (name, column_type, source_type))| ObservedColumn {
                id,
                name: name.to_owned(),
                column_type,
                source_type: source_type.to_owned(),
                key: false,
            })
            .collect(),
        inferred: false,
    }
}

/// How a TRUNCATE was asked for.
#[derive(Debug, Clone, Copy)]
pub struct TruncateOptions {
    /// CASCADE.
    pub cascade: bool,
    /// RESTART IDENTITY.
    pub restart_identity: bool,
}

/// The pseudo table's lane and shape.
#[derive(Debug)]
pub struct Events {
    /// Index of its lane.
    pub lane: usize,
    /// How its rows are written.
    pub shape: Shape,
}

impl Events {
    /// Writes the records for one truncated table, and counts its ordinal. Gives false if they were committed before.
    ///
    /// # Errors
    /// Those of [`Outbox::send`]: the session is over.
    pub async fn truncate<P: TransactionalProducer>(
        &self,
        outbox: &mut Outbox<P>,
        transaction: &mut SourceTransaction,
        table: &CapturedTable,
        options: TruncateOptions,
    ) -> Result<bool, AgentError> {
        transaction.ordinal += 1;
        let (commit_lsn, ordinal) = (transaction.commit_lsn, transaction.ordinal);
        let position = outbox.position_of(commit_lsn, ordinal);
        if position <= outbox.position() {
            return Ok(false);
        }
        let origin = ChangeOrigin {
            commit_us: transaction.commit_us,
            commit_lsn,
            transaction_id: transaction.transaction_id,
            ordinal,
            handled_ms: transaction.handled_ms,
        };
        self.markers(outbox, table, &origin, position).await?;
        self.event(outbox, table, &origin, position, options)
            .await?;
        outbox.change_done(commit_lsn, ordinal);
        Ok(true)
    }

    async fn markers<P: TransactionalProducer>(
        &self,
        outbox: &mut Outbox<P>,
        table: &CapturedTable,
        origin: &ChangeOrigin,
        position: Position,
    ) -> Result<(), AgentError> {
        let (Some(shape), Some(lane)) = (table.shape(), outbox.lane(table.lane)) else {
            return Err(AgentError::StreamOrder {
                what: "a TRUNCATE of a table that was not described",
            });
        };
        let partitions = lane.partition_count();
        let mut value = Vec::new();
        write(shape, &mut value, Operation::Truncate, origin, None)?;
        for partition in 0..partitions {
            let record = LaneRecord {
                lane: table.lane,
                partition,
                kind: RecordKind::Marker,
                schema_version: shape.schema.version,
                position,
                key: None,
                value: &value,
            };
            outbox.send(&record).await?;
        }
        Ok(())
    }

    async fn event<P: TransactionalProducer>(
        &self,
        outbox: &mut Outbox<P>,
        table: &CapturedTable,
        origin: &ChangeOrigin,
        position: Position,
        options: TruncateOptions,
    ) -> Result<(), AgentError> {
        let flag = |flag: bool| Cell::Text(if flag { "t" } else { "f" });
        let transaction_id = origin.transaction_id.to_string();
        let row = [
            Cell::Text("truncate"),
            Cell::Text(&table.name.table_schema),
            Cell::Text(&table.name.table_name),
            flag(options.cascade),
            flag(options.restart_identity),
            Cell::Text(&transaction_id),
        ];
        let mut value = Vec::new();
        write(
            &self.shape,
            &mut value,
            Operation::Create,
            origin,
            Some(&row),
        )?;
        let record = LaneRecord {
            lane: self.lane,
            partition: 0,
            kind: RecordKind::Change,
            schema_version: self.shape.schema.version,
            position,
            key: None,
            value: &value,
        };
        outbox.send(&record).await
    }
}

fn write(
    shape: &Shape,
    value: &mut Vec<u8>,
    operation: Operation,
    origin: &ChangeOrigin,
    after: Option<&[Cell<'_>]>,
) -> Result<(), AgentError> {
    let before: Option<(std::iter::Empty<Cell<'_>>, bool)> = None;
    shape
        .writer
        .write_envelope(
            value,
            operation,
            origin,
            before,
            after.map(|cells| cells.iter().copied()),
        )
        .map_err(|_write_error| AgentError::StreamOrder {
            what: "an event that does not fit its own schema",
        })
}
