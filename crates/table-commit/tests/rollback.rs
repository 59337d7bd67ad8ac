//! An operator settles a rollback: what stays away, what comes back, and what is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use change_event::{Disposition, Lsn};
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};
use object_io::ObjectStore;
use table_commit::act::acts;
use table_commit::{
    ActKind, CombineOutcome, CommitError, Committer, Frontier, Head, Intent, ReplayRefusal,
    Rollback, RollbackOutcome, SlotOutcome,
};
use test_kit::{FaultPlan, FaultyCatalog, FaultyStore, SeededIds};

use crate::commit::{combine, stage, stranger, world};
use crate::gap::operator;
use crate::support::{NOW_MS, World, live_files, name, registration, schema};

async fn commit(world: &World, partition: u32, file: &str, rows: u64) -> i64 {
    stage(world, partition, file, rows, 1).await;
    match combine(world).await {
        CombineOutcome::Committed(combined) => combined.snapshot_id,
        other => panic!("not committed but {other:?}"),
    }
}

/// Somebody moves the head.
async fn move_head(world: &World, head: Option<i64>) {
    stranger(world, |metadata| {
        let builder = metadata.into_builder(None);
        let moved = match head {
            Some(id) => {
                let retention = SnapshotRetention::branch(None, None, None);
                builder
                    .set_ref(MAIN_BRANCH, SnapshotReference::new(id, retention))
                    .unwrap()
            }
            None => builder.remove_ref(MAIN_BRANCH),
        };
        moved.build().unwrap().metadata
    })
    .await;
}

