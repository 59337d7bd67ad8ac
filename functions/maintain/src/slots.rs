//! Slots of one table that are committed and old.
//!
//! # Invariants
//! - A slot goes only when the committed frontier is past it, when it was so a day ago ([`crate::note`]), *and* when it is old
//!   by the store's clock.
//! - From the oldest on, so that what is left of a chain leads without a hole to its end.
//! - The newest slot of a chain stays: by it a table is known that was dropped ([`crate::folders::Chains`]).
//! - Chains of partitions that the table does not know, of another topic or of another table are left alone.

use object_io::{ListedObject, ObjectError, ObjectStore, PAGE_OBJECTS_MAX};
use table_commit::{Committer, INTENTS, LoadedTable};

use crate::ages::Ages;
use crate::counts::Counts;
use crate::error::MaintainError;
use crate::folders::folders;
use crate::note::{self, Note, Noted};
use crate::remover::Remover;

/// Removes them.
///
/// # Errors
/// [`MaintainError`]; what was removed before is counted.
pub(crate) async fn remove_slots(
    committer: &Committer,
    table: &LoadedTable,
    (ages, now_ms): (&Ages, i64),
    remover: &Remover<'_>,
    counts: &mut Counts,
) -> Result<(), MaintainError> {
    let store = committer.store();
    let noted = match note::read(store, table, now_ms).await? {
        Noted::Old(noted) => noted,
        Noted::Young => return Ok(()),
        Noted::Nothing if remover.is_dry_run() => return Ok(()),
        Noted::Nothing => return note::write(store, table).await,
    };
    let finder = Finder {
        store,
        table,
        noted: &noted,
        ages,
        now_ms,
        limit: remover.left(),
    };
    let old = finder.old_slots().await?;
    if !old.is_empty() {
        // The listing took its time: a table made anew, or set back by an operator, needs them.
        let now = reload(committer, table).await?;
        let still_old: Vec<ListedObject> = old
            .iter()
            .filter(|(partition, slot)| noted.is_past(&slot.key, *partition, &now))
            .map(|(_, slot)| slot.clone())
            .collect();
        counts.old_slots += u64::try_from(still_old.len()).unwrap_or(u64::MAX);
        let removed = |_: &ListedObject| counts.removed_slots += 1;
        remover.remove("slot", &still_old, removed).await?;
    }
    // With more to remove, the note serves the next run, too.
    if remover.is_dry_run() || old.len() >= finder.limit || noted == Note::of(table) {
        return Ok(());
    }
    note::write(store, table).await
}

/// The table as it is now, if it is the same one.
pub(crate) async fn reload(
    committer: &Committer,
    table: &LoadedTable,
) -> Result<LoadedTable, MaintainError> {
    match committer.load(&table.name).await? {
        Some(now) if now.metadata.uuid() == table.metadata.uuid() => Ok(now),
        Some(_) | None => Err(MaintainError::Replaced),
    }
}

/// Finds the slots of a table that may go.
#[derive(Debug)]
struct Finder<'a> {
    store: &'a dyn ObjectStore,
    table: &'a LoadedTable,
    noted: &'a Note,
    ages: &'a Ages,
    now_ms: i64,
    limit: usize,
}

impl Finder<'_> {
    /// The first `limit` of them, each with its partition.
    async fn old_slots(&self) -> Result<Vec<(u32, ListedObject)>, ObjectError> {
        let (uuid, topic) = (self.table.metadata.uuid(), &self.table.state.topic);
        let mut old = Vec::new();
        for incarnation in folders(self.store, &format!("{INTENTS}{uuid}/{topic}/")).await? {
            for chain in folders(self.store, &incarnation).await? {
                let name = chain.strip_prefix(&incarnation);
                let partition = name.and_then(|name| name.trim_end_matches('/').parse().ok());
                if let Some(partition) = partition {
                    self.old_slots_of(&chain, partition, &mut old).await?;
                }
            }
        }
        Ok(old)
    }

    /// The oldest slots of one chain, up to the first that must stay.
    async fn old_slots_of(
        &self,
        chain: &str,
        partition: u32,
        old: &mut Vec<(u32, ListedObject)>,
    ) -> Result<(), ObjectError> {
        // Goes only if another one follows it.
        let mut last: Option<ListedObject> = None;
        while old.len() < self.limit {
            let after = last.as_ref().map(|last| last.key.as_str());
            let page = self.store.list_page(chain, after, PAGE_OBJECTS_MAX).await?;
            let more = page.truncated && !page.objects.is_empty();
            for object in page.objects {
                old.extend(last.take().map(|last| (partition, last)));
                let may_go = self.noted.is_past(&object.key, partition, self.table)
                    && self.ages.is_old_slot(&object, self.now_ms);
                if !may_go || old.len() >= self.limit {
                    return Ok(());
                }
                last = Some(object);
            }
            if !more {
                break;
            }
        }
        Ok(())
    }
}
