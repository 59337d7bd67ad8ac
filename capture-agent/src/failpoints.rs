//! Names of the places where a test may kill the agent ([`object_io::failpoint`]).

/// Before the producer fences its predecessor.
pub const BEFORE_INIT_TRANSACTIONS: &str = "agent.before_init_transactions";
/// After the producer fenced its predecessor.
pub const AFTER_INIT_TRANSACTIONS: &str = "agent.after_init_transactions";
/// After an epoch is claimed, before its first record.
pub const AFTER_EPOCH_CLAIM: &str = "agent.after_epoch_claim";
/// After it is written that a new table is captured and owes a copy, before it is in the publication.
pub const AFTER_COPY_OWED: &str = "agent.after_copy_owed";
/// After a new table is in the publication, before its copy begins.
pub const AFTER_TABLE_PUBLISHED: &str = "agent.after_table_published";
/// After the number of a table copy is claimed.
pub const AFTER_COPY_CLAIM: &str = "agent.after_copy_claim";
/// After the slot is created, before a row is copied.
pub const AFTER_SLOT_CREATED: &str = "agent.after_slot_created";
/// After a data file of the table copy is written.
pub const AFTER_COPY_FILE_PUT: &str = "agent.after_copy_file_put";
/// After the manifest of a complete copy is written, before anything is announced.
pub const AFTER_COPY_MANIFEST_PUT: &str = "agent.after_copy_manifest_put";
/// After all announcements are at the broker, before the transaction that holds them is committed.
pub const BEFORE_ANNOUNCEMENT_COMMIT: &str = "agent.before_announcement_commit";
/// After that commit, before the slot's mark says so.
pub const AFTER_ANNOUNCEMENT_COMMIT: &str = "agent.after_announcement_commit";
/// After a schema document is written, before a record names it.
pub const AFTER_SCHEMA_PUT: &str = "agent.after_schema_put";
/// After a large envelope is written, before its reference record.
pub const AFTER_REFERENCE_PUT: &str = "agent.after_reference_put";
/// After a record is handed to the queue.
pub const AFTER_PRODUCE: &str = "agent.after_produce";
/// After a transaction's records are at the broker, before it is committed.
pub const BEFORE_COMMIT: &str = "agent.before_commit";
/// After a topic got more partitions, before the larger map is registered.
pub const AFTER_PARTITIONS_CREATED: &str = "agent.after_partitions_created";
/// After a larger partition map is registered, before its barrier is written.
pub const AFTER_MAP_REGISTERED: &str = "agent.after_map_registered";
/// After the barriers of a larger map are handed over, before the transaction that holds them is committed.
pub const AFTER_BARRIERS_SENT: &str = "agent.after_barriers_sent";
/// After that commit, before the first record of the larger map.
pub const AFTER_BARRIERS_COMMIT: &str = "agent.after_barriers_commit";
/// After a Kafka transaction is committed, before the slot is acknowledged.
pub const AFTER_COMMIT: &str = "agent.after_commit";
/// After the slot is acknowledged.
pub const AFTER_ACKNOWLEDGE: &str = "agent.after_acknowledge";

/// All of them, for a test that goes through the list.
pub const ALL: [&str; 21] = [
    BEFORE_INIT_TRANSACTIONS,
    AFTER_INIT_TRANSACTIONS,
    AFTER_EPOCH_CLAIM,
    AFTER_COPY_OWED,
    AFTER_TABLE_PUBLISHED,
    AFTER_COPY_CLAIM,
    AFTER_SLOT_CREATED,
    AFTER_COPY_FILE_PUT,
    AFTER_COPY_MANIFEST_PUT,
    BEFORE_ANNOUNCEMENT_COMMIT,
    AFTER_ANNOUNCEMENT_COMMIT,
    AFTER_SCHEMA_PUT,
    AFTER_REFERENCE_PUT,
    AFTER_PRODUCE,
    AFTER_PARTITIONS_CREATED,
    AFTER_MAP_REGISTERED,
    AFTER_BARRIERS_SENT,
    AFTER_BARRIERS_COMMIT,
    BEFORE_COMMIT,
    AFTER_COMMIT,
    AFTER_ACKNOWLEDGE,
];
