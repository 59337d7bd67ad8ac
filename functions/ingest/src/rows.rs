//! Decodes the rows of a slice and writes them as Parquet, one file per schema version and day. No I/O.
//!
//! # Invariants
//! - A row goes whole into a file or whole into quarantine.
//! - Files of a table copy are taken over as they were announced.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use change_event::envelope::bare_value;
use change_event::{EnvelopeView, Position, RecordHeader, RecordKind, SourceSchema};
use table_file::{
    ChangeBatch, ChangeRow, CopyAnnouncement, EncodedFile, FileError, RowError, StagedFile, encode,
};

use crate::error::Reason;

/// One record of a slice that has a row or files.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Its index in the batch.
    pub(crate) index: usize,
    /// Its header.
    pub(crate) header: RecordHeader,
    /// Its value, or the object that it stands for.
    pub(crate) value: Bytes,
    /// The schema that the header names; a copy announcement needs none.
    pub(crate) schema: Option<&'a SourceSchema>,
}

/// What a slice adds to the table.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Files to be stored.
    pub(crate) encoded: Vec<EncodedFile>,
    /// Files that are stored already.
    pub(crate) announced: Vec<StagedFile>,
    /// Records for quarantine.
    pub(crate) poison: Vec<(usize, Reason)>,
    /// Rows in the files to be stored.
    pub(crate) row_count: u64,
}

/// Open batches by schema version. Most often there is one.
#[derive(Debug, Default)]
struct Batches {
    open: BTreeMap<u32, ChangeBatch>,
    full: Vec<ChangeBatch>,
}

impl Batches {
    fn push(&mut self, schema: &SourceSchema, row: &ChangeRow<'_>) -> Result<(), RowError> {
        let batch = self
            .open
            .entry(schema.version)
            .or_insert_with(|| ChangeBatch::new(schema));
        match batch.push(row) {
            Err(RowError::BatchFull { .. }) if batch.row_count() > 0 => {
                let full = std::mem::replace(batch, ChangeBatch::new(schema));
                self.full.push(full);
                batch.push(row)
            }
            pushed => pushed,
        }
    }
}

/// Decodes and encodes. `data_location` is where announced files must lie.
///
/// # Errors
/// [`FileError`] (Halt) if Arrow or Parquet refuse what they should not.
pub(crate) fn rows_to_files(rows: &[Row<'_>], data_location: &str) -> Result<Staged, FileError> {
    let mut staged = Staged::default();
    let mut batches = Batches::default();
    for row in rows {
        let taken = match (row.header.kind, row.schema) {
            (RecordKind::CopyAnnouncement, _) => announced_files(&row.value, data_location)
                .map(|files| staged.announced.extend(files)),
            (RecordKind::Change | RecordKind::Reference, Some(schema)) => {
                push(&mut batches, schema, row.header.position, &row.value)
            }
            (
                RecordKind::Change
                | RecordKind::Reference
                | RecordKind::Marker
                | RecordKind::Barrier { .. },
                _,
            ) => Ok(()),
        };
        if let Err(reason) = taken {
            staged.poison.push((row.index, reason));
        }
    }
    for batch in batches.full.into_iter().chain(batches.open.into_values()) {
        staged.row_count += u64::try_from(batch.row_count()).unwrap_or(0);
        for day in batch.finish()? {
            staged.encoded.push(encode(&day)?);
        }
    }
    Ok(staged)
}

fn push(
    batches: &mut Batches,
    schema: &SourceSchema,
    position: Position,
    value: &[u8],
) -> Result<(), Reason> {
    let envelope = EnvelopeView::parse(value)?;
    batches.push(schema, &ChangeRow::from_envelope(&envelope, position))?;
    Ok(())
}

fn announced_files(value: &[u8], data_location: &str) -> Result<Vec<StagedFile>, Reason> {
    let announcement: CopyAnnouncement = serde_json::from_slice(bare_value(value))
        .map_err(|_source| Reason::Announcement("it cannot be read"))?;
    let folder = format!("{data_location}/");
    if announcement
        .files
        .iter()
        .any(|file| !file.path.starts_with(&folder))
    {
        return Err(Reason::Announcement("a file lies outside of the table"));
    }
    Ok(announcement.files)
}

/// Documents by version, for [`Row::schema`].
pub(crate) type Documents = HashMap<u32, Arc<SourceSchema>>;
