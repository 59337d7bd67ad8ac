//! The reference model: every snapshot is read as any reader would, and held against the list of source changes.
//!
//! # Invariants
//! - A row is read from the file that the snapshot names, not from what somebody remembers to have written.
//! - After every commit: no row twice, none that the source does not know, no file gone, no change of a key before an earlier
//!   one. At the end: every row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use functions::lake::{Row, data_files, file_rows};
use futures_util::FutureExt as _;
use iceberg::spec::TableMetadata;
use object_io::MemoryStore;

use crate::source::Expected;

/// What one table holds so far.
#[derive(Debug, Default)]
struct Held {
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
        let files = now(data_files(store, metadata))?;
        let count = files.len();
        let live: HashSet<String> = files.into_iter().collect();
        if live.len() != count {
            return Err(format!(
                "table {table}: a data file stands twice in a snapshot"
            ));
        }
        let held = self.held.entry(table).or_default();
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

    /// Looks whether every row is there.
    ///
    /// # Errors
    /// The first that is missing.
    pub(crate) fn complete(&self) -> Result<(), String> {
        let missing = self.expected.values().filter(|(_, seen)| !seen);
        let first = missing.map(|(row, _)| (row.table, &row.position)).min();
        match first {
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
