//! Reads topics as a function does: by the accept rule of the headers, at either isolation level.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use change_event::header::HEADER_NAME;
use change_event::{
    Lane, Lsn, Position, Predecessor, RecordHeader, RecordKind, TopicRegistration, layout,
};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

/// What one topic holds once the accept rule was applied.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Envelopes of changes, in order per partition, with their positions.
    pub(crate) changes: Vec<(Position, Value)>,
    /// Rows in announced files of the table copy.
    pub(crate) copied_rows: u64,
    /// Those rows, by the position of their copy.
    pub(crate) copies: BTreeMap<Lsn, Rows>,
    /// Records dropped as duplicates.
    pub(crate) dropped: u64,
    /// Partitions with a change.
    pub(crate) partitions_used: usize,
    /// First and last position written by each version of the partition map.
    pub(crate) by_map: BTreeMap<u32, (Position, Position)>,
}

impl Accepted {
    /// Everything that one map wrote comes before everything that the next one wrote, over all partitions.
    fn check_maps(&self) {
        let ranges: Vec<_> = self.by_map.values().collect();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 < pair[1].0, "maps overlap: {:?}", self.by_map);
        }
    }

    /// The rows by key after all changes, beginning with none: only for tables that were empty when they were copied.
    pub(crate) fn rows(&self) -> BTreeMap<String, Value> {
        let mut rows = BTreeMap::new();
        let mut ordered: Vec<_> = self.changes.iter().collect();
        ordered.sort_by_key(|(position, _)| *position);
        for (position, change) in ordered {
            let before = change["before"]["id"].to_string();
            match change["op"].as_str() {
                Some("d") => assert!(
                    rows.remove(&before).is_some(),
                    "delete of no row at {position}"
                ),
                Some("c") => {
                    let known =
                        rows.insert(change["after"]["id"].to_string(), change["after"].clone());
                    assert!(
                        known.is_none(),
                        "create of a row that is there at {position}"
                    );
                }
                Some("u") => {
                    let known =
                        rows.insert(change["after"]["id"].to_string(), change["after"].clone());
                    assert!(known.is_some(), "update of no row at {position}");
                }
                other => panic!("operation {other:?} at {position}"),
            }
        }
        rows
    }
}

/// Somebody deletes a topic.
pub(crate) async fn delete(bootstrap_servers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .create()
        .expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let deleted = admin.delete_topics(&[topic], &options).await;
    for result in deleted.expect("an answer") {
        result.expect("deleted");
    }
}

/// Rows of a table with the columns `id` and `note`.
pub(crate) type Rows = BTreeMap<String, String>;

impl Accepted {
    /// The rows after all changes and copies, in the order of their positions.
    ///
    /// A copy after the first one must hold exactly what stands there by then; with `has_hole`, changes before the last copy
    /// may be missing. Before the first copy, changes of rows that nobody has seen are allowed: the copy brings them.
    pub(crate) fn folded(&self, has_hole: bool) -> Rows {
        let mut rows = Rows::new();
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|(position, _)| *position);
        let mut changes = changes.into_iter().peekable();
        let mut is_complete = false;
        for (copy_lsn, copied) in &self.copies {
            while let Some((_, change)) =
                changes.next_if(|(position, _)| position.commit_lsn < *copy_lsn)
            {
                apply(&mut rows, change, is_complete && !has_hole);
            }
            if !has_hole {
                for (id, note) in &rows {
                    assert_eq!(
                        copied.get(id),
                        Some(note),
                        "row {id} in the copy at {copy_lsn}"
                    );
                }
                assert!(
                    !is_complete || rows.len() == copied.len(),
                    "copied at {copy_lsn}"
                );
            }
            rows.clone_from(copied);
            is_complete = true;
        }
        assert!(is_complete, "the table was copied");
        for (_, change) in changes {
            apply(&mut rows, change, true);
        }
        rows
    }
}

fn apply(rows: &mut Rows, change: &Value, is_complete: bool) {
    let (before, after) = (&change["before"], &change["after"]);
    let note = || after["note"].as_str().unwrap_or_default().to_owned();
    match change["op"].as_str() {
        Some("d") => {
            let known = rows.remove(&before["id"].to_string());
            assert!(
                known.is_some() || !is_complete,
                "delete of no row: {change}"
            );
        }
        Some("u") => {
            let known = rows.insert(after["id"].to_string(), note());
            assert!(
                known.is_some() || !is_complete,
                "update of no row: {change}"
            );
        }
        Some("c") => {
            let known = rows.insert(after["id"].to_string(), note());
            assert_eq!(known, None, "create of a row that is there: {change}");
        }
        other => panic!("operation {other:?}"),
    }
}

