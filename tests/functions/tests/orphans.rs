//! functions/maintain: which files go, and which never do.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use change_event::{Clock, layout};
use function_kit::Metric;
use functions::{TopicWriter, World, days, hours, minutes};
use iceberg::spec::{ManifestList, TableMetadata};
use ingest::Ingest;
use maintain::{Ages, Settings, Summary};
use object_io::ObjectStore;
use serde_json::json;
use table_commit::{
    Catalog, CatalogError, CommitError, Committer, CreateOutcome, Frontier, Intent, MemoryCatalog,
    Pointer, SwapOutcome, TableName,
};
use table_file::StagedFile;
use test_kit::SeededIds;

const RUN: &str = r#"{"maintain":true}"#;
const DRY_RUN: &str = r#"{"maintain":true,"dry_run":true}"#;
const DATA: &str = "tables/lake/public__orders/data/";
const METADATA: &str = "tables/lake/public__orders/metadata/";

fn id(number: u32) -> String {
    format!("{number:032x}")
}

fn batch_file(number: u32) -> String {
    format!("{DATA}{}", layout::batch_file(&id(number)))
}

fn copied_file(number: u32) -> String {
    format!("{DATA}{}", layout::copied_file(&id(number)))
}

async fn put(world: &World, key: &str) {
    world.store.put(key, "bytes".into()).await.unwrap();
}

async fn is_there(world: &World, key: &str) -> bool {
    world.store.get(key).await.unwrap().is_some()
}

/// A table with `batches` of one row each, all of them committed.
async fn table(world: &World, batches: i64) -> (TopicWriter, Ingest) {
    let topic = world.announce("orders", 1, 0).await;
    let (mut agent, ingest) = (TopicWriter::new(&topic, 0), world.ingest());
    for id in 1..=batches {
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
    }
    (agent, ingest)
}

/// Every file that a table's snapshots name is there.
async fn assert_whole(world: &World) {
    let metadata = world.table("orders").await.metadata;
    let named = named_files(world, &metadata).await;
    for key in named {
        assert!(is_there(world, &key).await, "{key}");
    }
}

/// Keys of the manifest lists, manifests and data files of all snapshots.
async fn named_files(world: &World, metadata: &TableMetadata) -> BTreeSet<String> {
    let key = |location: &str| location.strip_prefix("s3://lake/").unwrap().to_owned();
    let mut named = BTreeSet::new();
    for snapshot in metadata.snapshots() {
        let list_key = key(snapshot.manifest_list());
        let bytes = world.store.get(&list_key).await.unwrap().unwrap();
        named.insert(list_key);
        let list = ManifestList::parse_with_version(&bytes, metadata.format_version()).unwrap();
        for manifest in list.entries() {
            let manifest_key = key(&manifest.manifest_path);
            let bytes = world.store.get(&manifest_key).await.unwrap();
            named.insert(manifest_key);
            let manifest = iceberg::spec::Manifest::parse_avro(&bytes.unwrap()).unwrap();
            let live = manifest.entries().iter().filter(|entry| entry.is_alive());
            named.extend(live.map(|entry| key(entry.file_path())));
        }
    }
    named
}

