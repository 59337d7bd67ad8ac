//! The reference model: every snapshot is read as any reader would, and held against the list of source changes.
//!
//! # Invariants
//! - A row is read from the file that the snapshot names, not from what somebody remembers to have written.
//! - After every commit: no row twice, none that the source does not know, no file gone, no change of a key before an earlier
//!   one. At the end: every row, and every file still there.
//! - Of records that were taken away, nothing may be silent but the last of a key: what follows shows that they are missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use functions::lake::{Manifests, Row, file_rows};
use futures_util::FutureExt as _;
use iceberg::spec::TableMetadata;
use object_io::{MemoryStore, ObjectStore as _};

use crate::source::Expected;

/// What one table holds so far.
#[derive(Debug, Default)]
struct Held {
    manifests: Manifests,
    files: HashSet<String>,
    /// Last position by key.
    last: HashMap<i64, String>,
    count: usize,
}

/// The model.
#[derive(Debug)]
pub(crate) struct Model {
    /// By table and position.
    expected: HashMap<(usize, String), (Expected, bool)>,
    held: BTreeMap<usize, Held>,
}

fn now<T>(read: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    read.now_or_never().expect("memory answers at once")
}

impl Model {
    /// Of these rows.
    #[must_use]
    pub(crate) fn new(expected: &[Expected]) -> Self {
        let by_place = expected.iter().map(|row| {
            let place = (row.table, row.position.clone());
            (place, (row.clone(), false))
        });
        Self {
            expected: by_place.collect(),
            held: BTreeMap::new(),
        }
    }

    /// Rows in the lake.
    #[must_use]
    pub(crate) fn row_count(&self) -> usize {
        self.held.values().map(|held| held.count).sum()
    }

    /// Looks at a table's new head.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn committed(
        &mut self,
        table: usize,
        metadata: &TableMetadata,
        store: &MemoryStore,
    ) -> Result<(), String> {
        let held = self.held.entry(table).or_default();
        let files = now(held.manifests.data_files(store, metadata))?;
        let count = files.len();
        let live: HashSet<String> = files.into_iter().collect();
        if live.len() != count {
            return Err(format!(
                "table {table}: a data file stands twice in a snapshot"
            ));
        }
        if let Some(gone) = held.files.difference(&live).next() {
            return Err(format!("table {table}: {gone} left the table"));
        }
        let fresh: BTreeSet<&String> = live.difference(&held.files).collect();
        let mut rows = Vec::new();
        for file in fresh {
            rows.extend(now(file_rows(store, file))?);
        }
        held.files = live;
        rows.sort_by(|a, b| a["_pos"].cmp(&b["_pos"]));
        rows.iter().try_for_each(|row| self.row(table, row))
    }

    fn row(&mut self, table: usize, row: &Row) -> Result<(), String> {
        let text = |name: &str| unquoted(row.get(name));
        let position = text("_pos").unwrap_or_default();
        let words = format!("table {table}, position {position}");
        let Some((expected, seen)) = self.expected.get_mut(&(table, position.clone())) else {
            return Err(format!("{words}: a row that the source does not know"));
        };
        if std::mem::replace(seen, true) {
            return Err(format!("{words}: a row twice"));
        }
        let id = text("id").and_then(|id| id.parse().ok());
        let same = text("_op").as_deref() == Some(expected.operation)
            && id == Some(expected.id)
            && text("a") == expected.a;
        if !same {
            return Err(format!("{words}: {row:?} instead of {expected:?}"));
        }
        let held = self.held.entry(table).or_default();
        held.count += 1;
        let before = held.last.insert(expected.id, position.clone());
        if before.is_some_and(|before| before > position) {
            return Err(format!(
                "{words}: committed after a later change of its key"
            ));
        }
        Ok(())
    }

    /// Looks whether every row is there; where records of a table were taken away, whether nothing of it came after.
    ///
    /// # Errors
    /// The first that is missing, or a file that has gone.
    pub(crate) fn complete(
        &self,
        store: &MemoryStore,
        robbed: Option<usize>,
    ) -> Result<(), String> {
        for file in self.held.values().flat_map(|held| &held.files) {
            let key = file.strip_prefix(store.uri_prefix()).unwrap_or(file);
            if !matches!(store.get(key).now_or_never(), Some(Ok(Some(_)))) {
                return Err(format!("{file} is named and is not there"));
            }
        }
        let missing = self.expected.values().filter(|(_, seen)| !seen);
        let noticed = |row: &Expected| {
            let last = self
                .held
                .get(&row.table)
                .and_then(|held| held.last.get(&row.id));
            robbed != Some(row.table) || last.is_some_and(|last| *last > row.position)
        };
        let owed = missing.map(|(row, _)| row).filter(|row| noticed(row));
        match owed.map(|row| (row.table, &row.position)).min() {
            None => Ok(()),
            Some((table, position)) => Err(format!(
                "table {table}, position {position}: a row that never came"
            )),
        }
    }
}

/// The text of a value as the Parquet crate prints it; none for null.
fn unquoted(value: Option<&String>) -> Option<String> {
    let value = value.filter(|value| *value != "null")?;
    Some(value.trim_matches('"').to_owned())
}
