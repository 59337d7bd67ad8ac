//! Row changes to Parquet data files that an Iceberg manifest can name.
//!
//! Flow: change event -> **batch (Arrow) -> Parquet file and its statistics** -> staged intent -> commit.
//!
//! # Invariants
//! - A value arrives exactly, or travels exactly in `_exact`, or its row is refused: never a wrong number, never a NULL for
//!   what is unknown.
//! - A file holds rows of one schema version and of one UTC day of `_source_ts`.
//! - No I/O: bytes out, the caller stores them.

mod batch;
mod bounds;
mod column;
mod encode;
mod error;
mod schema;
mod staged;
mod text;

pub use batch::{ChangeBatch, ChangeRow, DayBatch, RowImage};
pub use encode::{EncodedFile, encode};
pub use error::{FileError, RowError};
pub use schema::{
    DAY_FIELD_NAME, arrow_schema, base_schema, evolved_lake_schema, lake_schema, partition_spec,
};
pub use staged::{ColumnStatistics, CopyAnnouncement, StagedFile};
