//! What a commit costs does not grow with what was committed before: requests, manifest list, metadata.

use std::sync::Arc;

use change_event::ColumnType;
use iceberg::spec::{Datum, ManifestList, PartitionStatisticsFile, StatisticsFile};
use object_io::ObjectStore;
use table_commit::{CombineOutcome, Committer, Intent, Limits, SlotOutcome};
use table_file::ColumnStatistics;
use test_kit::{Meter, MeteredCatalog, MeteredStore, Requests, SeededIds};

use crate::commit::{combine, stage, stranger};
use crate::support::{NOW_MS, World, column, live_files, name, registration, schema, staged};

const PARTITIONS: u32 = 2;

async fn world(limits: Limits) -> World {
    let mut world = World::new(3);
    world
        .committer
        .ensure_table(&registration(PARTITIONS), &schema(1))
        .await
        .unwrap();
    world.committer = world.committer.clone().with_limits(limits);
    world
}

/// A process of its own, whose requests are counted.
fn metered(world: &World, seed: u64, limits: Limits) -> (Committer, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    let committer = Committer::new(
        Arc::new(MeteredStore::new(world.store.clone(), meter.clone())),
        Arc::new(MeteredCatalog::new(world.catalog.clone(), meter.clone())),
        world.clock.clone(),
        Arc::new(SeededIds::new(seed)),
    );
    (committer.with_limits(limits), meter)
}

fn small() -> Limits {
    Limits {
        manifest_entries_max: 4,
        manifests_per_merge: 3,
        merged_entries_max: 40,
        snapshots_kept: 5,
        ..Limits::default()
    }
}

async fn manifests(world: &World) -> ManifestList {
    let table = world.table().await;
    let head = table.metadata.current_snapshot().unwrap();
    let key = head.manifest_list().strip_prefix("s3://lake/").unwrap();
    let bytes = world.store.get(key).await.unwrap().unwrap();
    ManifestList::parse_with_version(&bytes, table.metadata.format_version()).unwrap()
}

#[tokio::test]
async fn commit_costs_three_or_four_puts_two_catalog_calls_and_a_get_per_slot_and_partition() {
    let world = world(small()).await;
    let (committer, meter) = metered(&world, 11, small());
    let mut merges = 0;
    for round in 0..60_u64 {
        let slots = round % 4 + 1;
        for slot in 0..slots {
            let partition = u32::try_from(slot).unwrap() % PARTITIONS;
            stage(&world, partition, &format!("{round}-{slot}"), 1, 1).await;
        }
        meter.take();
        let outcome = committer.combine(&name()).await.unwrap();
        assert!(matches!(outcome, CombineOutcome::Committed(_)));
        let cost = meter.take();
        if round == 0 {
            // Cold: the table's metadata is read once.
            assert_eq!(cost.gets, slots + u64::from(PARTITIONS) + 1);
            continue;
        }
        let expected = Requests {
            gets: slots + u64::from(PARTITIONS),
            puts: cost.puts,
            catalog: 2,
            get_bytes: cost.get_bytes,
            put_bytes: cost.put_bytes,
            ..Requests::default()
        };
        assert_eq!(cost, expected, "round {round}");
        assert!((3..=4).contains(&cost.puts), "round {round}: {cost:?}");
        merges += cost.puts - 3;
    }
    assert!(merges >= 10, "{merges} merges");
    assert_eq!(
        live_files(world.store.as_ref(), &world.table().await.metadata)
            .await
            .len(),
        150
    );
}

#[tokio::test]
async fn process_that_did_not_commit_last_reads_what_changed_and_no_more() {
    let world = world(small()).await;
    let (one, _) = metered(&world, 11, small());
    let (other, meter) = metered(&world, 12, small());
    for round in 0..20 {
        let committer = if round % 2 == 0 { &one } else { &other };
        stage(&world, 0, &format!("{round}"), 1, 1).await;
        meter.take();
        let outcome = committer.combine(&name()).await.unwrap();
        assert!(matches!(outcome, CombineOutcome::Committed(_)));
        if round % 2 == 1 {
            // A slot and two ends; metadata, list, and the hot manifest unless it is full.
            let cost = meter.take();
            assert!(cost.gets <= 3 + 3 + 3, "{cost:?}");
        }
    }
}

