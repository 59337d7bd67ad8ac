//! What one caller sees: creating, registering, combining, and each way in which a table is not touched.

use std::collections::HashMap;
use std::sync::Arc;

use change_event::{Disposition, Lsn, Position};
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata};
use object_io::ObjectStore;
use table_commit::state::STATE_PROPERTY;
use table_commit::{
    Catalog, CombineOutcome, CommitError, Frontier, Intent, Limits, SlotOutcome, SwapOutcome,
};

use crate::support::{NOW_MS, World, live_files, name, registration, schema, staged};

/// Stages one file behind the chain's end: `rows` rows in one more offset each.
pub(crate) async fn stage(
    world: &World,
    partition: u32,
    file: &str,
    rows: u64,
    version: u32,
) -> Frontier {
    let table = world.table().await;
    let chain = table.chain(partition);
    let tail = chain
        .walk(world.store.as_ref(), table.frontier(partition).unwrap(), 99)
        .await
        .unwrap()
        .tail;
    let mut after = tail;
    after.offset += i64::try_from(rows).unwrap();
    after.epoch = 1;
    after.pseq += rows;
    after.stream = Some(Position::stream(1, Lsn(after.pseq), 1));
    let path = format!("{}/{file}.parquet", table.data_location());
    let key = path.strip_prefix("s3://lake/").unwrap();
    world.store.put(key, "rows".into()).await.unwrap();
    let intent = Intent::new(
        file.to_owned(),
        &tail,
        &after,
        vec![staged(&path, rows, version)],
        NOW_MS,
    );
    let won = chain
        .win(world.store.as_ref(), &tail, &intent)
        .await
        .unwrap();
    assert_eq!(won, SlotOutcome::Won);
    after
}

pub(crate) async fn combine(world: &World) -> CombineOutcome {
    world.committer.combine(&name()).await.unwrap()
}

pub(crate) async fn world() -> World {
    let world = World::new(7);
    world
        .committer
        .ensure_table(&registration(2), &schema(1))
        .await
        .unwrap();
    world
}

/// Another engine's commit: moves the pointer to metadata that it made of the current.
pub(crate) async fn stranger(world: &World, change: impl FnOnce(TableMetadata) -> TableMetadata) {
    let table = world.catalog.pointer(&name()).await.unwrap().unwrap();
    let key = |location: &str| location.strip_prefix("s3://lake/").unwrap().to_owned();
    let bytes = world
        .store
        .get(&key(&table.metadata_location))
        .await
        .unwrap()
        .unwrap();
    let io = iceberg::io::FileIO::new_with_memory();
    io.new_output("memory://m")
        .unwrap()
        .write(bytes)
        .await
        .unwrap();
    let metadata = change(TableMetadata::read_from(&io, "memory://m").await.unwrap());
    let location = format!(
        "{}/metadata/v{}.metadata.json",
        metadata.location(),
        table.version.0
    );
    world
        .store
        .put(
            &key(&location),
            serde_json::to_vec(&metadata).unwrap().into(),
        )
        .await
        .unwrap();
    let moved = world
        .catalog
        .swap(&name(), &table, &location, &metadata)
        .await
        .unwrap();
    assert_eq!(moved, SwapOutcome::Swapped);
}

#[tokio::test]
async fn new_table_has_its_ids_properties_and_every_partition() {
    let world = world().await;
    let table = world.table().await;
    let current = table.metadata.current_schema();
    let names: Vec<(i32, &str)> = current
        .as_struct()
        .fields()
        .iter()
        .map(|field| (field.id, field.name.as_str()))
        .collect();
    let own = [
        (1, "_op"),
        (2, "_pos"),
        (3, "_source_ts"),
        (4, "_schema_version"),
        (5, "_unavailable"),
        (7, "_exact"),
    ];
    assert_eq!(names[..6], own);
    assert_eq!(names[6..], [(100, "id"), (101, "a")]);
    assert_eq!(current.identifier_field_ids().collect::<Vec<_>>(), [100]);
    let spec = table.metadata.default_partition_spec();
    assert_eq!(
        (
            spec.spec_id(),
            spec.fields()[0].name.as_str(),
            spec.fields()[0].source_id
        ),
        (0, "_day", 3)
    );
    assert_eq!(table.state.partitions.len(), 2);
    assert_eq!(table.frontier(1), Some(&Frontier::start(1)));
    let property = |key: &str| table.metadata.properties()[key].clone();
    assert_eq!(property("firn.topic"), "shop.public.orders");
    assert_eq!(property("firn.schema-version"), "1");
    assert!(
        table
            .pointer
            .metadata_location
            .ends_with(".gz.metadata.json")
    );
    assert_eq!(
        (table.freshness_seconds(), table.is_due(NOW_MS)),
        (60, true)
    );
}

