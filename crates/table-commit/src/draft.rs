//! A table that no catalog knows yet: the protocol over it is the same, its pointer is this process's.
//!
//! # Invariants
//! - All that it has taken stands in its chains: who is interrupted begins with a new pointer and finds everything again.

use change_event::{SourceSchema, TopicRegistration};
use uuid::Uuid;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::metadata_file::{encode, key_of, next_location};
use crate::publish::Race;
use crate::table::{Committer, LoadedTable, registered};

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
