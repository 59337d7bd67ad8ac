//! The partition count is raised, twice, while ingests and combiners race over ports that fail: keys move, and the changes of a
//! key stay in order.
//!
//! The seed of a failure is printed; `FIRN_SEED=<n>` runs that one alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use change_event::partition::PartitionMap;
use change_event::{Lsn, Position, Predecessor, RecordHeader, RecordKind, TopicRegistration};
use table_commit::{CombineOutcome, Committer, Limits, RecordIdentity};
use test_kit::{FaultPlan, FaultyCatalog, FaultyStore, Seed, SeededIds};

use crate::race::{combine, draw, ingest};
use crate::support::{World, for_each_seed, name, registration};

const SEEDS: u64 = 150;
const CHANGES: u64 = 40;
const KEYS: u64 = 5;
const YIELDS_PER_CHECK: u32 = 30;

/// One partition as the agent writes it.
#[derive(Default)]
struct Lane {
    log: Vec<RecordIdentity>,
    offset: i64,
    pseq: u64,
    predecessor: Option<Predecessor>,
    touched: bool,
}

/// The agent: its transactions commit or abort, and what was aborted is read all the same.
struct Agent {
    seed: Seed,
    map: PartitionMap,
    map_version: u32,
    epoch: u64,
    lanes: Vec<Lane>,
}

impl Agent {
    fn send(&mut self, partition: u32, kind: RecordKind, lsn: u64) {
        let epoch = self.epoch;
        let lane = &mut self.lanes[usize::try_from(partition).unwrap()];
        lane.pseq += 1;
        lane.touched = true;
        let header = RecordHeader {
            kind,
            topic_incarnation: 1,
            schema_version: if lsn > CHANGES / 2 { 2 } else { 1 },
            epoch,
            pseq: lane.pseq,
            predecessor: lane.predecessor.filter(|_| lane.pseq == 1),
            position: Position::stream(1, Lsn(lsn), 1),
        };
        lane.log.push(RecordIdentity {
            offset: lane.offset,
            header: Some(header),
        });
        lane.offset += 1;
    }

    /// Ends the transaction; an abort, and sometimes a commit, is followed by a new epoch.
    fn end(&mut self, commits: bool) {
        for lane in &mut self.lanes {
            if std::mem::take(&mut lane.touched) {
                lane.offset += 1;
                if commits {
                    lane.predecessor = Some(Predecessor {
                        epoch: self.epoch,
                        pseq: lane.pseq,
                    });
                }
            }
        }
        if !commits || self.seed.chance(10) {
            self.epoch += 1;
            self.lanes.iter_mut().for_each(|lane| lane.pseq = 0);
        }
    }

    /// The barriers that stand before `lsn`; an attempt that is aborted may have reached some partitions only.
    fn barriers(&mut self, lsn: u64, done: u64) {
        while self.map_version < self.map.version_at(Lsn(lsn)) {
            let next = self.map_version + 1;
            let partitions = self.map.partitions_by(self.map_version);
            let commits = self.seed.chance(60);
            for partition in 0..partitions {
                if commits || self.seed.chance(50) {
                    let kind = RecordKind::Barrier { map_version: next };
                    self.send(partition, kind, done);
                }
            }
            self.end(commits);
            if commits {
                self.map_version = next;
            }
        }
    }
}

fn key_of(lsn: u64) -> u64 {
    lsn * 7 % KEYS
}

fn partition_of(map: &PartitionMap, version: u32, lsn: u64) -> u32 {
    let key = format!("{{\"id\":{}}}", key_of(lsn));
    map.partition_by(version, Some(key.as_bytes()))
}

/// The topic's log, by partition.
fn logs(seed: &Seed, map: &PartitionMap) -> Vec<Vec<RecordIdentity>> {
    let mut agent = Agent {
        seed: seed.fork(),
        map: map.clone(),
        map_version: 1,
        epoch: 1,
        lanes: (0..map.partitions).map(|_| Lane::default()).collect(),
    };
    let mut done = 0;
    while done < CHANGES {
        agent.barriers(done + 1, done);
        let end = (done + 1 + agent.seed.below(4)).min(CHANGES);
        // What needs the next map waits for its barrier.
        let end = (done + 1..=end)
            .take_while(|lsn| map.version_at(Lsn(*lsn)) == agent.map_version)
            .last()
            .unwrap();
        for lsn in done + 1..=end {
            let partition = partition_of(map, agent.map_version, lsn);
            agent.send(partition, RecordKind::Change, lsn);
        }
        let commits = agent.seed.chance(75);
        agent.end(commits);
        if commits {
            done = end;
        }
    }
    agent.lanes.into_iter().map(|lane| lane.log).collect()
}

