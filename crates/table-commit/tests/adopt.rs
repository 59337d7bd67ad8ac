//! An operator gives a table its state back; and what a look at tables says.

use std::collections::{BTreeMap, HashMap};

use change_event::{Disposition, Lsn};
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};
use object_io::ObjectStore;
use table_commit::act::acts;
use table_commit::adopt::GivenState;
use table_commit::state::STATE_PROPERTY;
use table_commit::{
    ActKind, AdoptOutcome, CombineOutcome, CommitError, Frontier, Intent, SlotOutcome,
};

use crate::commit::{combine, stage, stranger, world};
use crate::gap::operator;
use crate::support::{NOW_MS, World, name, registration, schema};

async fn lose_state(world: &World) {
    stranger(world, |metadata| {
        let keys = [STATE_PROPERTY.to_owned()];
        let builder = metadata.into_builder(None).remove_properties(&keys);
        builder.unwrap().build().unwrap().metadata
    })
    .await;
}

async fn examine(world: &World, given: Option<&GivenState>) -> AdoptOutcome {
    world
        .committer
        .examine_adoption(&registration(2), given)
        .await
        .unwrap()
}

async fn adopt(world: &World, given: Option<&GivenState>) -> AdoptOutcome {
    world
        .committer
        .adopt(&registration(2), given, &operator())
        .await
        .unwrap()
}

async fn committed(world: &World) -> i64 {
    match combine(world).await {
        CombineOutcome::Committed(combined) => combined.snapshot_id,
        other => panic!("not committed but {other:?}"),
    }
}

#[tokio::test]
async fn lost_state_comes_back_from_the_newest_snapshot() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    committed(&world).await;
    stage(&world, 1, "b", 3, 1).await;
    let newest = committed(&world).await;
    let before = world.table().await.state;
    assert_eq!(adopt(&world, None).await, AdoptOutcome::HasState);
    lose_state(&world).await;
    // What is staged meanwhile, by an ingest that is warm, is taken afterwards.
    let AdoptOutcome::Found(found) = examine(&world, None).await else {
        panic!("found")
    };
    assert_eq!((&found.state, found.snapshot_id), (&before, Some(newest)));
    assert_eq!(adopt(&world, None).await, AdoptOutcome::Adopted(found));
    assert_eq!(adopt(&world, None).await, AdoptOutcome::HasState);
    assert_eq!(world.table().await.state, before);
    let act = &acts(&world.table().await.metadata)[0];
    let snapshot_id = Some(newest);
    assert_eq!(act.kind, ActKind::StateAdopted { snapshot_id });
    stage(&world, 0, "c", 1, 1).await;
    committed(&world).await;
}

#[tokio::test]
async fn state_that_cannot_be_read_is_written_anew() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    committed(&world).await;
    let before = world.table().await.state;
    stranger(&world, |metadata| {
        let odd = HashMap::from([(STATE_PROPERTY.to_owned(), "{}".to_owned())]);
        let builder = metadata.into_builder(None).set_properties(odd);
        builder.unwrap().build().unwrap().metadata
    })
    .await;
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::MalformedState { .. }));
    assert!(matches!(
        adopt(&world, None).await,
        AdoptOutcome::Adopted(_)
    ));
    assert_eq!(world.table().await.state, before);
}

#[tokio::test]
async fn table_that_lost_its_state_and_was_rolled_back_still_asks() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    let first = committed(&world).await;
    stage(&world, 0, "b", 3, 1).await;
    committed(&world).await;
    lose_state(&world).await;
    stranger(&world, |metadata| {
        let retention = SnapshotRetention::branch(None, None, None);
        let back = SnapshotReference::new(first, retention);
        let builder = metadata.into_builder(None).set_ref(MAIN_BRANCH, back);
        builder.unwrap().build().unwrap().metadata
    })
    .await;
    // Nothing is decided in passing: the state is the newest, and the rollback is the operator's next question.
    assert!(matches!(
        adopt(&world, None).await,
        AdoptOutcome::Adopted(_)
    ));
    let error = world.committer.load(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::RolledBack { .. }), "{error}");
    let error = world
        .committer
        .examine_adoption(&registration(2), None)
        .await
        .unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt);
}

#[tokio::test]
async fn partition_that_no_snapshot_knows_begins_where_its_chain_begins() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    committed(&world).await;
    let table = world
        .committer
        .ensure_table(&registration(4), &schema(1))
        .await
        .unwrap();
    // Staged in the first incarnation, never committed; then the topic was made anew.
    let (chain, start) = (table.chain(2), Frontier::start(1));
    let after = Frontier {
        offset: 3,
        epoch: 1,
        pseq: 3,
        ..start
    };
    let intent = Intent::new("x".to_owned(), &start, &after, Vec::new(), NOW_MS);
    let won = chain.win(world.store.as_ref(), &start, &intent).await;
    assert_eq!(won.unwrap(), SlotOutcome::Won);
    lose_state(&world).await;
    let mut remade = registration(4);
    remade.topic_incarnation = 2;
    let AdoptOutcome::Adopted(adopted) = world
        .committer
        .adopt(&remade, None, &operator())
        .await
        .unwrap()
    else {
        panic!("adopted")
    };
    let frontiers = [2, 3].map(|partition| adopted.state.partitions[&partition]);
    assert_eq!(frontiers, [start, Frontier::start(2)]);
    committed(&world).await;
    assert_eq!(world.table().await.frontier(2), Some(&after));
}