async fn files(world: &World) -> BTreeSet<String> {
    let metadata = world.table().await.metadata;
    live_files(world.store.as_ref(), &metadata)
        .await
        .into_iter()
        .map(|(path, _)| {
            let file = path.rsplit('/').next().unwrap();
            file.trim_end_matches(".parquet").to_owned()
        })
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn examined(world: &World) -> Rollback {
    let found = world.committer.examine_rollback(&name()).await.unwrap();
    found.expect("it is rolled back")
}

async fn accept(world: &World, head: Option<i64>) -> RollbackOutcome {
    world
        .committer
        .accept_rollback(&name(), Head(head), &operator())
        .await
        .unwrap()
}

async fn replay(world: &World, head: Option<i64>) -> RollbackOutcome {
    world
        .committer
        .replay_rollback(&name(), Head(head), &operator())
        .await
        .unwrap()
}

/// Three commits, `c` the newest, rolled back to the first.
async fn rolled_back() -> (World, i64, i64) {
    let world = world().await;
    let first = commit(&world, 0, "a", 1).await;
    commit(&world, 0, "b", 2).await;
    let newest = commit(&world, 1, "c", 4).await;
    move_head(&world, Some(first)).await;
    (world, first, newest)
}

#[tokio::test]
async fn accepted_rollback_keeps_away_what_was_rolled_back_and_goes_on() {
    let (world, first, newest) = rolled_back().await;
    let found = examined(&world).await;
    assert_eq!(
        (found.state, found.head, found.head_is_ahead),
        (Head(Some(newest)), Head(Some(first)), false)
    );
    assert_eq!(accept(&world, Some(first)).await, RollbackOutcome::Settled);
    assert_eq!(files(&world).await, set(&["a"]));
    commit(&world, 0, "d", 1).await;
    assert_eq!(files(&world).await, set(&["a", "d"]));
    let table = world.table().await;
    assert_eq!(table.frontier(0).unwrap().pseq, 4);
    let kind = ActKind::RollbackAccepted {
        state_snapshot_id: Some(newest),
        head_snapshot_id: Some(first),
    };
    assert_eq!(acts(&table.metadata)[0].kind, kind);
    // Again: nothing happens.
    assert_eq!(
        accept(&world, Some(first)).await,
        RollbackOutcome::NotRolledBack
    );
    assert_eq!(acts(&world.table().await.metadata).len(), 1);
}

#[tokio::test]
async fn replayed_rollback_brings_each_row_back_once() {
    let (world, first, _) = rolled_back().await;
    // Ingest goes on meanwhile: chains do not depend on the head.
    let found = examined(&world).await.replay.unwrap();
    assert_eq!((found.intent_count, found.row_count), (2, 6));
    assert_eq!(replay(&world, Some(first)).await, RollbackOutcome::Settled);
    assert_eq!(files(&world).await, set(&["a"]));
    stage(&world, 0, "d", 1, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    // `live_files` refuses a file that stands twice.
    assert_eq!(files(&world).await, set(&["a", "b", "c", "d"]));
    assert_eq!(world.table().await.frontier(0).unwrap().pseq, 4);
    assert_eq!(
        replay(&world, Some(first)).await,
        RollbackOutcome::NotRolledBack
    );
}

#[tokio::test]
async fn head_that_moved_between_look_and_apply_is_not_settled() {
    let (world, first, newest) = rolled_back().await;
    assert_eq!(examined(&world).await.head, Head(Some(first)));
    move_head(&world, None).await;
    let moved = RollbackOutcome::HeadMoved { head: Head(None) };
    assert_eq!(accept(&world, Some(first)).await, moved);
    assert_eq!(replay(&world, Some(first)).await, moved);
    // Rolled forward again: there is nothing to settle, and nobody has to.
    move_head(&world, Some(newest)).await;
    assert_eq!(
        accept(&world, Some(first)).await,
        RollbackOutcome::NotRolledBack
    );
    assert_eq!(
        world.committer.examine_rollback(&name()).await.unwrap(),
        None
    );
    assert_eq!(combine(&world).await, CombineOutcome::NothingStaged);
}

#[tokio::test]
async fn replay_from_nothing_takes_partitions_that_came_later_along() {
    let world = world().await;
    commit(&world, 0, "a", 1).await;
    world
        .committer
        .ensure_table(&registration(3), &schema(1))
        .await
        .unwrap();
    commit(&world, 2, "b", 2).await;
    move_head(&world, None).await;
    assert_eq!(replay(&world, None).await, RollbackOutcome::Settled);
    assert_eq!(world.table().await.frontier(2), Some(&Frontier::start(1)));
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    assert_eq!(files(&world).await, set(&["a", "b"]));
}

#[tokio::test]
async fn replay_begins_a_later_partition_at_the_map_that_brought_it() {
    let world = world().await;
    commit(&world, 0, "a", 1).await;
    let mut raised = registration(2);
    raised.partition_map = raised.partition_map.raised(3, Lsn(10));
    let ensured = world.committer.ensure_table(&raised, &schema(1)).await;
    let chain = ensured.unwrap().chain(2);
    let first = Frontier {
        map_version: 2,
        ..Frontier::start(1)
    };
    assert_eq!(world.table().await.frontier(2), Some(&first));
    // Staged, with the next barrier in it, and never committed.
    let after = Frontier {
        offset: 3,
        epoch: 1,
        pseq: 3,
        map_version: 3,
        ..first
    };
    let intent = Intent::new("x".to_owned(), &first, &after, Vec::new(), NOW_MS);
    let won = chain.win(world.store.as_ref(), &first, &intent).await;
    assert_eq!(won.unwrap(), SlotOutcome::Won);
    move_head(&world, None).await;
    assert_eq!(replay(&world, None).await, RollbackOutcome::Settled);
    assert_eq!(world.table().await.frontier(2), Some(&first));
}

#[tokio::test]
async fn replay_without_every_slot_and_file_is_refused() {
    let (world, first, _) = rolled_back().await;
    let table_uuid = {
        let slots = world.store.list("control/i/").await.unwrap();
        slots[0].key.split('/').nth(2).unwrap().to_owned()
    };
    let key = format!(
        "control/i/{table_uuid}/shop.public.orders/0000000001/00001/{:020}",
        0
    );
    let slot = world.store.get(&key).await.unwrap().expect("a slot");
    world.store.delete(&key).await.unwrap();
    let gone = ReplayRefusal::SlotGone {
        partition: 1,
        key: key.clone(),
    };
    assert_eq!(
        replay(&world, Some(first)).await,
        RollbackOutcome::NoReplay(gone.clone())
    );
    assert_eq!(examined(&world).await.replay, Err(gone));
    world.store.put(&key, slot).await.unwrap();
    let file = "tables/lake/public__orders/data/b.parquet";
    world.store.delete(file).await.unwrap();
    let path = format!("s3://lake/{file}");
    assert_eq!(
        replay(&world, Some(first)).await,
        RollbackOutcome::NoReplay(ReplayRefusal::FileGone { path })
    );
    // The other way is open.
    assert_eq!(accept(&world, Some(first)).await, RollbackOutcome::Settled);
}

#[tokio::test]
async fn replay_of_old_slots_waits_for_maintenance_that_began_before() {
    let world = world().await;
    let first = commit(&world, 0, "a", 1).await;
    commit(&world, 0, "b", 2).await;
    world.clock.advance_ms(24 * 3_600_000);
    commit(&world, 0, "c", 2).await;
    move_head(&world, Some(first)).await;
    let RollbackOutcome::NoReplay(ReplayRefusal::TooEarly { wait_ms }) =
        replay(&world, Some(first)).await
    else {
        panic!("too early")
    };
    // Counted from the rollback by the clock of the engine that did it.
    world.clock.advance_ms(wait_ms - 1);
    assert_eq!(
        replay(&world, Some(first)).await,
        RollbackOutcome::NoReplay(ReplayRefusal::TooEarly { wait_ms: 1 })
    );
    world.clock.advance_ms(1);
    assert_eq!(replay(&world, Some(first)).await, RollbackOutcome::Settled);
}

#[tokio::test]
async fn head_moved_forward_after_a_replay_doubles_nothing() {
    let (world, first, newest) = rolled_back().await;
    assert_eq!(replay(&world, Some(first)).await, RollbackOutcome::Settled);
    // Before anybody combines, somebody sets the head to what was rolled back: its rows are there already.
    move_head(&world, Some(newest)).await;
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::RolledBack { .. }), "{error}");
    let found = examined(&world).await;
    assert!(found.head_is_ahead);
    assert_eq!(
        accept(&world, Some(newest)).await,
        RollbackOutcome::HeadIsAhead
    );
    assert_eq!(replay(&world, Some(newest)).await, RollbackOutcome::Settled);
    assert_eq!(combine(&world).await, CombineOutcome::NothingStaged);
    assert_eq!(files(&world).await, set(&["a", "b", "c"]));
}