#[tokio::test]
async fn combining_nothing_changes_nothing() {
    let world = world().await;
    let before = world.table().await.pointer.version;
    assert_eq!(combine(&world).await, CombineOutcome::NothingStaged);
    assert_eq!(world.table().await.pointer.version, before);
}

#[tokio::test]
async fn everything_staged_becomes_one_snapshot_with_progress() {
    let world = world().await;
    stage(&world, 0, "a", 3, 1).await;
    let zero = stage(&world, 0, "b", 2, 1).await;
    let one = stage(&world, 1, "c", 4, 1).await;
    let CombineOutcome::Committed(combined) = combine(&world).await else {
        panic!("not committed")
    };
    assert_eq!(
        (
            combined.intent_count,
            combined.file_count,
            combined.row_count
        ),
        (3, 3, 9)
    );
    assert_eq!(
        (
            combined.more,
            combined.needs_schema,
            combined.oldest_intent_ms
        ),
        (false, None, NOW_MS)
    );
    let table = world.table().await;
    assert_eq!(
        (table.frontier(0), table.frontier(1)),
        (Some(&zero), Some(&one))
    );
    let head = table.metadata.current_snapshot().unwrap();
    assert_eq!(head.snapshot_id(), combined.snapshot_id);
    let summary = &head.summary().additional_properties;
    assert_eq!(
        summary[STATE_PROPERTY],
        table.metadata.properties()[STATE_PROPERTY]
    );
    let number = |key: &str| summary[key].clone();
    assert_eq!(
        (
            number("added-records"),
            number("total-records"),
            number("total-data-files")
        ),
        ("9".into(), "9".into(), "3".into())
    );
    assert_eq!(
        live_files(world.store.as_ref(), &table.metadata)
            .await
            .len(),
        3
    );
    assert!(!table.is_due(NOW_MS));
    assert_eq!(table.due_in_ms(NOW_MS + 59_000), 1000);
    assert!(
        !table.is_due(NOW_MS - 60_000),
        "a commit in the future counts as now"
    );
    assert!(
        table.is_due(NOW_MS - 60_001),
        "one beyond the freshness is of a clock that was ahead, and must not hold the table back"
    );
    assert_eq!(combine(&world).await, CombineOutcome::NothingStaged);
}

#[tokio::test]
async fn manifests_are_merged_until_full_and_old_snapshots_expire() {
    let mut world = world().await;
    let limits = Limits {
        manifest_entries_max: 4,
        snapshots_kept: 3,
        ..Limits::default()
    };
    world.committer = world.committer.clone().with_limits(limits);
    for number in 0..10 {
        stage(&world, 0, &format!("f{number}"), 1, 1).await;
        assert!(matches!(
            combine(&world).await,
            CombineOutcome::Committed(_)
        ));
    }
    let table = world.table().await;
    assert_eq!(
        live_files(world.store.as_ref(), &table.metadata)
            .await
            .len(),
        10
    );
    assert_eq!(
        table.metadata.snapshots().len(),
        3,
        "older snapshots are expired"
    );
    let key = table
        .metadata
        .current_snapshot()
        .unwrap()
        .manifest_list()
        .strip_prefix("s3://lake/")
        .unwrap();
    let list = world.store.get(key).await.unwrap().unwrap();
    let list =
        iceberg::spec::ManifestList::parse_with_version(&list, table.metadata.format_version())
            .unwrap();
    assert_eq!(list.entries().len(), 3, "4 + 4 + 2 entries");
}

