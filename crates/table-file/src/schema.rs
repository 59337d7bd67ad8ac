//! The lake's schema of a source table: for Iceberg (what the table has) and for Arrow (what a file has).
//!
//! Flow: [`SourceSchema`] document -> **here** -> table metadata (commit, ddl) and Parquet schema (ingest, agent).
//!
//! # Invariants
//! - Field ids come from the document; firn's own columns have the ids 1 to 9.
//! - The table schema holds live and retired columns; a file holds the live ones of its version.
//! - Only key columns are required, because every row of a changelog has them; retired columns never are.
//! - A field that is optional in the table stays so: files without it exist.
//!
//! # Source
//! Iceberg specification, "Schemas and Data Types", "Schema Evolution" (optional to required is not allowed; float and double
//! cannot be identifier fields).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, Transform, Type,
    UnboundPartitionSpec,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use change_event::{ColumnType, SourceSchema};

use crate::error::FileError;

/// Name of the partition field: the UTC day of `_source_ts`.
pub const DAY_FIELD_NAME: &str = "_day";

/// Zone of every timestamp with a zone, spelled as Iceberg's Arrow schemas do.
const UTC: &str = "+00:00";

/// Ids of firn's own columns.
pub(crate) mod id {
    pub(crate) const OP: i32 = 1;
    pub(crate) const POS: i32 = 2;
    pub(crate) const SOURCE_TS: i32 = 3;
    pub(crate) const SCHEMA_VERSION: i32 = 4;
    pub(crate) const UNAVAILABLE: i32 = 5;
    pub(crate) const UNAVAILABLE_ELEMENT: i32 = 6;
    pub(crate) const EXACT: i32 = 7;
    pub(crate) const EXACT_KEY: i32 = 8;
    pub(crate) const EXACT_VALUE: i32 = 9;
}

/// The four columns that every changelog row has: the schema to create a table with.
///
/// Creation re-assigns field ids from 1 in schema order, which gives these four the ids they have; the whole schema is added
/// to the same metadata build.
///
/// # Errors
/// [`FileError::Schema`] never in practice.
pub fn base_schema() -> Result<Schema, FileError> {
    Schema::builder()
        .with_fields(base_fields())
        .build()
        .map_err(FileError::Schema)
}

fn base_fields() -> Vec<NestedFieldRef> {
    let required =
        |id, name, primitive| Arc::new(NestedField::required(id, name, Type::Primitive(primitive)));
    vec![
        required(id::OP, "_op", PrimitiveType::String),
        required(id::POS, "_pos", PrimitiveType::String),
        required(id::SOURCE_TS, "_source_ts", PrimitiveType::Timestamptz),
        required(id::SCHEMA_VERSION, "_schema_version", PrimitiveType::Int),
    ]
}

/// The schema of a new table for `source`: firn's own columns, the live ones in source order, the retired ones.
///
/// # Errors
/// [`FileError::Schema`] if the document's names or ids collide, or a decimal is out of range (Halt for this table).
pub fn lake_schema(source: &SourceSchema) -> Result<Schema, FileError> {
    build(source, |_field_id| true)
}

/// The schema after `current` for `source`: like [`lake_schema`], but a field that `current` lacks or holds as optional is
/// optional, whatever the key is now, because there are files without it.
///
/// # Errors
/// As [`lake_schema`].
pub fn evolved_lake_schema(current: &Schema, source: &SourceSchema) -> Result<Schema, FileError> {
    build(source, |field_id| {
        current
            .field_by_id(field_id)
            .is_some_and(|field| field.required)
    })
}

fn build(source: &SourceSchema, may_require: impl Fn(i32) -> bool) -> Result<Schema, FileError> {
    let mut fields = base_fields();
    fields.push(Arc::new(NestedField::optional(
        id::UNAVAILABLE,
        "_unavailable",
        Type::List(ListType::new(Arc::new(NestedField::list_element(
            id::UNAVAILABLE_ELEMENT,
            Type::Primitive(PrimitiveType::String),
            true,
        )))),
    )));
    fields.push(Arc::new(NestedField::optional(
        id::EXACT,
        "_exact",
        Type::Map(MapType::required(
            id::EXACT_KEY,
            Type::Primitive(PrimitiveType::String),
            id::EXACT_VALUE,
            Type::Primitive(PrimitiveType::String),
        )),
    )));
    let mut identifiers = Vec::new();
    let mut whole_key = true;
    for column in &source.columns {
        let can_identify = column.key && !is_float(column.column_type);
        let required = can_identify && may_require(column.field_id);
        if required {
            identifiers.push(column.field_id);
        }
        whole_key &= required || !column.key;
        let primitive = Type::Primitive(lake_type(column.column_type)?);
        fields.push(Arc::new(
            NestedField::new(column.field_id, &column.lake_name, primitive, required)
                .with_doc(&column.source_type),
        ));
    }
    for column in &source.retired {
        let primitive = Type::Primitive(lake_type(column.column_type)?);
        fields.push(Arc::new(
            NestedField::optional(column.field_id, &column.lake_name, primitive)
                .with_doc(&column.source_type),
        ));
    }
    // Half a key identifies nothing.
    let identifiers = if whole_key { identifiers } else { Vec::new() };
    Schema::builder()
        .with_fields(fields)
        .with_identifier_field_ids(identifiers)
        .build()
        .map_err(FileError::Schema)
}

