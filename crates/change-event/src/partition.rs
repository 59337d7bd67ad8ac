//! Which partition a key goes to: firn's own, stored and versioned map, never the Kafka client's.
//!
//! # Invariants
//! - The same key bytes give the same partition for as long as the map's version stands.
//! - A record without a key (a table without a primary key) goes to partition 0, so that its order holds.

use serde::{Deserialize, Serialize};

/// Keys are hashed to this many buckets, and buckets to partitions, so that a larger map moves whole buckets.
pub const BUCKET_COUNT: u64 = 1024;

/// A stored map of buckets to partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionMap {
    /// Rises with each change of the map.
    pub version: u32,
    /// Number of partitions; bucket `b` goes to partition `b % partitions`.
    pub partitions: u32,
}

impl PartitionMap {
    /// The partition of a record with this key.
    #[must_use]
    pub fn partition_of(&self, key: Option<&[u8]>) -> u32 {
        let Some(key) = key else { return 0 };
        let bucket = fnv1a_64(key) % BUCKET_COUNT;
        u32::try_from(bucket % u64::from(self.partitions.max(1))).unwrap_or(0)
    }
}

/// FNV-1a: stable by definition, and its constants are its specification (Fowler, Noll, Vo).
#[must_use]
pub fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn keys_spread_and_keyless_records_stay_together() {
        let map = PartitionMap {
            version: 1,
            partitions: 4,
        };
        let mut seen = [0u32; 4];
        for id in 0..4000 {
            let key = format!("{{\"id\":{id}}}");
            seen[map.partition_of(Some(key.as_bytes())) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 800), "{seen:?}");
        assert_eq!(map.partition_of(None), 0);
    }
}
