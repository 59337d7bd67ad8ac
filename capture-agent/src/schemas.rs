//! The schema documents of one table: which one holds at a position, and the next one.
//!
//! Flow: observed shape -> **document in object storage** -> first event that needs it.
//!
//! # Invariants
//! - A document is there before the first record that names its version.
//! - The document that holds at a position is the last one whose own position is not behind it. So a replay of the stream
//!   meets the documents it published before, and publishes nothing new for the same shape at the same place.
//! - A number that is taken is never overwritten: the document there is adopted if it says the same, else the next number is
//!   taken.

use change_event::evolution::{ObservedTable, next_schema};
use change_event::{Position, SourceSchema, layout};
use object_io::{ObjectStore, failpoint};

use crate::error::AgentError;
use crate::failpoints;
use crate::objects::{self, Creation};

/// All documents of one table, in the order of their versions.
#[derive(Debug)]
pub struct SchemaBook {
    source_name: String,
    topic: String,
    documents: Vec<SourceSchema>,
}

impl SchemaBook {
    /// Reads every document of a topic.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::Document`].
    pub async fn load(
        store: &dyn ObjectStore,
        source_name: &str,
        topic: &str,
    ) -> Result<Self, AgentError> {
        let mut documents = Vec::new();
        // Numbers are dense: reading on until one is missing needs no listing.
        for version in 1.. {
            let key = layout::schema_document(source_name, topic, version);
            match objects::read(store, &key).await? {
                Some(document) => documents.push(document),
                None => break,
            }
        }
        Ok(Self {
            source_name: source_name.to_owned(),
            topic: topic.to_owned(),
            documents,
        })
    }

    /// The document that holds at `position`.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<&SourceSchema> {
        self.documents
            .iter()
            .rev()
            .find(|document| document.position <= position)
    }

    /// Whether a shape at `position` is that of the document there, or of the one that `streamed` names.
    #[must_use]
    pub fn has(
        &self,
        observed: &ObservedTable,
        position: Position,
        streamed: &SourceSchema,
    ) -> bool {
        let held = self.at(position);
        held.is_some_and(|held| describes(held, observed)) || describes(streamed, observed)
    }

    /// The document for a shape first seen at `position`, published if it is new.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
    pub async fn resolve(
        &mut self,
        store: &dyn ObjectStore,
        observed: &ObservedTable,
        position: Position,
    ) -> Result<SourceSchema, AgentError> {
        if let Some(document) = self.at(position).or_else(|| self.documents.first())
            && describes(document, observed)
        {
            return Ok(document.clone());
        }
        loop {
            let Some(next) = next_schema(self.documents.last(), observed, position) else {
                if let Some(last) = self.documents.last() {
                    return Ok(last.clone());
                }
                return Err(AgentError::StreamOrder {
                    what: "a table without a shape",
                });
            };
            let key = layout::schema_document(&self.source_name, &self.topic, next.version);
            let adopted = match objects::create(store, &key, &next).await? {
                Creation::Ours => {
                    failpoint::hit(failpoints::AFTER_SCHEMA_PUT);
                    tracing::info!(topic = self.topic, version = next.version, %position, "schema published");
                    self.documents.push(next.clone());
                    return Ok(next);
                }
                Creation::Other(found) => found,
            };
            let ours = describes(&adopted, observed) && adopted.position == position;
            self.documents.push(adopted.clone());
            if ours {
                return Ok(adopted);
            }
        }
    }
}

/// Whether a document's live columns are what is observed. Identities count only where they were read, not concluded.
fn describes(document: &SourceSchema, observed: &ObservedTable) -> bool {
    document.columns.len() == observed.columns.len()
        && document
            .columns
            .iter()
            .zip(&observed.columns)
            .all(|(held, now)| {
                held.name == now.name
                    && held.column_type == now.column_type
                    && held.source_type == now.source_type
                    && held.key == now.key
                    && (held.id == now.id || observed.inferred || document.inferred)
            })
}

#[cfg(test)]
mod tests {
    use change_event::evolution::ObservedColumn;
    use change_event::{ColumnType, Lsn};
    use object_io::MemoryStore;

    use super::*;

    fn table(names: &[&str]) -> ObservedTable {
        let columns = names
            .iter()
            .enumerate()
            .map(|(index, name)| ObservedColumn {
                id: i32::try_from(index).unwrap() + 1,
                name: (*name).to_owned(),
                column_type: ColumnType::Long,
                source_type: "bigint".to_owned(),
                key: index == 0,
            });
        ObservedTable {
            table_schema: "public".to_owned(),
            table_name: "t".to_owned(),
            columns: columns.collect(),
            inferred: false,
        }
    }

    fn at(lsn: u64) -> Position {
        Position::stream(1, Lsn(lsn), 1)
    }

    async fn book(store: &MemoryStore) -> SchemaBook {
        SchemaBook::load(store, "shop", "shop.public.t")
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn replay_meets_the_documents_it_published() {
        let store = MemoryStore::new("lake");
        let mut first = book(&store).await;
        assert_eq!(
            first
                .resolve(&store, &table(&["id"]), at(1))
                .await
                .unwrap()
                .version,
            1
        );
        assert_eq!(
            first
                .resolve(&store, &table(&["id", "a"]), at(5))
                .await
                .unwrap()
                .version,
            2
        );
        assert_eq!(
            first
                .resolve(&store, &table(&["id", "b"]), at(9))
                .await
                .unwrap()
                .version,
            3
        );
        // The next session begins before the second change of shape.
        let mut again = book(&store).await;
        assert_eq!(
            again
                .resolve(&store, &table(&["id", "a"]), at(6))
                .await
                .unwrap()
                .version,
            2
        );
        assert_eq!(
            again
                .resolve(&store, &table(&["id", "b"]), at(9))
                .await
                .unwrap()
                .version,
            3
        );
        assert_eq!(
            again
                .resolve(&store, &table(&["id", "b"]), at(20))
                .await
                .unwrap()
                .version,
            3
        );
        assert_eq!(book(&store).await.documents.len(), 3);
    }

    #[tokio::test]
    async fn shape_between_two_documents_is_known_only_if_it_is_that_of_one_of_them() {
        let store = MemoryStore::new("lake");
        let mut book = book(&store).await;
        book.resolve(&store, &table(&["id"]), at(1)).await.unwrap();
        let later = table(&["id", "a", "b"]);
        let streamed = book.resolve(&store, &later, at(9)).await.unwrap();
        for (names, is_known) in [
            (&["id"][..], true),
            (&["id", "a", "b"], true),
            (&["id", "a"], false),
        ] {
            assert_eq!(book.has(&table(names), at(5), &streamed), is_known);
        }
    }

    #[tokio::test]
    async fn number_taken_by_another_shape_gives_the_next() {
        let store = MemoryStore::new("lake");
        let mut mine = book(&store).await;
        mine.resolve(&store, &table(&["id"]), at(1)).await.unwrap();
        let mut theirs = book(&store).await;
        theirs
            .resolve(&store, &table(&["id", "x"]), at(4))
            .await
            .unwrap();
        let next = mine
            .resolve(&store, &table(&["id", "a"]), at(5))
            .await
            .unwrap();
        assert_eq!(next.version, 3);
        let same = book(&store)
            .await
            .resolve(&store, &table(&["id", "a"]), at(5))
            .await
            .unwrap();
        assert_eq!(same, next);
    }
}
