//! Ingests with overlapping deliveries and combiners race over ports that fail; the table ends with each row once.
//!
//! The seed of a failure is printed; `FIRN_SEED=<n>` runs that one alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use change_event::{Lsn, Position, Predecessor, RecordHeader, RecordKind, TopicRegistration};
use object_io::ObjectStore;
use table_commit::{
    Catalog, CombineOutcome, CommitError, Committer, Frontier, Intent, Limits, LoadedTable,
    RecordIdentity, SlotOutcome, SwapOutcome, Verdict, judge,
};
use test_kit::{FaultPlan, FaultyCatalog, FaultyStore, Seed, SeededIds};

use crate::support::{Rows, World, for_each_seed, name, registration, schema, staged};

const SEEDS: u64 = 200;
const PARTITIONS: u32 = 2;
const CHANGES: u64 = 24;

/// The log of a partition: aborted attempts that are read all the same, repeated records, new epochs and one new
/// incarnation. Gives the records and, per record, the index of the first record of its incarnation.
fn log(seed: &Seed) -> Vec<RecordIdentity> {
    let mut log = Vec::new();
    let (mut incarnation, mut epoch, mut pseq, mut offset) = (1, 1, 0, 0);
    let mut predecessor = None;
    let mut done = 0;
    let remade = 6 + seed.below(12);
    while done < CHANGES {
        if incarnation == 1 && done >= remade {
            (incarnation, epoch, pseq, offset) = (2, epoch + 1, 0, 0);
        }
        // The agent may begin again from before its progress.
        let first = done.saturating_sub(if seed.chance(20) { seed.below(4) } else { 0 }) + 1;
        if first <= done && pseq > 0 {
            (epoch, pseq) = (epoch + 1, 0);
        }
        let end = (done + 1 + seed.below(3)).min(CHANGES);
        let commits = seed.chance(75);
        for lsn in first..=end {
            pseq += 1;
            let header = RecordHeader {
                kind: if lsn % 11 == 0 {
                    RecordKind::Marker
                } else {
                    RecordKind::Change
                },
                topic_incarnation: incarnation,
                schema_version: if lsn > CHANGES / 2 { 2 } else { 1 },
                epoch,
                pseq,
                predecessor: if pseq == 1 { predecessor } else { None },
                position: Position::stream(1, Lsn(lsn), 1),
            };
            log.push(RecordIdentity {
                offset,
                header: Some(header),
            });
            offset += 1;
        }
        offset += 1;
        if commits {
            predecessor = Some(Predecessor { epoch, pseq });
            done = end;
        } else {
            (epoch, pseq) = (epoch + 1, 0);
        }
    }
    log
}

fn expected() -> Vec<u64> {
    (1..=CHANGES).filter(|lsn| lsn % 11 != 0).collect()
}

/// What functions/ingest does with a batch. `Ok(true)`: acknowledged. `registrations` are the topic's, one for each version
/// of its partition map: no more of them is known than is needed.
async fn stage(
    committer: &Committer,
    rows: &Rows,
    ids: &SeededIds,
    registrations: &[TopicRegistration],
    partition: u32,
    batch: &[RecordIdentity],
) -> Result<bool, CommitError> {
    use change_event::IdSource;
    let known = |map_version: u32| {
        registrations.iter().find(|known| {
            known.partition_map.partitions > partition && known.partition_map.version >= map_version
        })
    };
    let table = committer
        .ensure_table(known(1).expect("a registration"), &schema(1))
        .await?;
    let chain = table.chain(partition);
    let store = committer.store();
    let frontier = table.frontier(partition).expect("registered");
    let mut tail = chain.walk(store, frontier, usize::MAX).await?.tail;
    'from_tail: loop {
        let mut now = tail;
        let mut taken = Vec::new();
        let mut cut = false;
        for record in batch {
            // The records of an intent are of one partition map.
            cut = now.map_version != tail.map_version;
            if cut {
                break;
            }
            let verdict = judge(&now, record);
            match verdict {
                Verdict::Accept { row: true } => taken.push(record.header.unwrap()),
                Verdict::Accept { row: false } | Verdict::Drop(_) => {}
                Verdict::NewIncarnation { incarnation } => {
                    // What came before it in this batch goes first.
                    if tail.needs_slot(&now) {
                        tail = win(committer, rows, ids, partition, &tail, &now, &taken).await?;
                        continue 'from_tail;
                    }
                    let closing = Intent::closing(ids.next_id(), &tail, incarnation, 0);
                    tail = match chain.win(store, &tail, &closing).await? {
                        SlotOutcome::Won => closing.after,
                        SlotOutcome::Taken(other) => other.after,
                    };
                    continue 'from_tail;
                }
                // The delivery began behind the chain's end: not to be acknowledged.
                Verdict::Gap(_) => return Ok(false),
                Verdict::TopicReplaced => panic!("topic replaced at {record:?} against {now:?}"),
            }
            now.pass(record, &verdict);
        }
        if !tail.needs_slot(&now) {
            return Ok(true);
        }
        if now.map_version != tail.map_version {
            let newer = known(now.map_version).expect("a registration");
            committer.ensure_table(newer, &schema(1)).await?;
        }
        let reached = win(committer, rows, ids, partition, &tail, &now, &taken).await?;
        if reached == now && !cut {
            return Ok(true);
        }
        tail = reached;
    }
}

