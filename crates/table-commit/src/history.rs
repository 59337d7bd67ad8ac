//! Whether the head of a table still descends from our last snapshot: if not, somebody rolled it back, and progress that the
//! state speaks of is no longer in the data.
//!
//! Flow: loaded metadata -> **here** -> anything that touches the table.
//!
//! # Invariants
//! - Descent is proven by parents, one after the other. Where a parent was expired, the former metadata files that the metadata log
//!   names are asked for it; what they do not say is never taken for granted.
//! - A table that was not touched by others costs no request.
//!
//! # Source
//! Iceberg specification: sequence numbers rise with every commit to a table, so an ancestor that is no newer than ours and
//! is not ours leads past it.

use iceberg::spec::TableMetadata;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::metadata_file::{decode, fetch};
use crate::rollback::Head;
use crate::state::TableState;
use crate::table::Committer;

/// Where a walk from a snapshot to its ancestors ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    /// At our snapshot.
    Ours,
    /// At an ancestor that is no newer than ours or holds rows by another state, or at the table's first.
    Past,
    /// At a snapshot that this metadata does not know.
    Expired { snapshot_id: i64 },
}

impl Committer {
    /// Checks that our last snapshot is the head or an ancestor of it, also where that is only known by former metadata.
    ///
    /// # Errors
    /// [`CommitError::RolledBack`], [`CommitError::HistoryExpired`] (Halt); Retry from the store.
    pub(crate) async fn check_expired(
        &self,
        table: &TableName,
        state: &TableState,
        metadata: &TableMetadata,
    ) -> Result<(), CommitError> {
        let Some(ours) = state.snapshot_id else {
            return Ok(());
        };
        let head = metadata.current_snapshot_id();
        let walk = |metadata: &TableMetadata, from| trace(table, metadata, from, ours, state);
        let mut trace = head.map_or(Trace::Past, |head| walk(metadata, head));
        let mut former = metadata.metadata_log().iter().rev();
        loop {
            let snapshot_id = match trace {
                Trace::Ours => return Ok(()),
                Trace::Past => {
                    return Err(CommitError::RolledBack {
                        table: table.clone(),
                        state: Head(Some(ours)),
                        head: Head(head),
                    });
                }
                Trace::Expired { snapshot_id } => snapshot_id,
            };
            let Some(file) = former.next() else {
                return Err(CommitError::HistoryExpired {
                    table: table.clone(),
                    state: Head(Some(ours)),
                    head: Head(head),
                    expired_snapshot_id: snapshot_id,
                });
            };
            if let Some(older) = self.former(table, &file.metadata_file).await? {
                trace = walk(&older, snapshot_id);
            }
        }
    }

    /// A former metadata file; `None` if it was removed.
    async fn former(
        &self,
        table: &TableName,
        location: &str,
    ) -> Result<Option<TableMetadata>, CommitError> {
        match fetch(self.store.as_ref(), table, location).await {
            Ok(bytes) => decode(bytes, location).await.map(Some),
            Err(CommitError::MissingObject { .. } | CommitError::ForeignLocation { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Walks from a snapshot back, as far as one metadata file knows.
fn trace(
    table: &TableName,
    metadata: &TableMetadata,
    from: i64,
    ours: i64,
    state: &TableState,
) -> Trace {
    let mut snapshot_id = from;
    loop {
        if snapshot_id == ours {
            return Trace::Ours;
        }
        let Some(snapshot) = metadata.snapshot_by_id(snapshot_id) else {
            return Trace::Expired { snapshot_id };
        };
        if state.is_of_other(table, metadata, snapshot_id) {
            return Trace::Past;
        }
        match snapshot.parent_snapshot_id() {
            Some(parent) if snapshot.sequence_number() > state.sequence_number => {
                snapshot_id = parent;
            }
            Some(_) | None => return Trace::Past,
        }
    }
}
