//! Which tables were taken in after the first copy, and which of all captured ones owe a copy: create-only objects.
//!
//! Flow: `census` (a table is new, or left the publication) -> **owed** -> `recopy` -> announced -> **paid**.
//!
//! # Invariants
//! - What is written here only grows, so that a late write of a fenced agent can add a copy and never take a table away.
//! - A table is written down before it is in the publication: none of its changes is in the stream and not on its topic.
//! - A copy is paid after the commit of its announcements.

use std::collections::BTreeMap;

use change_event::layout;
use object_io::ObjectStore;
use serde::{Deserialize, Serialize};

use crate::copy_id::Purpose;
use crate::error::AgentError;
use crate::objects::{self, Creation};
use crate::tables::CapturedName;

/// Why a table owes a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was taken in while the agent streamed.
    New,
    /// It left the publication: changes since then are missing.
    Left,
}

/// A copy that a table owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debt {
    /// The table.
    pub table: CapturedName,
    /// Why.
    pub reason: Reason,
}

/// By which copy a debt was paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Number of the copy.
    pub copy_id: u32,
}

#[derive(Debug)]
struct Entry {
    last: Debt,
    owed: u32,
    paid: u32,
}

/// All that the bucket says.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<u32, Entry>,
}

impl Ledger {
    /// Reads it: one listing, and one object for each table in it.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::Document`].
    pub async fn load(store: &dyn ObjectStore, source_name: &str) -> Result<Self, AgentError> {
        let folder = layout::captured_tables(source_name);
        let mut numbers: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for object in store.list(&folder).await? {
            let Some((oid, kind, number)) = read_key(&folder, &object.key) else {
                continue;
            };
            let (owed, paid) = numbers.entry(oid).or_default();
            match kind {
                Kind::Owed => *owed = number.max(*owed),
                Kind::Paid => *paid = number.max(*paid),
            }
        }
        let mut entries = BTreeMap::new();
        for (oid, (owed, paid)) in numbers {
            let key = layout::copy_owed(source_name, oid, owed);
            if let Some(last) = objects::read(store, &key).await? {
                entries.insert(oid, Entry { last, owed, paid });
            }
        }
        Ok(Self { entries })
    }

    /// The tables in it.
    pub fn tables(&self) -> impl Iterator<Item = &CapturedName> {
        self.entries.values().map(|entry| &entry.last.table)
    }

    /// The number and the reason of what a table owes; `None` if it owes nothing.
    #[must_use]
    pub fn debt(&self, oid: u32) -> Option<(u32, Reason)> {
        let entry = self.entries.get(&oid)?;
        (entry.owed > entry.paid).then_some((entry.owed, entry.last.reason))
    }

    /// Whether the debt that a copy is to pay is not paid yet.
    #[must_use]
    pub fn is_owed(&self, purpose: &Purpose) -> bool {
        let (Some(table), Some(number)) = (&purpose.table, purpose.debt) else {
            return false;
        };
        let entry = self.entries.get(&table.oid);
        entry.is_none_or(|entry| number > entry.paid)
    }

    /// Writes down that a table owes a copy.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
    pub async fn owe(
        &mut self,
        store: &dyn ObjectStore,
        source_name: &str,
        debt: Debt,
    ) -> Result<(), AgentError> {
        let oid = debt.table.oid;
        let (before, paid) = self
            .entries
            .get(&oid)
            .map_or((0, 0), |entry| (entry.owed, entry.paid));
        let owed = before + 1;
        let key = layout::copy_owed(source_name, oid, owed);
        let last = match objects::create(store, &key, &debt).await? {
            Creation::Ours => debt,
            // A fenced agent was late: the debt is the same.
            Creation::Other(debt) => debt,
        };
        self.entries.insert(oid, Entry { last, owed, paid });
        Ok(())
    }

    /// Writes down that a debt is paid; one that was paid before stays so.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
    pub async fn pay(
        &mut self,
        store: &dyn ObjectStore,
        source_name: &str,
        oid: u32,
        number: u32,
        payment: &Payment,
    ) -> Result<(), AgentError> {
        let key = layout::copy_paid(source_name, oid, number);
        match objects::create(store, &key, payment).await? {
            Creation::Ours | Creation::Other(_) => {}
        }
        if let Some(entry) = self.entries.get_mut(&oid) {
            entry.paid = entry.paid.max(number);
        }
        Ok(())
    }
}

enum Kind {
    Owed,
    Paid,
}

fn read_key(folder: &str, key: &str) -> Option<(u32, Kind, u32)> {
    let (oid, name) = key.strip_prefix(folder)?.split_once('/')?;
    let (kind, number) = name.strip_suffix(".json")?.split_once('-')?;
    let kind = match kind {
        "owed" => Kind::Owed,
        "paid" => Kind::Paid,
        _ => return None,
    };
    Some((oid.parse().ok()?, kind, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use object_io::MemoryStore;

    use super::*;

    fn debt(oid: u32, reason: Reason) -> Debt {
        let table = CapturedName {
            oid,
            table_schema: "public".to_owned(),
            table_name: format!("t{oid}"),
        };
        Debt { table, reason }
    }

    #[tokio::test]
    async fn debts_are_read_back_until_they_are_paid() {
        let store = MemoryStore::new("lake");
        let mut ledger = Ledger::load(&store, "s").await.unwrap();
        assert_eq!(ledger.debt(7), None);
        ledger.owe(&store, "s", debt(7, Reason::New)).await.unwrap();
        let mut again = Ledger::load(&store, "s").await.unwrap();
        assert_eq!(again.debt(7), Some((1, Reason::New)));
        again
            .pay(&store, "s", 7, 1, &Payment { copy_id: 2 })
            .await
            .unwrap();
        again.owe(&store, "s", debt(9, Reason::Left)).await.unwrap();
        for ledger in [again, Ledger::load(&store, "s").await.unwrap()] {
            assert_eq!(ledger.debt(7), None);
            assert_eq!(ledger.debt(9), Some((1, Reason::Left)));
            let names: Vec<u32> = ledger.tables().map(|table| table.oid).collect();
            assert_eq!(names, [7, 9]);
        }
    }

    #[tokio::test]
    async fn late_write_of_a_fenced_agent_takes_no_table_away() {
        let store = MemoryStore::new("lake");
        let mut late = Ledger::load(&store, "s").await.unwrap();
        let mut now = Ledger::load(&store, "s").await.unwrap();
        now.owe(&store, "s", debt(7, Reason::New)).await.unwrap();
        now.pay(&store, "s", 7, 1, &Payment { copy_id: 2 })
            .await
            .unwrap();
        late.owe(&store, "s", debt(7, Reason::Left)).await.unwrap();
        late.owe(&store, "s", debt(8, Reason::New)).await.unwrap();
        let ledger = Ledger::load(&store, "s").await.unwrap();
        assert_eq!(ledger.debt(7), None, "paid is paid");
        assert_eq!(ledger.debt(8), Some((1, Reason::New)));
    }
}
