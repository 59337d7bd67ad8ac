//! Objects that never change, kept in memory: what this process wrote or read of table metadata lately.
//!
//! A combiner that committed last finds metadata, manifest list and manifests here, so that its next commit reads nothing
//! but slots.
//!
//! # Invariants
//! - Only objects that table metadata names are kept: their names hold a fresh id, so that a name never means other bytes
//!   ([`crate::names`]).
//! - The memory is bounded; what was not used for longest goes first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes kept. A table of 32 partitions takes about a third of a megabyte, and the manifests that its next merge reads
/// about as much; more tables than fit are read as if the process were cold.
const BYTES_MAX: usize = 16 << 20;

/// Objects by their address.
#[derive(Debug, Default)]
pub(crate) struct ObjectCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<String, Object>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Object {
    body: Bytes,
    last_use: u64,
}

impl ObjectCache {
    /// The object at an address, if it is kept.
    pub(crate) fn get(&self, location: &str) -> Option<Bytes> {
        let mut kept = self.kept();
        kept.uses += 1;
        let now = kept.uses;
        let object = kept.objects.get_mut(location)?;
        object.last_use = now;
        Some(object.body.clone())
    }

    /// Keeps an object, and lets go what does not fit beside it.
    pub(crate) fn keep(&self, location: &str, body: Bytes) {
        if body.len() > BYTES_MAX / 4 {
            return;
        }
        let mut kept = self.kept();
        kept.uses += 1;
        kept.bytes += body.len();
        let object = Object {
            body,
            last_use: kept.uses,
        };
        if let Some(before) = kept.objects.insert(location.to_owned(), object) {
            kept.bytes -= before.body.len();
        }
        while kept.bytes > BYTES_MAX {
            let oldest = kept
                .objects
                .iter()
                .min_by_key(|(_, object)| object.last_use);
            let Some(location) = oldest.map(|(location, _)| location.clone()) else {
                break;
            };
            if let Some(gone) = kept.objects.remove(&location) {
                kept.bytes -= gone.body.len();
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = ObjectCache::default();
        let body = |byte: u8| Bytes::from(vec![byte; BYTES_MAX / 4]);
        for (byte, name) in (0..).zip(["a", "b", "c", "d"]) {
            cache.keep(name, body(byte));
        }
        assert_eq!(cache.get("a"), Some(body(0)));
        cache.keep("e", body(4));
        assert_eq!(cache.get("b"), None);
        for (byte, name) in [(0, "a"), (2, "c"), (3, "d"), (4, "e")] {
            assert_eq!(cache.get(name), Some(body(byte)), "{name}");
        }
    }

    #[test]
    fn object_kept_twice_counts_once_and_a_large_one_not_at_all() {
        let cache = ObjectCache::default();
        for _ in 0..9 {
            cache.keep("a", Bytes::from(vec![0; BYTES_MAX / 4]));
        }
        cache.keep("large", Bytes::from(vec![0; BYTES_MAX / 4 + 1]));
        assert_eq!(cache.get("large"), None);
        assert!(cache.get("a").is_some());
        assert_eq!(cache.kept().bytes, BYTES_MAX / 4);
    }
}
