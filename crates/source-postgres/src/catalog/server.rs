//! Facts about the server and the role.

use crate::catalog::Catalog;
use crate::client::first;
use crate::error::SourceError;

/// Facts about the server and the role that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `180006` for 18.6.
    pub version_number: u32,
    /// `18.6`.
    pub version: String,
    /// Identity of the cluster, the same for its standbys.
    pub system_id: String,
    /// Database of the connection.
    pub database: String,
    /// Encoding of the database; `SQL_ASCII` means that bytes are stored unchecked.
    pub encoding: String,
    /// `logical` is needed.
    pub wal_level: String,
    /// Silence after which the server drops a stream, in milliseconds; 0 means never.
    pub wal_sender_timeout_ms: u64,
    /// Log that slots may hold, in megabytes; -1 means without bound.
    pub slot_wal_keep_size_mb: i64,
    /// `max_replication_slots`.
    pub slot_count_max: u32,
    /// Slots there are.
    pub slot_count: u32,
    /// `max_wal_senders`.
    pub wal_sender_count_max: u32,
    /// Streams and base backups that run.
    pub wal_sender_count: u32,
    /// A standby.
    pub in_recovery: bool,
    /// Role.
    pub role: String,
    /// It is a superuser.
    pub superuser: bool,
    /// It may replicate.
    pub replication: bool,
    /// It may create publications in this database.
    pub may_create: bool,
}

impl Catalog {
    /// Facts about the server and the role.
    ///
    /// # Errors
    /// As [`crate::Connection::query`].
    pub async fn server_facts(&mut self) -> Result<ServerFacts, SourceError> {
        let rows = self.query(SERVER_FACTS).await?;
        let row = first(&rows)?;
        Ok(ServerFacts {
            version_number: row.parse(0)?,
            version: row.text(1)?,
            system_id: row.text(2)?,
            database: row.text(3)?,
            encoding: row.text(4)?,
            wal_level: row.text(5)?,
            wal_sender_timeout_ms: row.parse(6)?,
            slot_wal_keep_size_mb: row.parse(7)?,
            slot_count_max: row.parse(8)?,
            slot_count: row.parse(9)?,
            wal_sender_count_max: row.parse(10)?,
            wal_sender_count: row.parse(11)?,
            in_recovery: row.flag(12)?,
            role: row.text(13)?,
            superuser: row.flag(14)?,
            replication: row.flag(15)?,
            may_create: row.flag(16)?,
        })
    }
}

/// `pg_settings` shows a setting in its base unit, `current_setting` does not.
const SERVER_FACTS: &str = "\
SELECT current_setting('server_version_num'), current_setting('server_version'),
       (SELECT system_identifier FROM pg_control_system()), current_database(),
       (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()),
       current_setting('wal_level'),
       (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'),
       (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders'), (SELECT count(*) FROM pg_stat_replication),
       pg_is_in_recovery(), current_user, r.rolsuper, r.rolreplication,
       has_database_privilege(current_database(), 'CREATE')
FROM pg_roles r WHERE r.rolname = current_user";