/// Each change is in the table at most once, and what is there of a key is the beginning of its changes, in commit order.
async fn check(world: &World) -> usize {
    let Some(table) = world.committer.load(&name()).await.unwrap() else {
        return 0;
    };
    let rows = world.table_rows(&table.metadata).await;
    let mut found: BTreeMap<u64, i64> = BTreeMap::new();
    for (sequence, position) in &rows {
        let lsn = position.commit_lsn.0;
        assert!(found.insert(lsn, *sequence).is_none(), "{lsn} stands twice");
    }
    for key in 0..KEYS {
        let of_key = (1..=CHANGES).filter(|lsn| key_of(*lsn) == key);
        let sequences: Vec<Option<&i64>> = of_key.map(|lsn| found.get(&lsn)).collect();
        let there: Vec<&i64> = sequences.iter().map_while(|sequence| *sequence).collect();
        assert_eq!(
            there.len(),
            sequences.iter().flatten().count(),
            "a change of key {key} came before an earlier one: {sequences:?}"
        );
        assert!(there.is_sorted(), "order of key {key}: {sequences:?}");
    }
    found.len()
}

async fn run(seed_number: u64) {
    let seed = Seed::new(seed_number);
    let world = World::new(seed.next());
    let plan = FaultPlan::new(seed.next(), 12);
    let limits = Limits {
        intents_per_commit_max: 4 + draw(&seed, 30),
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
    let first = registration(2);
    let raised = Lsn(4 + seed.below(CHANGES / 2));
    let again = Lsn(raised.0 + seed.below(CHANGES / 3));
    let maps = [
        first.partition_map.clone(),
        first.partition_map.raised(3, raised),
        first.partition_map.raised(3, raised).raised(5, again),
    ];
    let registrations: Vec<TopicRegistration> = maps
        .iter()
        .map(|map| TopicRegistration {
            partition_map: map.clone(),
            ..first.clone()
        })
        .collect();
    let registrations = Arc::new(registrations);
    let mut ingests = tokio::task::JoinSet::new();
    for (partition, log) in (0..).zip(logs(&seed, &maps[2])) {
        let (log, acknowledged) = (Arc::new(log), Arc::new(AtomicUsize::new(0)));
        for _ in 0..2 {
            ingests.spawn(ingest(
                faulty(seed.next()),
                world.rows.clone(),
                seed.fork(),
                registrations.clone(),
                partition,
                log.clone(),
                acknowledged.clone(),
            ));
        }
    }
    let mut combiners = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let committer = faulty(seed.next());
        combiners.spawn(async move {
            loop {
                // A faulty call fails; what it left undone or in doubt is for the next.
                drop(combine(&committer).await);
                tokio::task::yield_now().await;
            }
        });
    }
    while !ingests.is_empty() {
        while let Some(done) = ingests.try_join_next() {
            done.unwrap();
        }
        check(&world).await;
        for _ in 0..YIELDS_PER_CHECK {
            tokio::task::yield_now().await;
        }
    }
    plan.calm();
    let last = faulty(seed.next());
    loop {
        match combine(&last).await {
            Ok(CombineOutcome::NothingStaged) => break,
            Ok(_) => {}
            Err(error) => panic!("calm combiner failed: {error:?}"),
        }
        check(&world).await;
    }
    combiners.shutdown().await;
    assert_eq!(
        u64::try_from(check(&world).await).unwrap(),
        CHANGES,
        "everything is in the table"
    );
    let state = world.table().await.state;
    let reached = state.partitions.values().map(|last| last.map_version);
    assert_eq!((reached.min(), state.partitions.len()), (Some(3), 5));
}

#[test]
fn key_that_moves_between_partitions_stays_in_order_when_their_number_is_raised() {
    for_each_seed(SEEDS, async |seed| run(seed).await);
}
