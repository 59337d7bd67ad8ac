//! What can go wrong between a row and a file.

use change_event::EnvelopeError;

/// A row that cannot be taken; nothing of it is in the batch. Always Quarantine.
///
/// # Invariants
/// - Names columns and types, never values.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowError {
    /// The operation has no row in a changelog.
    #[error("operation {letter:?} has no row")]
    NoRowOperation {
        /// Letter of the operation.
        letter: &'static str,
    },
    /// Create, update and read need the row after.
    #[error("operation {letter:?} without {image:?}")]
    ImageMissing {
        /// Letter of the operation.
        letter: &'static str,
        /// `before` or `after`.
        image: &'static str,
    },
    /// The image holds a column that the schema version does not know.
    #[error("column of name {column:?} is not in schema version {schema_version}")]
    UnknownColumn {
        /// Name in the image.
        column: String,
        /// Version that the row says it has.
        schema_version: u32,
    },
    /// The image holds a column twice.
    #[error("column {column:?} stands twice in the row")]
    DuplicateColumn {
        /// Name of the column.
        column: String,
    },
    /// The image has another number of cells than the schema version has columns.
    #[error("row of {found} cells, the schema version has {expected} columns")]
    ColumnCount {
        /// Columns of the schema version.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// A key column is absent, NULL, unavailable, or of a value that its lake type cannot hold.
    #[error("key column {column:?} of type {source_type} has no value that the lake can hold")]
    KeyWithoutValue {
        /// Name of the column.
        column: String,
        /// Its type in the source.
        source_type: String,
    },
    /// A value that cannot be read as its column's type.
    #[error("column {column:?} of type {source_type} holds what is no such value")]
    MalformedValue {
        /// Name of the column.
        column: String,
        /// Its type in the source.
        source_type: String,
    },
    /// The batch holds more than two gigabytes in one text column.
    #[error("column {column:?} outgrows the batch")]
    BatchFull {
        /// Name of the column.
        column: String,
    },
    /// The commit time is outside of what the lake can hold.
    #[error("commit time out of range")]
    SourceTime,
    /// The envelope's image cannot be read.
    #[error("row image cannot be read")]
    Envelope(#[from] EnvelopeError),
}

/// A batch, schema or staged file that contradicts itself: a programmer's or an operator's mistake, Halt.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A schema that Iceberg refuses.
    #[error("schema that Iceberg refuses")]
    Schema(#[source] iceberg::Error),
    /// Arrow refuses the batch.
    #[error("arrow refuses the batch")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet cannot be written.
    #[error("parquet cannot be written")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Statistics name a field that the table schema has not.
    #[error("statistics of field {field_id}, which the table schema has not")]
    UnknownField {
        /// The field id.
        field_id: i32,
    },
    /// Statistics hold a bound that is no value of its field.
    #[error("bound of field {field_id} is no value of its type")]
    Bound {
        /// The field id.
        field_id: i32,
    },
    /// The data file cannot be described.
    #[error("data file cannot be described: {reason}")]
    DataFile {
        /// What is missing, in the builder's words.
        reason: String,
    },
}
