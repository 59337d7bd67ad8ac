//! What a row becomes, and what is refused.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use table_file::encode;

use super::*;

/// Finishes a batch of one day, writes it and reads it back.
fn written(batch: ChangeBatch) -> RecordBatch {
    let days = batch.finish().unwrap();
    assert_eq!(days.len(), 1);
    let file = encode(&days[0]).unwrap();
    assert_eq!(
        file.staged.size_bytes,
        u64::try_from(file.bytes.len()).unwrap()
    );
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes)
        .unwrap()
        .build()
        .unwrap();
    reader.next().unwrap().unwrap()
}

fn names(rows: &RecordBatch, row: usize) -> Option<Vec<String>> {
    let list = rows["_unavailable"].as_list::<i32>();
    list.is_valid(row).then(|| {
        list.value(row)
            .as_string::<i32>()
            .iter()
            .map(|name| name.unwrap().to_owned())
            .collect()
    })
}

fn exact(rows: &RecordBatch, row: usize) -> Vec<(String, String)> {
    let map = rows["_exact"].as_map();
    if map.is_null(row) {
        return Vec::new();
    }
    let entries = map.value(row);
    let (keys, values) = (
        entries.column(0).as_string::<i32>(),
        entries.column(1).as_string::<i32>(),
    );
    keys.iter()
        .zip(values)
        .map(|(k, v)| (k.unwrap().to_owned(), v.unwrap().to_owned()))
        .collect()
}

fn first<T: ArrowPrimitiveType>(rows: &RecordBatch, column: &str) -> T::Native {
    rows[column].as_primitive::<T>().value(0)
}

#[test]
fn every_type_reads_back_exactly() {
    let mut batch = ChangeBatch::new(&schema());
    push_envelope(&mut batch, Operation::Create, 1, &row("5")).unwrap();
    let rows = &written(batch);
    let text = |column: &str| rows[column].as_string::<i32>().value(0).to_owned();
    assert_eq!(
        (text("_op"), text("_pos")),
        ("c".to_owned(), position(1).to_hex())
    );
    assert_eq!(
        first::<TimestampMicrosecondType>(rows, "_source_ts"),
        COMMIT_US
    );
    assert_eq!(first::<Int32Type>(rows, "_schema_version"), 3);
    assert_eq!((names(rows, 0), exact(rows, 0)), (None, Vec::new()));
    assert_eq!(first::<Int64Type>(rows, "l_id"), 5);
    assert!(rows["l_ok"].as_boolean().value(0));
    assert_eq!(first::<Int32Type>(rows, "l_small"), -7);
    assert_eq!(
        first::<Float32Type>(rows, "l_f4").to_bits(),
        1.5f32.to_bits()
    );
    let tiny = -2.5e-300f64;
    assert_eq!(first::<Float64Type>(rows, "l_f8").to_bits(), tiny.to_bits());
    assert_eq!(first::<Decimal128Type>(rows, "l_price"), 999_999_999_999);
    assert_eq!(first::<Decimal128Type>(rows, "l_huge"), 1 - 10i128.pow(38));
    assert_eq!(text("l_note"), "naïve \"text\"\n");
    assert_eq!(rows["l_blob"].as_binary::<i32>().value(0), [0, 0xFF, 0x10]);
    assert_eq!(first::<Date32Type>(rows, "l_born"), -735_160);
    assert_eq!(first::<Time64MicrosecondType>(rows, "l_at"), 86_399_999_999);
    assert_eq!(first::<TimestampMicrosecondType>(rows, "l_ts"), -1);
    let leap_day = 1_709_164_800_000_000;
    assert_eq!(first::<TimestampMicrosecondType>(rows, "l_tstz"), leap_day);
    let uid = rows["l_uid"].as_fixed_size_binary();
    assert_eq!(uid.value(0)[..4], [0xA0, 0xEE, 0xBC, 0x99]);
}

#[test]
fn copied_row_and_streamed_row_become_the_same_columns() {
    let mut copied = ChangeBatch::new(&schema());
    let mut streamed = ChangeBatch::new(&schema());
    let odd = with(
        with(row("6"), "f8", Cell::Text("NaN")),
        "ts",
        Cell::Text("infinity"),
    );
    let toast = with(
        with(row("7"), "note", Cell::Unavailable),
        "blob",
        Cell::Null,
    );
    for (ordinal, cells) in [row("5"), odd, toast].iter().enumerate() {
        let ordinal = u64::try_from(ordinal).unwrap();
        push_cells(&mut copied, Operation::Update, ordinal, cells).unwrap();
        push_envelope(&mut streamed, Operation::Update, ordinal, cells).unwrap();
    }
    let (copied, streamed) = (copied.finish().unwrap(), streamed.finish().unwrap());
    assert_eq!(copied[0].rows, streamed[0].rows);
}

