//! The copy of a table, and the first copy of all of them in the one snapshot that the slot exported.
//!
//! Flow: `TableCopy` rows -> Arrow -> Parquet files in the tables' locations -> **manifest of announcements** -> one
//! Kafka transaction ([`announce`]). The state machine of the first copy stands in `slot`, that of a later one in `recopy`.
//!
//! # Invariants
//! - Nothing is announced before every table of the copy is copied and the manifest is written.
//! - A file holds rows of one partition, so that an announcement in that partition covers exactly its keys.
//! - A row's number is unique in its table; an announcement stands at the position of its last row.

use change_event::layout;
use change_event::{Cell, Lsn, Operation, Position, RecordKind, SourceSchema, TopicRegistration};
use object_io::failpoint;
use serde::{Deserialize, Serialize};
use source_postgres::{ConnectOptions, SourceError, TableCopy, relation};
use table_file::{
    ChangeBatch, ChangeRow, CopyAnnouncement, RowError, RowImage, StagedFile, encode,
};

use crate::broker::TransactionalProducer;
use crate::context::Context;
use crate::error::AgentError;
use crate::failpoints;
use crate::quarantine::{self, RefusedChange, RefusedRow};
use crate::tables::{CapturedName, CapturedTable, Shape, Tables};
use crate::transaction::{LaneRecord, Outbox};

/// Rows of a file at most.
const FILE_ROWS_MAX: u64 = 1_000_000;
/// Text of the rows of a file at most, over all partitions of a table: what waits in memory. Parquet makes it smaller.
const FILE_TEXT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Rows between two looks at the signal to stop.
const ROWS_PER_LOOK: u64 = 4096;

/// Everything that is announced of one copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyManifest {
    /// Number of the copy.
    pub copy_id: u32,
    /// Position of the snapshot: the stream goes on from here.
    pub copy_lsn: Lsn,
    /// Server's system identifier.
    pub system_id: String,
    /// Server's timeline.
    pub timeline: u32,
    /// The announcements, in the order of sending.
    pub announcements: Vec<Announced>,
    /// This is no manifest, but the seal of a copy that was given up.
    #[serde(default)]
    pub abandoned: bool,
}

impl CopyManifest {
    /// The seal of a copy that was given up.
    #[must_use]
    pub const fn abandoned(copy_id: u32) -> Self {
        Self {
            copy_id,
            copy_lsn: Lsn(0),
            system_id: String::new(),
            timeline: 0,
            announcements: Vec::new(),
            abandoned: true,
        }
    }

    /// Rows in the announced files.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        let files = self
            .announcements
            .iter()
            .flat_map(|announced| &announced.announcement.files);
        files.map(|file| file.row_count).sum()
    }
}

/// One announcement and where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Version of the schema of its rows.
    pub schema_version: u32,
    /// Position of its last row.
    pub position: Position,
    /// Its value.
    pub announcement: CopyAnnouncement,
}

/// Which copy this is.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// Number of the copy.
    pub copy_id: u32,
    /// Incarnation of the source log.
    pub incarnation: u32,
    /// Position of the snapshot.
    pub copy_lsn: Lsn,
    /// Name of the snapshot.
    pub snapshot: String,
}

impl CopyPlan {
    /// Position of a row.
    #[must_use]
    pub const fn position(&self, row: u64) -> Position {
        Position::copy(self.incarnation, self.copy_lsn, self.copy_id, 0, row)
    }
}

/// Copies all tables; `None` if the agent was told to stop meanwhile.
///
/// # Errors
/// [`AgentError::Source`], [`AgentError::Objects`], [`AgentError::DataFile`]: the copy starts over with a new snapshot.
pub async fn copy_tables(
    context: &Context,
    options: &ConnectOptions,
    plan: &CopyPlan,
    tables: &mut Tables,
    outbox: &Outbox,
    names: &[CapturedName],
) -> Result<Option<Vec<Announced>>, AgentError> {
    let mut announcements = Vec::new();
    for name in names {
        let copy = TableCopy::begin(options, &plan.snapshot, &name.table()).await?;
        let observed = relation::observe_catalog(copy.table());
        let position = plan.position(0);
        let schema = tables
            .document(context, name.oid, observed, position)
            .await?;
        let Some(target) = tables
            .find(name.oid)
            .and_then(|table| Target::of(table, outbox))
        else {
            return Err(AgentError::StreamOrder {
                what: "a copy of a table that is not captured",
            });
        };
        match copy_table(context, plan, copy, schema, &target).await? {
            Some(announced) => announcements.extend(announced),
            None => return Ok(None),
        }
    }
    Ok(Some(announcements))
}

/// Where the rows of a copied table go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The table.
    pub name: CapturedName,
    /// Index of its lane, and of its line on the status page.
    pub lane: usize,
    /// Its topic and lake table.
    pub registration: TopicRegistration,
}