#[tokio::test]
async fn file_of_ours_that_nothing_names_goes_after_three_days_and_others_stay() {
    let world = World::new();
    table(&world, 2).await;
    let orphans = [
        batch_file(1),
        format!("{METADATA}00001-01020304-0506-0708-090a-0b0c0d0e0f10.gz.metadata.json"),
        format!("{METADATA}01020304-0506-0708-090a-0b0c0d0e0f10-m0.avro"),
        format!("{METADATA}snap-77-1-01020304-0506-0708-090a-0b0c0d0e0f10.avro"),
    ];
    let strangers = [
        format!("{DATA}00000-0-8f7a4c1e-3c2b-4a47-9a42-ffb0b9c1de10-00001.parquet"),
        format!("{DATA}day=1/{}", layout::batch_file(&id(2))),
        format!("{METADATA}version-hint.text"),
        format!("{METADATA}{}", layout::batch_file(&id(2))),
        format!(
            "tables/lake/public__orders2/data/{}",
            layout::batch_file(&id(3))
        ),
        format!("tables/lake/public__orders/{}", layout::batch_file(&id(3))),
        layout::reference("shop", "shop.public.orders", &id(4)),
        "quarantine/shop/public-2eorders/x.json".to_owned(),
    ];
    for key in orphans.iter().chain(&strangers) {
        put(&world, key).await;
    }
    world.clock.advance_ms(days(3) - 1);
    put(&world, &batch_file(5)).await;
    let named = world.keys("tables/").await.len() - orphans.len() - strangers.len();
    assert_eq!(world.maintain(RUN).await.counts.data.removed, 0);
    world.clock.advance_ms(1);
    let counts = world.maintain(RUN).await.counts;
    assert_eq!((counts.data.removed, counts.metadata.removed), (1, 3));
    assert_eq!(
        (counts.data.removed_bytes, counts.metadata.orphan_bytes),
        (5, 15)
    );
    assert_eq!(world.sum(Metric::OrphanBytes), 20);
    assert_eq!(world.sum(Metric::RemovedFilesTotal), 4);
    for key in orphans {
        assert!(!is_there(&world, &key).await, "{key}");
    }
    for key in strangers.iter().chain([&batch_file(5)]) {
        assert!(is_there(&world, key).await, "{key}");
    }
    assert_eq!(world.keys("tables/").await.len(), named + strangers.len());
    assert_whole(&world).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn file_of_a_staged_batch_stays_until_it_is_committed_and_then_on() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let (mut agent, ingest) = (TopicWriter::new(&topic, 0), world.ingest());
    for id in 1..4 {
        world.deliver(&ingest, &[agent.insert(id, "a")]).await;
    }
    for _ in 0..3 {
        world.clock.advance_ms(days(10));
        assert_eq!(world.maintain(RUN).await.counts.data.orphans, 0);
    }
    world.commit(r#"{"sweep":true}"#).await;
    for _ in 0..3 {
        world.clock.advance_ms(days(10));
        assert_eq!(world.maintain(RUN).await.counts.data.orphans, 0);
    }
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn file_that_only_a_retained_intent_names_stays_as_long_as_that() {
    let world = World::new();
    table(&world, 3).await;
    // As after another engine's compaction: committed, old enough, and in no snapshot any more.
    put(&world, &batch_file(1)).await;
    let file = StagedFile {
        path: format!("s3://lake/{}", batch_file(1)),
        size_bytes: 5,
        row_count: 1,
        schema_version: 1,
        day: 20_000,
        split_offsets: vec![4],
        columns: Vec::new(),
    };
    let (tail, after) = (
        Frontier::start(0),
        Frontier {
            offset: 1,
            ..Frontier::start(0)
        },
    );
    let intent = Intent::new(id(9), &tail, &after, vec![file], 0);
    let chain = world.table("orders").await.chain(0);
    for offset in [0, 1] {
        // An older incarnation: behind the frontier, and not in the way of the batches. A second one, because the last stays.
        let key = chain.slot_key(&Frontier { offset, ..tail });
        let files = if offset == 0 {
            intent.clone()
        } else {
            Intent {
                files: Vec::new(),
                ..intent.clone()
            }
        };
        world
            .store
            .put(&key, files.to_bytes(&key).unwrap())
            .await
            .unwrap();
    }
    world.maintain(RUN).await;
    world.clock.advance_ms(days(7) - 1);
    assert_eq!(world.maintain(RUN).await.counts.data.orphans, 0);
    world.clock.advance_ms(1);
    let counts = world.maintain(RUN).await.counts;
    assert_eq!((counts.removed_slots, counts.data.removed), (3, 1));
    assert_whole(&world).await;
}

#[tokio::test]
async fn metadata_beyond_the_log_goes_and_every_snapshot_stays_readable() {
    let world = World::new();
    table(&world, 30).await;
    world.clock.advance_ms(days(3));
    let counts = world.maintain(RUN).await.counts;
    // Thirty commits and the creation; the current one and the twenty in its log stay.
    assert_eq!((counts.metadata.removed, counts.data.removed), (10, 0));
    assert_whole(&world).await;
    assert_eq!(world.table("orders").await.metadata.snapshots().len(), 30);
    let files = world.keys(METADATA).await;
    let metadata = files.iter().filter(|key| key.ends_with(".metadata.json"));
    assert_eq!(metadata.count(), 21);
    assert_eq!(world.maintain(RUN).await.counts.metadata.orphans, 0);
}

/// Commits of which nobody knows whether they were done; they were not.
#[derive(Debug)]
struct Silent(Arc<MemoryCatalog>);

#[async_trait]
impl Catalog for Silent {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        self.0.pointer(table).await
    }

    async fn create(
        &self,
        table: &TableName,
        location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        self.0.create(table, location, metadata).await
    }

    async fn swap(
        &self,
        _table: &TableName,
        _from: &Pointer,
        _location: &str,
        _metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        Ok(SwapOutcome::Unknown)
    }
}

#[tokio::test]
async fn files_of_a_commit_in_doubt_stay_until_the_pointer_has_moved_past_it() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let (mut agent, ingest) = (TopicWriter::new(&topic, 0), world.ingest());
    for id in 1..3 {
        world.deliver(&ingest, &[agent.insert(id, "a")]).await;
    }
    let before = world.keys(METADATA).await;
    let silent = Committer::new(
        Arc::clone(&world.store) as Arc<dyn ObjectStore>,
        Arc::new(Silent(Arc::clone(&world.catalog))),
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        Arc::new(SeededIds::new(99)),
    );
    let name = world.table("orders").await.name;
    let error = silent.combine(&name).await.unwrap_err();
    assert!(
        matches!(error, CommitError::OutcomeUnknown { .. }),
        "{error}"
    );
    let in_doubt = world.keys(METADATA).await.len() - before.len();
    assert!(in_doubt > 2, "manifest, list and metadata of each try");
    world.clock.advance_ms(days(30));
    assert_eq!(world.maintain(RUN).await.counts.metadata.orphans, 0);
    world.commit(r#"{"sweep":true}"#).await;
    let removed = world.maintain(RUN).await.counts.metadata.removed;
    assert_eq!(usize::try_from(removed).unwrap(), in_doubt);
    assert_whole(&world).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

/// A manifest of a table copy with these files of the table.
async fn announce_copy(world: &World, copy_id: u32, files: &[String]) {
    let files: Vec<_> = files
        .iter()
        .map(|file| json!({"path": format!("s3://lake/{file}"), "size_bytes": 5}))
        .collect();
    let manifest =
        json!({"copy_id": copy_id, "announcements": [{"announcement": {"files": files}}]});
    let key = layout::copy_manifest("shop", copy_id);
    world
        .store
        .put(&key, manifest.to_string().into())
        .await
        .unwrap();
}

#[tokio::test]
async fn copied_files_stay_until_a_newer_copy_of_the_table_is_complete() {
    let world = World::new();
    table(&world, 1).await;
    // A copy that was abandoned, and one that takes a week.
    put(&world, &copied_file(1)).await;
    world.clock.advance_ms(hours(1));
    put(&world, &copied_file(2)).await;
    world.clock.advance_ms(days(7));
    put(&world, &copied_file(3)).await;
    let removed = async || world.maintain(RUN).await.counts.data.removed;
    assert_eq!(removed().await, 0, "nobody knows how long a copy takes");
    // Another table's copy says nothing of this one.
    announce_copy(
        &world,
        4,
        &["tables/lake/public__items/data/x.parquet".to_owned()],
    )
    .await;
    assert_eq!(removed().await, 0);
    announce_copy(&world, 5, &[copied_file(2), copied_file(3)]).await;
    assert_eq!(removed().await, 1);
    assert!(!is_there(&world, &copied_file(1)).await);
    // The next copy has begun.
    world.clock.advance_ms(hours(1));
    put(&world, &copied_file(6)).await;
    world.clock.advance_ms(days(30));
    assert_eq!(removed().await, 0);
    for number in [2, 3, 6] {
        assert!(is_there(&world, &copied_file(number)).await, "{number}");
    }
}

#[tokio::test]
async fn topic_that_fed_another_table_before_keeps_every_file() {
    let world = World::new();
    let (mut agent, _ingest) = table(&world, 2).await;
    world.drop_table("orders");
    // The tables of the source are made anew.
    let mut registration = world.registration("orders").await;
    registration.topic_incarnation = 2;
    world.register(&registration).await;
    agent.recreate();
    agent.predecessor = None;
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &[agent.insert(7, "a")]).await, []);
    assert_eq!(world.ids_in("orders").await, ["7"]);
    put(&world, &batch_file(1)).await;
    let before = world.keys("tables/").await;
    world.clock.advance_ms(days(30));
    world.maintain(RUN).await;
    world.clock.advance_ms(days(30));
    let summary = world.maintain(RUN).await;
    assert_eq!((summary.former, summary.counts.data.orphans), (1, 0));
    assert_eq!(world.keys("tables/").await, before);
    // Who no longer wants to read the former table removes its intents.
    let uuid = world.table("orders").await.metadata.uuid().to_string();
    for key in world.keys("control/i/").await {
        if !key.contains(&uuid) {
            world.store.delete(&key).await.unwrap();
        }
    }
    // Its two files, and the one that nothing ever named.
    let summary = world.maintain(RUN).await;
    assert_eq!((summary.former, summary.counts.data.removed), (0, 3));
    assert_eq!(world.ids_in("orders").await, ["7"]);
}