#[test]
fn what_does_not_fit_is_null_and_carried_exactly() {
    let mut batch = ChangeBatch::new(&schema());
    let beyond = [
        ("price", "NaN"),
        ("huge", "100000000000000000000000000000000000000"),
        ("born", "-infinity"),
        ("at", "24:00:00"),
        ("ts", "294276-12-31 23:59:59.999999"),
        ("tstz", "infinity"),
    ];
    let cells = beyond.iter().fold(row("5"), |row, (name, text)| {
        with(row, name, Cell::Text(text))
    });
    push_envelope(&mut batch, Operation::Create, 1, &cells).unwrap();
    push_envelope(&mut batch, Operation::Create, 2, &row("6")).unwrap();
    let rows = written(batch);
    let want: Vec<_> = beyond
        .iter()
        .map(|(n, t)| (format!("l_{n}"), (*t).to_owned()))
        .collect();
    assert_eq!(exact(&rows, 0), want);
    assert_eq!(exact(&rows, 1), Vec::new());
    for (name, _) in beyond {
        let column = &rows[format!("l_{name}").as_str()];
        assert!(column.is_null(0) && column.is_valid(1), "{name}");
    }
}

#[test]
fn absent_column_is_unavailable_in_an_update_and_null_in_a_delete() {
    let mut batch = ChangeBatch::new(&schema());
    let toast = with(row("5"), "note", Cell::Unavailable);
    push_envelope(&mut batch, Operation::Update, 1, &toast).unwrap();
    push_envelope(&mut batch, Operation::Delete, 2, &row("5")).unwrap();
    let rows = written(batch);
    assert_eq!(names(&rows, 0), Some(vec!["l_note".to_owned()]));
    assert_eq!(names(&rows, 1), None);
    assert!(rows["l_note"].is_null(0) && rows["l_ok"].is_valid(0));
    assert!(rows["l_ok"].is_null(1) && rows["l_id"].is_valid(1));
    assert_eq!(rows["_op"].as_string::<i32>().value(1), "d");
}

#[test]
fn rows_part_by_the_utc_day_of_their_commit() {
    let mut batch = ChangeBatch::new(&schema());
    for (ordinal, source_ts_us) in [(1, COMMIT_US), (2, -1), (3, COMMIT_US)] {
        let cells = row("5");
        let after = Some(RowImage::Cells(&cells));
        let operation = Operation::Read;
        let position = position(ordinal);
        batch
            .push(&ChangeRow {
                operation,
                position,
                source_ts_us,
                before: None,
                after,
            })
            .unwrap();
    }
    assert_eq!(batch.row_count(), 3);
    let days = batch.finish().unwrap();
    let counts: Vec<_> = days
        .iter()
        .map(|day| (day.day, day.rows.num_rows()))
        .collect();
    assert_eq!(counts, [(-1, 1), (DAY, 2)]);
}

