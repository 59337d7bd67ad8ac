//! Shapes from messages, with the catalog beside, ahead, and gone.

use change_event::evolution::next_schema;
use change_event::position::Position;
use change_event::{Lsn, SourceSchema};

use super::*;
use crate::catalog::{TableKind, TableName};

const INT4: u32 = 23;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const MOOD: u32 = 16_400;

fn column(attnum: i32, name: &str, type_oid: u32) -> CatalogColumn {
    CatalogColumn {
        attnum,
        name: name.to_owned(),
        type_oid,
        typmod: -1,
        type_name: builtin_type_name(type_oid, -1).unwrap_or_else(|| "public.mood".to_owned()),
        not_null: false,
        dropped: false,
        generated: false,
    }
}

fn dropped(attnum: i32) -> CatalogColumn {
    CatalogColumn {
        dropped: true,
        ..column(attnum, "........pg.dropped........", 0)
    }
}

fn catalog(columns: Vec<CatalogColumn>) -> CatalogTable {
    CatalogTable {
        oid: 1,
        name: TableName::new("public", "t"),
        kind: TableKind::Plain,
        partition: false,
        logged: true,
        replica_identity: ReplicaIdentity::Default,
        key_attnums: vec![1],
        readable: true,
        owned: true,
        columns,
    }
}

fn relation(columns: &[(&str, u32)]) -> RelationMessage {
    RelationMessage {
        oid: 1,
        schema: "public".to_owned(),
        table: "t".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns
            .iter()
            .map(|(name, type_oid)| RelationColumn {
                key: *name == "id",
                name: (*name).to_owned(),
                type_oid: *type_oid,
                typmod: -1,
            })
            .collect(),
    }
}

fn document(table: &CatalogTable) -> SourceSchema {
    next_schema(
        None,
        &observe_catalog(table),
        Position::stream(1, Lsn(1), 1),
    )
    .unwrap()
}

fn ids(observed: &ObservedTable) -> Vec<i32> {
    observed.columns.iter().map(|column| column.id).collect()
}

#[test]
fn catalog_beside_the_stream_gives_exact_numbers() {
    let mut generated = column(4, "g", INT4);
    generated.generated = true;
    let now = catalog(vec![
        column(1, "id", INT8),
        dropped(2),
        column(3, "a", TEXT),
        generated,
    ]);
    let observed = observe_relation(
        &relation(&[("id", INT8), ("a", TEXT)]),
        Some(&now),
        None,
        false,
    );
    assert_eq!((ids(&observed), observed.inferred), (vec![1, 3], false));
    assert_eq!(observed, observe_catalog(&now));
    assert!(observed.columns[0].key && !observed.columns[1].key);
}

#[test]
fn swapped_names_are_seen_by_the_catalog() {
    let before = catalog(vec![
        column(1, "id", INT8),
        column(2, "a", TEXT),
        column(3, "b", TEXT),
    ]);
    let after = catalog(vec![
        column(1, "id", INT8),
        column(2, "b", TEXT),
        column(3, "a", TEXT),
    ]);
    let message = relation(&[("id", INT8), ("b", TEXT), ("a", TEXT)]);
    let observed = observe_relation(&message, Some(&after), Some(&document(&before)), false);
    assert_eq!((ids(&observed), observed.inferred), (vec![1, 2, 3], false));
}

#[test]
fn old_shape_keeps_its_numbers_when_the_catalog_is_ahead() {
    let before = catalog(vec![
        column(1, "id", INT8),
        column(2, "a", TEXT),
        column(3, "b", TEXT),
    ]);
    // Since then: a dropped, b renamed, c added.
    let after = catalog(vec![
        column(1, "id", INT8),
        dropped(2),
        column(3, "x", TEXT),
        column(4, "c", TEXT),
    ]);
    let previous = document(&before);
    let old = relation(&[("id", INT8), ("a", TEXT), ("b", TEXT)]);
    let observed = observe_relation(&old, Some(&after), Some(&previous), false);
    assert_eq!((ids(&observed), observed.inferred), (vec![1, 2, 3], true));
    let document = next_schema(Some(&previous), &observed, Position::stream(1, Lsn(2), 1));
    assert_eq!(
        document, None,
        "an inferred shape that is the same is no new version"
    );
    // Between: a dropped, b not yet renamed.
    let between = relation(&[("id", INT8), ("b", TEXT)]);
    assert_eq!(
        ids(&observe_relation(
            &between,
            Some(&after),
            Some(&previous),
            false
        )),
        [1, 3]
    );
}