impl Target {
    /// That of a captured table; `None` if the outbox has no lane for it.
    #[must_use]
    pub fn of<P: TransactionalProducer>(table: &CapturedTable, outbox: &Outbox<P>) -> Option<Self> {
        Some(Self {
            name: table.name.clone(),
            lane: table.lane,
            registration: outbox.lane(table.lane)?.registration.clone(),
        })
    }
}

/// Copies one table by the document of its shape; gives its announcements, or `None` if the agent was told to stop meanwhile.
///
/// # Errors
/// As [`copy_tables`].
pub async fn copy_table(
    context: &Context,
    plan: &CopyPlan,
    copy: TableCopy,
    schema: SourceSchema,
    target: &Target,
) -> Result<Option<Vec<Announced>>, AgentError> {
    context.status.update(|snapshot| {
        if let Some(table) = snapshot.tables.get_mut(target.lane) {
            table.schema_version = schema.version;
            table.copied_rows = Some(0);
        }
    });
    let shape = Shape::new(schema, &context.config, &target.registration.topic);
    let mut files = TableFiles::new(context, plan, shape, target);
    if !files.copy(copy).await? {
        return Ok(None);
    }
    files
        .announcements(context.config.limits.record_max_bytes)
        .map(Some)
}

/// Hands all announcements of a copy over, in the outbox's transaction.
///
/// # Errors
/// Those of [`Outbox::send`].
pub async fn announce<P: TransactionalProducer>(
    outbox: &mut Outbox<P>,
    manifest: &CopyManifest,
) -> Result<(), AgentError> {
    for announced in &manifest.announcements {
        let Some(lane) = outbox.lane_of(&announced.topic) else {
            return Err(AgentError::StreamOrder {
                what: "a copy of a table that is not captured",
            });
        };
        let value =
            serde_json::to_vec(&announced.announcement).map_err(|source| AgentError::Document {
                key: announced.topic.clone(),
                source,
            })?;
        let record = LaneRecord {
            lane,
            partition: announced.partition,
            kind: RecordKind::CopyAnnouncement,
            schema_version: announced.schema_version,
            position: announced.position,
            key: None,
            value: &value,
        };
        outbox.send(&record).await?;
    }
    Ok(())
}

/// The rows of one partition that wait for their file, and the files written.
#[derive(Debug, Default)]
struct PartitionFiles {
    batch: Option<ChangeBatch>,
    batch_rows: u64,
    batch_bytes: u64,
    last_row: u64,
    /// Files with the number of the last row in each.
    files: Vec<(StagedFile, u64)>,
}

struct TableFiles<'a> {
    context: &'a Context,
    plan: &'a CopyPlan,
    shape: Shape,
    lane: usize,
    topic: String,
    table: String,
    location: String,
    partition_map: change_event::partition::PartitionMap,
    partitions: Vec<PartitionFiles>,
    source_ts_us: i64,
    row: u64,
}

impl<'a> TableFiles<'a> {
    fn new(context: &'a Context, plan: &'a CopyPlan, shape: Shape, target: &Target) -> Self {
        let registration = &target.registration;
        Self {
            context,
            plan,
            shape,
            lane: target.lane,
            topic: registration.topic.clone(),
            table: target.name.table().to_string(),
            location: layout::table_location(&registration.lake_database, &registration.lake_table),
            partition_map: registration.partition_map.clone(),
            partitions: (0..registration.partition_map.partitions)
                .map(|_| PartitionFiles::default())
                .collect(),
            source_ts_us: context.clock.now_us(),
            row: 0,
        }
    }

    /// Copies all rows; false if the agent was told to stop.
    async fn copy(&mut self, mut copy: TableCopy) -> Result<bool, AgentError> {
        let mut key = Vec::new();
        loop {
            match copy.next_row().await {
                Ok(Some(row)) => {
                    let cells: Vec<Cell<'_>> = row.cells().collect();
                    self.push(&cells, row.size_bytes(), &mut key).await?;
                }
                Ok(None) => break,
                Err(SourceError::MalformedCopyRow { what, .. }) => {
                    self.set_aside(&[], what).await?;
                }
                Err(error) => return Err(error.into()),
            }
            self.row += 1;
            if self.row.is_multiple_of(ROWS_PER_LOOK) {
                self.show();
                if self.context.is_stopping() {
                    return Ok(false);
                }
            }
        }
        for partition in 0..self.partitions.len() {
            self.flush(partition).await?;
        }
        self.show();
        tracing::info!(table = self.table, rows = self.row, "table copied");
        Ok(true)
    }

    fn show(&self) {
        self.context.status.update(|snapshot| {
            if let Some(table) = snapshot.tables.get_mut(self.lane) {
                let before = table.copied_rows.replace(self.row).unwrap_or(0);
                snapshot.totals.copied_rows += self.row.saturating_sub(before);
            }
        });
    }

