//! Objects in memory: for tests, the demo's dry runs and as the reference of the contract suite.
//!
//! # Invariants
//! - Check and write of a create-only put happen under one lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use change_event::{Clock, SystemClock};

use crate::{ListPage, ListedObject, ObjectError, ObjectStore, PAGE_OBJECTS_MAX, PutOutcome};

/// A bucket in memory.
#[derive(Debug)]
pub struct MemoryStore {
    uri_prefix: String,
    clock: Arc<dyn Clock>,
    objects: Mutex<BTreeMap<String, Object>>,
}

#[derive(Debug)]
struct Object {
    body: Bytes,
    modified_ms: i64,
}

impl MemoryStore {
    /// An empty bucket of this name, with the machine's clock.
    #[must_use]
    pub fn new(bucket: &str) -> Self {
        Self {
            uri_prefix: format!("s3://{bucket}/"),
            clock: Arc::new(SystemClock),
            objects: Mutex::default(),
        }
    }

    /// The same with another clock, by which objects are dated.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, body: Bytes) -> Object {
        let modified_ms = self.clock.now_ms();
        Object { body, modified_ms }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn uri_prefix(&self) -> &str {
        &self.uri_prefix
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.objects().get(key).map(|object| object.body.clone()))
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(PutOutcome::Exists);
        }
        objects.insert(key.to_owned(), self.object(body));
        Ok(PutOutcome::Created)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        let object = self.object(body);
        self.objects().insert(key.to_owned(), object);
        Ok(())
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let objects = self.objects();
        let mut below = objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let listed = |(key, object): (&String, &Object)| ListedObject {
            key: key.clone(),
            size_bytes: u64::try_from(object.body.len()).unwrap_or(u64::MAX),
            modified_ms: object.modified_ms,
        };
        let page: Vec<ListedObject> = below
            .by_ref()
            .take(limit.min(PAGE_OBJECTS_MAX))
            .map(listed)
            .collect();
        Ok(ListPage {
            objects: page,
            truncated: below.next().is_some(),
        })
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.objects().remove(key);
        Ok(())
    }
}
