//! What one caller sees: a table's schema follows its source's documents.

use std::sync::Arc;

use change_event::{ColumnType, RetiredColumn, SourceSchema};
use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadata, Type};
use object_io::ObjectStore;
use table_commit::{Catalog, CommitError, SwapOutcome};

use crate::support::{World, column, name, registration, schema};

async fn world() -> World {
    let world = World::new(9);
    world
        .committer
        .ensure_table(&registration(1), &schema(1))
        .await
        .unwrap();
    world
}

async fn columns(world: &World) -> Vec<(i32, String, String, bool)> {
    let table = world.table().await;
    let fields = table
        .metadata
        .current_schema()
        .as_struct()
        .fields()
        .to_vec();
    let source = fields.iter().filter(|field| field.id >= 100);
    source
        .map(|f| (f.id, f.name.clone(), f.field_type.to_string(), f.required))
        .collect()
}

fn is(id: i32, name: &str, kind: &str, required: bool) -> (i32, String, String, bool) {
    (id, name.to_owned(), kind.to_owned(), required)
}

/// Another engine's schema, made of the current fields.
async fn stranger(world: &World, change: impl FnOnce(&mut Vec<Arc<NestedField>>)) {
    let table = world.table().await;
    let current = table.metadata.current_schema();
    let mut fields = current.as_struct().fields().to_vec();
    change(&mut fields);
    let known: Vec<i32> = fields.iter().map(|field| field.id).collect();
    let identifiers = current
        .identifier_field_ids()
        .filter(|id| known.contains(id))
        .collect::<Vec<_>>();
    let schema = Schema::builder()
        .with_fields(fields)
        .with_identifier_field_ids(identifiers)
        .build()
        .unwrap();
    let builder = TableMetadata::clone(&table.metadata).into_builder(None);
    let metadata = builder
        .add_current_schema(schema)
        .unwrap()
        .build()
        .unwrap()
        .metadata;
    let location = format!(
        "{}/metadata/v{}.metadata.json",
        metadata.location(),
        table.pointer.version.0
    );
    let key = location.strip_prefix("s3://lake/").unwrap();
    world
        .store
        .put(key, serde_json::to_vec(&metadata).unwrap().into())
        .await
        .unwrap();
    let moved = world
        .catalog
        .swap(&name(), &table.pointer, &location, &metadata)
        .await
        .unwrap();
    assert_eq!(moved, SwapOutcome::Swapped);
}

async fn evolve(world: &World, target: &SourceSchema) -> Result<u32, CommitError> {
    world.committer.evolve(&name(), target).await
}

#[tokio::test]
async fn added_column_is_optional_and_the_version_moves_with_it() {
    let world = world().await;
    assert_eq!(evolve(&world, &schema(2)).await.unwrap(), 2);
    assert_eq!(columns(&world).await[2], is(102, "b", "double", false));
    let table = world.table().await;
    assert_eq!(
        (table.state.schema_version, table.state.next_field_id),
        (2, 103)
    );
    assert_eq!(table.metadata.properties()["firn.schema-version"], "2");
    let version = table.pointer.version;
    assert_eq!(evolve(&world, &schema(2)).await.unwrap(), 2);
    assert_eq!(evolve(&world, &schema(1)).await.unwrap(), 2, "never back");
    assert_eq!(
        world.table().await.pointer.version,
        version,
        "nothing was written"
    );
}

#[tokio::test]
async fn rename_and_promotion_keep_the_field_id() {
    let world = world().await;
    let mut target = schema(2);
    target.columns[0].column_type = ColumnType::Long;
    target.columns[1].lake_name = "amount".to_owned();
    evolve(&world, &target).await.unwrap();
    assert_eq!(
        columns(&world).await,
        [
            is(100, "id", "long", true),
            is(101, "amount", "string", false),
            is(102, "b", "double", false)
        ]
    );
}

#[tokio::test]
async fn retired_key_column_becomes_optional_and_identifies_no_more() {
    let world = world().await;
    let mut target = schema(2);
    let old = target.columns.remove(0);
    target.retired.push(RetiredColumn {
        id: old.id,
        field_id: old.field_id,
        lake_name: old.lake_name,
        column_type: old.column_type,
        source_type: old.source_type,
    });
    target
        .columns
        .push(column(4, "id__v2", ColumnType::String, true));
    target.next_field_id = 104;
    evolve(&world, &target).await.unwrap();
    let columns = columns(&world).await;
    assert!(
        columns.contains(&is(100, "id", "int", false))
            && columns.contains(&is(103, "id__v2", "string", false))
    );
    let table = world.table().await;
    assert_eq!(
        table
            .metadata
            .current_schema()
            .identifier_field_ids()
            .count(),
        0
    );
}

#[tokio::test]
async fn column_and_wider_type_of_another_engine_stay() {
    let world = world().await;
    stranger(&world, |fields| {
        fields.push(Arc::new(NestedField::optional(
            900,
            "note",
            Type::Primitive(PrimitiveType::String),
        )));
        let id = fields.iter_mut().find(|field| field.id == 100).unwrap();
        *id = Arc::new(NestedField::required(
            100,
            "id",
            Type::Primitive(PrimitiveType::Long),
        ));
    })
    .await;
    evolve(&world, &schema(2)).await.unwrap();
    let columns = columns(&world).await;
    assert!(
        columns.contains(&is(100, "id", "long", true))
            && columns.contains(&is(900, "note", "string", false))
    );
}

#[tokio::test]
async fn mapped_column_dropped_by_another_engine_halts_and_names_it() {
    let world = world().await;
    stranger(&world, |fields| fields.retain(|field| field.id != 101)).await;
    let error = evolve(&world, &schema(2)).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::ColumnDropped { column, field_id: 101, .. } if column == "a"),
        "{error}"
    );
}

#[tokio::test]
async fn new_column_whose_id_or_name_another_engine_took_halts() {
    for (id, taken) in [(102, "note"), (900, "B")] {
        let world = world().await;
        stranger(&world, |fields| {
            fields.push(Arc::new(NestedField::optional(
                id,
                taken,
                Type::Primitive(PrimitiveType::String),
            )));
        })
        .await;
        let error = evolve(&world, &schema(2)).await.unwrap_err();
        assert!(
            matches!(error, CommitError::ColumnConflict { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn concurrent_callers_make_one_version() {
    let world = world().await;
    let (two, three) = (
        schema(2),
        SourceSchema {
            version: 3,
            ..schema(3)
        },
    );
    let (first, second, third) = tokio::join!(
        evolve(&world, &two),
        evolve(&world, &three),
        evolve(&world, &two)
    );
    assert!(first.unwrap() >= 2 && second.unwrap() == 3 && third.unwrap() >= 2);
    assert_eq!(world.table().await.state.schema_version, 3);
    assert_eq!(columns(&world).await.len(), 3);
}
