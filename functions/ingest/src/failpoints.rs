//! Places where a test makes the function die (see [`object_io::failpoint`]). Those of a commit lie in `table-commit`.

/// A data file is stored, nothing names it yet.
pub const AFTER_PARQUET_PUT: &str = "ingest.after_parquet_put";
/// All data files and quarantined records are stored, the slot is not raced for yet.
pub const BEFORE_SLOT_PUT: &str = "ingest.before_slot_put";
/// The slot is won, nothing is acknowledged yet.
pub const AFTER_SLOT_WON: &str = "ingest.after_slot_won";
/// The table was combined inline, nothing is acknowledged yet.
pub const AFTER_INLINE_COMBINE: &str = "ingest.after_inline_combine";

/// All of them.
pub const ALL: [&str; 4] = [
    AFTER_PARQUET_PUT,
    BEFORE_SLOT_PUT,
    AFTER_SLOT_WON,
    AFTER_INLINE_COMBINE,
];
