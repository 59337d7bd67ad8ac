//! What a staged file says about itself, and what Iceberg makes of it.

use std::collections::HashSet;

use iceberg::TableCreation;
use iceberg::spec::{Datum, PrimitiveType, Schema, TableMetadataBuilder};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;
use table_file::{
    EncodedFile, FileError, StagedFile, arrow_schema, base_schema, encode, evolved_lake_schema,
    lake_schema, partition_spec,
};

use super::*;

fn file(cells: &[Vec<Cell<'_>>]) -> EncodedFile {
    let mut batch = ChangeBatch::new(&schema());
    for (ordinal, cells) in (1..).zip(cells) {
        push_cells(&mut batch, Operation::Create, ordinal, cells).unwrap();
    }
    encode(&batch.finish().unwrap()[0]).unwrap()
}

#[test]
fn every_leaf_has_the_field_id_of_the_table_schema() {
    let file = file(&[row("5")]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes).unwrap();
    let lake = lake_schema(&schema()).unwrap();
    for field in reader.schema().fields() {
        let id = field.metadata()[PARQUET_FIELD_ID_META_KEY].parse().unwrap();
        assert_eq!(lake.name_by_field_id(id), Some(field.name().as_str()));
        assert_eq!(
            lake.field_by_id(id).unwrap().required,
            !field.is_nullable(),
            "{}",
            field.name()
        );
    }
    let leaves = reader.parquet_schema().columns();
    let ids: HashSet<i32> = leaves
        .iter()
        .map(|leaf| leaf.self_type().get_basic_info().id())
        .collect();
    assert_eq!(
        ids,
        HashSet::from_iter([1, 2, 3, 4, 6, 8, 9].into_iter().chain(100..114))
    );
    let staged: HashSet<i32> = file
        .staged
        .columns
        .iter()
        .map(|column| column.field_id)
        .collect();
    assert_eq!(ids, staged);
    let uid = leaves.iter().find(|leaf| leaf.name() == "l_uid").unwrap();
    assert_eq!(uid.logical_type_ref(), Some(&LogicalType::Uuid));
    let written: Vec<_> = arrow_schema(&schema())
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let read: Vec<_> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(written, read);
}

fn field_id(name: &str) -> i32 {
    100 + i32::try_from(TYPES.iter().position(|(n, _)| *n == name).unwrap()).unwrap()
}

/// Three rows: a NaN, a long text and a small number, an unavailable text.
fn three_rows() -> StagedFile {
    let nan = with(row("5"), "f8", Cell::Text("NaN"));
    let long = with(row("-6"), "note", Cell::Text("zzzzzzzzzzzzzzzzzzzz"));
    let long = with(long, "price", Cell::Text("-0.01"));
    let toast = with(row("7"), "note", Cell::Unavailable);
    let toast = with(toast, "f8", Cell::Text("1"));
    file(&[nan, long, toast]).staged
}

#[test]
fn staged_file_survives_json_and_counts_its_rows() {
    let staged = three_rows();
    let json = serde_json::to_string(&staged).unwrap();
    assert_eq!(serde_json::from_str::<StagedFile>(&json).unwrap(), staged);
    assert_eq!(
        (staged.row_count, staged.day, staged.schema_version),
        (3, DAY, 3)
    );
    assert_eq!(staged.split_offsets, [4]);
    let data_file = staged
        .to_data_file(&lake_schema(&schema()).unwrap(), 0)
        .unwrap();
    assert_eq!(data_file.record_count(), 3);
    assert_eq!(data_file.nan_value_counts()[&field_id("f8")], 1);
    let (values, nulls) = (data_file.value_counts(), data_file.null_value_counts());
    let note = field_id("note");
    assert_eq!((values[&note], nulls[&note]), (3, 1));
    // The list's leaf: one name, and one slot for each row without.
    assert_eq!((values[&6], nulls[&6]), (3, 2));
}

#[test]
fn bounds_are_those_of_the_rows() {
    let data_file = three_rows()
        .to_data_file(&lake_schema(&schema()).unwrap(), 0)
        .unwrap();
    let bounds = |name: &str| {
        let id = field_id(name);
        let (lower, upper) = (data_file.lower_bounds(), data_file.upper_bounds());
        Some((lower.get(&id)?.clone(), upper.get(&id)?.clone()))
    };
    let both = |datum: Datum| Some((datum.clone(), datum));
    assert_eq!(bounds("id"), Some((Datum::long(-6), Datum::long(7))));
    let last = Datum::string("zzzzzzzzzzzzzzz{");
    assert_eq!(
        bounds("note"),
        Some((Datum::string("naïve \"text\"\n"), last))
    );
    assert_eq!(
        bounds("f8"),
        Some((Datum::double(-2.5e-300), Datum::double(1.0)))
    );
    assert_eq!(bounds("ok"), both(Datum::bool(true)));
    assert_eq!(bounds("born"), both(Datum::date(-735_160)));
    assert_eq!(bounds("blob"), both(Datum::binary([0, 0xFF, 0x10])));
    assert_eq!(bounds("uid"), None);
    let decimal = |value: i128, precision, scale| {
        let decimal = PrimitiveType::Decimal { precision, scale };
        Datum::try_from_bytes(&value.to_be_bytes(), decimal).unwrap()
    };
    let prices = (decimal(-1, 12, 2), decimal(999_999_999_999, 12, 2));
    assert_eq!(bounds("price"), Some(prices));
    assert_eq!(bounds("huge"), both(decimal(1 - 10i128.pow(38), 38, 0)));
    assert_eq!(
        data_file.lower_bounds()[&3],
        Datum::timestamptz_micros(COMMIT_US)
    );
}

#[test]
fn column_of_nulls_or_nan_has_no_bounds() {
    let staged = file(&[with(
        with(row("5"), "f4", Cell::Text("NaN")),
        "note",
        Cell::Null,
    )])
    .staged;
    let of = |field_id: i32| {
        staged
            .columns
            .iter()
            .find(|c| c.field_id == field_id)
            .unwrap()
    };
    assert_eq!(
        (&of(103).lower, &of(103).upper, of(103).nan_count),
        (&None, &None, Some(1))
    );
    assert_eq!(
        (&of(107).lower, of(107).null_count, of(107).value_count),
        (&None, 1, 1)
    );
}

#[test]
fn bounds_of_a_narrow_file_are_read_in_the_widened_type() {
    let staged = file(&[row("5")]).staged;
    let mut wide = schema();
    wide.version = 4;
    for column in &mut wide.columns {
        column.column_type = match column.column_type {
            ColumnType::Int => ColumnType::Long,
            ColumnType::Float => ColumnType::Double,
            ColumnType::Decimal {
                precision: 12,
                scale,
            } => ColumnType::Decimal {
                precision: 20,
                scale,
            },
            same => same,
        };
    }
    let data_file = staged
        .to_data_file(&lake_schema(&wide).unwrap(), 0)
        .unwrap();
    assert_eq!(data_file.lower_bounds()[&102], Datum::long(-7));
    assert_eq!(data_file.lower_bounds()[&103], Datum::double(1.5));
    assert!(data_file.lower_bounds().contains_key(&105));
    let without = staged.to_data_file(&base_schema().unwrap(), 0);
    assert!(matches!(
        without,
        Err(FileError::UnknownField { field_id: 6 })
    ));
}

fn created(source: &SourceSchema) -> Schema {
    let creation = TableCreation::builder()
        .name("t".to_owned())
        .location("s3://b/t".to_owned())
        .schema(base_schema().unwrap())
        .partition_spec(partition_spec().unwrap())
        .build();
    let metadata = TableMetadataBuilder::from_table_creation(creation)
        .unwrap()
        .add_current_schema(lake_schema(source).unwrap())
        .unwrap()
        .build()
        .unwrap()
        .metadata;
    assert_eq!(metadata.default_partition_spec().fields()[0].name, "_day");
    metadata.current_schema().as_ref().clone()
}

#[test]
fn table_created_from_the_base_schema_keeps_every_id() {
    let current = created(&schema());
    let wanted = lake_schema(&schema()).unwrap();
    assert_eq!(current.as_struct(), wanted.as_struct());
    assert_eq!(current.identifier_field_ids().collect::<Vec<_>>(), [100]);
}

#[test]
fn key_that_comes_later_is_optional_and_no_identifier() {
    let current = created(&schema());
    let mut later = schema();
    later.version = 4;
    later.columns[7].key = true;
    let evolved = evolved_lake_schema(&current, &later).unwrap();
    assert!(evolved.field_by_id(100).unwrap().required);
    assert!(!evolved.field_by_id(107).unwrap().required);
    assert_eq!(evolved.identifier_field_ids().count(), 0);
    let same = evolved_lake_schema(&current, &schema()).unwrap();
    assert_eq!(same.as_struct(), current.as_struct());
}

#[test]
fn float_key_is_optional_and_no_identifier() {
    let mut source = schema();
    source.columns[0].column_type = ColumnType::Double;
    let lake = lake_schema(&source).unwrap();
    assert!(!lake.field_by_id(100).unwrap().required);
    assert_eq!(lake.identifier_field_ids().count(), 0);
}
