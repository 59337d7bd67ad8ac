//! `bench ingest`: megabytes of record bytes per CPU-second from a Kafka event to the bytes of a staged Parquet file, beside
//! the least that a program without firn's checks would do: parse the same records with `serde_json` and write the same
//! columns with the Parquet crate's defaults.
//!
//! The event decoder is the function's own source file: depending on the function's crate would build the cloud SDKs.

use std::io::Write;

use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use change_event::envelope::{Cell, ChangeOrigin, EnvelopeView, EnvelopeWriter, Operation};
use change_event::{Column, ColumnType, Lsn, Position, RecordHeader, RecordKind, SourceSchema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use table_commit::{Frontier, RecordIdentity, Verdict, judge};
use table_file::{ChangeBatch, ChangeRow, DayBatch, encode};

use crate::cpu::least_seconds;

#[expect(unreachable_pub, reason = "public in its own crate")]
#[path = "../../../functions/ingest/src/event.rs"]
mod event;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Megabytes of record values in the event; a Lambda payload of 6 MB holds about four.
    #[arg(long, default_value_t = 4)]
    record_megabytes: usize,
    /// How often each piece is run; the least time counts.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
}

const TOPIC: &str = "shop.public.orders";
const BASE_US: i64 = 1_700_000_000_000_000;

/// Measures and prints.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> std::io::Result<()> {
    let schema = orders();
    let recorded = Recorded::generate(&schema, options.record_megabytes * 1_000_000);
    let groups = event::decode(&recorded.payload).expect("an event");
    let day = rows_of(&schema, &groups);
    let file = encode(&day).expect("a file");
    let plain_bytes = plain_parquet(&day.rows).len();

    let seconds = least_seconds(
        options.rounds,
        &mut [
            &mut || {
                let groups = event::decode(&recorded.payload).expect("an event");
                encode(&rows_of(&schema, &groups))
                    .expect("a file")
                    .bytes
                    .len()
            },
            &mut || parse_values(&recorded) + plain_parquet(&day.rows).len(),
            &mut || event::decode(&recorded.payload).expect("an event").len(),
            &mut || rows_of(&schema, &groups).rows.num_rows(),
            &mut || encode(&day).expect("a file").bytes.len(),
            &mut || parse_values(&recorded),
            &mut || plain_parquet(&day.rows).len(),
        ],
    );
    let value_bytes = recorded.values.iter().map(Vec::len).sum();
    writeln!(
        out,
        "{} records, {:.2} MB of values, payload {:.2} MB, Parquet {:.3} MB (plain {:.3} MB)",
        recorded.values.len(),
        megabytes(value_bytes),
        megabytes(recorded.payload.len()),
        megabytes(file.bytes.len()),
        megabytes(plain_bytes)
    )?;
    for (name, seconds) in PIECES.iter().zip(&seconds) {
        let rate = megabytes(value_bytes) / seconds;
        writeln!(out, "{name:38} {rate:7.1} MB/s {:7.2} ms", seconds * 1e3)?;
    }
    writeln!(out, "{:38} {:7.2}", "A / B", seconds[1] / seconds[0])
}

/// What is measured, in the order of [`run`].
const PIECES: [&str; 7] = [
    "A  firn, event to Parquet",
    "B  serde_json values + plain Parquet",
    "A: event and base64",
    "A: accept rule, envelopes, columns",
    "A: Parquet and statistics",
    "B: serde_json values",
    "B: Parquet with defaults, zstd 1",
];

fn megabytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).expect("small")) / 1e6
}

/// Accept rule, envelopes, columns: what the function does between the event and the file.
fn rows_of(schema: &SourceSchema, groups: &[event::RecordGroup<'_>]) -> DayBatch {
    let mut batch = ChangeBatch::new(schema);
    let mut frontier = Frontier::start(1);
    for record in groups.iter().flat_map(|group| &group.records) {
        let record = record.as_ref().expect("good");
        let header = RecordHeader::decode(record.header.as_ref().expect("a header")).expect("good");
        let identity = RecordIdentity {
            offset: record.offset,
            header: Some(header),
        };
        let verdict = judge(&frontier, &identity);
        assert!(
            matches!(verdict, Verdict::Accept { row: true }),
            "a dense log"
        );
        frontier.pass(&identity, &verdict);
        let envelope = EnvelopeView::parse(record.value.as_ref().expect("a value")).expect("good");
        batch
            .push(&ChangeRow::from_envelope(&envelope, header.position))
            .expect("good");
    }
    batch.finish().expect("columns").pop().expect("one day")
}

fn parse_values(recorded: &Recorded) -> usize {
    let parse = |value: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(value).expect("JSON");
    recorded
        .values
        .iter()
        .filter(|value| parse(value).is_object())
        .count()
}

fn plain_parquet(rows: &RecordBatch) -> Vec<u8> {
    let level = ZstdLevel::try_new(1).expect("a level");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .build();
    let mut out = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut out, rows.schema(), Some(properties)).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("closed");
    out
}

