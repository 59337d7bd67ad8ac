//! The state of a replication slot.

use change_event::Lsn;

use crate::catalog::Catalog;
use crate::client::{first, quote_literal};
use crate::error::SourceError;

/// Whether the log that a slot needs is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond it, and still kept.
    Extended,
    /// To be removed at the next checkpoint.
    Unreserved,
    /// Gone: the slot is lost.
    Lost,
}

/// The state of a replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Its name.
    pub slot: String,
    /// `pgoutput` for ours; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Database of a logical slot.
    pub database: Option<String>,
    /// A connection uses it.
    pub active: bool,
    /// Process that uses it.
    pub active_pid: Option<u32>,
    /// Oldest log that it needs.
    pub restart_lsn: Option<Lsn>,
    /// Everything before it was acknowledged.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Whether its log is there; `None` for a slot that never reserved any.
    pub wal_status: Option<WalStatus>,
    /// Log in bytes that may still be written before the slot is in danger; `None` without bound, or if it is lost.
    pub safe_wal_size_bytes: Option<i64>,
    /// Log in bytes that it holds.
    pub retained_bytes: Option<i64>,
    /// Why it was invalidated; known since PostgreSQL 17.
    pub invalidation_reason: Option<String>,
}

impl SlotState {
    /// Whether the slot can never stream again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.wal_status == Some(WalStatus::Lost) || self.invalidation_reason.is_some()
    }
}

impl Catalog {
    /// The state of the slot; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`crate::Connection::query`].
    pub async fn slot_state(&mut self, slot: &str) -> Result<Option<SlotState>, SourceError> {
        // The row as JSON: a column that an older version lacks reads as NULL.
        let sql = format!(
            "SELECT s.slot_name, s.plugin, s.database, s.active, s.active_pid, s.restart_lsn,
                    s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size,
                    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                    ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint,
                    to_jsonb(s) ->> 'invalidation_reason'
             FROM pg_replication_slots s WHERE s.slot_name = {}",
            quote_literal(slot)
        );
        let rows = self.query(&sql).await?;
        let Ok(row) = first(&rows) else {
            return Ok(None);
        };
        Ok(Some(SlotState {
            slot: row.text(0)?,
            plugin: row.parse_optional(1)?,
            database: row.parse_optional(2)?,
            active: row.flag(3)?,
            active_pid: row.parse_optional(4)?,
            restart_lsn: row.parse_optional(5)?,
            confirmed_flush_lsn: row.parse_optional(6)?,
            wal_status: row.get(7).map(wal_status).transpose()?,
            safe_wal_size_bytes: row.parse_optional(8)?,
            retained_bytes: row.parse_optional(9)?,
            invalidation_reason: row.parse_optional(10)?,
        }))
    }
}

fn wal_status(text: &str) -> Result<WalStatus, SourceError> {
    match text {
        "reserved" => Ok(WalStatus::Reserved),
        "extended" => Ok(WalStatus::Extended),
        "unreserved" => Ok(WalStatus::Unreserved),
        "lost" => Ok(WalStatus::Lost),
        _ => Err(SourceError::UnexpectedAnswer {
            what: "unknown wal_status of a slot",
        }),
    }
}
