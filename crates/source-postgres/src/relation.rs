//! What a relation message and the catalog say about a table, as the shape that is compared with the last document.
//!
//! Flow: `decode` and `catalog` -> **here** -> [`change_event::evolution::next_schema`].
//!
//! A relation message has no `attnum`, and the catalog shows the table as it is now, not as it was at the message's place in the stream.
//! If both show the same columns, the catalog's numbers are the message's. If not, they are concluded (see `align`) and the
//! shape says so.
//!
//! # Invariants
//! - Pure.
//! - Under `REPLICA IDENTITY FULL` the key is the primary key, though the message flags every column. What may have been sent
//!   before keeps the key that it was sent by.
//!
//! # Source
//! `logicalrep_write_attrs` in `proto.c`: key flags are those of the replica identity, all columns under FULL.

use std::collections::BTreeMap;

use change_event::evolution::{ObservedColumn, ObservedTable};
use change_event::{ColumnType, SourceSchema};

use crate::align::{Candidate, Unnumbered, align};
use crate::catalog::{CatalogColumn, CatalogTable};
use crate::decode::{RelationColumn, RelationMessage, ReplicaIdentity};
use crate::types::{builtin_type_name, column_type};

/// The shape of a table as the catalog shows it: what a copy reads.
///
/// Shape: live columns by `attnum`.
#[must_use]
pub fn observe_catalog(table: &CatalogTable) -> ObservedTable {
    let columns = table
        .live_columns()
        .map(|column| ObservedColumn {
            id: column.attnum,
            name: column.name.clone(),
            column_type: column_type(column.type_oid, column.typmod),
            source_type: column.type_name.clone(),
            key: table.key_attnums.contains(&column.attnum),
        })
        .collect();
    ObservedTable {
        table_schema: table.name.schema.clone(),
        table_name: table.name.table.clone(),
        columns,
        inferred: false,
    }
}

/// The shape of a table at the place of a relation message.
///
/// Shape: one column per column of the message, in its order, so that tuples fit. `catalog` is what the catalog shows now, if the table
/// is still there; `previous` the document that holds at the message's place; `replayed` that the place may have been seen before.
#[must_use]
pub fn observe_relation(
    relation: &RelationMessage,
    catalog: Option<&CatalogTable>,
    previous: Option<&SourceSchema>,
    replayed: bool,
) -> ObservedTable {
    let catalog = catalog.filter(|table| table.oid == relation.oid);
    let types: Vec<Option<String>> = relation
        .columns
        .iter()
        .map(|column| printed_type(column, catalog))
        .collect();
    let exact = catalog.filter(|table| agrees(table, relation));
    let ids = match exact {
        Some(table) => table.live_columns().map(|column| column.attnum).collect(),
        None => concluded_ids(relation, &types, catalog, previous),
    };
    let columns = relation
        .columns
        .iter()
        .zip(ids)
        .zip(types)
        .map(|((column, id), printed)| {
            let column_type = column_type(column.type_oid, column.typmod);
            ObservedColumn {
                id,
                name: column.name.clone(),
                column_type,
                source_type: printed
                    .or_else(|| last_printed_type(previous, id, column_type))
                    .unwrap_or_else(|| format!("type {}", column.type_oid)),
                key: match relation.replica_identity {
                    ReplicaIdentity::Default | ReplicaIdentity::Index => column.key,
                    ReplicaIdentity::Full => key_under_full(
                        id,
                        exact.filter(|_| !replayed || previous.is_none()),
                        catalog,
                        previous,
                    ),
                    ReplicaIdentity::Nothing => false,
                },
            }
        })
        .collect();
    ObservedTable {
        table_schema: relation.schema.clone(),
        table_name: relation.table.clone(),
        columns,
        inferred: exact.is_none(),
    }
}

fn agrees(table: &CatalogTable, relation: &RelationMessage) -> bool {
    let same = |column: &CatalogColumn, other: &RelationColumn| {
        column.name == other.name
            && column.type_oid == other.type_oid
            && column.typmod == other.typmod
    };
    table.live_columns().count() == relation.columns.len()
        && table
            .live_columns()
            .zip(&relation.columns)
            .all(|(column, other)| same(column, other))
}

