//! Rows to columns: one pass over the row, each value parsed straight into its column.
//!
//! Flow: envelope or source row -> **batch** -> [`mod@crate::encode`].
//!
//! # Invariants
//! - A row is appended whole or not at all: an error takes back what the row had appended.
//! - A column that the row does not have is NULL and named in `_unavailable`; in a delete it is NULL and not named.
//! - A value that its lake type cannot hold is NULL and stands in `_exact`; a key column's never.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use change_event::envelope::{EnvelopeView, ImageView};
use change_event::{Cell, Operation, Position, SourceSchema};

use crate::column::{Column, Input, OwnColumns, Pushed};
use crate::error::{FileError, RowError};
use crate::schema::arrow_schema;
use crate::text::day_of;

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
    layout: Layout,
    days: BTreeMap<i32, DayColumns>,
    row_count: usize,
    scratch: Scratch,
}

/// What is the same for all rows.
#[derive(Debug)]
struct Layout {
    schema_version: u32,
    columns: Vec<change_event::Column>,
    by_name: HashMap<String, usize>,
    arrow: SchemaRef,
}

/// Buffers that each row uses again.
#[derive(Debug, Default)]
struct Scratch {
    text: String,
    position: Vec<u8>,
}

#[derive(Debug)]
struct DayColumns {
    own: OwnColumns,
    columns: Vec<Column>,
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
        let by_name = schema
            .columns
            .iter()
            .enumerate()
            .map(|(at, c)| (c.name.clone(), at));
        Self {
            layout: Layout {
                schema_version: schema.version,
                columns: schema.columns.clone(),
                by_name: by_name.collect(),
                arrow: arrow_schema(schema),
            },
            days: BTreeMap::new(),
            row_count: 0,
            scratch: Scratch::default(),
        }
    }

    /// Appends one row, whole or not at all.
    ///
    /// # Errors
    /// [`RowError`] (Quarantine); the batch is as it was.
    pub fn push(&mut self, row: &ChangeRow<'_>) -> Result<(), RowError> {
        let letter = row.operation.letter();
        let (image, name) = match row.operation {
            Operation::Create | Operation::Update | Operation::Read => (row.after, "after"),
            Operation::Delete => (row.before, "before"),
            Operation::Truncate => return Err(RowError::NoRowOperation { letter }),
        };
        let image = image.ok_or(RowError::ImageMissing {
            letter,
            image: name,
        })?;
        let day = day_of(row.source_ts_us).ok_or(RowError::SourceTime)?;
        let columns = self
            .days
            .entry(day)
            .or_insert_with(|| DayColumns::new(&self.layout.columns));
        let rows = columns.own.len();
        let pushed = columns.push(&self.layout, &mut self.scratch, row, image);
        match pushed {
            Ok(()) => self.row_count += 1,
            Err(_) => columns.truncate(rows),
        }
        pushed
    }

    /// Rows in it.
    #[must_use]
    pub const fn row_count(&self) -> usize {
        self.row_count
    }

    /// Bytes that its columns take in memory, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let of_day = |day: &DayColumns| {
            day.own.size_bytes() + day.columns.iter().map(Column::size_bytes).sum::<usize>()
        };
        self.days.values().map(of_day).sum()
    }

    /// The rows by UTC day of `_source_ts`, days ascending; an empty batch gives none.
    ///
    /// # Errors
    /// [`FileError::Arrow`] never in practice.
    pub fn finish(self) -> Result<Vec<DayBatch>, FileError> {
        let schema_version = self.layout.schema_version;
        let version = i32::try_from(schema_version).unwrap_or(i32::MAX);
        let mut batches = Vec::with_capacity(self.days.len());
        for (day, columns) in self.days {
            if columns.own.len() == 0 {
                continue;
            }
            let mut arrays = columns.own.finish(version)?;
            for column in columns.columns {
                arrays.push(column.finish()?);
            }
            let rows = RecordBatch::try_new(Arc::clone(&self.layout.arrow), arrays)?;
            batches.push(DayBatch {
                day,
                schema_version,
                rows,
            });
        }
        Ok(batches)
    }
}

