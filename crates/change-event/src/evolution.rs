//! From one version of a source schema to the next.
//!
//! Pure: what the source shows now, against the last document. Add, drop, rename and widen keep every field id that can be
//! kept; anything else retires the old lake column and starts a new one, `<name>__v2` if the name is taken.
//!
//! # Invariants
//! - The same observation twice gives the same document and no new version.
//! - A field id is never given twice, a lake column never changes to a type that cannot hold its old values.

use std::collections::HashSet;

use crate::position::Position;
use crate::schema::{Column, ColumnType, FIRST_FIELD_ID, RetiredColumn, SourceSchema};

/// A column as the source shows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedColumn {
    /// Stable identity (PostgreSQL: `attnum`).
    pub id: i32,
    /// Name in the source.
    pub name: String,
    /// Lake type for it.
    pub column_type: ColumnType,
    /// Type as the source prints it.
    pub source_type: String,
    /// Part of the row's key.
    pub key: bool,
}

/// A table as the source shows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedTable {
    /// Schema of the table in the source.
    pub table_schema: String,
    /// Name of the table in the source.
    pub table_name: String,
    /// Live columns in source order.
    pub columns: Vec<ObservedColumn>,
    /// Column identities were concluded, not read.
    pub inferred: bool,
}

/// The document after `previous` for what is observed at `position`, or `None` if the shape is unchanged.
///
/// Shape: version 1 if there is no previous document, else `previous.version + 1`.
#[must_use]
pub fn next_schema(
    previous: Option<&SourceSchema>,
    observed: &ObservedTable,
    position: Position,
) -> Option<SourceSchema> {
    let mut retired = previous.map_or_else(Vec::new, |schema| schema.retired.clone());
    let mut next_field_id = previous.map_or(FIRST_FIELD_ID, |schema| schema.next_field_id);
    let old_columns = previous.map_or(&[][..], |schema| &schema.columns);

    // First who keeps a field id: only then is it known which lake names stay taken.
    let kept: Vec<Option<&Column>> = observed
        .columns
        .iter()
        .map(|now| {
            old_columns
                .iter()
                .find(|old| old.id == now.id && old.column_type.promotes_to(now.column_type))
        })
        .collect();
    retired.extend(newly_retired(old_columns, &kept));

    let mut taken: HashSet<String> = retired
        .iter()
        .map(|column| column.lake_name.to_lowercase())
        .collect();
    taken.extend(RESERVED_NAMES.iter().map(|name| (*name).to_owned()));
    // A column that is not renamed keeps its lake name; it has first choice.
    for (now, old) in observed.columns.iter().zip(&kept) {
        if let Some(old) = old.filter(|old| old.name == now.name) {
            taken.insert(old.lake_name.to_lowercase());
        }
    }
    let columns: Vec<Column> = observed
        .columns
        .iter()
        .zip(&kept)
        .map(|(now, old)| {
            let lake_name = match old {
                Some(old) if old.name == now.name => old.lake_name.clone(),
                _ => free_name(&now.name, &mut taken),
            };
            let field_id = old.map_or_else(
                || {
                    let id = next_field_id;
                    next_field_id += 1;
                    id
                },
                |old| old.field_id,
            );
            Column {
                id: now.id,
                name: now.name.clone(),
                field_id,
                lake_name,
                column_type: now.column_type,
                source_type: now.source_type.clone(),
                key: now.key,
            }
        })
        .collect();

    let next = SourceSchema {
        version: previous.map_or(1, |schema| schema.version + 1),
        table_schema: observed.table_schema.clone(),
        table_name: observed.table_name.clone(),
        position,
        inferred: observed.inferred,
        columns,
        retired,
        next_field_id,
    };
    if previous.is_some_and(|schema| schema.same_shape(&next)) {
        None
    } else {
        Some(next)
    }
}

/// Names of firn's own lake columns and of the partition field: a source column of that name gets `__v2`.
pub const RESERVED_NAMES: [&str; 7] = [
    "_op",
    "_pos",
    "_source_ts",
    "_schema_version",
    "_unavailable",
    "_exact",
    "_day",
];

/// The old columns whose field ids nobody keeps.
fn newly_retired(old_columns: &[Column], kept: &[Option<&Column>]) -> Vec<RetiredColumn> {
    let kept_ids: HashSet<i32> = kept.iter().flatten().map(|old| old.field_id).collect();
    old_columns
        .iter()
        .filter(|old| !kept_ids.contains(&old.field_id))
        .map(|old| RetiredColumn {
            id: old.id,
            field_id: old.field_id,
            lake_name: old.lake_name.clone(),
            column_type: old.column_type,
            source_type: old.source_type.clone(),
        })
        .collect()
}

