//! What was found and removed.

use object_io::ListedObject;
use serde::Serialize;

/// Files of one kind that nothing names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FileCounts {
    /// Old enough to go.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Not old enough: an invocation may yet name them. Only a dry run looks at these.
    pub young: u64,
    /// Their bytes.
    pub young_bytes: u64,
    /// Removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
}

/// What was found and removed of one table, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Slots that are committed and old.
    pub old_slots: u64,
    /// Slots removed.
    pub removed_slots: u64,
    /// Data files.
    pub data: FileCounts,
    /// Metadata files, manifest lists and manifests.
    pub metadata: FileCounts,
}

impl FileCounts {
    pub(crate) fn found(&mut self, object: &ListedObject, old: bool) {
        let (count, bytes) = if old {
            (&mut self.orphans, &mut self.orphan_bytes)
        } else {
            (&mut self.young, &mut self.young_bytes)
        };
        *count += 1;
        *bytes += object.size_bytes;
    }

    fn add(&mut self, other: &Self) {
        self.orphans += other.orphans;
        self.orphan_bytes += other.orphan_bytes;
        self.young += other.young;
        self.young_bytes += other.young_bytes;
        self.removed += other.removed;
        self.removed_bytes += other.removed_bytes;
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.old_slots += other.old_slots;
        self.removed_slots += other.removed_slots;
        self.data.add(&other.data);
        self.metadata.add(&other.metadata);
    }
}
