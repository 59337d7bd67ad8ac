//! A table that no catalog knows yet: the protocol over it is the same, its pointer is this process's.
//!
//! # Invariants
//! - All that it has taken stands in its chains: who is interrupted begins with a new pointer and finds everything again.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use change_event::{SourceSchema, TopicRegistration};
use iceberg::spec::TableMetadata;
use uuid::Uuid;

use crate::catalog::{
    Catalog, CatalogError, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName,
};
use crate::error::CommitError;
use crate::metadata_file::{encode, key_of, next_location};
use crate::publish::Race;
use crate::table::{Committer, LoadedTable, registered};

/// A catalog of one table, in memory.
#[derive(Debug, Default)]
pub(crate) struct DraftCatalog {
    /// Where the metadata is, and how often it moved.
    pointer: Mutex<Option<(String, u64)>>,
}

impl DraftCatalog {
    fn pointer(&self) -> std::sync::MutexGuard<'_, Option<(String, u64)>> {
        self.pointer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for DraftCatalog {
    async fn pointer(&self, _table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        let pointer = self.pointer().clone();
        Ok(pointer.map(|(metadata_location, version)| Pointer {
            metadata_location,
            version: PointerVersion(version.to_string()),
            record: None,
        }))
    }

    async fn create(
        &self,
        _table: &TableName,
        metadata_location: &str,
        _metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        let mut pointer = self.pointer();
        if pointer.is_some() {
            return Ok(CreateOutcome::Exists);
        }
        *pointer = Some((metadata_location.to_owned(), 1));
        Ok(CreateOutcome::Created)
    }

    async fn swap(
        &self,
        _table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        _metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        let mut pointer = self.pointer();
        match pointer.as_mut() {
            Some((location, version)) if from.version.0 == version.to_string() => {
                metadata_location.clone_into(location);
                *version += 1;
                Ok(SwapOutcome::Swapped)
            }
            Some(_) | None => Ok(SwapOutcome::Conflict),
        }
    }
}

/// A table that is built beside the one that stands.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The protocol over it.
    pub committer: Committer,
    pub(crate) uuid: Uuid,
}

impl Draft {
    /// Makes the table if it is not made yet, with the partitions of the registration, and brings it to a schema version.
    /// Gives the version that it has then.
    ///
    /// # Errors
    /// Those of [`Committer::ensure_table`] and [`Committer::evolve`].
    pub async fn bring(
        &self,
        registration: &TopicRegistration,
        document: &SourceSchema,
    ) -> Result<u32, CommitError> {
        let name = TableName::of(registration);
        let committer = &self.committer;
        let mut race = Race::new(&name, "rebuild", committer.limits.tries_max);
        loop {
            race.begin()?;
            let Some(table) = self.table(&name).await? else {
                self.make(&name, registration, document).await?;
                continue;
            };
            let Some(state) = registered(&table.state, registration) else {
                break;
            };
            race.note(committer.publish_registered(&table, &state).await?);
        }
        committer.evolve(&name, document).await
    }

    /// The table, if it is made.
    ///
    /// # Errors
    /// Those of [`Committer::load`].
    pub async fn table(&self, name: &TableName) -> Result<Option<LoadedTable>, CommitError> {
        self.committer.load(name).await
    }

    async fn make(
        &self,
        name: &TableName,
        registration: &TopicRegistration,
        document: &SourceSchema,
    ) -> Result<(), CommitError> {
        let committer = &self.committer;
        let metadata = committer.first_metadata(name, registration, document, self.uuid)?;
        let location = next_location(None, &metadata, &committer.ids.next_id());
        let body = encode(&metadata, &location).await?;
        let key = key_of(committer.store(), &location)?;
        committer.store().put(key, body).await?;
        // In memory, and by this process alone: it is made, or was before.
        let _made = committer.catalog.create(name, &location, &metadata).await?;
        Ok(())
    }
}