#[tokio::test]
async fn tagged_snapshot_is_not_expired() {
    let mut world = world().await;
    world.committer = world.committer.clone().with_limits(Limits {
        snapshots_kept: 2,
        ..Limits::default()
    });
    stage(&world, 0, "first", 1, 1).await;
    let CombineOutcome::Committed(first) = combine(&world).await else {
        panic!("not committed")
    };
    stranger(&world, |metadata| {
        let retention = SnapshotRetention::Tag {
            max_ref_age_ms: None,
        };
        let tag = SnapshotReference::new(first.snapshot_id, retention);
        metadata
            .into_builder(None)
            .set_ref("audit", tag)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    })
    .await;
    for file in ["b", "c", "d"] {
        stage(&world, 0, file, 1, 1).await;
        assert!(matches!(
            combine(&world).await,
            CombineOutcome::Committed(_)
        ));
    }
    let table = world.table().await;
    assert!(table.metadata.snapshot_by_id(first.snapshot_id).is_some());
    assert_eq!(table.metadata.snapshots().len(), 3);
}

#[tokio::test]
async fn one_commit_takes_a_bounded_number_of_intents_and_says_that_there_are_more() {
    let mut world = world().await;
    world.committer = world.committer.clone().with_limits(Limits {
        intents_per_commit_max: 4,
        ..Limits::default()
    });
    for number in 0..3 {
        stage(&world, 0, &format!("f{number}"), 1, 1).await;
    }
    let CombineOutcome::Committed(first) = combine(&world).await else {
        panic!("not committed")
    };
    assert_eq!((first.intent_count, first.more), (2, true));
    let CombineOutcome::Committed(second) = combine(&world).await else {
        panic!("not committed")
    };
    assert_eq!((second.intent_count, second.more), (1, false));
}

#[tokio::test]
async fn newer_schema_stops_its_chain_until_the_table_has_it() {
    let world = world().await;
    stage(&world, 0, "old", 1, 1).await;
    stage(&world, 0, "new", 1, 2).await;
    stage(&world, 1, "beside", 1, 1).await;
    let CombineOutcome::Committed(combined) = combine(&world).await else {
        panic!("not committed")
    };
    assert_eq!((combined.intent_count, combined.needs_schema), (2, Some(2)));
    assert_eq!(
        combine(&world).await,
        CombineOutcome::NeedsSchema { version: 2 }
    );
    world.committer.evolve(&name(), &schema(2)).await.unwrap();
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    assert_eq!(
        live_files(world.store.as_ref(), &world.table().await.metadata)
            .await
            .len(),
        3
    );
}

#[tokio::test]
async fn slot_is_won_once_and_winning_again_is_winning() {
    let world = world().await;
    let table = world.table().await;
    let (chain, tail) = (table.chain(0), Frontier::start(1));
    let after = Frontier {
        offset: 5,
        epoch: 1,
        pseq: 5,
        ..tail
    };
    let mine = Intent::new("mine".to_owned(), &tail, &after, Vec::new(), NOW_MS);
    let other = Intent {
        id: "other".to_owned(),
        ..mine.clone()
    };
    let store = world.store.as_ref();
    assert_eq!(
        chain.win(store, &tail, &mine).await.unwrap(),
        SlotOutcome::Won
    );
    assert_eq!(
        chain.win(store, &tail, &mine).await.unwrap(),
        SlotOutcome::Won
    );
    let taken = chain.win(store, &tail, &other).await.unwrap();
    assert_eq!(taken, SlotOutcome::Taken(Box::new(mine)));
}

#[tokio::test]
async fn chain_goes_on_in_the_next_incarnation() {
    let world = world().await;
    let end = stage(&world, 0, "before", 3, 1).await;
    let chain = world.table().await.chain(0);
    let closing = Intent::closing("closing".to_owned(), &end, 2, NOW_MS);
    assert_eq!(
        chain
            .win(world.store.as_ref(), &end, &closing)
            .await
            .unwrap(),
        SlotOutcome::Won
    );
    let after = stage(&world, 0, "behind", 2, 1).await;
    assert_eq!((after.incarnation, after.offset, after.pseq), (2, 2, 5));
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    let table = world.table().await;
    assert_eq!(
        (table.frontier(0), table.state.topic_incarnation),
        (Some(&after), 2)
    );
}

#[tokio::test]
async fn intent_that_does_not_continue_its_chain_halts() {
    let world = world().await;
    let table = world.table().await;
    let start = Frontier::start(1);
    let after = Frontier { offset: 5, ..start };
    let astray = Intent {
        start: 3,
        ..Intent::new("x".to_owned(), &start, &after, Vec::new(), 0)
    };
    let key = table.chain(0).slot_key(&start);
    world
        .store
        .put(&key, serde_json::to_vec(&astray).unwrap().into())
        .await
        .unwrap();
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::BrokenChain { .. }), "{error}");
    world.store.put(&key, "garbage".into()).await.unwrap();
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt);
}