/// `id` and `note` of the rows of a file.
fn rows_of(path: &Path) -> Vec<(String, String)> {
    let file = std::fs::File::open(path).expect("an announced file is there");
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| {
        let row = row.expect("a row");
        let column = |name: &str| {
            let found = row.get_column_iter().find(|(column, _)| *column == name);
            match found.map(|(_, field)| field) {
                Some(Field::Str(text)) => text.clone(),
                Some(Field::Long(number)) => number.to_string(),
                Some(Field::Null) | None => String::new(),
                Some(other) => panic!("{name} is {other}"),
            }
        };
        (column("id"), column("note"))
    })
    .collect()
}

/// Reads a topic from its beginning to its present end; a gap is a panic.
pub(crate) fn read(
    bootstrap_servers: &str,
    bucket: &Path,
    topic: &str,
    isolation: &str,
) -> Accepted {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "test")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let wait = Duration::from_secs(30);
    let metadata = consumer
        .fetch_metadata(Some(topic), wait)
        .expect("metadata");
    let partitions = metadata.topics()[0].partitions().len();
    let registration = bucket.join(layout::registration(topic));
    let registration = std::fs::read(registration).expect("the registration");
    let registration: TopicRegistration = serde_json::from_slice(&registration).expect("JSON");
    let mut accepted = Accepted::default();
    for partition in 0..partitions {
        let mut map_version = registration
            .partition_map
            .introduced_in(u32::try_from(partition).expect("a partition"));
        let partition = i32::try_from(partition).expect("a partition");
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .expect("assigned");
        consumer.assign(&assignment).expect("assigned");
        let mut frontier = Frontier::default();
        let changes = accepted.changes.len();
        loop {
            match consumer.poll(wait).expect("a record or the end") {
                Err(KafkaError::PartitionEOF(_)) => {
                    accepted.partitions_used += usize::from(accepted.changes.len() > changes);
                    break;
                }
                Err(error) => panic!("{error}"),
                Ok(message) => {
                    let headers = message.headers().expect("headers");
                    assert_eq!(headers.count(), 1);
                    let header = headers.get(0);
                    assert_eq!(header.key, HEADER_NAME);
                    let header =
                        RecordHeader::decode(header.value.expect("a value")).expect("a header");
                    if frontier.accepts(&header) {
                        if let RecordKind::Barrier { map_version: next } = header.kind {
                            map_version = map_version.max(next);
                            continue;
                        }
                        accepted.note(map_version, header.position);
                        accepted.take(&header, message.payload().expect("no tombstone"), bucket);
                    } else {
                        accepted.dropped += 1;
                    }
                }
            }
        }
    }
    accepted.check_maps();
    accepted
}

#[derive(Debug, Default)]
struct Frontier {
    last: Option<Predecessor>,
    copy: Option<Position>,
    stream: Option<Position>,
}

impl Frontier {
    fn accepts(&mut self, header: &RecordHeader) -> bool {
        let now = Predecessor {
            epoch: header.epoch,
            pseq: header.pseq,
        };
        if self.last.is_some_and(|last| now <= last) {
            return false;
        }
        match self.last {
            Some(last) if last.epoch == now.epoch => {
                assert_eq!(now.pseq, last.pseq + 1, "a gap in an epoch");
            }
            last => {
                assert_eq!(now.pseq, 1, "an epoch that does not begin at its beginning");
                assert!(header.predecessor <= last, "a gap between epochs");
            }
        }
        self.last = Some(now);
        if matches!(header.kind, RecordKind::Barrier { .. }) {
            return true;
        }
        let lane = match header.position.lane() {
            Lane::Copy => &mut self.copy,
            Lane::Stream => &mut self.stream,
        };
        if lane.is_some_and(|last| header.position <= last) {
            return false;
        }
        *lane = Some(header.position);
        true
    }
}

impl Accepted {
    fn note(&mut self, map_version: u32, position: Position) {
        let range = self
            .by_map
            .entry(map_version)
            .or_insert((position, position));
        *range = (range.0.min(position), range.1.max(position));
    }

    fn take(&mut self, header: &RecordHeader, value: &[u8], bucket: &Path) {
        let value: Value = serde_json::from_slice(value).expect("JSON");
        match header.kind {
            RecordKind::Change => self.changes.push((header.position, value)),
            RecordKind::Reference => {
                let key = value["firn_reference"].as_str().expect("a key");
                let envelope = std::fs::read(bucket.join(key)).expect("the envelope is there");
                self.changes.push((
                    header.position,
                    serde_json::from_slice(&envelope).expect("JSON"),
                ));
            }
            RecordKind::CopyAnnouncement => {
                for file in value["files"].as_array().expect("files") {
                    let path = file["path"]
                        .as_str()
                        .and_then(|path| path.strip_prefix("file://"))
                        .expect("a path");
                    self.copied_rows += file["row_count"].as_u64().expect("a count");
                    let copied = self.copies.entry(header.position.commit_lsn).or_default();
                    for (id, note) in rows_of(Path::new(path)) {
                        assert_eq!(copied.insert(id, note), None, "a row is copied once");
                    }
                }
            }
            RecordKind::Marker | RecordKind::Barrier { .. } => {}
        }
    }
}
