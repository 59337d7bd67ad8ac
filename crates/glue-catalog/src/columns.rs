//! The columns that Glue shows for a table: the current Iceberg schema in Hive's words.
//!
//! # Invariants
//! - One Glue column per field of the current schema, in its order; former schemas are not shown.
//! - A comment that somebody wrote in Glue stays.
//!
//! # Source
//! Iceberg's `IcebergToGlueConverter`: type names, and the parameters `iceberg.field.*` of a column. Hive has no time, no uuid
//! and one timestamp: both kinds are `timestamp`, the others `string`.

use std::collections::HashMap;

use aws_sdk_glue::error::BuildError;
use aws_sdk_glue::types::Column;
use iceberg::spec::{PrimitiveType, Schema, Type};

/// The Glue columns of a schema; comments of `current` stay.
pub(crate) fn glue_columns(schema: &Schema, current: &[Column]) -> Result<Vec<Column>, BuildError> {
    let comments: HashMap<&str, &str> = current
        .iter()
        .filter_map(|column| Some((column.name(), column.comment()?)))
        .collect();
    let fields = schema.as_struct().fields().iter();
    fields
        .map(|field| {
            let comment = comments
                .get(field.name.as_str())
                .copied()
                .or(field.doc.as_deref());
            Column::builder()
                .name(&field.name)
                .r#type(glue_type(&field.field_type))
                .set_comment(comment.map(str::to_owned))
                .parameters("iceberg.field.id", field.id.to_string())
                .parameters("iceberg.field.optional", (!field.required).to_string())
                .parameters("iceberg.field.current", "true")
                .build()
        })
        .collect()
}

/// Hive's name of a type.
fn glue_type(field_type: &Type) -> String {
    match field_type {
        Type::Primitive(primitive) => primitive_type(primitive),
        Type::Struct(fields) => {
            let fields: Vec<String> = fields
                .fields()
                .iter()
                .map(|field| format!("{}:{}", field.name, glue_type(&field.field_type)))
                .collect();
            format!("struct<{}>", fields.join(","))
        }
        Type::List(list) => format!("array<{}>", glue_type(&list.element_field.field_type)),
        Type::Map(map) => format!(
            "map<{},{}>",
            glue_type(&map.key_field.field_type),
            glue_type(&map.value_field.field_type)
        ),
    }
}

fn primitive_type(primitive: &PrimitiveType) -> String {
    match primitive {
        PrimitiveType::Boolean => "boolean".to_owned(),
        PrimitiveType::Int => "int".to_owned(),
        PrimitiveType::Long => "bigint".to_owned(),
        PrimitiveType::Float => "float".to_owned(),
        PrimitiveType::Double => "double".to_owned(),
        PrimitiveType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        PrimitiveType::Date => "date".to_owned(),
        PrimitiveType::Timestamp
        | PrimitiveType::Timestamptz
        | PrimitiveType::TimestampNs
        | PrimitiveType::TimestamptzNs => "timestamp".to_owned(),
        PrimitiveType::Time | PrimitiveType::String | PrimitiveType::Uuid => "string".to_owned(),
        PrimitiveType::Fixed(_) | PrimitiveType::Binary => "binary".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{ListType, MapType, NestedField, StructType};

    use super::*;

    #[test]
    fn every_type_has_hives_name() {
        let names = [
            (PrimitiveType::Boolean, "boolean"),
            (PrimitiveType::Int, "int"),
            (PrimitiveType::Long, "bigint"),
            (PrimitiveType::Float, "float"),
            (PrimitiveType::Double, "double"),
            (
                PrimitiveType::Decimal {
                    precision: 12,
                    scale: 3,
                },
                "decimal(12,3)",
            ),
            (PrimitiveType::Date, "date"),
            (PrimitiveType::Time, "string"),
            (PrimitiveType::Timestamp, "timestamp"),
            (PrimitiveType::Timestamptz, "timestamp"),
            (PrimitiveType::String, "string"),
            (PrimitiveType::Uuid, "string"),
            (PrimitiveType::Binary, "binary"),
        ];
        for (primitive, name) in names {
            assert_eq!(glue_type(&Type::Primitive(primitive.clone())), name);
        }
        let string = || Type::Primitive(PrimitiveType::String);
        let list = ListType::new(Arc::new(NestedField::list_element(6, string(), true)));
        assert_eq!(glue_type(&Type::List(list)), "array<string>");
        assert_eq!(
            glue_type(&Type::Map(MapType::required(8, string(), 9, string()))),
            "map<string,string>"
        );
        let fields = vec![Arc::new(NestedField::required(
            1,
            "a",
            Type::Primitive(PrimitiveType::Long),
        ))];
        assert_eq!(
            glue_type(&Type::Struct(StructType::new(fields))),
            "struct<a:bigint>"
        );
    }

    #[test]
    fn columns_carry_field_ids_and_keep_comments() {
        let fields = [
            NestedField::required(100, "id", Type::Primitive(PrimitiveType::Long))
                .with_doc("bigint"),
            NestedField::optional(101, "note", Type::Primitive(PrimitiveType::String))
                .with_doc("text"),
        ];
        let schema = Schema::builder()
            .with_fields(fields.map(Arc::new))
            .build()
            .unwrap();
        let commented = Column::builder()
            .name("note")
            .comment("free text")
            .build()
            .unwrap();
        let columns = glue_columns(&schema, &[commented]).unwrap();
        let parameter = |index: usize, name| columns[index].parameters().unwrap()[name].clone();
        assert_eq!(
            (
                parameter(0, "iceberg.field.id"),
                parameter(0, "iceberg.field.optional")
            ),
            ("100".into(), "false".into())
        );
        assert_eq!(
            (
                parameter(1, "iceberg.field.id"),
                parameter(1, "iceberg.field.optional")
            ),
            ("101".into(), "true".into())
        );
        assert_eq!(
            (columns[0].comment(), columns[1].comment()),
            (Some("bigint"), Some("free text"))
        );
    }
}
