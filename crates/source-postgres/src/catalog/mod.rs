//! What the server's catalog says: facts, rights, tables, slots; and the one thing that is written there, the publication.
//!
//! Flow: **here** -> `preflight`, `relation`, the agent's start-up.
//!
//! # Invariants
//! - Only [`Catalog::ensure_publication`] and [`Catalog::publish`] change anything.
//! - Generated columns are listed, but are not live: `pgoutput` does not send them and a copy does not read them.
//!
//! # Source
//! PostgreSQL manual, "System Catalogs" and "System Views".

mod publication;
mod server;
mod slot;
mod table;

pub use publication::{PublicationChange, PublicationState};
pub use server::ServerFacts;
pub use slot::{SlotState, WalStatus};
pub(crate) use table::read_table;
pub use table::{CatalogColumn, CatalogTable, NamedTable, TableKind, TableName, TablePattern};

use change_event::Lsn;

use crate::client::{Connection, Row, first};
use crate::config::ConnectOptions;
use crate::error::SourceError;

/// A connection for questions to the catalog.
#[derive(Debug)]
pub struct Catalog {
    connection: Connection,
}

impl Catalog {
    /// Connects.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub async fn connect(options: &ConnectOptions) -> Result<Self, SourceError> {
        Ok(Self {
            connection: Connection::connect(options).await?,
        })
    }

    /// The position up to which the server has written its log; on a standby, up to which it has replayed it.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn current_wal_lsn(&mut self) -> Result<Lsn, SourceError> {
        let rows = self
            .query(
                "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                 ELSE pg_current_wal_lsn() END",
            )
            .await?;
        first(&rows)?.parse(0)
    }

    async fn query(&mut self, sql: &str) -> Result<Vec<Row>, SourceError> {
        self.connection.query(sql).await
    }
}
