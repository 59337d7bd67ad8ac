//! A table over ports in memory, and the rows that its files stand for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use change_event::partition::PartitionMap;
use change_event::{Column, ColumnType, Lsn, Position, SourceSchema, TopicRegistration};
use iceberg::io::FileIO;
use iceberg::spec::{ManifestList, TableMetadata};
use object_io::{MemoryStore, ObjectStore};
use table_commit::{Committer, LoadedTable, MemoryCatalog, TableName};
use table_file::StagedFile;
use test_kit::{ManualClock, SeededIds};

pub(crate) const TOPIC: &str = "shop.public.orders";
pub(crate) const NOW_MS: i64 = 1_770_000_000_000;

/// Rows of files by path: a staged file's rows are not written to storage here.
pub(crate) type Rows = Arc<Mutex<HashMap<String, Vec<Position>>>>;

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) catalog: Arc<MemoryCatalog>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) committer: Committer,
    pub(crate) rows: Rows,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryStore::new("lake"));
        let catalog = Arc::new(MemoryCatalog::default());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let committer = Committer::new(
            store.clone(),
            catalog.clone(),
            clock.clone(),
            Arc::new(SeededIds::new(seed)),
        );
        Self {
            store,
            catalog,
            clock,
            committer,
            rows: Rows::default(),
        }
    }

    pub(crate) async fn table(&self) -> LoadedTable {
        self.committer
            .load(&name())
            .await
            .unwrap()
            .expect("the table")
    }

    /// Rows in the table, with the data sequence number of their file.
    pub(crate) async fn table_rows(&self, metadata: &TableMetadata) -> Vec<(i64, Position)> {
        let mut found = Vec::new();
        for (path, sequence) in live_files(self.store.as_ref(), metadata).await {
            let rows = self.rows.lock().unwrap();
            found.extend(rows[&path].iter().map(|position| (sequence, *position)));
        }
        found
    }
}

/// Runs a race for each seed, or for the one that `FIRN_SEED` names; prints the seed of a failure.
pub(crate) fn for_each_seed(count: u64, run: impl AsyncFn(u64)) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a failure's seed is run again by hand"
    )]
    let only = std::env::var("FIRN_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let race = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        if let Err(failure) = std::panic::catch_unwind(race) {
            eprintln!("FIRN_SEED={seed}");
            std::panic::resume_unwind(failure);
        }
    }
}

pub(crate) fn name() -> TableName {
    TableName {
        database: "lake".to_owned(),
        table: "public__orders".to_owned(),
    }
}

pub(crate) fn registration(partitions: u32) -> TopicRegistration {
    TopicRegistration {
        topic: TOPIC.to_owned(),
        source: "shop".to_owned(),
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        lake_database: "lake".to_owned(),
        lake_table: "public__orders".to_owned(),
        topic_incarnation: 1,
        partition_map: PartitionMap::first(partitions),
        freshness_seconds: 60,
    }
}

pub(crate) fn column(id: i32, name: &str, column_type: ColumnType, key: bool) -> Column {
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
pub(crate) fn schema(version: u32) -> SourceSchema {
    let mut columns = vec![
        column(1, "id", ColumnType::Int, true),
        column(2, "a", ColumnType::String, false),
    ];
    if version > 1 {
        columns.push(column(3, "b", ColumnType::Double, false));
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

pub(crate) fn staged(path: &str, rows: u64, schema_version: u32) -> StagedFile {
    StagedFile {
        path: path.to_owned(),
        size_bytes: 1000,
        row_count: rows,
        schema_version,
        day: 20_000,
        split_offsets: vec![4],
        columns: Vec::new(),
    }
}

/// Live data files of the head: path and data sequence number. Panics if one stands twice.
pub(crate) async fn live_files(
    store: &dyn ObjectStore,
    metadata: &TableMetadata,
) -> Vec<(String, i64)> {
    let Some(head) = metadata.current_snapshot() else {
        return Vec::new();
    };
    let key = |location: &str| location.strip_prefix("s3://lake/").unwrap().to_owned();
    let list = store
        .get(&key(head.manifest_list()))
        .await
        .unwrap()
        .expect("manifest list");
    let list = ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
    let scratch = FileIO::new_with_memory();
    let mut files: Vec<(String, i64)> = Vec::new();
    for manifest in list.entries() {
        let bytes = store
            .get(&key(&manifest.manifest_path))
            .await
            .unwrap()
            .expect("manifest");
        scratch
            .new_output(&manifest.manifest_path)
            .unwrap()
            .write(bytes)
            .await
            .unwrap();
        let manifest = manifest.load_manifest(&scratch).await.unwrap();
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let path = entry.file_path().to_owned();
            assert!(
                files.iter().all(|(known, _)| *known != path),
                "{path} stands twice"
            );
            files.push((path, entry.sequence_number().unwrap()));
        }
    }
    files
}
