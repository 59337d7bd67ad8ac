//! Objects in memory: for tests, the demo's dry runs and as the reference of the contract suite.
//!
//! # Invariants
//! - Check and write of a create-only put happen under one lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ObjectError, ObjectStore, PutOutcome};

/// A bucket in memory.
#[derive(Debug)]
pub struct MemoryStore {
    uri_prefix: String,
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryStore {
    /// An empty bucket of this name.
    #[must_use]
    pub fn new(bucket: &str) -> Self {
        Self {
            uri_prefix: format!("s3://{bucket}/"),
            objects: Mutex::default(),
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn uri_prefix(&self) -> &str {
        &self.uri_prefix
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.objects().get(key).cloned())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(PutOutcome::Exists);
        }
        objects.insert(key.to_owned(), body);
        Ok(PutOutcome::Created)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.objects().insert(key.to_owned(), body);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let objects = self.objects();
        let from_prefix = objects.range(prefix.to_owned()..);
        Ok(from_prefix
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, _)| key.clone())
            .collect())
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.objects().remove(key);
        Ok(())
    }
}
