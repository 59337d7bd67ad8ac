//! Rows to columns.

use arrow::record_batch::RecordBatch;

use change_event::envelope::{EnvelopeView, ImageView};
use change_event::{Cell, Operation, Position, SourceSchema};

use crate::error::{FileError, RowError};

/// A row image from either side.
#[derive(Debug, Clone, Copy)]
pub enum RowImage<'a> {
    /// From a record.
    Envelope(ImageView<'a>),
    /// From the source: one cell per column of the schema version, in its order.
    Cells(&'a [Cell<'a>]),
}

/// One row change.
#[derive(Debug, Clone, Copy)]
pub struct ChangeRow<'a> {
    /// What happened.
    pub operation: Operation,
    /// Order key.
    pub position: Position,
    /// Commit time at the source (a copied row: time of the copy), microseconds since the epoch.
    pub source_ts_us: i64,
    /// The row before.
    pub before: Option<RowImage<'a>>,
    /// The row after.
    pub after: Option<RowImage<'a>>,
}

impl<'a> ChangeRow<'a> {
    /// The row of a record.
    #[must_use]
    pub fn from_envelope(envelope: &EnvelopeView<'a>, position: Position) -> Self {
        Self {
            operation: envelope.operation,
            position,
            source_ts_us: envelope.source_ts_us,
            before: envelope.before.map(RowImage::Envelope),
            after: envelope.after.map(RowImage::Envelope),
        }
    }
}

/// Rows of one table at one schema version, as columns.
#[derive(Debug)]
pub struct ChangeBatch {
    schema_version: u32,
}

/// The rows of one UTC day.
#[derive(Debug, Clone)]
pub struct DayBatch {
    /// Days since the epoch.
    pub day: i32,
    /// Version of the source schema.
    pub schema_version: u32,
    /// The rows, in the order they were pushed.
    pub rows: RecordBatch,
}

impl ChangeBatch {
    /// An empty batch for rows of this schema version.
    #[must_use]
    pub fn new(schema: &SourceSchema) -> Self {
        Self { schema_version: schema.version }
    }

    /// Appends one row, whole or not at all.
    ///
    /// # Errors
    /// [`RowError`] (Quarantine); the batch is as it was.
    pub fn push(&mut self, row: &ChangeRow<'_>) -> Result<(), RowError> {
        Err(RowError::NoRowOperation { letter: row.operation.letter() })
    }

    /// Rows in it.
    #[must_use]
    pub fn row_count(&self) -> usize {
        0
    }

    /// Bytes that its columns take in memory, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        0
    }

    /// The rows by UTC day of `_source_ts`, days ascending; an empty batch gives none.
    ///
    /// # Errors
    /// [`FileError::Arrow`] never in practice.
    pub fn finish(self) -> Result<Vec<DayBatch>, FileError> {
        let _version = self.schema_version;
        Ok(Vec::new())
    }
}
