//! What the writer writes, read back with `serde_json`.

use proptest::prelude::*;

use super::*;
use crate::position::Position;
use crate::schema::Column;

fn schema() -> SourceSchema {
    let column = |id: i32, name: &str, column_type, key| Column {
        id,
        name: name.to_owned(),
        field_id: 99 + id,
        lake_name: name.to_owned(),
        column_type,
        source_type: "some".to_owned(),
        key,
    };
    SourceSchema {
        version: 1,
        table_schema: "public".to_owned(),
        table_name: "t".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        columns: vec![
            column(1, "id", ColumnType::Long, true),
            column(2, "a\"b", ColumnType::String, false),
            column(3, "ok", ColumnType::Boolean, false),
            column(4, "x", ColumnType::Double, false),
        ],
        retired: Vec::new(),
        next_field_id: 104,
    }
}

const ORIGIN: ChangeOrigin = ChangeOrigin {
    commit_us: 1_700_000_000_123_456,
    commit_lsn: Lsn(0x16B_3748),
    transaction_id: 77,
    ordinal: 2,
    handled_ms: 1_700_000_000_200,
};

fn value(out: &[u8]) -> serde_json::Value {
    serde_json::from_slice(out).expect("valid JSON")
}

type NoImage = std::iter::Empty<Cell<'static>>;

#[test]
fn update_with_unchanged_toast_leaves_the_column_out() {
    let writer = EnvelopeWriter::new(&schema(), "shop", "db");
    let mut out = Vec::new();
    let after = [
        Cell::Text("5"),
        Cell::Unavailable,
        Cell::Text("t"),
        Cell::Text("NaN"),
    ];
    writer
        .write_envelope(
            &mut out,
            Operation::Update,
            &ORIGIN,
            None::<(NoImage, bool)>,
            Some(after),
        )
        .expect("fits");
    let value = value(&out);
    assert_eq!(
        value["after"],
        serde_json::json!({"id": 5, "ok": true, "x": "NaN"})
    );
    assert_eq!(value["before"], serde_json::Value::Null);
    assert_eq!(value["op"], "u");
    assert_eq!(value["source"]["ts_us"], 1_700_000_000_123_456_i64);
    assert_eq!(value["source"]["lsn"], 0x16B_3748);
    assert_eq!(value["transaction"]["total_order"], 2);
}

#[test]
fn inline_schema_names_what_the_payload_holds() {
    let schema = schema();
    let writer =
        EnvelopeWriter::new(&schema, "shop", "db").with_inline_schema(&schema, "shop.public.t");
    let mut out = Vec::new();
    let after = [
        Cell::Text("5"),
        Cell::Unavailable,
        Cell::Text("t"),
        Cell::Null,
    ];
    writer
        .write_envelope(
            &mut out,
            Operation::Update,
            &ORIGIN,
            None::<(NoImage, bool)>,
            Some(after),
        )
        .expect("fits");
    let record = value(&out);
    assert_eq!(record["schema"]["name"], "shop.public.t.Envelope");
    assert_eq!(
        record["payload"]["after"],
        serde_json::json!({"id": 5, "ok": true, "x": null})
    );
    assert_eq!(
        record["payload"]["source"]["unavailable"],
        serde_json::json!(["a\"b"])
    );
    let payload = record["payload"].as_object().expect("an object");
    let fields = record["schema"]["fields"].as_array().expect("fields");
    let declared = |name: &str| fields.iter().find(|field| field["field"] == name);
    assert!(
        payload.keys().all(|name| declared(name).is_some()),
        "{payload:?}"
    );
    let read = crate::envelope::EnvelopeView::parse(&out).expect("the functions read it too");
    assert_eq!(
        read.after.map(|image| image.text()),
        Some("{\"id\":5,\"ok\":true,\"x\":null}")
    );
    let rows = declared("after").expect("declared")["fields"].clone();
    assert_eq!(
        rows[0],
        serde_json::json!({"type": "int64", "optional": false, "field": "id"})
    );
    assert_eq!(
        rows[3],
        serde_json::json!({"type": "double", "optional": true, "field": "x"})
    );
    let source = declared("source").expect("declared")["fields"].clone();
    let declared = |name: &String| {
        source
            .as_array()
            .expect("fields")
            .iter()
            .any(|f| f["field"] == *name)
    };
    assert!(
        payload["source"]
            .as_object()
            .expect("an object")
            .keys()
            .all(declared)
    );
}

