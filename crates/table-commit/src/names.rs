//! Names of the objects that a commit writes below a table's `metadata/` folder.
//!
//! | name | what | superseded by |
//! |---|---|---|
//! | `<n>-<id>.gz.metadata.json` | table metadata ([`crate::metadata_file::next_location`]) | each commit |
//! | `snap-<snapshot>-1-<attempt>.avro` | manifest list of a snapshot | the expiry of the snapshot |
//! | `<attempt>-m0.avro` | manifest with a commit's new entries, and those of the one that it replaced | the next commits, until it is full |
//! | `<attempt>-m1.avro` | manifest merged of older ones ([`crate::manifests`]) | the merge into the next tier |
//!
//! **What is an orphan.** Nothing here is removed by a commit but what a definite conflict left. So an object with one of
//! these names is garbage when the table's *current* metadata does not lead to it: it is not that metadata nor in its
//! metadata log, not the manifest list of one of its snapshots, and not named by one of those lists. Two things make it so:
//! later commits superseded it, or the attempt that wrote it lost. It may be removed when it is older (by the store's clock)
//! than any invocation lives and than readers plan a query for; an attempt of which the outcome is unknown can still land
//! only while the pointer is at the version that it was compared with, so that the pointer's next move makes it certain.
//!
//! # Invariants
//! - Every name holds a fresh id: two attempts never write one name, and no name is written twice.

/// Address of a snapshot's manifest list.
pub(crate) fn manifest_list(table_location: &str, snapshot_id: i64, attempt_id: &str) -> String {
    format!("{table_location}/metadata/snap-{snapshot_id}-1-{attempt_id}.avro")
}

/// Address of a manifest: the `number`th of its attempt.
pub(crate) fn manifest(table_location: &str, attempt_id: &str, number: usize) -> String {
    format!("{table_location}/metadata/{attempt_id}-m{number}.avro")
}