#[tokio::test]
async fn larger_registration_adds_partitions_and_keeps_frontiers() {
    let world = world().await;
    let reached = stage(&world, 0, "a", 3, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    let mut larger = registration(2);
    larger.partition_map = larger.partition_map.raised(4, Lsn(9));
    let table = world
        .committer
        .ensure_table(&larger, &schema(1))
        .await
        .unwrap();
    assert_eq!(table.state.partitions.len(), 4);
    let new = Frontier {
        map_version: 2,
        ..Frontier::start(1)
    };
    assert_eq!(
        (table.frontier(0), table.frontier(3)),
        (Some(&reached), Some(&new))
    );
    let again = world
        .committer
        .ensure_table(&registration(2), &schema(1))
        .await
        .unwrap();
    assert_eq!(
        (
            again.state.partitions.len(),
            again.state.partition_map_version
        ),
        (4, 2),
        "never smaller"
    );
}

#[tokio::test]
async fn table_of_another_topic_is_refused() {
    let world = world().await;
    let mut other = registration(2);
    other.topic = "shop.public.other".to_owned();
    let error = world
        .committer
        .ensure_table(&other, &schema(1))
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::ForeignTable { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt);
}

#[tokio::test]
async fn snapshots_without_state_halt() {
    let world = world().await;
    stage(&world, 0, "a", 1, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    stranger(&world, |metadata| {
        let keys = [STATE_PROPERTY.to_owned()];
        metadata
            .into_builder(None)
            .remove_properties(&keys)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    })
    .await;
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::NoState { .. }), "{error}");
}

#[tokio::test]
async fn rolled_back_table_halts_and_says_what_leads_out() {
    let world = world().await;
    stage(&world, 0, "a", 1, 1).await;
    let CombineOutcome::Committed(first) = combine(&world).await else {
        panic!("not committed")
    };
    stage(&world, 0, "b", 1, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    stranger(&world, |metadata| {
        let retention = SnapshotRetention::branch(None, None, None);
        let back = SnapshotReference::new(first.snapshot_id, retention);
        metadata
            .into_builder(None)
            .set_ref(MAIN_BRANCH, back)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    })
    .await;
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("`firn rollback accept"));
}

#[tokio::test]
async fn strangers_property_change_is_no_rollback_and_is_kept() {
    let world = world().await;
    stage(&world, 0, "a", 1, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    stranger(&world, |metadata| {
        let properties = HashMap::from([("owner".to_owned(), "somebody".to_owned())]);
        metadata
            .into_builder(None)
            .set_properties(properties)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    })
    .await;
    stage(&world, 0, "b", 1, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    assert_eq!(
        world.table().await.metadata.properties()["owner"],
        "somebody"
    );
}

#[tokio::test]
async fn lost_races_end_in_refresh_and_their_files_are_removed() {
    #[derive(Debug)]
    struct NeverFirst(Arc<dyn Catalog>);

    #[async_trait::async_trait]
    impl Catalog for NeverFirst {
        async fn pointer(
            &self,
            table: &table_commit::TableName,
        ) -> Result<Option<table_commit::Pointer>, table_commit::CatalogError> {
            self.0.pointer(table).await
        }
        async fn create(
            &self,
            table: &table_commit::TableName,
            location: &str,
            metadata: &TableMetadata,
        ) -> Result<table_commit::CreateOutcome, table_commit::CatalogError> {
            self.0.create(table, location, metadata).await
        }
        async fn swap(
            &self,
            _table: &table_commit::TableName,
            _from: &table_commit::Pointer,
            _location: &str,
            _metadata: &TableMetadata,
        ) -> Result<SwapOutcome, table_commit::CatalogError> {
            Ok(SwapOutcome::Conflict)
        }
    }

    let world = world().await;
    stage(&world, 0, "a", 1, 1).await;
    let before = world.store.list("tables/").await.unwrap();
    let committer = table_commit::Committer::new(
        world.store.clone(),
        Arc::new(NeverFirst(world.catalog.clone())),
        world.clock.clone(),
        Arc::new(test_kit::SeededIds::new(1)),
    );
    let error = committer.combine(&name()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Refresh, "{error}");
    assert_eq!(
        world.store.list("tables/").await.unwrap(),
        before,
        "no leftovers"
    );
}