/// The printed type of a column of the message: built in, or named by the catalog.
fn printed_type(column: &RelationColumn, catalog: Option<&CatalogTable>) -> Option<String> {
    builtin_type_name(column.type_oid, column.typmod).or_else(|| {
        let same = |other: &&CatalogColumn| {
            other.type_oid == column.type_oid && other.typmod == column.typmod
        };
        catalog?
            .columns
            .iter()
            .find(same)
            .map(|other| other.type_name.clone())
    })
}

/// The name that the last document has for the type of this column, if it is of the same lake type.
fn last_printed_type(
    previous: Option<&SourceSchema>,
    id: i32,
    column_type: ColumnType,
) -> Option<String> {
    let column = previous?.columns.iter().find(|column| column.id == id)?;
    (column.column_type == column_type).then(|| column.source_type.clone())
}

/// The primary key of the catalog where it is of the message's moment, else that of the document, else the catalog's after all.
///
/// A message that is replayed is of no moment of the catalog: another key would make another number of records of the same
/// changes, and so other ordinals.
fn key_under_full(
    id: i32,
    exact: Option<&CatalogTable>,
    catalog: Option<&CatalogTable>,
    previous: Option<&SourceSchema>,
) -> bool {
    let in_catalog = |table: &CatalogTable| table.key_attnums.contains(&id);
    match (exact, previous) {
        (Some(table), _) => in_catalog(table),
        (None, Some(schema)) => schema.key_columns().any(|column| column.id == id),
        (None, None) => catalog.is_some_and(in_catalog),
    }
}

fn concluded_ids(
    relation: &RelationMessage,
    types: &[Option<String>],
    catalog: Option<&CatalogTable>,
    previous: Option<&SourceSchema>,
) -> Vec<i32> {
    let mut known: BTreeMap<i32, Candidate> = BTreeMap::new();
    for column in catalog.iter().flat_map(|table| &table.columns) {
        let candidate = known.entry(column.attnum).or_default();
        if !column.dropped {
            candidate.catalog = Some((column.name.clone(), column.type_name.clone()));
        }
    }
    if let Some(schema) = previous {
        for column in &schema.columns {
            let seen = (column.name.clone(), column.source_type.clone());
            known.entry(column.id).or_default().previous = Some(seen);
        }
    }
    // A number that the lake has retired, and that no live column has, is never a column's again.
    let retired = |id: &i32| {
        let live = |schema: &SourceSchema| schema.columns.iter().any(|column| column.id == *id);
        previous.is_some_and(|schema| {
            schema.retired.iter().any(|column| column.id == *id) && !live(schema)
        })
    };
    let highest_retired = previous
        .iter()
        .flat_map(|schema| &schema.retired)
        .map(|column| column.id)
        .max();
    known.retain(|id, _| !retired(id));
    if let Some(id) = highest_retired {
        // Keeps numbers given freely above it.
        if known.keys().next_back().is_none_or(|last| *last < id) {
            return align_above(relation, types, &known, id);
        }
    }
    align(&unnumbered(relation, types), &known)
}

/// As `align`, with freely given numbers above `floor`.
fn align_above(
    relation: &RelationMessage,
    types: &[Option<String>],
    known: &BTreeMap<i32, Candidate>,
    floor: i32,
) -> Vec<i32> {
    let last = known.keys().next_back().copied().unwrap_or(0);
    let lift = |id: i32| {
        if id > last {
            id.saturating_add(floor - last)
        } else {
            id
        }
    };
    align(&unnumbered(relation, types), known)
        .into_iter()
        .map(lift)
        .collect()
}

fn unnumbered(relation: &RelationMessage, types: &[Option<String>]) -> Vec<Unnumbered> {
    relation
        .columns
        .iter()
        .zip(types)
        .map(|(column, printed)| Unnumbered {
            name: column.name.clone(),
            source_type: printed.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
