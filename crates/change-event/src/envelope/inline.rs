//! The Kafka Connect schema of envelopes and keys, written into each record on request: Debezium's consumers read by it.
//!
//! Flow: source schema -> **constant bytes around a record** -> `write`; and back for the functions.
//!
//! # Invariants
//! - The schema of a record is constant per source schema: it is text, made once.
//! - Every column but those of the key is optional: `before` holds the key only, and an unavailable column of `after` is absent.
//! - A record that holds no row (a reference, an announcement, a set-aside change) is an envelope without images, which
//!   `ExtractNewRecordState` drops.
//!
//! # Source
//! Apache Kafka 4.3.1 `JsonConverter` (a record is `{"schema":…,"payload":…}`, a field that is absent is null); Debezium 3.7.0
//! `SmtManager.isValidEnvelope` (the schema's name ends in `Envelope`), `ExtractNewRecordState.doApply` (neither image: the
//! record is dropped). docs/ENVELOPE.md.

use serde_json::{Value, json};

use crate::schema::{Column, ColumnType, SourceSchema};

/// What stands before a value that holds no row. The operation is Debezium's "message", for consumers that ask for it.
const WITHOUT_ROW: &[u8] = concat!(
    r#"{"schema":{"type":"struct","fields":["#,
    r#"{"type":"struct","fields":[],"optional":true,"field":"before"},"#,
    r#"{"type":"struct","fields":[],"optional":true,"field":"after"},"#,
    r#"{"type":"string","optional":true,"default":"m","field":"op"}"#,
    r#"],"optional":false,"name":"firn.Envelope"},"payload":"#
)
.as_bytes();

/// What stands around the records of one table at one schema version.
#[derive(Debug)]
pub(super) struct InlineSchema {
    /// `{"schema":{…},"payload":` before a key; the value ends with `}`.
    pub(super) key_head: Vec<u8>,
    /// The same before an envelope.
    pub(super) value_head: Vec<u8>,
}

impl InlineSchema {
    /// For a table whose records go to `topic`.
    pub(super) fn new(schema: &SourceSchema, topic: &str) -> Self {
        let all = || schema.columns.iter().map(column_field).collect::<Vec<_>>();
        let keys = schema
            .columns
            .iter()
            .filter(|column| column.key)
            .map(column_field)
            .collect();
        let row = format!("{topic}.Value");
        let envelope = structure(
            &format!("{topic}.Envelope"),
            vec![
                optional(structure(&row, all()), "before"),
                optional(structure(&row, all()), "after"),
                named(
                    structure("io.debezium.connector.postgresql.Source", source_fields()),
                    "source",
                ),
                optional(
                    structure("event.block", transaction_fields()),
                    "transaction",
                ),
                field("string", false, "op"),
                field("int64", true, "ts_ms"),
            ],
        );
        Self {
            key_head: head(&structure(&format!("{topic}.Key"), keys)),
            value_head: head(&envelope),
        }
    }
}

/// A value that holds no row, for a topic whose envelopes have inline schemas: Debezium's consumers pass it by.
#[must_use]
pub fn without_row(value: &[u8]) -> Vec<u8> {
    [WITHOUT_ROW, value, b"}"].concat()
}

/// What [`without_row`] was given; any other value as it is.
#[must_use]
pub fn bare_value(value: &[u8]) -> &[u8] {
    let wrapped = value
        .strip_prefix(WITHOUT_ROW)
        .and_then(|rest| rest.strip_suffix(b"}"));
    wrapped.unwrap_or(value)
}

fn head(schema: &Value) -> Vec<u8> {
    format!("{{\"schema\":{schema},\"payload\":").into_bytes()
}

fn field(connect_type: &str, optional: bool, name: &str) -> Value {
    json!({"type": connect_type, "optional": optional, "field": name})
}

fn structure(name: &str, fields: Vec<Value>) -> Value {
    json!({"type": "struct", "fields": fields, "optional": false, "name": name})
}

fn named(mut schema: Value, name: &str) -> Value {
    if let Value::Object(members) = &mut schema {
        members.insert("field".to_owned(), name.into());
    }
    schema
}

fn optional(mut schema: Value, name: &str) -> Value {
    if let Value::Object(members) = &mut schema {
        members.insert("optional".to_owned(), true.into());
    }
    named(schema, name)
}

/// The Connect type that holds what `write` writes for the column.
fn column_field(column: &Column) -> Value {
    let connect_type = match column.column_type {
        ColumnType::Boolean => "boolean",
        ColumnType::Int => "int32",
        ColumnType::Long => "int64",
        ColumnType::Float => "float",
        ColumnType::Double => "double",
        ColumnType::Decimal { .. }
        | ColumnType::String
        | ColumnType::Binary
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz
        | ColumnType::Uuid
        | ColumnType::Carrier => "string",
    };
    field(connect_type, !column.key, &column.name)
}

fn source_fields() -> Vec<Value> {
    let unavailable = json!({
        "type": "array", "items": {"type": "string", "optional": false}, "optional": true,
        "field": "unavailable",
    });
    vec![
        field("string", false, "version"),
        field("string", false, "connector"),
        field("string", false, "name"),
        field("int64", false, "ts_ms"),
        field("string", true, "snapshot"),
        field("string", false, "db"),
        field("int64", true, "ts_us"),
        field("string", false, "schema"),
        field("string", false, "table"),
        field("int64", true, "txId"),
        field("int64", true, "lsn"),
        unavailable,
    ]
}

fn transaction_fields() -> Vec<Value> {
    vec![
        field("string", false, "id"),
        field("int64", false, "total_order"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_without_row_reads_back_and_others_pass() {
        let value = br#"{"firn_reference":"k","size_bytes":1}"#;
        let wrapped = without_row(value);
        let parsed: Value = serde_json::from_slice(&wrapped).expect("JSON");
        assert_eq!(parsed["payload"]["firn_reference"], "k");
        assert_eq!(parsed.as_object().map(serde_json::Map::len), Some(2));
        assert_eq!(bare_value(&wrapped), value);
        assert_eq!(bare_value(value), value);
        assert_eq!(bare_value(WITHOUT_ROW), WITHOUT_ROW);
    }
}