#[tokio::test]
async fn partition_that_no_snapshot_knows_begins_at_the_map_that_brought_it() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    committed(&world).await;
    lose_state(&world).await;
    let mut raised = registration(2);
    raised.partition_map = raised.partition_map.raised(3, Lsn(10)).raised(4, Lsn(20));
    let adopted = world.committer.adopt(&raised, None, &operator()).await;
    let AdoptOutcome::Adopted(adopted) = adopted.unwrap() else {
        panic!("adopted")
    };
    // No barrier of an earlier map will ever be written to it: it would be waited for without end.
    let maps = [0, 1, 2, 3].map(|partition| adopted.state.partitions[&partition].map_version);
    assert_eq!(maps, [1, 1, 2, 3]);
}

#[tokio::test]
async fn state_is_given_only_where_none_is_found() {
    let world = world().await;
    let frontier = Frontier {
        offset: 40,
        epoch: 3,
        pseq: 7,
        ..Frontier::start(1)
    };
    let given = GivenState {
        partitions: BTreeMap::from([(0, frontier)]),
        document: schema(1),
    };
    lose_state(&world).await;
    assert_eq!(examine(&world, None).await, AdoptOutcome::NothingFound);
    assert!(matches!(
        adopt(&world, Some(&given)).await,
        AdoptOutcome::Adopted(_)
    ));
    let table = world.table().await;
    assert_eq!(
        (table.frontier(0), table.frontier(1)),
        (Some(&frontier), Some(&Frontier::start(1)))
    );
    stage(&world, 0, "a", 1, 1).await;
    committed(&world).await;
    lose_state(&world).await;
    let AdoptOutcome::Found(found) = examine(&world, Some(&given)).await else {
        panic!("found")
    };
    assert_eq!(found.state.partitions[&0].pseq, 8, "the snapshot counts");
}

#[tokio::test]
async fn rebuild_seals_a_frontier_that_was_given_ahead_of_every_slot() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    lose_state(&world).await;
    let ahead = Frontier {
        offset: 40,
        epoch: 1,
        pseq: 40,
        ..Frontier::start(1)
    };
    let given = GivenState {
        partitions: BTreeMap::from([(0, ahead)]),
        document: schema(1),
    };
    let adopted = adopt(&world, Some(&given)).await;
    assert!(matches!(adopted, AdoptOutcome::Adopted(_)), "{adopted:?}");
    let committer = &world.committer;
    let (former, _) = committer.examine_rebuild(&registration(2)).await.unwrap();
    let plan = committer.plan_rebuild(&former, &operator()).await.unwrap();
    let ends = committer.seal(&registration(2), &former, &plan).await;
    assert_eq!(ends.unwrap()[&0], ahead);
    let after = Frontier {
        offset: 41,
        pseq: 41,
        ..ahead
    };
    let late = Intent::new("late".to_owned(), &ahead, &after, Vec::new(), NOW_MS);
    let chain = world.table().await.chain(0);
    assert!(matches!(
        chain.win(world.store.as_ref(), &ahead, &late).await,
        Err(CommitError::ChainSealed { .. })
    ));
}

#[tokio::test]
async fn table_without_our_columns_is_not_adopted() {
    let world = world().await;
    lose_state(&world).await;
    stranger(&world, |metadata| {
        let plain = iceberg::spec::Schema::builder()
            .with_schema_id(9)
            .with_fields(
                metadata
                    .current_schema()
                    .as_struct()
                    .fields()
                    .iter()
                    .filter(|field| field.name != "_pos")
                    .cloned()
                    .collect::<Vec<_>>(),
            )
            .build()
            .unwrap();
        let builder = metadata.into_builder(None).add_current_schema(plain);
        builder.unwrap().build().unwrap().metadata
    })
    .await;
    let column = "_pos".to_owned();
    assert_eq!(
        examine(&world, None).await,
        AdoptOutcome::NotOurs { column }
    );
}

#[tokio::test]
async fn look_at_a_table_counts_what_is_staged_and_names_what_stops_it() {
    let world = world().await;
    stage(&world, 0, "a", 2, 1).await;
    committed(&world).await;
    stage(&world, 0, "b", 3, 1).await;
    let tail = stage(&world, 0, "c", 4, 1).await;
    let report = world.committer.inspect(&registration(2), 99, true).await;
    assert!(report.troubles.is_empty(), "{:?}", report.troubles);
    let partitions = report.found.unwrap().partitions;
    let first = &partitions[0];
    assert_eq!((first.staged_count, first.staged_rows), (2, 7));
    assert_eq!(
        (first.tail, first.oldest_ms, first.at_end),
        (tail, Some(NOW_MS), true)
    );
    assert_eq!((partitions.len(), partitions[1].staged_count), (2, 0));

    let file = "tables/lake/public__orders/data/c.parquet";
    world.store.delete(file).await.unwrap();
    let report = world.committer.inspect(&registration(2), 99, true).await;
    assert!(matches!(
        report.troubles[..],
        [CommitError::MissingObject { .. }]
    ));
    let key = world.table().await.chain(1).slot_key(&Frontier::start(1));
    world.store.put(&key, "garbage".into()).await.unwrap();
    let report = world.committer.inspect(&registration(2), 99, false).await;
    assert!(matches!(
        report.troubles[..],
        [CommitError::MalformedIntent { .. }]
    ));
    assert_eq!(
        report.found.unwrap().partitions.len(),
        1,
        "the other is told"
    );
    lose_state(&world).await;
    let report = world.committer.inspect(&registration(2), 99, false).await;
    assert!(matches!(report.troubles[..], [CommitError::NoState { .. }]));
}
