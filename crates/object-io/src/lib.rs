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

/// What a listing says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Bytes in it.
    pub size_bytes: u64,
    /// When it was last written by the store's clock, in milliseconds since the Unix epoch. A store may round it to the
    /// second, and one that does not say gives `i64::MAX`: to whoever judges by age, the object was written just now.
    pub modified_ms: i64,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// Objects in byte order of their keys.
    pub objects: Vec<ListedObject>,
    /// There are more behind the last of them.
    pub truncated: bool,
}

/// Objects that S3 lists at once.
pub const PAGE_OBJECTS_MAX: usize = 1000;

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

    /// The objects whose keys begin with `prefix` and stand behind `after`, in byte order: at most `limit` of them, and at
    /// most [`PAGE_OBJECTS_MAX`].
    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError>;

    /// All objects below a prefix, in byte order. Not for the hot path.
    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, ObjectError> {
        let mut objects: Vec<ListedObject> = Vec::new();
        loop {
            let after = objects.last().map(|last| last.key.clone());
            let page = self
                .list_page(prefix, after.as_deref(), PAGE_OBJECTS_MAX)
                .await?;
            let more = page.truncated && !page.objects.is_empty();
            objects.extend(page.objects);
            if !more {
                return Ok(objects);
            }
        }
    }

    /// Removes the object; nothing there is no error.
    async fn delete(&self, key: &str) -> Result<(), ObjectError>;
}
