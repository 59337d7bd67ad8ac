//! The port to object storage, and its adapters.
//!
//! # Invariants
//! - A conditional write says what happened in a value: [`PutOutcome`]. A time-out is `Unknown`, never "failed".
//! - Reads are strongly consistent: what a finished write wrote, the next read sees.

pub mod failpoint;
mod folder;
mod memory;
#[cfg(feature = "s3")]
mod s3;
mod verified;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

pub use folder::FolderStore;
pub use memory::MemoryStore;
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use verified::{VerifiedPut, put_if_absent_verified};

/// How a create-only write ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there and holds what was sent.
    Created,
    /// Somebody's object is there already; it may be our own, written by an attempt that was reported lost.
    Exists,
    /// It may or may not have been written: read back before anything else.
    Unknown,
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store refused for good (permission, no such bucket).
    #[error("object store refused {operation} of {key}")]
    Refused {
        /// `get`, `put`, `list` or `delete`.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer, or one that says "try again": nothing is known of a write; a read may be tried again.
    #[error("object store did not answer {operation} of {key}")]
    Unavailable {
        /// `get`, `put`, `list` or `delete`.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One bucket.
#[async_trait]
pub trait ObjectStore: Debug + Send + Sync {
    /// The URI prefix of keys for readers of the lake: `s3://bucket/`.
    fn uri_prefix(&self) -> &str;

    /// The whole object, or `None` if there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError>;

    /// Creates the object unless one is there (`If-None-Match: *`).
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError>;

    /// Writes the object whatever is there. Only for keys that hold a fresh id, or documents with one writer.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError>;

    /// All keys below a prefix, in byte order. Not for the hot path.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, ObjectError>;

    /// Removes the object; nothing there is no error.
    async fn delete(&self, key: &str) -> Result<(), ObjectError>;
}
