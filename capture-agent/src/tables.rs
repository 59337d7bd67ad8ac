//! The captured tables of a session, by the number that the stream calls them.
//!
//! Flow: relation message -> **shape, document, writer** -> `rows`.
//!
//! # Invariants
//! - A table is known by its number (oid), which a rename keeps: its topic stays.
//! - A row is written by the document of the relation message before it, never by a newer one.

use std::collections::HashMap;

use change_event::envelope::EnvelopeWriter;
use change_event::evolution::ObservedTable;
use change_event::{Lsn, Position, SourceSchema};
use serde::{Deserialize, Serialize};
use source_postgres::{RelationMessage, TableName, relation};

use crate::config::Config;
use crate::context::Context;
use crate::error::AgentError;
use crate::schemas::SchemaBook;
use crate::source::TableLookup;

/// A captured table, as the slot's mark or the ledger remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedName {
    /// Its number in the source.
    pub oid: u32,
    /// Schema of the table when it was taken in.
    pub table_schema: String,
    /// Name of the table when it was taken in.
    pub table_name: String,
}

impl CapturedName {
    /// As the source crate says it.
    #[must_use]
    pub fn table(&self) -> TableName {
        TableName::new(self.table_schema.clone(), self.table_name.clone())
    }
}

/// One captured table.
#[derive(Debug)]
pub struct CapturedTable {
    /// Its names.
    pub name: CapturedName,
    /// Index of its lane, and of its line on the status page.
    pub lane: usize,
    /// Its topic.
    pub topic: String,
    book: SchemaBook,
    current: Option<Shape>,
}

/// How its rows are written now.
#[derive(Debug)]
pub struct Shape {
    /// The document.
    pub schema: SourceSchema,
    /// The writer for it.
    pub writer: EnvelopeWriter,
    /// Places of the key columns in a row.
    pub key_columns: Vec<usize>,
}

impl Shape {
    /// For a document, as the agent of `config` writes it to `topic`.
    #[must_use]
    pub fn new(schema: SourceSchema, config: &Config, topic: &str) -> Self {
        let mut writer = EnvelopeWriter::new(&schema, &config.source.name, &config.source.database);
        if config.envelope.inline_schema {
            writer = writer.with_inline_schema(&schema, topic);
        }
        let key_columns = schema
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.key)
            .map(|(place, _)| place)
            .collect();
        Self {
            schema,
            writer,
            key_columns,
        }
    }
}

/// All captured tables.
#[derive(Debug, Default)]
pub struct Tables {
    tables: Vec<CapturedTable>,
    by_oid: HashMap<u32, usize>,
    /// Relations of the publication that are not captured: each is warned of once, and the server may send it once only.
    passed_over: HashMap<u32, RelationMessage>,
    /// What committed before here may have been sent before.
    sent_until: Lsn,
    /// The last one asked for: rows of a table come in runs.
    last: Option<(u32, usize)>,
}

impl Tables {
    /// Says that what committed before a position may have been sent before, by a session that was.
    pub const fn sent_until(&mut self, lsn: Lsn) {
        self.sent_until = lsn;
    }

    /// Adds a table; its documents are read.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::Document`].
    pub async fn add(
        &mut self,
        context: &Context,
        name: CapturedName,
        lane: usize,
        topic: &str,
    ) -> Result<(), AgentError> {
        let book = SchemaBook::load(context.store.as_ref(), context.source_name(), topic).await?;
        self.by_oid.insert(name.oid, self.tables.len());
        let topic = topic.to_owned();
        self.tables.push(CapturedTable {
            name,
            lane,
            topic,
            book,
            current: None,
        });
        Ok(())
    }

    /// Version of the document of a table that holds at `position`; 0 if there is none.
    #[must_use]
    pub fn version_at(&self, oid: u32, position: Position) -> u32 {
        let table = self
            .by_oid
            .get(&oid)
            .and_then(|index| self.tables.get(*index));
        table
            .and_then(|table| table.book.at(position))
            .map_or(0, |document| document.version)
    }

    /// Likewise, of the table that is written to a lane; 1 if there is none.
    #[must_use]
    pub fn version_of_lane(&self, lane: usize, position: Position) -> u32 {
        let table = self.tables.iter().find(|table| table.lane == lane);
        table
            .and_then(|table| table.book.at(position))
            .map_or(1, |document| document.version)
    }

