//! What can go wrong at the source, and what may be done about it.
//!
//! # Invariants
//! - A variant is chosen by SQLSTATE and by the command that was answered, never by message text.
//! - Of the server's words only the primary message is kept, and the detail where it is about a slot: details of other errors may
//!   hold row values. Of errors about a value (SQLSTATE classes 22 and 23) not even that is kept.
//!
//! # Source
//! PostgreSQL manual, "PostgreSQL Error Codes"; `slot.c`, `slotfuncs.c`, `walsender.c` and `pgoutput.c` of PostgreSQL 14 to 18.

use std::fmt;
use std::io;

use change_event::disposition::Disposition;

use crate::decode::DecodeError;

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `WARNING`, …
    pub severity: String,
    /// Five characters.
    pub sqlstate: String,
    /// The primary message, and for a slot its detail.
    pub message: String,
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

/// An error of the source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection was made.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port, or socket.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection to the server lost")]
    ConnectionLost {
        /// How.
        #[source]
        source: io::Error,
    },
    /// The server ended the connection, or it was ended before.
    #[error("connection closed")]
    ConnectionClosed,
    /// Wrong password, unknown role, or refused by `pg_hba.conf`.
    #[error("authentication of role {user:?} failed: {server}")]
    AuthenticationFailed {
        /// Role.
        user: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// The server asks for a password and none is configured.
    #[error("the server asks for a password for role {user:?} and none is configured")]
    PasswordMissing {
        /// Role.
        user: String,
    },
    /// The server asks for a way of authentication that is not implemented.
    #[error(
        "authentication method {method} is not implemented; trust, password, md5 and scram-sha-256 are"
    )]
    AuthenticationUnsupported {
        /// Its name or number.
        method: String,
    },
    /// The SCRAM exchange failed on our side: the server could not prove that it knows the password.
    #[error("the server failed the SCRAM-SHA-256 exchange")]
    ServerNotAuthentic {
        /// How.
        #[source]
        source: io::Error,
    },
    /// An `ssl_mode` that is unknown or not implemented.
    #[error("ssl_mode {mode:?} is not implemented, only \"disable\" is")]
    SslModeUnsupported {
        /// What was asked for.
        mode: String,
    },
    /// There is no such slot: changes since its end are lost to it.
    #[error("replication slot {slot:?} does not exist: {server}")]
    SlotMissing {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// The slot cannot be used any more (lost or invalidated), or never could (another kind, another database).
    #[error("replication slot {slot:?} cannot be used: {server}")]
    SlotLost {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// Another connection uses the slot; perhaps our own, which the server has not yet given up.
    #[error("replication slot {slot:?} is in use: {server}")]
    SlotActive {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// A slot of this name is there already.
    #[error("replication slot {slot:?} exists already: {server}")]
    SlotExists {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// `max_replication_slots` is reached.
    #[error("no free replication slot for {slot:?}: {server}")]
    NoFreeSlot {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// The log that the slot needs is gone.
    #[error("the write-ahead log that slot {slot:?} needs is gone: {server}")]
    WalRemoved {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// A publication of the stream is not there (any more): its changes are lost to the stream.
    #[error("publication of slot {slot:?} is missing: {server}")]
    PublicationMissing {
        /// Slot.
        slot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// The exported snapshot is gone: its session ended or went on.
    #[error("exported snapshot {snapshot:?} is gone: {server}")]
    SnapshotGone {
        /// Its name.
        snapshot: String,
        /// The server's words.
        server: ServerMessage,
    },
    /// The table was altered, rewritten, truncated or dropped after the snapshot: the snapshot no longer shows it.
    #[error("table {table} was changed after the snapshot of its copy")]
    TableChanged {
        /// Table.
        table: String,
    },
    /// The role lacks a right.
    #[error("the role lacks a right: {server}")]
    RightMissing {
        /// The server's words.
        server: ServerMessage,
    },
    /// Any other error of the server.
    #[error("server error: {server}")]
    Server {
        /// The server's words.
        server: ServerMessage,
    },
    /// The server sent what the protocol does not allow here.
    #[error("protocol violation: {what}")]
    Protocol {
        /// What.
        what: &'static str,
    },
    /// A message of the stream could not be read.
    #[error("malformed message of the stream")]
    Decode(#[from] DecodeError),
    /// A row of a copy could not be read.
    #[error("malformed row {row} of the copy of {table}: {what}")]
    MalformedCopyRow {
        /// Table.
        table: String,
        /// Number of the row in the copy, from 0.
        row: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The table is not there.
    #[error("table {table} does not exist")]
    TableMissing {
        /// Table.
        table: String,
    },
    /// An answer of the catalog could not be read.
    #[error("unexpected answer of the catalog: {what}")]
    UnexpectedAnswer {
        /// What.
        what: &'static str,
    },
    /// The publication covers all tables and cannot be narrowed.
    #[error(
        "publication {publication:?} is FOR ALL TABLES or FOR TABLES IN SCHEMA; drop it or name another"
    )]
    PublicationTooWide {
        /// Publication.
        publication: String,
    },
}

impl SourceError {
    /// What may be done about it. Reading a source is repeatable, so nothing here is `Verify`.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Connect { .. }
            | Self::ConnectionLost { .. }
            | Self::ConnectionClosed
            | Self::SlotActive { .. } => Disposition::Retry,
            // With a new snapshot.
            Self::SnapshotGone { .. } | Self::TableChanged { .. } => Disposition::Refresh,
            Self::Server { server } => server_disposition(&server.sqlstate),
            Self::Decode(source) => source.disposition(),
            Self::MalformedCopyRow { .. } => Disposition::Quarantine,
            Self::AuthenticationFailed { .. }
            | Self::PasswordMissing { .. }
            | Self::AuthenticationUnsupported { .. }
            | Self::ServerNotAuthentic { .. }
            | Self::SslModeUnsupported { .. }
            | Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotExists { .. }
            | Self::NoFreeSlot { .. }
            | Self::WalRemoved { .. }
            | Self::PublicationMissing { .. }
            | Self::RightMissing { .. }
            | Self::Protocol { .. }
            | Self::TableMissing { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::PublicationTooWide { .. } => Disposition::Halt,
        }
    }
}

/// Transient by the class of the code: connection (08), rollback (40), resources (53), shut-down and cancel (57), system (58),
/// and a lock that was not to be had.
fn server_disposition(sqlstate: &str) -> Disposition {
    let transient = ["08", "40", "53", "57", "58"]
        .iter()
        .any(|class| sqlstate.starts_with(class));
    if transient || sqlstate == "55P03" {
        Disposition::Retry
    } else {
        Disposition::Halt
    }
}

/// What the server answered to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answering<'a> {
    StartUp { user: &'a str },
    Query,
    CreateSlot { slot: &'a str },
    StartReplication { slot: &'a str },
    Streaming { slot: &'a str },
    SetSnapshot { snapshot: &'a str },
    Copy { table: &'a str },
}

impl Answering<'_> {
    /// Whether the detail of an error is about a slot, and so free of row values.
    pub(crate) const fn keeps_detail(self) -> bool {
        matches!(
            self,
            Self::CreateSlot { .. } | Self::StartReplication { .. }
        )
    }

    pub(crate) fn error(self, server: ServerMessage) -> SourceError {
        let code = server.sqlstate.as_str();
        match (self, code) {
            (Self::StartUp { user }, "28P01" | "28000") => SourceError::AuthenticationFailed {
                user: user.to_owned(),
                server,
            },
            (Self::CreateSlot { slot }, "42710") => SourceError::SlotExists {
                slot: slot.to_owned(),
                server,
            },
            (Self::CreateSlot { slot }, "53400") => SourceError::NoFreeSlot {
                slot: slot.to_owned(),
                server,
            },
            (Self::StartReplication { slot }, "42704") => SourceError::SlotMissing {
                slot: slot.to_owned(),
                server,
            },
            // 55000: lost, invalidated, or physical; 0A000: a slot of another database.
            (Self::StartReplication { slot }, "55000" | "0A000") => SourceError::SlotLost {
                slot: slot.to_owned(),
                server,
            },
            (Self::StartReplication { slot } | Self::Streaming { slot }, "55006") => {
                SourceError::SlotActive {
                    slot: slot.to_owned(),
                    server,
                }
            }
            (Self::StartReplication { slot } | Self::Streaming { slot }, "58P01") => {
                SourceError::WalRemoved {
                    slot: slot.to_owned(),
                    server,
                }
            }
            (Self::Streaming { slot }, "42704") => SourceError::PublicationMissing {
                slot: slot.to_owned(),
                server,
            },
            // 22023: a malformed name; 42704: no snapshot of that name.
            (Self::SetSnapshot { snapshot }, "22023" | "42704") => SourceError::SnapshotGone {
                snapshot: snapshot.to_owned(),
                server,
            },
            // Column or table gone, or of another type.
            (Self::Copy { table }, "42703" | "42P01") => SourceError::TableChanged {
                table: table.to_owned(),
            },
            (_, "42501") => SourceError::RightMissing { server },
            _ => SourceError::Server { server },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(sqlstate: &str) -> ServerMessage {
        ServerMessage {
            severity: "ERROR".to_owned(),
            sqlstate: sqlstate.to_owned(),
            message: "m".to_owned(),
        }
    }

    #[test]
    fn code_and_command_choose_the_error() {
        let start = Answering::StartReplication { slot: "s" };
        assert!(matches!(
            start.error(says("42704")),
            SourceError::SlotMissing { .. }
        ));
        assert!(matches!(
            start.error(says("55000")),
            SourceError::SlotLost { .. }
        ));
        assert!(matches!(
            start.error(says("55006")),
            SourceError::SlotActive { .. }
        ));
        let streaming = Answering::Streaming { slot: "s" };
        assert!(matches!(
            streaming.error(says("58P01")),
            SourceError::WalRemoved { .. }
        ));
        assert!(matches!(
            streaming.error(says("42704")),
            SourceError::PublicationMissing { .. }
        ));
        assert!(matches!(
            Answering::Query.error(says("42704")),
            SourceError::Server { .. }
        ));
    }

    #[test]
    fn shut_down_is_retried_and_a_syntax_error_halts() {
        let retry = Answering::Query.error(says("57P01")).disposition();
        assert_eq!(retry, Disposition::Retry);
        assert_eq!(
            Answering::Query.error(says("42601")).disposition(),
            Disposition::Halt
        );
    }
}