fn free_name(name: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut suffix = 2;
    while !taken.insert(candidate.to_lowercase()) {
        candidate = format!("{name}__v{suffix}");
        suffix += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Lsn;

    fn column(id: i32, name: &str, column_type: ColumnType) -> ObservedColumn {
        ObservedColumn {
            id,
            name: name.to_owned(),
            column_type,
            source_type: format!("{column_type:?}"),
            key: id == 1,
        }
    }

    fn table(columns: Vec<ObservedColumn>) -> ObservedTable {
        ObservedTable {
            table_schema: "public".to_owned(),
            table_name: "t".to_owned(),
            columns,
            inferred: false,
        }
    }

    fn at(lsn: u64) -> Position {
        Position::stream(1, Lsn(lsn), 1)
    }

    fn next(previous: &SourceSchema, columns: Vec<ObservedColumn>) -> SourceSchema {
        next_schema(Some(previous), &table(columns), at(20)).expect("a new version")
    }

    fn first(columns: Vec<ObservedColumn>) -> SourceSchema {
        next_schema(None, &table(columns), at(10)).expect("a first version")
    }

    fn names(schema: &SourceSchema) -> Vec<(i32, &str)> {
        schema
            .columns
            .iter()
            .map(|c| (c.field_id, c.lake_name.as_str()))
            .collect()
    }

    #[test]
    fn first_version_numbers_columns_in_source_order() {
        let schema = first(vec![
            column(1, "id", ColumnType::Long),
            column(2, "a", ColumnType::String),
        ]);
        assert_eq!(
            (schema.version, names(&schema)),
            (1, vec![(100, "id"), (101, "a")])
        );
    }

    #[test]
    fn same_observation_gives_no_version() {
        let columns = vec![column(1, "id", ColumnType::Long)];
        let schema = first(columns.clone());
        assert_eq!(next_schema(Some(&schema), &table(columns), at(99)), None);
    }

    #[test]
    fn rename_keeps_the_field_id() {
        let v1 = first(vec![
            column(1, "id", ColumnType::Long),
            column(2, "a", ColumnType::String),
        ]);
        let v2 = next(
            &v1,
            vec![
                column(1, "id", ColumnType::Long),
                column(2, "b", ColumnType::String),
            ],
        );
        assert_eq!((v2.version, names(&v2)), (2, vec![(100, "id"), (101, "b")]));
        assert!(v2.retired.is_empty());
    }

    #[test]
    fn swapped_names_stay_renames() {
        let v1 = first(vec![
            column(1, "a", ColumnType::Int),
            column(2, "b", ColumnType::Int),
        ]);
        let v2 = next(
            &v1,
            vec![
                column(1, "b", ColumnType::Int),
                column(2, "a", ColumnType::Int),
            ],
        );
        assert_eq!(names(&v2), vec![(100, "b"), (101, "a")]);
    }

    #[test]
    fn widening_keeps_and_narrowing_starts_a_new_column() {
        let narrow = ColumnType::Decimal {
            precision: 10,
            scale: 2,
        };
        let wide = ColumnType::Decimal {
            precision: 12,
            scale: 2,
        };
        let v1 = first(vec![
            column(1, "id", ColumnType::Int),
            column(2, "n", narrow),
        ]);
        let v2 = next(
            &v1,
            vec![column(1, "id", ColumnType::Long), column(2, "n", wide)],
        );
        assert_eq!(names(&v2), vec![(100, "id"), (101, "n")]);
        assert_eq!(v2.columns[0].column_type, ColumnType::Long);
        let v3 = next(
            &v2,
            vec![column(1, "id", ColumnType::Long), column(2, "n", narrow)],
        );
        assert_eq!(names(&v3), vec![(100, "id"), (102, "n__v2")]);
        assert_eq!(
            (v3.retired[0].field_id, v3.retired[0].lake_name.as_str()),
            (101, "n")
        );
    }

    #[test]
    fn dropped_column_is_kept_and_its_name_not_reused() {
        let v1 = first(vec![
            column(1, "id", ColumnType::Int),
            column(2, "a", ColumnType::Int),
        ]);
        let v2 = next(&v1, vec![column(1, "id", ColumnType::Int)]);
        let v3 = next(
            &v2,
            vec![
                column(1, "id", ColumnType::Int),
                column(3, "A", ColumnType::Int),
            ],
        );
        assert_eq!(names(&v3), vec![(100, "id"), (102, "A__v2")]);
        assert_eq!(v3.retired.len(), 1);
    }

    #[test]
    fn source_column_named_like_ours_gives_way() {
        let schema = first(vec![column(1, "_op", ColumnType::Int)]);
        assert_eq!(names(&schema), vec![(100, "_op__v2")]);
    }
}