    /// The captured table of this number.
    #[must_use]
    pub fn find(&mut self, oid: u32) -> Option<&CapturedTable> {
        let index = match self.last {
            Some((last, index)) if last == oid => index,
            _ => {
                let index = self.by_oid.get(&oid).copied()?;
                self.last = Some((oid, index));
                index
            }
        };
        self.tables.get(index)
    }

    /// Takes a relation message in: finds or publishes the document for its shape.
    ///
    /// Shape: gives the lane and the version if the table is captured.
    ///
    /// # Errors
    /// [`AgentError::Source`], [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
    pub async fn relation<C: TableLookup>(
        &mut self,
        context: &Context,
        catalog: &mut C,
        message: &RelationMessage,
        position: Position,
    ) -> Result<Option<(usize, u32)>, AgentError> {
        let index = self.by_oid.get(&message.oid).copied();
        let Some(table) = index.and_then(|index| self.tables.get_mut(index)) else {
            if self
                .passed_over
                .insert(message.oid, message.clone())
                .is_none()
            {
                tracing::warn!(
                    table = format!("{}.{}", message.schema, message.table),
                    "changes of a table that is not captured are passed over"
                );
            }
            return Ok(None);
        };
        let shown = catalog.table_by_oid(message.oid).await?;
        let observed = relation::observe_relation(
            message,
            shown.as_ref(),
            table.book.at(position),
            position.commit_lsn < self.sent_until,
        );
        let version = table.observe(context, observed, position).await?;
        Ok(Some((table.lane, version)))
    }

    /// What the stream said of a table while it was passed over.
    #[must_use]
    pub fn take_passed_over(&mut self, oid: u32) -> Option<RelationMessage> {
        self.passed_over.remove(&oid)
    }

    /// Whether the stream writes rows of a table by a document of behind `position`, and the shape there is none that was
    /// published before: its document would say of the later rows what does not hold for them.
    #[must_use]
    pub fn is_overtaken(&self, oid: u32, observed: &ObservedTable, position: Position) -> bool {
        let index = self.by_oid.get(&oid).copied();
        let Some(table) = index.and_then(|index| self.tables.get(index)) else {
            return false;
        };
        let streamed = table.current.as_ref().map(|shape| &shape.schema);
        streamed.is_some_and(|streamed| {
            streamed.position > position && !table.book.has(observed, position, streamed)
        })
    }

    /// The document for the shape that a copy reads; the stream's rows are not written by it.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`]; [`AgentError::StreamOrder`] if the table
    /// is not captured.
    pub async fn document(
        &mut self,
        context: &Context,
        oid: u32,
        observed: ObservedTable,
        position: Position,
    ) -> Result<SourceSchema, AgentError> {
        let index = self.by_oid.get(&oid).copied();
        let Some(table) = index.and_then(|index| self.tables.get_mut(index)) else {
            return Err(AgentError::StreamOrder {
                what: "a copy of a table that is not captured",
            });
        };
        table.document(context, observed, position).await
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &CapturedTable> {
        self.tables.iter()
    }
}

impl CapturedTable {
    /// How its rows are written; `None` before the first relation message.
    #[must_use]
    pub const fn shape(&self) -> Option<&Shape> {
        self.current.as_ref()
    }

    async fn observe(
        &mut self,
        context: &Context,
        observed: ObservedTable,
        position: Position,
    ) -> Result<u32, AgentError> {
        let schema = self.document(context, observed, position).await?;
        let version = schema.version;
        if self
            .current
            .as_ref()
            .is_none_or(|shape| shape.schema.version != version)
        {
            self.current = Some(Shape::new(schema, &context.config, &self.topic));
        }
        Ok(version)
    }

    async fn document(
        &mut self,
        context: &Context,
        mut observed: ObservedTable,
        position: Position,
    ) -> Result<SourceSchema, AgentError> {
        // The document keeps the name under which the table was taken in: topic and lake table keep theirs too.
        observed.table_schema.clone_from(&self.name.table_schema);
        observed.table_name.clone_from(&self.name.table_name);
        self.book
            .resolve(context.store.as_ref(), &observed, position)
            .await
    }
}