#[tokio::test]
async fn head_moved_forward_after_a_replay_from_nothing_doubles_nothing() {
    let (world, _, newest) = rolled_back().await;
    move_head(&world, None).await;
    assert_eq!(replay(&world, None).await, RollbackOutcome::Settled);
    move_head(&world, Some(newest)).await;
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::RolledBack { .. }), "{error}");
}

#[tokio::test]
async fn settling_with_faults_is_done_once_and_combining_goes_on() {
    for seed in 0..40 {
        let (world, first, _) = rolled_back().await;
        let plan = FaultPlan::new(seed, 40);
        let faulty = |ids| {
            Committer::new(
                Arc::new(FaultyStore::new(world.store.clone(), plan.clone())),
                Arc::new(FaultyCatalog::new(world.catalog.clone(), plan.clone())),
                world.clock.clone(),
                Arc::new(SeededIds::new(ids)),
            )
        };
        let (operators, combiner) = ([faulty(seed + 500), faulty(seed + 600)], faulty(seed + 700));
        let insist = |committer: Committer| async move {
            loop {
                let head = Head(Some(first));
                match committer.replay_rollback(&name(), head, &operator()).await {
                    Ok(outcome) => return outcome,
                    Err(error) => {
                        assert_ne!(error.disposition(), Disposition::Halt, "{error}");
                    }
                }
            }
        };
        let combining = async {
            for _ in 0..5 {
                drop(combiner.combine(&name()).await);
            }
        };
        let [one, other] = operators;
        let (one, other, ()) = tokio::join!(insist(one), insist(other), combining);
        for outcome in [one, other] {
            assert!(
                matches!(
                    outcome,
                    RollbackOutcome::Settled | RollbackOutcome::NotRolledBack
                ),
                "seed {seed}: {outcome:?}"
            );
        }
        plan.calm();
        drop(combine(&world).await);
        assert_eq!(files(&world).await, set(&["a", "b", "c"]), "seed {seed}");
        assert_eq!(acts(&world.table().await.metadata).len(), 1, "seed {seed}");
    }
}
