//! Which partition a key goes to: firn's own, stored and versioned map, never the Kafka client's.
//!
//! # Invariants
//! - The same key bytes give the same partition for as long as the map's version stands.
//! - A record without a key (a table without a primary key) goes to partition 0, so that its order holds.
//! - A map is raised, never lowered, and remembers what was before it. A barrier stands between the records of two maps in
//!   every partition of the older one.

use serde::{Deserialize, Serialize};

use crate::position::Lsn;

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
    /// The maps before it, that of version 1 first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerMap>,
}

/// A map that was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerMap {
    /// Number of partitions.
    pub partitions: u32,
    /// The next map's barrier stands before the first change that committed here or later. It is decided once, behind
    /// everything that was ever sent by this map: so a change that is sent again goes where it went before.
    pub until: Lsn,
}

impl PartitionMap {
    /// The map of a new topic.
    #[must_use]
    pub const fn first(partitions: u32) -> Self {
        Self {
            version: 1,
            partitions,
            former: Vec::new(),
        }
    }

    /// The next map, for changes that commit at `until` or later.
    #[must_use]
    pub fn raised(&self, partitions: u32, until: Lsn) -> Self {
        let mut former = self.former.clone();
        former.push(FormerMap {
            partitions: self.partitions,
            until,
        });
        Self {
            version: self.version + 1,
            partitions,
            former,
        }
    }

    /// The same map, for a topic of which nothing was sent yet: it holds from the beginning.
    #[must_use]
    pub fn from_the_beginning(mut self) -> Self {
        for former in &mut self.former {
            former.until = Lsn(0);
        }
        self
    }

    /// The version that changes which commit at `lsn` are written by, once its barrier is.
    #[must_use]
    pub fn version_at(&self, lsn: Lsn) -> u32 {
        let passed = self.former.iter().take_while(|map| map.until <= lsn);
        u32::try_from(passed.count()).map_or(self.version, |count| count + 1)
    }

    /// Number of partitions by a version of the map; the newest's for versions that it does not know.
    #[must_use]
    pub fn partitions_by(&self, version: u32) -> u32 {
        let former = usize::try_from(version.saturating_sub(1))
            .ok()
            .and_then(|index| self.former.get(index));
        former.map_or(self.partitions, |map| map.partitions)
    }

    /// The version that brought a partition.
    #[must_use]
    pub fn introduced_in(&self, partition: u32) -> u32 {
        (1..)
            .zip(&self.former)
            .find(|(_, map)| partition < map.partitions)
            .map_or(self.version, |(version, _)| version)
    }

    /// The partition of a record with this key.
    #[must_use]
    pub fn partition_of(&self, key: Option<&[u8]>) -> u32 {
        self.partition_by(self.version, key)
    }

    /// Likewise, by a version of the map.
    #[must_use]
    pub fn partition_by(&self, version: u32, key: Option<&[u8]>) -> u32 {
        let Some(key) = key else { return 0 };
        let bucket = fnv1a_64(key) % BUCKET_COUNT;
        let partitions = self.partitions_by(version).max(1);
        u32::try_from(bucket % u64::from(partitions)).unwrap_or(0)
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
        let map = PartitionMap::first(4);
        let mut seen = [0u32; 4];
        for id in 0..4000 {
            let key = format!("{{\"id\":{id}}}");
            seen[map.partition_of(Some(key.as_bytes())) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 800), "{seen:?}");
        assert_eq!(map.partition_of(None), 0);
    }

    #[test]
    fn raised_map_knows_what_was_before_it() {
        let map = PartitionMap::first(2).raised(3, Lsn(10)).raised(5, Lsn(20));
        assert_eq!((map.version, map.partitions), (3, 5));
        let versions = [9, 10, 19, 20].map(|lsn| map.version_at(Lsn(lsn)));
        assert_eq!(versions, [1, 2, 2, 3]);
        assert_eq!(map.clone().from_the_beginning().version_at(Lsn(0)), 3);
        assert_eq!(
            [1, 2, 3].map(|version| map.partitions_by(version)),
            [2, 3, 5]
        );
        let introduced = [0, 1, 2, 3, 4].map(|partition| map.introduced_in(partition));
        assert_eq!(introduced, [1, 1, 2, 3, 3]);
        let old = r#"{"version":1,"partitions":4}"#;
        let first: PartitionMap = serde_json::from_str(old).unwrap();
        assert_eq!(first, PartitionMap::first(4));
        assert_eq!(serde_json::to_string(&first).unwrap(), old);
    }

    #[test]
    fn key_goes_by_the_version_it_is_asked_for() {
        let map = PartitionMap::first(1).raised(7, Lsn(10));
        let moved = (0..100).filter(|id| {
            let key = format!("{{\"id\":{id}}}");
            assert_eq!(map.partition_by(1, Some(key.as_bytes())), 0);
            map.partition_of(Some(key.as_bytes())) != 0
        });
        assert!(moved.count() > 50);
    }
}
