//! The whole protocol over S3 and Glue: racing combiners, a schema change, and what the catalog then says.

use std::sync::Arc;

use change_event::partition::PartitionMap;
use change_event::{
    Cell, Clock, Column, ColumnType, IdSource, Lsn, Operation, Position, RandomIds, SourceSchema,
    SystemClock, TopicRegistration, layout,
};
use function_kit::metric::MemoryLines;
use function_kit::{Deadline, Metrics, Registry};
use glue_catalog::GlueCatalog;
use maintain::{Ages, Maintain, Ports, Settings};
use object_io::{ObjectStore, S3Store};
use table_commit::{
    CombineOutcome, CommitError, Committer, Frontier, Intent, LoadedTable, SlotOutcome, TableName,
};
use table_file::{ChangeBatch, ChangeRow, RowImage, StagedFile};

use crate::aws::{config, fresh};

fn schema(version: u32) -> SourceSchema {
    let column = |id: i32, name: &str, column_type, key| Column {
        id,
        name: name.to_owned(),
        field_id: 99 + id,
        lake_name: name.to_owned(),
        column_type,
        source_type: "text".to_owned(),
        key,
    };
    let mut columns = vec![
        column(1, "id", ColumnType::Int, true),
        column(
            2,
            "price",
            ColumnType::Decimal {
                precision: 10,
                scale: 2,
            },
            false,
        ),
        column(3, "at", ColumnType::Timestamp, false),
    ];
    if version > 1 {
        columns[0].column_type = ColumnType::Long;
        columns[1].lake_name = "amount".to_owned();
        columns.push(column(4, "note", ColumnType::String, false));
    }
    SourceSchema {
        version,
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        next_field_id: 100 + i32::try_from(columns.len()).unwrap(),
        columns,
        retired: Vec::new(),
    }
}

async fn parquet(
    store: &dyn ObjectStore,
    table: &LoadedTable,
    version: u32,
    ids: std::ops::Range<u64>,
) -> Vec<StagedFile> {
    let mut batch = ChangeBatch::new(&schema(version));
    for id in ids.clone() {
        let text = id.to_string();
        let mut cells = vec![
            Cell::Text(&text),
            Cell::Text("12.50"),
            Cell::Text("2024-02-29 23:59:59.999999"),
        ];
        if version > 1 {
            cells.push(Cell::Text("later"));
        }
        let row = ChangeRow {
            operation: Operation::Create,
            position: Position::stream(1, Lsn(id), 1),
            source_ts_us: 1_770_000_000_000_000,
            before: None,
            after: Some(RowImage::Cells(&cells)),
        };
        batch.push(&row).unwrap();
    }
    let mut files = Vec::new();
    for day in batch.finish().unwrap() {
        let mut encoded = table_file::encode(&day).unwrap();
        let name = layout::batch_file(&RandomIds.next_id());
        encoded.staged.path = format!("{}/{name}", table.data_location());
        let key = encoded
            .staged
            .path
            .strip_prefix(store.uri_prefix())
            .unwrap()
            .to_owned();
        store.put(&key, encoded.bytes).await.unwrap();
        files.push(encoded.staged);
    }
    files
}

fn registration(database: &str) -> TopicRegistration {
    TopicRegistration {
        topic: "shop.public.orders".to_owned(),
        source: "shop".to_owned(),
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        lake_database: database.to_owned(),
        lake_table: "public__orders".to_owned(),
        topic_incarnation: 1,
        partition_map: PartitionMap::first(2),
        freshness_seconds: 60,
    }
}

/// Twelve batches of ten rows, in turns in two partitions; the later half at schema version 2. Gives the chains' tails.
async fn stage_all(store: &dyn ObjectStore, table: &LoadedTable) -> [Frontier; 2] {
    let mut tails = [Frontier::start(1); 2];
    for batch in 0..12u64 {
        let partition = usize::try_from(batch % 2).unwrap();
        let tail = tails[partition];
        let version = if batch < 6 { 1 } else { 2 };
        let files = parquet(store, table, version, batch * 10..batch * 10 + 10).await;
        let after = Frontier {
            offset: tail.offset + 11,
            epoch: 1,
            pseq: tail.pseq + 10,
            stream: Some(Position::stream(1, Lsn(batch * 10 + 9), 1)),
            ..tail
        };
        let intent = Intent::new(fresh("i"), &tail, &after, files, 0);
        let chain = table.chain(u32::try_from(partition).unwrap());
        assert_eq!(
            chain.win(store, &tail, &intent).await.unwrap(),
            SlotOutcome::Won
        );
        tails[partition] = after;
    }
    tails
}

