//! Rows in, Parquet out, read back with the Parquet crate's own reader.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers"
)]

mod rows;
mod statistics;

use change_event::envelope::{Cell, ChangeOrigin, EnvelopeView, EnvelopeWriter, Operation};
use change_event::{Column, ColumnType, Lsn, Position, SourceSchema};
use table_file::{ChangeBatch, ChangeRow, RowError, RowImage};

/// 2023-11-14 22:13:20.123456.
const COMMIT_US: i64 = 1_700_000_000_123_456;
const DAY: i32 = 19_675;

const TYPES: [(&str, ColumnType); 14] = [
    ("id", ColumnType::Long),
    ("ok", ColumnType::Boolean),
    ("small", ColumnType::Int),
    ("f4", ColumnType::Float),
    ("f8", ColumnType::Double),
    (
        "price",
        ColumnType::Decimal {
            precision: 12,
            scale: 2,
        },
    ),
    (
        "huge",
        ColumnType::Decimal {
            precision: 38,
            scale: 0,
        },
    ),
    ("note", ColumnType::String),
    ("blob", ColumnType::Binary),
    ("born", ColumnType::Date),
    ("at", ColumnType::Time),
    ("ts", ColumnType::Timestamp),
    ("tstz", ColumnType::TimestampTz),
    ("uid", ColumnType::Uuid),
];

fn schema() -> SourceSchema {
    let columns: Vec<Column> = (1..)
        .zip(TYPES)
        .map(|(id, (name, column_type))| Column {
            id,
            name: name.to_owned(),
            field_id: 99 + id,
            lake_name: format!("l_{name}"),
            column_type,
            source_type: "some".to_owned(),
            key: name == "id",
        })
        .collect();
    SourceSchema {
        version: 3,
        table_schema: "public".to_owned(),
        table_name: "t".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        next_field_id: 100 + i32::try_from(columns.len()).unwrap(),
        columns,
        retired: Vec::new(),
    }
}

fn row(id: &str) -> Vec<Cell<'_>> {
    [
        id,
        "t",
        "-7",
        "1.5",
        "-2.5e-300",
        "9999999999.99",
        "-99999999999999999999999999999999999999",
        "naïve \"text\"\n",
        "\\x00ff10",
        "0044-03-15 BC",
        "23:59:59.999999",
        "1969-12-31 23:59:59.999999",
        "2024-02-29 05:30:00+05:30",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ]
    .into_iter()
    .map(Cell::Text)
    .collect()
}

fn with<'a>(mut row: Vec<Cell<'a>>, name: &str, cell: Cell<'a>) -> Vec<Cell<'a>> {
    let at = TYPES
        .iter()
        .position(|(column, _)| *column == name)
        .unwrap();
    row[at] = cell;
    row
}

fn position(ordinal: u64) -> Position {
    Position::stream(1, Lsn(0x16B_3748), ordinal)
}

/// Pushes the row as the agent's copy does.
fn push_cells(
    batch: &mut ChangeBatch,
    operation: Operation,
    ordinal: u64,
    cells: &[Cell<'_>],
) -> Result<(), RowError> {
    let image = Some(RowImage::Cells(cells));
    let delete = operation == Operation::Delete;
    batch.push(&ChangeRow {
        operation,
        position: position(ordinal),
        source_ts_us: COMMIT_US,
        before: image.filter(|_| delete),
        after: image.filter(|_| !delete),
    })
}

/// Pushes the row as ingest does: through an envelope.
fn push_envelope(
    batch: &mut ChangeBatch,
    operation: Operation,
    ordinal: u64,
    cells: &[Cell<'_>],
) -> Result<(), RowError> {
    let writer = EnvelopeWriter::new(&schema(), "shop", "db");
    let origin = ChangeOrigin {
        commit_us: COMMIT_US,
        commit_lsn: Lsn(0x16B_3748),
        transaction_id: 7,
        ordinal,
        handled_ms: 1,
    };
    let row = || cells.iter().copied();
    let (before, after) = if operation == Operation::Delete {
        (Some((row(), true)), None)
    } else {
        (None, Some(row()))
    };
    let mut bytes = Vec::new();
    writer
        .write_envelope(&mut bytes, operation, &origin, before, after)
        .unwrap();
    push_bytes(batch, ordinal, &bytes)
}

fn push_bytes(batch: &mut ChangeBatch, ordinal: u64, bytes: &[u8]) -> Result<(), RowError> {
    let envelope = EnvelopeView::parse(bytes).unwrap();
    batch.push(&ChangeRow::from_envelope(&envelope, position(ordinal)))
}