#[tokio::test]
async fn dry_run_removes_nothing_and_tells_of_what_is_not_old_enough() {
    let world = World::new();
    table(&world, 2).await;
    put(&world, &batch_file(1)).await;
    world.clock.advance_ms(days(3));
    put(&world, &batch_file(2)).await;
    put(&world, &batch_file(3)).await;
    let before = world.keys("tables/").await;
    let summary = world.maintain(DRY_RUN).await;
    let data = summary.counts.data;
    assert!(summary.dry_run);
    assert_eq!((data.orphans, data.orphan_bytes, data.removed), (1, 5, 0));
    assert_eq!((data.young, data.young_bytes), (2, 10));
    assert_eq!(world.keys("tables/").await, before);
}

async fn run(world: &World, settings: Settings) -> Summary {
    let deadline = world.deadline(minutes(14));
    let function = world.maintainer(settings);
    function.handle(RUN.as_bytes(), deadline).await.unwrap()
}

#[tokio::test]
async fn what_cannot_be_read_leaves_the_table_as_it_is() {
    let world = World::new();
    table(&world, 2).await;
    put(&world, &batch_file(1)).await;
    put(&world, &copied_file(1)).await;
    world.clock.advance_ms(hours(1));
    // One that was abandoned may be in any intent, so that all of them are read.
    announce_copy(&world, 1, &[copied_file(2)]).await;
    world.maintain(RUN).await;
    world.clock.advance_ms(days(10));
    let uuid = world.table("orders").await.metadata.uuid().to_string();
    let slot = world.keys("control/i/").await.remove(1);
    let list = world.table("orders").await.metadata;
    let list = list.current_snapshot().unwrap().manifest_list().to_owned();
    for part in [
        METADATA,
        list.as_str().trim_start_matches("s3://lake/"),
        DATA,
        &slot,
        &uuid,
        "control/agent/",
    ] {
        world.store.silence(Some(part));
        world.store.take();
        let deadline = world.deadline(minutes(14));
        let function = world.maintainer(Settings {
            ages: Ages::default(),
            removals_max: 100,
        });
        // Without the chains nothing is known of any table.
        if let Ok(summary) = function.handle(RUN.as_bytes(), deadline).await {
            assert_eq!((summary.failed, summary.done), (1, 0), "{part}");
            assert_eq!(summary.counts.data.removed, 0, "{part}");
        }
    }
    world.store.silence(None);
    let failures = world.sum(Metric::MaintainFailuresTotal);
    assert!(failures >= 3, "{failures}");
    // An intent of another version: what it names is not known.
    world.store.put(&slot, "{}".into()).await.unwrap();
    let settings = Settings {
        ages: Ages::default(),
        removals_max: 100,
    };
    assert_eq!(run(&world, settings).await.failed, 1);
    assert!(is_there(&world, &batch_file(1)).await);
}