impl DayColumns {
    fn new(columns: &[change_event::Column]) -> Self {
        Self {
            own: OwnColumns::new(),
            columns: columns
                .iter()
                .map(|column| Column::new(column.column_type))
                .collect(),
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.own.truncate(rows);
        for column in &mut self.columns {
            column.truncate(rows);
        }
    }

    fn push(
        &mut self,
        layout: &Layout,
        scratch: &mut Scratch,
        row: &ChangeRow<'_>,
        image: RowImage<'_>,
    ) -> Result<(), RowError> {
        let rows = self.own.len();
        match image {
            RowImage::Envelope(image) => self.push_fields(layout, &mut scratch.text, image)?,
            RowImage::Cells(cells) => self.push_cells(layout, cells)?,
        }
        for (column, values) in layout.columns.iter().zip(&mut self.columns) {
            if values.len() > rows {
                continue;
            }
            if column.key {
                return Err(key_without_value(column));
            }
            values.push_null();
            let named =
                row.operation == Operation::Delete || self.own.push_unavailable(&column.lake_name);
            if !named {
                return Err(batch_full(column));
            }
        }
        scratch.position.clear();
        row.position.encode(&mut scratch.position);
        if self
            .own
            .push_row(row.operation.letter(), &scratch.position, row.source_ts_us)
        {
            Ok(())
        } else {
            Err(RowError::BatchFull {
                column: "_pos".to_owned(),
            })
        }
    }

    /// Fields normally come in the schema's order: the next column is tried first, then the name is looked up.
    fn push_fields(
        &mut self,
        layout: &Layout,
        scratch: &mut String,
        image: ImageView<'_>,
    ) -> Result<(), RowError> {
        let rows = self.own.len();
        let mut next = 0;
        for field in image {
            let (name, cell) = field?;
            let in_order = layout
                .columns
                .get(next)
                .is_some_and(|column| name.matches(&column.name));
            let at = if in_order {
                next
            } else {
                let name = name.to_text();
                *layout
                    .by_name
                    .get(&*name)
                    .ok_or_else(|| RowError::UnknownColumn {
                        column: name.into_owned(),
                        schema_version: layout.schema_version,
                    })?
            };
            next = at + 1;
            if self
                .columns
                .get(at)
                .is_some_and(|values| values.len() > rows)
            {
                return Err(RowError::DuplicateColumn {
                    column: name.to_text().into_owned(),
                });
            }
            self.push_value(layout, at, Input::of_raw(cell, scratch))?;
        }
        Ok(())
    }

    fn push_cells(&mut self, layout: &Layout, cells: &[Cell<'_>]) -> Result<(), RowError> {
        let (expected, found) = (layout.columns.len(), cells.len());
        if expected != found {
            return Err(RowError::ColumnCount { expected, found });
        }
        for (at, cell) in cells.iter().enumerate() {
            if let Some(input) = Input::of_cell(*cell) {
                self.push_value(layout, at, input)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn push_value(&mut self, layout: &Layout, at: usize, input: Input<'_>) -> Result<(), RowError> {
        let (Some(column), Some(values)) = (layout.columns.get(at), self.columns.get_mut(at))
        else {
            return Ok(());
        };
        if column.key && matches!(input, Input::Null) {
            return Err(key_without_value(column));
        }
        match values.push(input) {
            Pushed::Native => Ok(()),
            Pushed::Beyond if column.key => Err(key_without_value(column)),
            Pushed::Beyond => {
                let kept = self.own.push_exact(&column.lake_name, input.text());
                if kept {
                    Ok(())
                } else {
                    Err(batch_full(column))
                }
            }
            Pushed::Malformed => Err(RowError::MalformedValue {
                column: column.name.clone(),
                source_type: column.source_type.clone(),
            }),
            Pushed::Full => Err(batch_full(column)),
        }
    }
}

fn key_without_value(column: &change_event::Column) -> RowError {
    RowError::KeyWithoutValue {
        column: column.name.clone(),
        source_type: column.source_type.clone(),
    }
}

fn batch_full(column: &change_event::Column) -> RowError {
    RowError::BatchFull {
        column: column.name.clone(),
    }
}