    async fn push(
        &mut self,
        cells: &[Cell<'_>],
        size_bytes: usize,
        key: &mut Vec<u8>,
    ) -> Result<(), AgentError> {
        let keyed = match self.shape.writer.write_key(key, cells.iter().copied()) {
            Ok(keyed) => keyed,
            Err(reason) => return self.set_aside(cells, &reason.to_string()).await,
        };
        let partition = self
            .partition_map
            .partition_of(keyed.then_some(key.as_slice()));
        let partition = usize::try_from(partition).unwrap_or(0);
        match self.push_to(partition, cells) {
            Ok(()) => {}
            Err(RowError::BatchFull { .. }) => {
                self.flush(partition).await?;
                if let Err(reason) = self.push_to(partition, cells) {
                    return self.set_aside(cells, &reason.to_string()).await;
                }
            }
            Err(reason) => return self.set_aside(cells, &reason.to_string()).await,
        }
        let bytes_max = FILE_TEXT_BYTES_MAX / u64::from(self.partition_map.partitions.max(1));
        let Some(files) = self.partitions.get_mut(partition) else {
            return Ok(());
        };
        files.batch_rows += 1;
        files.batch_bytes += u64::try_from(size_bytes).unwrap_or(u64::MAX);
        files.last_row = self.row;
        if files.batch_rows >= FILE_ROWS_MAX || files.batch_bytes >= bytes_max {
            self.flush(partition).await?;
        }
        Ok(())
    }

    fn push_to(&mut self, partition: usize, cells: &[Cell<'_>]) -> Result<(), RowError> {
        let position = self.position(self.row);
        let Some(files) = self.partitions.get_mut(partition) else {
            return Ok(());
        };
        let batch = files
            .batch
            .get_or_insert_with(|| ChangeBatch::new(&self.shape.schema));
        batch.push(&ChangeRow {
            operation: Operation::Read,
            position,
            source_ts_us: self.source_ts_us,
            before: None,
            after: Some(RowImage::Cells(cells)),
        })
    }

    /// Writes what waits in a partition as files.
    async fn flush(&mut self, partition: usize) -> Result<(), AgentError> {
        let failed = |source| AgentError::DataFile {
            table: self.table.clone(),
            source: Box::new(source),
        };
        let Some(files) = self.partitions.get_mut(partition) else {
            return Ok(());
        };
        files.batch_rows = 0;
        files.batch_bytes = 0;
        let Some(batch) = files.batch.take() else {
            return Ok(());
        };
        let encoded = tokio::task::spawn_blocking(move || {
            batch
                .finish()?
                .iter()
                .map(encode)
                .collect::<Result<Vec<_>, _>>()
        });
        for file in encoded.await?.map_err(failed)? {
            let name = layout::copied_file(&self.context.ids.next_id());
            let key = format!("{}/data/{name}", self.location);
            self.context.store.put(&key, file.bytes).await?;
            failpoint::hit(failpoints::AFTER_COPY_FILE_PUT);
            let path = format!("{}{key}", self.context.store.uri_prefix());
            files.files.push((
                StagedFile {
                    path,
                    ..file.staged
                },
                files.last_row,
            ));
        }
        Ok(())
    }

    async fn set_aside(&self, cells: &[Cell<'_>], reason: &str) -> Result<(), AgentError> {
        let refused = RefusedChange {
            table: &self.table,
            topic: &self.topic,
            schema_version: self.shape.schema.version,
            position: self.position(self.row),
            operation: Some(Operation::Read),
            reason: reason.to_owned(),
        };
        quarantine::put(self.context, &refused, RefusedRow::Cells(cells)).await?;
        self.context
            .status
            .update(|snapshot| snapshot.totals.quarantined += 1);
        Ok(())
    }

    const fn position(&self, row: u64) -> Position {
        self.plan.position(row)
    }

    /// The announcements of all partitions that have rows, each small enough for a record.
    fn announcements(self, record_max_bytes: u64) -> Result<Vec<Announced>, AgentError> {
        let measure = |file: &StagedFile| -> Result<u64, AgentError> {
            let text = serde_json::to_string(file).map_err(|source| AgentError::Document {
                key: self.topic.clone(),
                source,
            })?;
            Ok(u64::try_from(text.len()).unwrap_or(u64::MAX))
        };
        let mut announced = Vec::new();
        for (partition, written) in (0u32..).zip(&self.partitions) {
            let mut size_bytes = u64::MAX;
            for (file, last_row) in &written.files {
                let file_bytes = measure(file)?;
                // Half of a record: the rest is for what JSON puts around it.
                if size_bytes.saturating_add(file_bytes) > record_max_bytes / 2 {
                    size_bytes = 0;
                    announced.push(Announced {
                        topic: self.topic.clone(),
                        partition,
                        schema_version: self.shape.schema.version,
                        position: self.position(*last_row),
                        announcement: CopyAnnouncement {
                            copy_id: self.plan.copy_id,
                            files: Vec::new(),
                        },
                    });
                }
                size_bytes += file_bytes;
                if let Some(last) = announced.last_mut() {
                    last.position = self.position(*last_row);
                    last.announcement.files.push(file.clone());
                }
            }
        }
        Ok(announced)
    }
}
