//! What others do to the history of a table, and whether it is noticed that it was rolled back.

use iceberg::spec::{
    MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary, TableMetadata,
};
use object_io::ObjectStore;
use table_commit::{Catalog, CombineOutcome, CommitError, SwapOutcome};

use crate::commit::stage;
use crate::support::{World, name, registration, schema};

/// Commits one file; gives the snapshot.
async fn commit(world: &World, file: &str) -> i64 {
    stage(world, 0, file, 1, 1).await;
    match world.committer.combine(&name()).await.unwrap() {
        CombineOutcome::Committed(combined) => combined.snapshot_id,
        other => panic!("not committed: {other:?}"),
    }
}

/// Another engine: a snapshot `id` on top of `parent`, and `expired` let go, in one commit.
async fn stranger(world: &World, id: i64, parent: i64, expired: &[i64]) {
    let pointer = world.catalog.pointer(&name()).await.unwrap().unwrap();
    let metadata = current(world).await;
    let list = metadata
        .current_snapshot()
        .unwrap()
        .manifest_list()
        .to_owned();
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(Some(parent))
        .with_sequence_number(metadata.next_sequence_number())
        .with_timestamp_ms(metadata.last_updated_ms() + 1)
        .with_manifest_list(list)
        .with_schema_id(metadata.current_schema_id())
        .with_summary(Summary {
            operation: Operation::Replace,
            additional_properties: std::collections::HashMap::new(),
        })
        .build();
    let head = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
    let metadata = metadata
        .into_builder(Some(pointer.metadata_location.clone()))
        .add_snapshot(snapshot)
        .unwrap()
        .set_ref(MAIN_BRANCH, head)
        .unwrap()
        .remove_snapshots(expired)
        .build()
        .unwrap()
        .metadata;
    let location = format!(
        "{}/metadata/stranger-{id}.metadata.json",
        metadata.location()
    );
    let key = location.strip_prefix("s3://lake/").unwrap();
    let body = serde_json::to_vec(&metadata).unwrap().into();
    world.store.put(key, body).await.unwrap();
    let moved = world
        .catalog
        .swap(&name(), &pointer, &location, &metadata)
        .await
        .unwrap();
    assert_eq!(moved, SwapOutcome::Swapped);
}

/// The metadata as anybody reads it.
async fn current(world: &World) -> TableMetadata {
    let pointer = world.catalog.pointer(&name()).await.unwrap().unwrap();
    let key = pointer
        .metadata_location
        .strip_prefix("s3://lake/")
        .unwrap();
    let bytes = world.store.get(key).await.unwrap().unwrap();
    let io = iceberg::io::FileIO::new_with_memory();
    io.new_output("memory://m")
        .unwrap()
        .write(bytes)
        .await
        .unwrap();
    TableMetadata::read_from(&io, "memory://m").await.unwrap()
}

async fn world() -> World {
    let world = World::new(11);
    world
        .committer
        .ensure_table(&registration(1), &schema(1))
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn rollback_is_seen_although_everything_between_was_expired() {
    let world = world().await;
    let first = commit(&world, "a").await;
    let ours = commit(&world, "b").await;
    // Rolled back to the first snapshot, which goes; so does ours. The head is newer than ours, and its parent is gone.
    stranger(&world, 71, first, &[]).await;
    stranger(&world, 72, 71, &[first, ours, 71]).await;
    let error = world.committer.load(&name()).await.unwrap_err();
    assert!(
        matches!(error, CommitError::RolledBack { state, .. } if state.0 == Some(ours)),
        "{error}"
    );
}

#[tokio::test]
async fn compaction_and_expiry_by_others_is_no_rollback() {
    let world = world().await;
    let first = commit(&world, "a").await;
    let ours = commit(&world, "b").await;
    stranger(&world, 71, ours, &[]).await;
    stranger(&world, 72, 71, &[first, ours]).await;
    stranger(&world, 73, 72, &[71, 72]).await;
    assert!(world.committer.load(&name()).await.unwrap().is_some());
    commit(&world, "c").await;
}

#[tokio::test]
async fn expiry_between_the_head_and_our_snapshot_that_stays_is_no_rollback() {
    let world = world().await;
    let ours = commit(&world, "a").await;
    stranger(&world, 71, ours, &[]).await;
    stranger(&world, 72, 71, &[71]).await;
    assert!(current(&world).await.snapshot_by_id(ours).is_some());
    assert!(world.committer.load(&name()).await.unwrap().is_some());
    commit(&world, "b").await;
}

#[tokio::test]
async fn history_that_nobody_knows_any_more_halts() {
    let world = world().await;
    let ours = commit(&world, "a").await;
    stranger(&world, 71, ours, &[]).await;
    stranger(&world, 72, 71, &[ours, 71]).await;
    let former: Vec<String> = current(&world)
        .await
        .metadata_log()
        .iter()
        .map(|log| log.metadata_file.clone())
        .collect();
    assert!(world.committer.load(&name()).await.is_ok());
    for location in former {
        let key = location.strip_prefix("s3://lake/").unwrap();
        world.store.delete(key).await.unwrap();
    }
    let error = world.committer.load(&name()).await.unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::HistoryExpired {
                expired_snapshot_id: 71,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("A table halts"), "{error}");
}