#[tokio::test]
async fn metadata_and_manifest_list_of_a_long_run_do_not_grow() {
    let world = world(small()).await;
    let mut sizes = Vec::new();
    for round in 0..240 {
        stage(&world, 0, &format!("{round}"), 1, 1).await;
        let CombineOutcome::Committed(combined) = combine(&world).await else {
            panic!("not committed")
        };
        // Another engine computes statistics of each snapshot.
        stranger(&world, |metadata| {
            let file = StatisticsFile {
                snapshot_id: combined.snapshot_id,
                statistics_path: format!("s3://lake/{round}.puffin"),
                file_size_in_bytes: 1,
                file_footer_size_in_bytes: 1,
                key_metadata: None,
                blob_metadata: Vec::new(),
            };
            let partitions = PartitionStatisticsFile {
                snapshot_id: combined.snapshot_id,
                statistics_path: format!("s3://lake/{round}.parquet"),
                file_size_in_bytes: 1,
            };
            let builder = metadata.into_builder(None).set_statistics(file);
            let builder = builder.set_partition_statistics(partitions);
            builder.build().unwrap().metadata
        })
        .await;
        let table = world.table().await;
        let metadata = &table.metadata;
        let manifests = manifests(&world).await.entries().len();
        sizes.push(manifests);
        if round < 40 {
            continue;
        }
        assert_eq!(metadata.snapshots().len(), 5);
        assert!(
            metadata.history().len() <= 5,
            "{}",
            metadata.history().len()
        );
        assert!(metadata.metadata_log().len() <= 21);
        assert_eq!(metadata.statistics_iter().len(), 5);
        assert_eq!(metadata.partition_statistics_iter().len(), 5);
        assert_eq!(metadata.schemas_iter().len(), sizes_of_schemas(metadata));
        // Full ones of twenty entries at least, and less than three of each tier.
        assert!(manifests <= (round + 1) / 20 + 3 * 3, "{manifests}");
    }
    let files = live_files(world.store.as_ref(), &world.table().await.metadata).await;
    assert_eq!(files.len(), 240, "every file once");
    let sequences: Vec<i64> = files.iter().map(|(_, sequence)| *sequence).collect();
    let mut distinct = sequences.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 240, "entries keep their sequence numbers");
}

/// A commit adds no schema: those of creation stay.
fn sizes_of_schemas(metadata: &iceberg::spec::TableMetadata) -> usize {
    usize::try_from(metadata.current_schema_id()).unwrap() + 1
}

#[tokio::test]
async fn entries_of_an_older_schema_are_merged_with_bounds_of_the_newer_type() {
    const VALUE: i32 = 0x0102_0304;
    let world = world(Limits::default()).await;
    let table = world.table().await;
    let chain = table.chain(0);
    let tail = *table.frontier(0).unwrap();
    let mut after = tail;
    (after.offset, after.epoch, after.pseq) = (1, 1, 1);
    let path = format!("{}/narrow.parquet", table.data_location());
    let mut file = staged(&path, 1, 1);
    file.columns = vec![ColumnStatistics {
        field_id: 100,
        size_bytes: 10,
        value_count: 1,
        null_count: 0,
        nan_count: None,
        lower: Some(VALUE.to_le_bytes().to_vec()),
        upper: Some(VALUE.to_le_bytes().to_vec()),
    }];
    let intent = Intent::new("narrow".to_owned(), &tail, &after, vec![file], NOW_MS);
    let won = chain.win(world.store.as_ref(), &tail, &intent).await;
    assert_eq!(won.unwrap(), SlotOutcome::Won);
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));

    let mut wider = schema(2);
    wider.columns[0] = column(1, "id", ColumnType::Long, true);
    world.committer.evolve(&name(), &wider).await.unwrap();
    stage(&world, 0, "wide", 1, 2).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));

    let list = manifests(&world).await;
    assert_eq!(
        list.entries().len(),
        1,
        "one hot manifest under both schemas"
    );
    let key = list.entries()[0]
        .manifest_path
        .strip_prefix("s3://lake/")
        .unwrap();
    let bytes = world.store.get(key).await.unwrap().unwrap();
    let wide = i64::from(VALUE).to_le_bytes();
    let found = bytes.windows(8).filter(|window| *window == wide).count();
    assert_eq!(found, 2, "a lower and an upper bound of eight bytes");
    let manifest = iceberg::spec::Manifest::parse_avro(&bytes).unwrap();
    let narrow = manifest
        .entries()
        .iter()
        .find(|entry| entry.file_path() == path);
    let bounds = narrow.unwrap().data_file().lower_bounds();
    assert_eq!(bounds[&100], Datum::long(i64::from(VALUE)));
}