/// Combines until nothing is staged, evolving when told to.
async fn combine_all(committer: &Committer, name: &TableName) -> Result<(), CommitError> {
    loop {
        match committer.combine(name).await? {
            CombineOutcome::NothingStaged => return Ok(()),
            CombineOutcome::NeedsSchema { version } => {
                committer.evolve(name, &schema(version)).await?;
            }
            CombineOutcome::Committed(_) | CombineOutcome::CommittedByOther => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_combiners_on_s3_and_glue_commit_each_row_once() {
    let Some(config) = config().await else { return };
    let (bucket, database) = (fresh("lake"), fresh("lake").replace('-', "_"));
    crate::aws::create_bucket(&config, &bucket).await;
    crate::aws::create_database(&config, &database).await;
    let store: Arc<dyn ObjectStore> = Arc::new(S3Store::new(&config, &bucket, true));
    let committer = Committer::new(
        Arc::clone(&store),
        Arc::new(GlueCatalog::new(&config)),
        Arc::new(SystemClock),
        Arc::new(RandomIds),
    );
    let name = TableName {
        database: database.clone(),
        table: "public__orders".to_owned(),
    };
    let table = committer
        .ensure_table(&registration(&database), &schema(1))
        .await
        .unwrap();

    let mut combiners = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..2 {
        let (committer, name, stopped) = (committer.clone(), name.clone(), stopped.clone());
        combiners.spawn(async move {
            while !*stopped.borrow() {
                // Losing every race is no failure here: the other one wins them.
                drop(combine_all(&committer, &name).await);
            }
        });
    }
    let tails = stage_all(store.as_ref(), &table).await;
    combine_all(&committer, &name).await.unwrap();
    stop.send(true).unwrap();
    combiners.join_all().await;

    let table = committer.load(&name).await.unwrap().unwrap();
    assert_eq!(
        (table.frontier(0), table.frontier(1)),
        (Some(&tails[0]), Some(&tails[1]))
    );
    let summary = &table
        .metadata
        .current_snapshot()
        .unwrap()
        .summary()
        .additional_properties;
    let totals = (
        summary["total-records"].as_str(),
        summary["total-data-files"].as_str(),
    );
    assert_eq!(totals, ("120", "12"));
    let shown = crate::aws::glue_columns(&config, &name).await;
    let source: Vec<(&str, &str)> = shown
        .iter()
        .skip(6)
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    let expected = [
        ("id", "bigint"),
        ("amount", "decimal(10,2)"),
        ("at", "timestamp"),
        ("note", "string"),
    ];
    assert_eq!(source, expected);
}

/// functions/maintain over the same: it tells named files from those that nothing names, and the store dates them.
#[tokio::test]
async fn maintenance_on_s3_and_glue_finds_what_nothing_names_and_removes_nothing_young() {
    let Some(config) = config().await else { return };
    let (bucket, database) = (fresh("lake"), fresh("lake").replace('-', "_"));
    crate::aws::create_bucket(&config, &bucket).await;
    crate::aws::create_database(&config, &database).await;
    let store: Arc<dyn ObjectStore> = Arc::new(S3Store::new(&config, &bucket, true));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let committer = Committer::new(
        Arc::clone(&store),
        Arc::new(GlueCatalog::new(&config)),
        Arc::clone(&clock),
        Arc::new(RandomIds),
    );
    let registration = registration(&database);
    let key = layout::registration(&registration.topic);
    let body = serde_json::to_vec(&registration).unwrap();
    store.put(&key, body.into()).await.unwrap();
    let table = committer
        .ensure_table(&registration, &schema(1))
        .await
        .unwrap();
    stage_all(store.as_ref(), &table).await;
    let name = layout::batch_file(&RandomIds.next_id());
    let orphan = format!("tables/{database}/public__orders/data/{name}");
    store.put(&orphan, "orphan".into()).await.unwrap();
    let ports = Ports {
        registry: Registry::new(Arc::clone(&store)),
        store: Arc::clone(&store),
        committer,
        clock: Arc::clone(&clock),
        metrics: Metrics::new(
            "maintain",
            Arc::clone(&clock),
            Arc::new(MemoryLines::default()),
        ),
    };
    let settings = Settings {
        ages: Ages::default(),
        removals_max: 100,
    };
    let function = Maintain::new(ports, settings);
    for (event, young) in [
        (r#"{"maintain":true}"#, 0),
        (r#"{"maintain":true,"dry_run":true}"#, 1),
    ] {
        let deadline = Deadline::after(60_000, clock.as_ref());
        let summary = function.handle(event.as_bytes(), deadline).await.unwrap();
        let counts = summary.counts;
        assert_eq!((summary.done, summary.failed), (1, 0), "{summary:?}");
        assert_eq!(
            (counts.data.young, counts.data.young_bytes),
            (young, young * 6)
        );
        assert_eq!((counts.data.orphans, counts.metadata.young), (0, 0));
    }
    assert!(store.get(&orphan).await.unwrap().is_some());
}