#[test]
fn inline_key_is_named_and_its_partition_found_by_the_bare_key() {
    let schema = schema();
    let writer =
        EnvelopeWriter::new(&schema, "shop", "db").with_inline_schema(&schema, "shop.public.t");
    let (mut key, mut scratch) = (Vec::new(), Vec::new());
    let row = [Cell::Text("5"), Cell::Null, Cell::Null, Cell::Null];
    assert!(writer.write_key(&mut key, row).expect("a key"));
    assert_eq!(key, b"{\"id\":5}", "the partition is found by the bare key");
    let key = value(writer.record_key(&key, &mut scratch));
    assert_eq!(key["payload"], serde_json::json!({"id": 5}));
    assert_eq!(key["schema"]["name"], "shop.public.t.Key");
    assert_eq!(key["schema"]["fields"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bare_form_has_neither_schema_nor_list_of_unavailable_columns() {
    let writer = EnvelopeWriter::new(&schema(), "shop", "db");
    let mut out = Vec::new();
    let after = [
        Cell::Text("5"),
        Cell::Unavailable,
        Cell::Text("t"),
        Cell::Null,
    ];
    writer
        .write_envelope(
            &mut out,
            Operation::Update,
            &ORIGIN,
            None::<(NoImage, bool)>,
            Some(after),
        )
        .expect("fits");
    assert!(value(&out)["source"].get("unavailable").is_none());
    let mut scratch = vec![1];
    assert_eq!(
        writer.record_key(b"{\"id\":5}", &mut scratch),
        b"{\"id\":5}"
    );
}

#[test]
fn delete_with_default_identity_holds_the_key_only() {
    let writer = EnvelopeWriter::new(&schema(), "shop", "db");
    let row = [Cell::Text("5"), Cell::Null, Cell::Null, Cell::Null];
    let (mut out, mut key) = (Vec::new(), Vec::new());
    writer
        .write_envelope(
            &mut out,
            Operation::Delete,
            &ORIGIN,
            Some((row, true)),
            None::<NoImage>,
        )
        .expect("fits");
    assert_eq!(value(&out)["before"], serde_json::json!({"id": 5}));
    assert!(writer.write_key(&mut key, row).expect("a key"));
    assert_eq!(key, b"{\"id\":5}");
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_column() {
    let writer = EnvelopeWriter::new(&schema(), "shop", "db");
    let mut out = Vec::new();
    let short = writer.write_key(&mut out, [Cell::Text("5")]);
    assert_eq!(
        short,
        Err(WriteError::ColumnCount {
            expected: 4,
            found: 1
        })
    );
    let row = [Cell::Null, Cell::Null, Cell::Null, Cell::Null];
    let no_key = writer.write_key(&mut out, row);
    assert_eq!(
        no_key,
        Err(WriteError::KeyWithoutValue {
            column: "id".to_owned()
        })
    );
    let row = [Cell::Text("5x"), Cell::Null, Cell::Null, Cell::Null];
    let bad = writer.write_key(&mut out, row);
    assert!(matches!(bad, Err(WriteError::MalformedValue { column, .. }) if column == "id"));
}

proptest! {
    #[test]
    fn any_number_is_written_as_the_formatter_does(number in any::<i64>(), digits in 0u32..64) {
        let number = number >> digits;
        let mut out = Vec::new();
        write_signed(&mut out, number);
        prop_assert_eq!(out, number.to_string().into_bytes());
    }

    #[test]
    fn any_text_reads_back(text in any::<String>()) {
        let writer = EnvelopeWriter::new(&schema(), "shop", "db");
        let mut out = Vec::new();
        let after = [Cell::Text("5"), Cell::Text(&text), Cell::Null, Cell::Text("1e+20")];
        writer
            .write_envelope(&mut out, Operation::Create, &ORIGIN, None::<(NoImage, bool)>, Some(after))
            .expect("fits");
        let value = value(&out);
        prop_assert_eq!(value["after"]["a\"b"].as_str(), Some(text.as_str()));
        prop_assert_eq!(value["after"]["x"].as_f64(), Some(1e20));
    }
}