fn orders() -> SourceSchema {
    let columns = [
        ("id", ColumnType::Long, "bigint"),
        ("customer_email", ColumnType::String, "text"),
        ("status", ColumnType::String, "text"),
        (
            "amount",
            ColumnType::Decimal {
                precision: 12,
                scale: 2,
            },
            "numeric(12,2)",
        ),
        (
            "placed_at",
            ColumnType::TimestampTz,
            "timestamp with time zone",
        ),
        ("express", ColumnType::Boolean, "boolean"),
        ("weight_kg", ColumnType::Double, "double precision"),
        ("details", ColumnType::Carrier, "jsonb"),
    ];
    let columns = (1..)
        .zip(columns)
        .map(|(id, (name, column_type, source_type))| Column {
            id,
            name: name.to_owned(),
            field_id: 99 + id,
            lake_name: name.to_owned(),
            column_type,
            source_type: source_type.to_owned(),
            key: id == 1,
        })
        .collect();
    SourceSchema {
        version: 1,
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        columns,
        retired: Vec::new(),
        next_field_id: 108,
    }
}

/// An event as Lambda delivers it, and the values in it.
struct Recorded {
    payload: Vec<u8>,
    values: Vec<Vec<u8>>,
}

impl Recorded {
    /// The same event each time.
    fn generate(schema: &SourceSchema, value_bytes: usize) -> Self {
        let writer = EnvelopeWriter::new(schema, "shop", "shop");
        let mut draw = Draw(42);
        let mut values = Vec::new();
        let mut payload = format!(
            "{{\"eventSource\":\"aws:kafka\",\"eventSourceArn\":\"arn:aws:kafka:eu-west-1:123456789012:cluster/shop\",\
             \"bootstrapServers\":\"b-1:9098,b-2:9098\",\"records\":{{\"{TOPIC}-0\":["
        )
        .into_bytes();
        let (mut key, mut value, mut header) = (Vec::new(), Vec::new(), Vec::new());
        let mut written = 0;
        for offset in 0u64.. {
            if written >= value_bytes {
                break;
            }
            let position = write_record(&writer, &mut draw, offset, &mut key, &mut value);
            RecordHeader {
                kind: RecordKind::Change,
                topic_incarnation: 1,
                schema_version: 1,
                epoch: 3,
                pseq: offset + 1,
                predecessor: None,
                position,
            }
            .encode(&mut header);
            let header: Vec<String> = header
                .iter()
                .map(|byte| byte.cast_signed().to_string())
                .collect();
            let comma = if offset == 0 { "" } else { "," };
            write!(
                payload,
                "{comma}{{\"topic\":\"{TOPIC}\",\"partition\":0,\"offset\":{offset},\"timestamp\":1700000000123,\
                 \"timestampType\":\"CREATE_TIME\",\"key\":\"{}\",\"value\":\"{}\",\"headers\":[{{\"firn\":[{}]}}]}}",
                STANDARD.encode(&key),
                STANDARD.encode(&value),
                header.join(",")
            )
            .expect("into memory");
            written += value.len();
            values.push(value.clone());
        }
        payload.extend_from_slice(b"]}}");
        Self { payload, values }
    }
}

/// One change of an order: three updates in five, a delete in ten.
fn write_record(
    writer: &EnvelopeWriter,
    draw: &mut Draw,
    offset: u64,
    key: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> Position {
    let id = (1_000_000 + draw.below(400_000)).to_string();
    let customer = draw.below(50_000);
    let email = format!(
        "customer.{customer}@example.{}",
        ["com", "org", "net"][draw.index(3)]
    );
    let status = ["new", "paid", "packed", "shipped", "returned"][draw.index(5)];
    let amount = format!("{}.{:02}", draw.below(2000), draw.below(100));
    let placed_at = format!(
        "2023-11-{:02} {:02}:{:02}:{:02}.{:06}+00",
        1 + draw.below(14),
        draw.below(24),
        draw.below(60),
        draw.below(60),
        draw.below(1_000_000)
    );
    let express = if draw.below(4) == 0 { "t" } else { "f" };
    let weight = format!("{}.{}", draw.below(30), 1 + draw.below(999));
    let details = format!(
        "{{\"lines\": [{{\"sku\": \"A{:05}\", \"count\": {}}}, {{\"sku\": \"B{:05}\", \"count\": {}}}], \"note\": \"left at the door\"}}",
        draw.below(20_000),
        1 + draw.below(5),
        draw.below(20_000),
        1 + draw.below(5)
    );
    let row = [
        &id, &email, status, &amount, &placed_at, express, &weight, &details,
    ]
    .map(Cell::Text);
    let operation = match draw.below(10) {
        0 => Operation::Delete,
        1..=3 => Operation::Create,
        _ => Operation::Update,
    };
    let transaction = offset / 4;
    let commit_lsn = Lsn(0x16_0000_0000 + transaction * 1500 + draw.below(300));
    let ordinal = offset % 4 + 1;
    let origin = ChangeOrigin {
        commit_us: BASE_US + i64::try_from(transaction).expect("small") * 2_173,
        commit_lsn,
        transaction_id: u32::try_from(700_000 + transaction).expect("small"),
        ordinal,
        handled_ms: BASE_US / 1000,
    };
    assert!(writer.write_key(key, row).expect("a key"));
    let delete = operation == Operation::Delete;
    let (before, after) = (delete.then_some((row, true)), (!delete).then_some(row));
    writer
        .write_envelope(value, operation, &origin, before, after)
        .expect("fits");
    Position::stream(1, Lsn(0x16_0000_0000 + transaction * 1500), ordinal)
}

/// SplitMix64 (Steele, Lea, Flood): the same numbers each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit.try_into().expect("small"))).expect("small")
    }
}
