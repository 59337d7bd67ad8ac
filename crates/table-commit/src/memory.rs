//! A catalog in memory, with the compare-and-set of Glue: a version that rises with each move.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use iceberg::spec::TableMetadata;

use crate::catalog::{
    Catalog, CatalogError, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName,
};

/// A catalog in memory.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    tables: Mutex<HashMap<TableName, (String, u64)>>,
}

impl MemoryCatalog {
    /// Somebody drops the table; its files stay.
    pub fn drop_table(&self, table: &TableName) {
        self.tables().remove(table);
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<TableName, (String, u64)>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        Ok(self
            .tables()
            .get(table)
            .map(|(metadata_location, version)| Pointer {
                metadata_location: metadata_location.clone(),
                version: PointerVersion(version.to_string()),
                record: None,
            }))
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        _metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        match self.tables().entry(table.clone()) {
            Entry::Occupied(_) => Ok(CreateOutcome::Exists),
            Entry::Vacant(entry) => {
                entry.insert((metadata_location.to_owned(), 1));
                Ok(CreateOutcome::Created)
            }
        }
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        _metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        let mut tables = self.tables();
        let Some((location, version)) = tables.get_mut(table) else {
            return Err(CatalogError::Refused {
                operation: "swap",
                table: table.clone(),
                source: "no such table".into(),
            });
        };
        if from.version.0 != version.to_string() {
            return Ok(SwapOutcome::Conflict);
        }
        metadata_location.clone_into(location);
        *version += 1;
        Ok(SwapOutcome::Swapped)
    }
}
