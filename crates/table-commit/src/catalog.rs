//! The port to the catalog: one pointer per table, moved by compare-and-set.
//!
//! Flow: [`crate::snapshot`] writes metadata -> **here** -> readers see it.
//!
//! # Invariants
//! - A pointer is only moved against the version it was read at; without a version there is no write.
//! - An `Err` of [`Catalog::swap`] or [`Catalog::create`] means: certainly not done. Everything in doubt is `Unknown`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use change_event::{Disposition, TopicRegistration};
use iceberg::spec::TableMetadata;

/// Name of a table in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Database (Glue), namespace (Iceberg).
    pub database: String,
    /// Table.
    pub table: String,
}

impl TableName {
    /// The table that a topic feeds.
    #[must_use]
    pub fn of(registration: &TopicRegistration) -> Self {
        Self {
            database: registration.lake_database.clone(),
            table: registration.lake_table.clone(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// What a pointer is compared by (Glue: `VersionId`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerVersion(pub String);

/// Where the current metadata of a table is.
#[derive(Clone)]
pub struct Pointer {
    /// Full address of the metadata file.
    pub metadata_location: String,
    /// Version of the pointer.
    pub version: PointerVersion,
    /// The catalog's own record as it was read together with the version, for its adapter's next write.
    pub record: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pointer")
            .field("metadata_location", &self.metadata_location)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How the creation of a table ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The table is there with our metadata.
    Created,
    /// A table of this name is there already; it may be our own, made by an attempt that was reported lost.
    Exists,
    /// It may or may not be there.
    Unknown,
}

/// How a compare-and-set ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The pointer moved from the version given to our metadata.
    Swapped,
    /// The pointer is at another version: nothing was done by this attempt.
    Conflict,
    /// It may have moved, now or later.
    Unknown,
}

/// Why the catalog could not be asked, or certainly did nothing.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Refused for good: permission, invalid input, no such database or table.
    #[error("catalog refused {operation} of {table}")]
    Refused {
        /// `get`, `create` or `swap`.
        operation: &'static str,
        /// The table.
        table: TableName,
        /// What the catalog said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certainly not done, and the cause passes: throttled; or a read without an answer.
    #[error("catalog did not do {operation} of {table}")]
    Unavailable {
        /// `get`, `create` or `swap`.
        operation: &'static str,
        /// The table.
        table: TableName,
        /// What the catalog said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The catalog gave no version to compare: a write would be unconditional.
    #[error("catalog gives no version of {table} to compare")]
    NoVersion {
        /// The table.
        table: TableName,
    },
    /// A table of this name is there, but it is no Iceberg table.
    #[error("{table} is no Iceberg table")]
    NotIceberg {
        /// The table.
        table: TableName,
    },
}

impl CatalogError {
    /// What may be done about it.
    #[deny(clippy::wildcard_enum_match_arm)]
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unavailable { .. } => Disposition::Retry,
            Self::Refused { .. } | Self::NoVersion { .. } | Self::NotIceberg { .. } => {
                Disposition::Halt
            }
        }
    }
}

/// A catalog of tables.
#[async_trait]
pub trait Catalog: fmt::Debug + Send + Sync {
    /// The pointer of a table, or `None` if there is no such table.
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError>;

    /// Makes the table unless one of this name is there; makes nothing else (no database).
    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError>;

    /// Moves the pointer to new metadata if it still is at the version of `from`.
    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError>;
}
