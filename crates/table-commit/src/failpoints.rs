//! Names of the places where a test makes a committing process die ([`object_io::failpoint`]).

/// The first metadata of a table is written, the catalog does not know it.
pub const CREATE_BEFORE_CATALOG: &str = "create.before_catalog";
/// Manifest, list and metadata of a snapshot are written, the pointer has not moved.
pub const COMMIT_BEFORE_SWAP: &str = "commit.before_swap";
/// The pointer has moved, nobody was told.
pub const COMMIT_AFTER_SWAP: &str = "commit.after_swap";
