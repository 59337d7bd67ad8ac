//! PostgreSQL as a source: logical replication, table copies and the catalog.
//!
//! Flow: **PostgreSQL** -> change event -> topic. [`client`] speaks the wire protocol (one home for it, SQL and replication
//! alike), [`stream`] reads the replication stream, [`decode`] reads its messages, [`relation`] turns what they say about a
//! table into the shape that [`change_event::evolution`] compares, [`copy`] reads a table as of the stream's beginning and
//! [`catalog`] asks and prepares the server.
//!
//! # Invariants
//! - Stream and copy print a value alike: both run under the settings of [`config::SESSION_SETTINGS`].
//! - Nothing here creates a slot but [`client::Connection::create_slot`]; a missing slot is an error, never a new slot.
//! - No row value is in an error or a log line.
//!
//! # Source
//! PostgreSQL 18 manual, chapters "Frontend/Backend Protocol" and "Logical Replication Message Formats"; protocol version 1
//! of `pgoutput`, which PostgreSQL 14 to 18 send alike.

pub mod catalog;
pub mod client;
pub mod config;
pub mod copy;
pub mod decode;
pub mod error;
pub mod preflight;
pub mod relation;
pub mod stream;
pub mod types;

mod align;
mod auth;
mod wire;

pub use catalog::{Catalog, CatalogTable, TableName, TablePattern};
pub use client::{Connection, ReplicationStart};
pub use config::{ConnectOptions, Password, SslMode};
pub use copy::TableCopy;
pub use decode::{DecodeError, Message, OldTuple, RelationMessage, ReplicaIdentity, Tuple};
pub use error::{ServerMessage, SourceError};
pub use preflight::{CaptureRequest, Problem, ProblemKind, preflight, table_preflight};
pub use stream::{Acknowledger, Frame, ReplicationStream};