#[test]
fn column_renamed_and_retyped_keeps_its_number() {
    let before = catalog(vec![
        column(1, "id", INT8),
        column(2, "a", INT4),
        column(3, "b", TEXT),
    ]);
    let after = catalog(vec![
        column(1, "id", INT8),
        column(2, "z", TEXT),
        column(3, "b", TEXT),
    ]);
    let message = relation(&[("id", INT8), ("c", INT8), ("b", TEXT)]);
    let observed = observe_relation(&message, Some(&after), Some(&document(&before)), false);
    assert_eq!((ids(&observed), observed.inferred), (vec![1, 2, 3], true));
}

#[test]
fn table_that_is_gone_is_read_by_the_last_document() {
    let before = catalog(vec![column(1, "id", INT8), column(2, "m", MOOD)]);
    let previous = document(&before);
    let message = relation(&[("id", INT8), ("m", MOOD), ("n", INT4)]);
    let observed = observe_relation(&message, None, Some(&previous), false);
    assert_eq!((ids(&observed), observed.inferred), (vec![1, 2, 3], true));
    assert_eq!(observed.columns[1].source_type, "public.mood");
    // Another table of that name now: its numbers mean nothing.
    let other = CatalogTable {
        oid: 2,
        ..catalog(vec![column(7, "id", INT8), column(8, "m", MOOD)])
    };
    assert_eq!(
        observe_relation(&message, Some(&other), Some(&previous), false),
        observed
    );
    let unknown = observe_relation(&message, None, None, false);
    assert_eq!(unknown.columns[1].source_type, "type 16400");
}

#[test]
fn number_of_a_retired_column_is_not_given_again() {
    let v1 = document(&catalog(vec![column(1, "id", INT8), column(2, "a", TEXT)]));
    let without = observe_relation(&relation(&[("id", INT8)]), None, Some(&v1), false);
    let v2 = next_schema(Some(&v1), &without, Position::stream(1, Lsn(2), 1)).unwrap();
    assert_eq!(v2.retired.len(), 1);
    let again = observe_relation(
        &relation(&[("id", INT8), ("a", TEXT)]),
        None,
        Some(&v2),
        false,
    );
    assert_eq!(ids(&again), [1, 3]);
}

#[test]
fn key_under_full_identity_is_the_primary_key() {
    let mut message = relation(&[("id", INT8), ("a", TEXT)]);
    message.replica_identity = ReplicaIdentity::Full;
    message.columns[1].key = true;
    let keys = |observed: &ObservedTable| -> Vec<bool> {
        observed.columns.iter().map(|column| column.key).collect()
    };
    let mut now = catalog(vec![column(1, "id", INT8), column(2, "a", TEXT)]);
    now.replica_identity = ReplicaIdentity::Full;
    assert_eq!(
        keys(&observe_relation(&message, Some(&now), None, false)),
        [true, false]
    );
    let previous = document(&now);
    assert_eq!(
        keys(&observe_relation(&message, None, Some(&previous), false)),
        [true, false]
    );
    now.key_attnums.clear();
    assert_eq!(
        keys(&observe_relation(
            &message,
            Some(&now),
            Some(&previous),
            false
        )),
        [false, false]
    );
    // The primary key was changed since, and the message may be one that was seen before.
    now.key_attnums = vec![2];
    assert_eq!(
        keys(&observe_relation(
            &message,
            Some(&now),
            Some(&previous),
            true
        )),
        [true, false]
    );
    assert_eq!(
        keys(&observe_relation(&message, Some(&now), None, true)),
        [false, true]
    );
}