fn envelope(after: &str) -> Vec<u8> {
    format!(r#"{{"after":{after},"source":{{"ts_us":{COMMIT_US}}},"op":"c"}}"#).into_bytes()
}

/// A batch after one good row.
fn begun() -> ChangeBatch {
    let mut batch = ChangeBatch::new(&schema());
    push_cells(&mut batch, Operation::Create, 1, &row("5")).unwrap();
    batch
}

/// The batch takes a further row as if the refused ones had never been.
fn assert_nothing_left(mut batch: ChangeBatch) {
    let mut clean = begun();
    let next = with(row("7"), "note", Cell::Unavailable);
    for batch in [&mut batch, &mut clean] {
        push_cells(batch, Operation::Create, 3, &next).unwrap();
    }
    assert_eq!(batch.row_count(), 2);
    let (batch, clean) = (batch.finish().unwrap(), clean.finish().unwrap());
    assert_eq!(batch[0].rows, clean[0].rows);
}

#[test]
fn refused_value_names_its_column_and_leaves_nothing_behind() {
    let mut batch = begun();
    let bad_values = [
        ("uid", "a0eebc99"),
        ("small", "2147483648"),
        ("ok", "true"),
        ("blob", "\\x0"),
        ("tstz", "2024-02-29 05:30:00"),
    ];
    for (name, text) in bad_values {
        let odd = with(row("6"), "price", Cell::Text("NaN"));
        let odd = with(odd, "note", Cell::Unavailable);
        let bad = with(odd, name, Cell::Text(text));
        let error = push_cells(&mut batch, Operation::Create, 2, &bad);
        assert!(matches!(error, Err(RowError::MalformedValue { column, .. }) if column == name));
    }
    for cell in [Cell::Null, Cell::Unavailable] {
        let bad = with(row("6"), "id", cell);
        let error = push_cells(&mut batch, Operation::Update, 2, &bad);
        assert!(matches!(error, Err(RowError::KeyWithoutValue { column, .. }) if column == "id"));
    }
    assert_nothing_left(batch);
}

#[test]
fn row_of_another_shape_is_refused_and_leaves_nothing_behind() {
    let mut batch = begun();
    let short = push_cells(&mut batch, Operation::Create, 2, &row("6")[1..]);
    let (expected, found) = (14, 13);
    assert_eq!(short, Err(RowError::ColumnCount { expected, found }));
    let mut push = |after: &str| push_bytes(&mut batch, 2, &envelope(after));
    let error = push(r#"{"id":6,"ok":true,"odd":1}"#);
    assert!(matches!(error, Err(RowError::UnknownColumn { column, .. }) if column == "odd"));
    let error = push(r#"{"id":6,"ok":true,"ok":false}"#);
    assert!(matches!(error, Err(RowError::DuplicateColumn { column }) if column == "ok"));
    let error = push(r#"{"id":6,"note":5}"#);
    assert!(matches!(error, Err(RowError::MalformedValue { column, .. }) if column == "note"));
    let error = push(r#"{"id":6,"note":["x"]}"#);
    assert!(matches!(error, Err(RowError::Envelope(_))));
    let (letter, image) = ("c", "after");
    assert_eq!(push("null"), Err(RowError::ImageMissing { letter, image }));
    let truncate = push_cells(&mut batch, Operation::Truncate, 2, &row("6"));
    assert_eq!(truncate, Err(RowError::NoRowOperation { letter: "t" }));
    assert_nothing_left(batch);
}

#[test]
fn fields_in_another_order_are_found_by_name() {
    let (mut one, mut other) = (ChangeBatch::new(&schema()), ChangeBatch::new(&schema()));
    push_bytes(
        &mut one,
        1,
        &envelope(r#"{"id":6,"ok":true,"note":"x","small":null}"#),
    )
    .unwrap();
    push_bytes(
        &mut other,
        1,
        &envelope(r#"{"small":null,"n\u006fte":"x","ok":true,"id":6}"#),
    )
    .unwrap();
    assert_eq!(
        one.finish().unwrap()[0].rows,
        other.finish().unwrap()[0].rows
    );
}

#[test]
fn batch_without_rows_gives_no_file() {
    let mut batch = ChangeBatch::new(&schema());
    assert!(push_cells(&mut batch, Operation::Create, 1, &[]).is_err());
    assert_eq!((batch.row_count(), batch.finish().unwrap().len()), (0, 0));
}

proptest! {
    /// Good and bad rows mixed: the batch is that of the good rows alone.
    #[test]
    fn bad_rows_never_show(kinds in proptest::collection::vec(0u8..6, 1..40)) {
        let (mut mixed, mut clean) = (ChangeBatch::new(&schema()), ChangeBatch::new(&schema()));
        for (ordinal, kind) in (0..).zip(kinds) {
            let cells = match kind {
                0 => row("5"),
                1 => with(row("6"), "note", Cell::Unavailable),
                2 => with(row("7"), "price", Cell::Text("NaN")),
                3 => with(row("8"), "blob", Cell::Null),
                4 => with(with(row("9"), "price", Cell::Text("NaN")), "uid", Cell::Text("x")),
                _ => with(with(row("9"), "id", Cell::Unavailable), "note", Cell::Unavailable),
            };
            let pushed = push_envelope(&mut mixed, Operation::Update, ordinal, &cells);
            prop_assert_eq!(pushed.is_ok(), kind < 4);
            if kind < 4 {
                push_cells(&mut clean, Operation::Update, ordinal, &cells).unwrap();
            }
        }
        let rows = |batch: ChangeBatch| batch.finish().unwrap().into_iter().map(|day| day.rows).collect::<Vec<_>>();
        prop_assert_eq!(rows(mixed), rows(clean));
    }
}
