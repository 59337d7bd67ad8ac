//! Publishing metadata: write the files, move the pointer, and keep count of lost races.
//!
//! Flow: combine, register, evolve -> **here** -> catalog.
//!
//! # Invariants
//! - Files of an attempt are removed only after a definite conflict. After `Unknown` they stay: a delayed call can still
//!   land, as long as the pointer is at the version it was compared with.
//! - A caller that is told `Conflict` or `Unknown` reloads and looks for its own work before it tries again: at most one
//!   attempt against a version can land, so that trying again on an unmoved version is safe.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use object_io::failpoint;

use crate::act::{ACTS_PROPERTY, Act, with_acts};
use crate::catalog::{SwapOutcome, TableName};
use crate::error::CommitError;
use crate::failpoints;
use crate::metadata_file::{encode, key_of, next_location};
use crate::state::{STATE_PROPERTY, TableState};
use crate::table::{Committer, LoadedTable};

impl Committer {
    /// Writes files and metadata and moves the pointer from `base`.
    ///
    /// # Errors
    /// As of the ports: certainly not done.
    pub(crate) async fn publish(
        &self,
        base: &LoadedTable,
        metadata: &TableMetadata,
        mut objects: Vec<(String, Bytes)>,
    ) -> Result<SwapOutcome, CommitError> {
        let previous = Some(base.pointer.metadata_location.as_str());
        let location = next_location(previous, metadata, &self.ids.next_id());
        objects.push((location.clone(), encode(metadata, &location).await?));
        let writes = objects.iter().map(|(location, body)| async {
            let key = key_of(self.store.as_ref(), location)?;
            self.store
                .put(key, body.clone())
                .await
                .map_err(CommitError::from)
        });
        try_join_all(writes).await?;
        failpoint::hit(failpoints::COMMIT_BEFORE_SWAP);
        let outcome = self
            .catalog
            .swap(&base.name, &base.pointer, &location, metadata)
            .await?;
        failpoint::hit(failpoints::COMMIT_AFTER_SWAP);
        match outcome {
            SwapOutcome::Swapped => {
                for (location, body) in objects {
                    self.cache.keep(&location, body);
                }
            }
            SwapOutcome::Conflict => {
                let locations: Vec<String> =
                    objects.into_iter().map(|(location, _)| location).collect();
                self.discard(&locations).await;
            }
            SwapOutcome::Unknown => {}
        }
        Ok(outcome)
    }

    /// Publishes a state that an operator asked for, and writes down that it was asked for. No snapshot.
    ///
    /// # Errors
    /// As of [`Committer::publish`].
    pub(crate) async fn publish_act(
        &self,
        base: &LoadedTable,
        state: &TableState,
        act: Act,
    ) -> Result<SwapOutcome, CommitError> {
        let failed = CommitError::iceberg("writing down an operator's act");
        let properties = HashMap::from([
            (STATE_PROPERTY.to_owned(), state.to_json(&base.name)?),
            (ACTS_PROPERTY.to_owned(), with_acts(&base.metadata, &[act])),
        ]);
        let metadata = base
            .builder_of_change()
            .set_properties(properties)
            .and_then(TableMetadataBuilder::build)
            .map_err(&failed)?
            .metadata;
        self.publish(base, &metadata, Vec::new()).await
    }

    /// Removes files that nothing names, as well as it goes.
    pub(crate) async fn discard(&self, locations: &[String]) {
        for location in locations {
            let Ok(key) = key_of(self.store.as_ref(), location) else {
                continue;
            };
            if let Err(error) = self.store.delete(key).await {
                tracing::debug!(key, %error, "leftover of a lost attempt stays");
            }
        }
    }
}

/// Counts the tries of one operation: load, look for the work done, **begin**, publish, **note**, and again.
#[derive(Debug)]
pub(crate) struct Race<'a> {
    table: &'a TableName,
    operation: &'static str,
    tries_max: u32,
    tries: u32,
    unknown: bool,
}

impl<'a> Race<'a> {
    pub(crate) fn new(table: &'a TableName, operation: &'static str, tries_max: u32) -> Self {
        Self {
            table,
            operation,
            tries_max,
            tries: 0,
            unknown: false,
        }
    }

    /// Begins a try, after the caller has loaded the table and not found its work done.
    ///
    /// # Errors
    /// [`CommitError::TriesExhausted`], or [`CommitError::OutcomeUnknown`] if the last try may still land.
    pub(crate) fn begin(&mut self) -> Result<(), CommitError> {
        if self.tries < self.tries_max.max(1) {
            self.tries += 1;
            return Ok(());
        }
        let (table, operation, tries) = (self.table.clone(), self.operation, self.tries);
        if self.unknown {
            return Err(CommitError::OutcomeUnknown { table, operation });
        }
        Err(CommitError::TriesExhausted {
            table,
            operation,
            tries,
        })
    }

    /// Takes note of how a try ended; the caller loads the table next, whatever it was.
    pub(crate) fn note(&mut self, outcome: SwapOutcome) {
        self.unknown = outcome == SwapOutcome::Unknown;
    }

    /// Whether a try was begun.
    pub(crate) fn has_tried(&self) -> bool {
        self.tries > 0
    }
}