/// Writes "Parquet" and races for the slot. Gives the chain's new tail.
async fn win(
    committer: &Committer,
    rows: &Rows,
    ids: &SeededIds,
    partition: u32,
    tail: &Frontier,
    after: &Frontier,
    taken: &[RecordHeader],
) -> Result<Frontier, CommitError> {
    use change_event::IdSource;
    let table = committer.load(&name()).await?.expect("the table");
    let mut files = Vec::new();
    for version in [1, 2] {
        let of_version: Vec<Position> = taken
            .iter()
            .filter(|header| header.schema_version == version)
            .map(|header| Position::stream(partition, header.position.commit_lsn, 1))
            .collect();
        if !of_version.is_empty() {
            let path = format!("{}/{}.parquet", table.data_location(), ids.next_id());
            files.push(staged(&path, of_version.len() as u64, version));
            rows.lock().unwrap().insert(path, of_version);
        }
    }
    let intent = Intent::new(ids.next_id(), tail, after, files, 0);
    match table
        .chain(partition)
        .win(committer.store(), tail, &intent)
        .await?
    {
        SlotOutcome::Won => Ok(*after),
        SlotOutcome::Taken(other) => Ok(other.after),
    }
}

pub(crate) async fn ingest(
    committer: Committer,
    rows: Rows,
    seed: Seed,
    registrations: Arc<Vec<TopicRegistration>>,
    partition: u32,
    log: Arc<Vec<RecordIdentity>>,
    acknowledged: Arc<AtomicUsize>,
) {
    let ids = SeededIds::new(seed.next());
    while acknowledged.load(Ordering::Relaxed) < log.len() {
        // A delivery begins anywhere up to what was acknowledged: redelivery, overlap, other boundaries.
        let from = acknowledged
            .load(Ordering::Relaxed)
            .saturating_sub(draw(&seed, 5));
        let to = (from + 1 + draw(&seed, 8)).min(log.len());
        // Like the poller, one delivery holds one incarnation's offsets in order.
        if let Ok(true) = stage(
            &committer,
            &rows,
            &ids,
            &registrations,
            partition,
            &log[from..to],
        )
        .await
        {
            acknowledged.fetch_max(to, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) fn draw(seed: &Seed, bound: u64) -> usize {
    usize::try_from(seed.below(bound)).unwrap()
}

/// One combiner call; evolves when it is told to.
pub(crate) async fn combine(committer: &Committer) -> Result<CombineOutcome, CommitError> {
    let outcome = committer.combine(&name()).await?;
    let needed = match &outcome {
        CombineOutcome::NeedsSchema { version } => Some(*version),
        CombineOutcome::Committed(combined) => combined.needs_schema,
        CombineOutcome::NothingStaged | CombineOutcome::CommittedByOther => None,
    };
    if let Some(version) = needed {
        committer.evolve(&name(), &schema(version)).await?;
    }
    Ok(outcome)
}

/// Another engine, which knows nothing of firn: sets a table property by compare-and-set, once more each time.
async fn stranger(world: World, wins: Arc<AtomicUsize>) {
    while wins.load(Ordering::Relaxed) < STRANGER_WINS {
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        let Some(pointer) = world.catalog.pointer(&name()).await.unwrap() else {
            continue;
        };
        let table = world.table().await;
        if table.pointer.version != pointer.version {
            continue;
        }
        let count = property(&table) + 1;
        let builder = table
            .metadata
            .as_ref()
            .clone()
            .into_builder(Some(pointer.metadata_location.clone()));
        let properties = HashMap::from([(STRANGER.to_owned(), count.to_string())]);
        let metadata = builder
            .set_properties(properties)
            .unwrap()
            .build()
            .unwrap()
            .metadata;
        let location = format!(
            "{}/metadata/v{}-{count}.metadata.json",
            metadata.location(),
            pointer.version.0
        );
        let body = serde_json::to_vec(&metadata).unwrap().into();
        world
            .store
            .put(location.strip_prefix("s3://lake/").unwrap(), body)
            .await
            .unwrap();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let swap = world
            .catalog
            .swap(&name(), &pointer, &location, &metadata)
            .await
            .unwrap();
        if swap == SwapOutcome::Swapped {
            wins.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const STRANGER_WINS: usize = 12;
const STRANGER: &str = "stranger.count";

fn property(table: &LoadedTable) -> usize {
    table
        .metadata
        .properties()
        .get(STRANGER)
        .map_or(0, |count| count.parse().unwrap())
}

/// The table holds exactly the rows that its own state says it covers.
async fn check(world: &World, reached: &mut [u64]) {
    let Some(table) = world.committer.load(&name()).await.unwrap() else {
        return;
    };
    let rows = world.table_rows(&table.metadata).await;
    for partition in 0..PARTITIONS {
        let covered = table
            .frontier(partition)
            .unwrap()
            .stream
            .map_or(0, |last| last.commit_lsn.0);
        let before = std::mem::replace(&mut reached[usize::try_from(partition).unwrap()], covered);
        assert!(before <= covered, "a frontier went back");
        let mut found: Vec<(i64, u64)> = rows
            .iter()
            .filter(|(_, position)| position.incarnation == partition)
            .map(|(sequence, position)| (*sequence, position.commit_lsn.0))
            .collect();
        found.sort_by_key(|(_, lsn)| *lsn);
        let lsns: Vec<u64> = found.iter().map(|(_, lsn)| *lsn).collect();
        let expected: Vec<u64> = expected()
            .into_iter()
            .filter(|lsn| *lsn <= covered)
            .collect();
        assert_eq!(lsns, expected, "each covered row once");
        assert!(
            found.is_sorted_by_key(|(sequence, _)| *sequence),
            "order of a partition: {found:?}"
        );
    }
}

async fn run(seed_number: u64) -> (usize, u64) {
    let seed = Seed::new(seed_number);
    let world = World::new(seed.next());
    let plan = FaultPlan::new(seed.next(), 12);
    let limits = Limits {
        intents_per_commit_max: 3 + draw(&seed, 20),
        manifest_entries_max: 4,
        snapshots_kept: 3,
        ..Limits::default()
    };
    let faulty = |ids| {
        Committer::new(
            Arc::new(FaultyStore::new(world.store.clone(), plan.clone())),
            Arc::new(FaultyCatalog::new(world.catalog.clone(), plan.clone())),
            world.clock.clone(),
            Arc::new(SeededIds::new(ids)),
        )
        .with_limits(limits)
    };
    let mut ingests = tokio::task::JoinSet::new();
    for partition in 0..PARTITIONS {
        let log = Arc::new(log(&seed));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (log, acknowledged) = (log.clone(), acknowledged.clone());
            let committer = faulty(seed.next());
            ingests.spawn(ingest(
                committer,
                world.rows.clone(),
                seed.fork(),
                Arc::new(vec![registration(PARTITIONS)]),
                partition,
                log,
                acknowledged,
            ));
        }
    }
    let mut combiners = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (committer, clock, seed) = (faulty(seed.next()), world.clock.clone(), seed.fork());
        combiners.spawn(async move {
            loop {
                clock.advance_ms(i64::try_from(seed.below(1000)).unwrap() - 300);
                // A faulty call fails; what it left undone or in doubt is for the next.
                drop(combine(&committer).await);
                tokio::task::yield_now().await;
            }
        });
    }
    let wins = Arc::new(AtomicUsize::new(0));
    combiners.spawn(stranger(world.clone(), wins.clone()));
    let mut reached = [0; 2];
    while let Some(done) = ingests.join_next().await {
        done.unwrap();
        check(&world, &mut reached).await;
    }
    // The last combiner works in calm; what is late may still land, before and after.
    plan.calm();
    let last = faulty(seed.next());
    loop {
        check(&world, &mut reached).await;
        match combine(&last).await {
            Ok(CombineOutcome::NothingStaged) => break,
            Ok(_) => {}
            Err(error) => panic!("calm combiner failed: {error:?}"),
        }
    }
    combiners.shutdown().await;
    check(&world, &mut reached).await;
    let table = world.table().await;
    assert_eq!(
        property(&table),
        wins.load(Ordering::Relaxed),
        "a stranger's commit was lost"
    );
    for partition in 0..PARTITIONS {
        let covered = table
            .frontier(partition)
            .unwrap()
            .stream
            .unwrap()
            .commit_lsn
            .0;
        assert_eq!(covered, CHANGES, "everything is in the table");
    }
    (
        table.metadata.snapshots().len(),
        table.state.schema_version.into(),
    )
}

#[test]
fn racing_ingests_and_combiners_with_faults_commit_each_row_once_in_order() {
    for_each_seed(SEEDS, async |seed| {
        let (snapshots, schema_version) = run(seed).await;
        assert!(
            snapshots <= 3 && schema_version == 2,
            "seed {seed}: {snapshots} snapshots"
        );
    });
}
