//! What an agent writes into one partition of a topic, and how Lambda hands it over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use change_event::envelope::{ChangeOrigin, EnvelopeWriter};
use change_event::header::HEADER_NAME;
use change_event::{
    Cell, Column, ColumnType, Lsn, Operation, Position, Predecessor, RecordHeader, RecordKind,
    SourceSchema,
};
use serde_json::{Value, json};

use crate::world::NOW_MS;

/// A column of a schema.
#[must_use]
pub fn column(id: i32, name: &str, column_type: ColumnType, key: bool) -> Column {
    Column {
        id,
        name: name.to_owned(),
        field_id: 99 + id,
        lake_name: name.to_owned(),
        column_type,
        source_type: "text".to_owned(),
        key,
    }
}

/// `id` (key), `a`; from version 2 on also `b`.
#[must_use]
pub fn schema(version: u32) -> SourceSchema {
    let mut columns = vec![
        column(1, "id", ColumnType::Int, true),
        column(2, "a", ColumnType::String, false),
    ];
    if version > 1 {
        columns.push(column(3, "b", ColumnType::Long, false));
    }
    let next_field_id = 100 + i32::try_from(columns.len()).unwrap();
    SourceSchema {
        version,
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        columns,
        retired: Vec::new(),
        next_field_id,
    }
}

/// One partition as its agent writes it.
#[derive(Debug, Clone)]
pub struct TopicWriter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Offset of the next record.
    pub offset: i64,
    /// Epoch of the agent.
    pub epoch: u64,
    /// Number of its last record in the epoch.
    pub pseq: u64,
    /// The last committed record, named by the first of an epoch.
    pub predecessor: Option<Predecessor>,
    /// Version by which rows are written.
    pub schema_version: u32,
    /// Commit position of the next change.
    pub lsn: u64,
    /// Topic incarnation.
    pub incarnation: u32,
}

impl TopicWriter {
    /// An agent that begins.
    #[must_use]
    pub fn new(topic: &str, partition: u32) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            offset: 0,
            epoch: 1,
            pseq: 0,
            predecessor: None,
            schema_version: 1,
            lsn: 100,
            incarnation: 1,
        }
    }

    /// The next agent: a new epoch.
    pub fn restart(&mut self) {
        self.predecessor = Some(Predecessor {
            epoch: self.epoch,
            pseq: self.pseq,
        });
        self.epoch += 1;
        self.pseq = 0;
    }

    /// The topic is made anew by the next agent: offsets begin again.
    pub fn recreate(&mut self) {
        self.restart();
        self.incarnation += 1;
        self.offset = 0;
    }

    /// The next header.
    pub fn header(&mut self, kind: RecordKind) -> RecordHeader {
        self.pseq += 1;
        self.lsn += 1;
        RecordHeader {
            kind,
            topic_incarnation: self.incarnation,
            schema_version: self.schema_version,
            epoch: self.epoch,
            pseq: self.pseq,
            predecessor: self.predecessor.filter(|_| self.pseq == 1),
            position: Position::stream(1, Lsn(self.lsn), 1),
        }
    }

    /// The envelope of an insert.
    #[must_use]
    pub fn envelope(&self, id: i64, a: Option<&str>) -> Vec<u8> {
        let schema = schema(self.schema_version);
        let writer = EnvelopeWriter::new(&schema, "shop", "shop");
        let id = id.to_string();
        let mut cells = vec![Cell::Text(&id), a.map_or(Cell::Null, Cell::Text)];
        if self.schema_version > 1 {
            cells.push(Cell::Text("7"));
        }
        let origin = ChangeOrigin {
            commit_us: NOW_MS * 1000,
            commit_lsn: Lsn(self.lsn),
            transaction_id: 5,
            ordinal: 1,
            handled_ms: NOW_MS,
        };
        let mut out = Vec::new();
        let none: Option<(Vec<Cell<'_>>, bool)> = None;
        writer
            .write_envelope(&mut out, Operation::Create, &origin, none, Some(cells))
            .unwrap();
        out
    }

    /// The next record: an insert.
    pub fn insert(&mut self, id: i64, a: &str) -> Value {
        let header = self.header(RecordKind::Change);
        let envelope = self.envelope(id, Some(a));
        self.record(Some(&header), Some(&envelope))
    }

    /// The next record: the barrier of a larger partition map.
    pub fn barrier(&mut self, map_version: u32) -> Value {
        let header = self.header(RecordKind::Barrier { map_version });
        self.record(Some(&header), Some(b"{\"firn_barrier\":2}"))
    }

    /// The next record, with what is given.
    pub fn record(&mut self, header: Option<&RecordHeader>, value: Option<&[u8]>) -> Value {
        let bytes = header.map(|header| {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            bytes
        });
        self.raw(bytes.as_deref(), value)
    }

    /// The next record, with a header of any bytes.
    pub fn raw(&mut self, header: Option<&[u8]>, value: Option<&[u8]>) -> Value {
        let offset = self.offset;
        self.offset += 1;
        let headers = match header {
            None => json!([]),
            Some(bytes) => {
                // As Java spells bytes.
                let signed: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
                json!([{ HEADER_NAME: signed }])
            }
        };
        json!({
            "topic": self.topic, "partition": self.partition, "offset": offset,
            "timestamp": NOW_MS, "timestampType": "CREATE_TIME",
            "key": STANDARD.encode("{\"id\":1}"),
            "value": value.map(|value| STANDARD.encode(value)),
            "headers": headers,
        })
    }
}

/// A payload of Lambda.
#[must_use]
pub fn event(records: &[Value]) -> Vec<u8> {
    let mut groups = serde_json::Map::new();
    for record in records {
        let name = format!(
            "{}-{}",
            record["topic"].as_str().unwrap_or("?"),
            record["partition"]
        );
        let group = groups.entry(name).or_insert_with(|| json!([]));
        group.as_array_mut().unwrap().push(record.clone());
    }
    let event = json!({
        "eventSource": "aws:kafka", "eventSourceArn": "arn:aws:kafka:x", "bootstrapServers": "b:9092",
        "records": groups,
    });
    serde_json::to_vec(&event).unwrap()
}
