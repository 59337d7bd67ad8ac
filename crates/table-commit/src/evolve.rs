//! Bringing a table's schema to a document of its source: one compare-and-set, by field ids.
//!
//! Flow: ddl function -> **here** -> catalog.
//!
//! # Invariants
//! - The schema and the version it holds change in the same metadata.
//! - A column keeps its field id whatever it is called; a type only grows; what the source retired stays, optional.
//! - Columns that another engine added stay. A mapped column that another engine dropped stops the table.
//!
//! # Source
//! Iceberg specification, "Schema Evolution": int to long, float to double, decimal to more digits of the same scale;
//! required to optional and never back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use change_event::SourceSchema;
use iceberg::spec::{NestedField, NestedFieldRef, PrimitiveType, Schema, Type};
use table_file::evolved_lake_schema;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::publish::Race;
use crate::state::{SCHEMA_VERSION_PROPERTY, STATE_PROPERTY, TableState};
use crate::table::{Committer, LoadedTable};

impl Committer {
    /// Brings the table's schema to a document's, unless it is there or further already. Gives the version it has then.
    ///
    /// Safe under concurrent callers.
    ///
    /// # Errors
    /// [`CommitError::ColumnDropped`], [`CommitError::ColumnConflict`] (Halt); those of [`Committer::load`];
    /// [`CommitError::TriesExhausted`] (Refresh); [`CommitError::OutcomeUnknown`] (Verify).
    pub async fn evolve(
        &self,
        name: &TableName,
        target: &SourceSchema,
    ) -> Result<u32, CommitError> {
        let mut race = Race::new(name, "evolve", self.limits.tries_max);
        loop {
            let table = self.load_existing(name).await?;
            if table.state.schema_version >= target.version {
                return Ok(table.state.schema_version);
            }
            race.begin()?;
            let state = TableState {
                schema_version: target.version,
                next_field_id: target.next_field_id.max(table.state.next_field_id),
                ..table.state.clone()
            };
            let failed = CommitError::iceberg("evolving a table's schema");
            let properties = HashMap::from([
                (STATE_PROPERTY.to_owned(), state.to_json(name)?),
                (
                    SCHEMA_VERSION_PROPERTY.to_owned(),
                    target.version.to_string(),
                ),
            ]);
            let metadata = table
                .builder_of_change()
                .add_current_schema(evolved_schema(&table, target)?)
                .and_then(|builder| builder.set_properties(properties))
                .and_then(iceberg::spec::TableMetadataBuilder::build)
                .map_err(&failed)?
                .metadata;
            race.note(self.publish(&table, &metadata, Vec::new()).await?);
        }
    }
}

/// The table's next schema: the document's columns, then what other engines added.
fn evolved_schema(table: &LoadedTable, target: &SourceSchema) -> Result<Schema, CommitError> {
    let current = table.metadata.current_schema();
    let retired: HashSet<i32> = target
        .retired
        .iter()
        .map(|column| column.field_id)
        .collect();
    let wanted = evolved_lake_schema(current, target).map_err(|error| CommitError::File {
        doing: "evolving a table's schema",
        source: Box::new(error),
    })?;

    let mut fields = mapped_fields(table, &wanted, &retired)?;
    let ours: HashSet<i32> = wanted
        .as_struct()
        .fields()
        .iter()
        .map(|field| field.id)
        .collect();
    for foreign in current
        .as_struct()
        .fields()
        .iter()
        .filter(|field| !ours.contains(&field.id))
    {
        let namesake = fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(&foreign.name));
        if let Some(field) = namesake {
            let found = format!("a name that another engine gave to field {}", foreign.id);
            return Err(conflict(&table.name, field, found, "a column of this name"));
        }
        fields.push(Arc::clone(foreign));
    }
    let required: HashSet<i32> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.id)
        .collect();
    // Half a key identifies nothing.
    let identifiers: Vec<i32> = wanted.identifier_field_ids().collect();
    let whole = identifiers.iter().all(|id| required.contains(id));
    Schema::builder()
        .with_fields(fields)
        .with_identifier_field_ids(if whole { identifiers } else { Vec::new() })
        .build()
        .map_err(CommitError::iceberg("building an evolved schema"))
}

/// The document's fields, each checked against what the table has of it.
fn mapped_fields(
    table: &LoadedTable,
    wanted: &Schema,
    retired: &HashSet<i32>,
) -> Result<Vec<NestedFieldRef>, CommitError> {
    let current = table.metadata.current_schema();
    // From here on a field of the table is another engine's.
    let first_unknown = table.state.next_field_id;
    let mut fields: Vec<NestedFieldRef> = Vec::new();
    for field in wanted.as_struct().fields() {
        match (
            field.id < first_unknown,
            current.as_struct().field_by_id(field.id),
        ) {
            (true, Some(found)) => fields.push(widened(&table.name, found, field)?),
            // The owner dropped what the source no longer has: it stays dropped.
            (true, None) if retired.contains(&field.id) => {}
            (true, None) => {
                return Err(CommitError::ColumnDropped {
                    table: table.name.clone(),
                    column: field.name.clone(),
                    field_id: field.id,
                });
            }
            (false, None) => fields.push(Arc::clone(field)),
            (false, Some(foreign)) => {
                let found = format!("field {} ({})", foreign.id, foreign.name);
                return Err(conflict(
                    &table.name,
                    field,
                    found,
                    "a new column with this field id",
                ));
            }
        }
    }
    Ok(fields)
}

/// The field by the document, with the wider of the two types and never required again.
fn widened(
    table: &TableName,
    found: &NestedFieldRef,
    wanted: &NestedFieldRef,
) -> Result<NestedFieldRef, CommitError> {
    let field_type = if promotes(&found.field_type, &wanted.field_type) {
        wanted.field_type.clone()
    } else if promotes(&wanted.field_type, &found.field_type) {
        found.field_type.clone()
    } else {
        let text = found.field_type.to_string();
        return Err(conflict(
            table,
            wanted,
            text,
            &wanted.field_type.to_string(),
        ));
    };
    let required = found.required && wanted.required;
    let mut field = NestedField::new(wanted.id, wanted.name.clone(), *field_type, required);
    field.doc.clone_from(&wanted.doc);
    field.initial_default.clone_from(&found.initial_default);
    field.write_default.clone_from(&found.write_default);
    Ok(Arc::new(field))
}

/// Whether files of one type can be read as the other.
fn promotes(from: &Type, to: &Type) -> bool {
    let (Type::Primitive(narrow), Type::Primitive(wide)) = (from, to) else {
        return from == to;
    };
    match (narrow, wide) {
        (PrimitiveType::Int, PrimitiveType::Long)
        | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision, scale },
            PrimitiveType::Decimal {
                precision: wider,
                scale: same,
            },
        ) => precision <= wider && scale == same,
        (same, other) => same == other,
    }
}

fn conflict(table: &TableName, field: &NestedField, found: String, wanted: &str) -> CommitError {
    CommitError::ColumnConflict {
        table: table.clone(),
        column: field.name.clone(),
        found,
        wanted: wanted.to_owned(),
    }
}