const fn is_float(column_type: ColumnType) -> bool {
    matches!(column_type, ColumnType::Float | ColumnType::Double)
}

fn lake_type(column_type: ColumnType) -> Result<PrimitiveType, FileError> {
    Ok(match column_type {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int => PrimitiveType::Int,
        ColumnType::Long => PrimitiveType::Long,
        ColumnType::Float => PrimitiveType::Float,
        ColumnType::Double => PrimitiveType::Double,
        ColumnType::Decimal { precision, scale } => {
            match Type::decimal(precision, scale).map_err(FileError::Schema)? {
                Type::Primitive(primitive) => primitive,
                Type::Struct(_) | Type::List(_) | Type::Map(_) => PrimitiveType::String,
            }
        }
        ColumnType::String | ColumnType::Carrier => PrimitiveType::String,
        ColumnType::Binary => PrimitiveType::Binary,
        ColumnType::Date => PrimitiveType::Date,
        ColumnType::Time => PrimitiveType::Time,
        ColumnType::Timestamp => PrimitiveType::Timestamp,
        ColumnType::TimestampTz => PrimitiveType::Timestamptz,
        ColumnType::Uuid => PrimitiveType::Uuid,
    })
}

/// The partition spec of a changelog, spec id 0: day of `_source_ts`, named [`DAY_FIELD_NAME`].
///
/// # Errors
/// [`FileError::Schema`] never in practice.
pub fn partition_spec() -> Result<UnboundPartitionSpec, FileError> {
    Ok(UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_field(id::SOURCE_TS, DAY_FIELD_NAME, Transform::Day)
        .map_err(FileError::Schema)?
        .build())
}

/// The Arrow schema of a file of this schema version, with Parquet field ids: firn's own columns and the live ones.
#[must_use]
pub fn arrow_schema(source: &SourceSchema) -> SchemaRef {
    let mut fields = vec![
        field(id::OP, "_op", DataType::Utf8, false),
        field(id::POS, "_pos", DataType::Utf8, false),
        field(id::SOURCE_TS, "_source_ts", timestamp(true), false),
        field(
            id::SCHEMA_VERSION,
            "_schema_version",
            DataType::Int32,
            false,
        ),
        field(
            id::UNAVAILABLE,
            "_unavailable",
            DataType::List(unavailable_element()),
            true,
        ),
        field(
            id::EXACT,
            "_exact",
            DataType::Map(exact_entries(), false),
            true,
        ),
    ];
    fields.extend(source.columns.iter().map(|column| {
        let required = column.key && !is_float(column.column_type);
        field(
            column.field_id,
            &column.lake_name,
            arrow_type(column.column_type),
            !required,
        )
    }));
    Arc::new(ArrowSchema::new(fields))
}

/// The element of `_unavailable`.
pub(crate) fn unavailable_element() -> Arc<Field> {
    Arc::new(field(
        id::UNAVAILABLE_ELEMENT,
        "element",
        DataType::Utf8,
        false,
    ))
}

/// The entries of `_exact`.
pub(crate) fn exact_entries() -> Arc<Field> {
    Arc::new(Field::new(
        "key_value",
        DataType::Struct(exact_fields()),
        false,
    ))
}

/// Key and value of `_exact`.
pub(crate) fn exact_fields() -> Fields {
    Fields::from(vec![
        field(id::EXACT_KEY, "key", DataType::Utf8, false),
        field(id::EXACT_VALUE, "value", DataType::Utf8, false),
    ])
}

fn field(id: i32, name: &str, data_type: DataType, nullable: bool) -> Field {
    Field::new(name, data_type, nullable).with_metadata(HashMap::from([(
        PARQUET_FIELD_ID_META_KEY.to_owned(),
        id.to_string(),
    )]))
}

fn timestamp(zoned: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| UTC.into()))
}

/// The Arrow type of a column. Precision and scale out of range are the Iceberg schema's to refuse.
pub(crate) fn arrow_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(
            u8::try_from(precision).unwrap_or(u8::MAX),
            i8::try_from(scale).unwrap_or(i8::MAX),
        ),
        ColumnType::String | ColumnType::Carrier => DataType::Utf8,
        ColumnType::Binary => DataType::Binary,
        ColumnType::Date => DataType::Date32,
        ColumnType::Time => DataType::Time64(TimeUnit::Microsecond),
        ColumnType::Timestamp => timestamp(false),
        ColumnType::TimestampTz => timestamp(true),
        ColumnType::Uuid => DataType::FixedSizeBinary(16),
    }
}
