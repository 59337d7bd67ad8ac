//! The publication: it publishes exactly the captured tables.

use std::collections::BTreeSet;

use crate::catalog::{Catalog, CatalogTable, TableKind, TableName};
use crate::client::{first, quote_identifier, quote_literal};
use crate::error::SourceError;

/// What a publication publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationState {
    /// Its name.
    pub publication: String,
    /// It publishes every table, or every table of a schema: it cannot be narrowed to a list.
    pub wide: bool,
    /// Inserts, updates, deletes and truncates are published, partitions as their root.
    pub complete: bool,
    /// A table has a row filter or a column list: changes would be missing.
    pub filtered: bool,
    /// Its tables, by name.
    pub tables: BTreeSet<TableName>,
}

/// What [`Catalog::ensure_publication`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicationChange {
    /// It was created.
    pub created: bool,
    /// Tables that were not in it: their changes before now are not in the stream.
    pub added: Vec<TableName>,
    /// Tables that were in it.
    pub removed: Vec<TableName>,
    /// Filters, column lists or operations were set right: changes may have been missed until now.
    pub repaired: bool,
}

/// Partitions are published as their root, so that moving a row between them stays inside of one table.
const OPTIONS: &str =
    "(publish = 'insert, update, delete, truncate', publish_via_partition_root = true)";

/// How long a table's writers may keep it from being published: others that want to write wait behind us.
const LOCK_TIMEOUT: &str = "2s";

impl Catalog {
    /// The publication; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`crate::Connection::query`].
    pub async fn publication(
        &mut self,
        publication: &str,
    ) -> Result<Option<PublicationState>, SourceError> {
        let name = quote_literal(publication);
        // `to_jsonb`: columns that an older version lacks read as NULL. `pg_publication_namespace` is there since 15.
        let rows = self
            .query(&format!(
                "SELECT p.oid, p.puballtables,
                        p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot,
                        to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL
                 FROM pg_publication p WHERE p.pubname = {name}"
            ))
            .await?;
        let Ok(row) = first(&rows) else {
            return Ok(None);
        };
        let (oid, complete) = (row.parse::<u32>(0)?, row.flag(2)?);
        let (mut wide, knows_schemas) = (row.flag(1)?, row.flag(3)?);
        if knows_schemas && !wide {
            let sql =
                format!("SELECT 1 FROM pg_publication_namespace WHERE pnpubid = {oid} LIMIT 1");
            wide = !self.query(&sql).await?.is_empty();
        }
        let rows = self
            .query(&format!(
                "SELECT n.nspname, c.relname,
                        coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') IS NOT NULL
                 FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = {oid}"
            ))
            .await?;
        let (mut tables, mut filtered) = (BTreeSet::new(), false);
        for row in &rows {
            tables.insert(TableName::new(row.text(0)?, row.text(1)?));
            filtered |= row.flag(2)?;
        }
        let publication = publication.to_owned();
        Ok(Some(PublicationState {
            publication,
            wide,
            complete,
            filtered,
            tables,
        }))
    }

    /// Adds a table to the publication of a stream that runs; nothing is written if it is in it.
    ///
    /// Writers of the table are waited for, and kept out until it is done. So no transaction has changes of the table on both sides:
    /// the stream would give some of them or not, by what the server happens to remember, and the numbers of all its changes with them.
    ///
    /// # Errors
    /// [`SourceError::RightMissing`] (Halt); [`SourceError::Server`] (Retry) if the writers did not end within two seconds.
    pub async fn publish(
        &mut self,
        publication: &str,
        table: &CatalogTable,
    ) -> Result<(), SourceError> {
        let state = self.publication(publication).await?;
        if state.is_some_and(|state| state.wide || state.tables.contains(&table.name)) {
            return Ok(());
        }
        let (name, quoted) = (quote_identifier(publication), table.name.quoted());
        // Rows of tables that inherit from a plain one are not its rows; whoever writes into a partition locks only that.
        let only = match table.kind {
            TableKind::Plain => "ONLY ",
            TableKind::Partitioned => "",
        };
        // Several statements in one query are one transaction.
        self.query(&format!(
            "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
             LOCK TABLE {only}{quoted} IN SHARE ROW EXCLUSIVE MODE; \
             ALTER PUBLICATION {name} ADD TABLE ONLY {quoted}"
        ))
        .await?;
        Ok(())
    }

    /// Makes the publication publish exactly `tables`; creates it if need be. Nothing is written if it does so already.
    ///
    /// A table that is added is in the stream from the commit of this change on, so it is copied after it.
    ///
    /// # Errors
    /// [`SourceError::PublicationTooWide`], [`SourceError::RightMissing`] (Halt) and others.
    pub async fn ensure_publication(
        &mut self,
        publication: &str,
        tables: &[TableName],
    ) -> Result<PublicationChange, SourceError> {
        let wanted: BTreeSet<TableName> = tables.iter().cloned().collect();
        let name = quote_identifier(publication);
        let list: Vec<String> = wanted
            .iter()
            .map(|table| format!("ONLY {}", table.quoted()))
            .collect();
        let list = list.join(", ");
        let Some(state) = self.publication(publication).await? else {
            let tables = if list.is_empty() {
                list
            } else {
                format!("FOR TABLE {list}")
            };
            self.query(&format!(
                "CREATE PUBLICATION {name} {tables} WITH {OPTIONS}"
            ))
            .await?;
            let added = wanted.into_iter().collect();
            return Ok(PublicationChange {
                created: true,
                added,
                ..PublicationChange::default()
            });
        };
        if state.wide {
            return Err(SourceError::PublicationTooWide {
                publication: publication.to_owned(),
            });
        }
        let change = PublicationChange {
            created: false,
            added: wanted.difference(&state.tables).cloned().collect(),
            removed: state.tables.difference(&wanted).cloned().collect(),
            repaired: state.filtered || !state.complete,
        };
        let mut statements = Vec::new();
        if !state.complete {
            statements.push(format!("ALTER PUBLICATION {name} SET {OPTIONS}"));
        }
        if state.filtered || !change.added.is_empty() || !change.removed.is_empty() {
            statements.push(if list.is_empty() {
                let gone: Vec<String> = change.removed.iter().map(TableName::quoted).collect();
                format!("ALTER PUBLICATION {name} DROP TABLE {}", gone.join(", "))
            } else {
                format!("ALTER PUBLICATION {name} SET TABLE {list}")
            });
        }
        if !statements.is_empty() {
            // Several statements in one query are one transaction.
            self.query(&statements.join("; ")).await?;
        }
        Ok(change)
    }
}
