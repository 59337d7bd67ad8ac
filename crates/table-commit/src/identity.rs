//! The record of which table a name stood for, so that one that was dropped is missed and never made anew in silence.
//!
//! Flow: a table is made, or reaches an incarnation of its topic -> **record** -> whoever finds no table asks the record -> `firn adopt`.
//!
//! # Invariants
//! - Records are create-only and numbered; the newest counts.
//! - A table may be made where none is on record, or where its topic was made anew since: then everything comes again.

use bytes::Bytes;
use object_io::{VerifiedPut, put_if_absent_verified};
use serde::{Deserialize, Serialize};

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::table::{Committer, LoadedTable};

/// Which table a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The table.
    pub(crate) table_uuid: String,
    /// The topic incarnation that it had reached.
    pub(crate) topic_incarnation: u32,
}

fn key(table: &TableName, number: u32) -> String {
    format!(
        "control/table/{}/{}/{number:010}.json",
        table.database, table.table
    )
}

impl Committer {
    /// The newest record of a name, and the key of the next.
    pub(crate) async fn identity(
        &self,
        table: &TableName,
    ) -> Result<(Option<Identity>, String), CommitError> {
        let mut newest = None;
        for number in 1.. {
            let key = key(table, number);
            match self.store().get(&key).await? {
                None => return Ok((newest, key)),
                Some(body) => newest = Some(parse(&key, &body)?),
            }
        }
        Ok((newest, key(table, 0)))
    }

    /// Puts a table on record with the incarnation it reaches, unless it is.
    pub(crate) async fn identify(
        &self,
        table: &LoadedTable,
        topic_incarnation: u32,
    ) -> Result<(), CommitError> {
        let (newest, key) = self.identity(&table.name).await?;
        let table_uuid = table.metadata.uuid().to_string();
        if newest.is_some_and(|known| {
            known.table_uuid == table_uuid && known.topic_incarnation >= topic_incarnation
        }) {
            return Ok(());
        }
        let malformed = |source| CommitError::MalformedAnswer {
            key: key.clone(),
            source,
        };
        let identity = Identity {
            table_uuid,
            topic_incarnation,
        };
        let body = Bytes::from(serde_json::to_vec(&identity).map_err(malformed)?);
        match put_if_absent_verified(self.store(), &key, body).await? {
            // Another caller put the same table on record, in this or another incarnation: who comes next sees to the rest.
            VerifiedPut::Created | VerifiedPut::ExistsOther(_) => Ok(()),
            VerifiedPut::Unknown => Err(CommitError::SlotUnknown { key }),
        }
    }

    /// Checks that a table which was not there may be made: none is on record, or its topic was made anew since, or somebody
    /// made it meanwhile.
    ///
    /// # Errors
    /// [`CommitError::TableDropped`] (Halt); Retry from the store.
    pub async fn may_be_made(
        &self,
        table: &TableName,
        topic_incarnation: u32,
    ) -> Result<(), CommitError> {
        match self.identity(table).await?.0 {
            Some(known) if known.topic_incarnation >= topic_incarnation => {
                // It is made before it is put on record: made since the caller's look, it is here now.
                if self.catalog.pointer(table).await?.is_some() {
                    return Ok(());
                }
                Err(CommitError::TableDropped {
                    table: table.clone(),
                    table_uuid: known.table_uuid,
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn parse(key: &str, body: &[u8]) -> Result<Identity, CommitError> {
    serde_json::from_slice(body).map_err(|source| CommitError::MalformedAnswer {
        key: key.to_owned(),
        source,
    })
}
