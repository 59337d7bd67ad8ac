//! Maintenance beside ingests and combiners, over ports that fail, for weeks: nothing that is needed goes, nothing is lost.
//!
//! Time moves by minutes while functions are at work, as no invocation lives longer, and by days in between. A seed that
//! fails is printed; `FIRN_SEED=<n>` runs it alone.

use std::collections::HashSet;
use std::sync::Arc;

use function_kit::{Deadline, Metric};
use functions::{TopicWriter, World, days, hours, minutes};
use ingest::Ingest;
use maintain::{Ages, Settings};
use object_io::ObjectStore;
use serde_json::Value;
use table_commit::{Catalog, Referenced, file_name};
use test_kit::{FaultPlan, FaultyCatalog, FaultyStore, Seed};

const SEEDS: u64 = 15;
const PARTITIONS: u32 = 2;
const RECORDS: i64 = 14;
/// Rounds of work after which everything must be in the table, in calm.
const ROUNDS: usize = 12;

/// One partition's topic, and how far it is acknowledged.
#[derive(Debug)]
struct Partition {
    log: Vec<Value>,
    /// Where the topic was made anew: no delivery holds records of both.
    remade: usize,
    acknowledged: usize,
}

impl Partition {
    fn new(topic: &str, partition: u32, seed: &Seed) -> Self {
        let mut agent = TopicWriter::new(topic, partition);
        agent.lsn = 1000 * u64::from(partition);
        let remade = if seed.chance(50) {
            RECORDS
        } else {
            RECORDS / 2
        };
        let record = |number: i64| {
            if number == remade {
                agent.recreate();
            }
            agent.insert(i64::from(partition) * 1000 + number, "a")
        };
        Self {
            log: (0..RECORDS).map(record).collect(),
            remade: usize::try_from(remade).unwrap(),
            acknowledged: 0,
        }
    }

    /// A delivery: some of what was acknowledged comes again.
    fn delivery(&self, seed: &Seed) -> (usize, Vec<Value>) {
        let draw = |bound| usize::try_from(seed.below(bound)).unwrap();
        let from = self.acknowledged.saturating_sub(draw(4));
        let end = if from < self.remade {
            self.remade
        } else {
            self.log.len()
        };
        let to = (from + 1 + draw(5)).min(end);
        (to, self.log[from..to].to_vec())
    }
}

/// One invocation of functions/ingest.
async fn deliver(world: &World, ingest: &Ingest, partition: &mut Partition, seed: &Seed) {
    let (to, records) = partition.delivery(seed);
    if !records.is_empty() && world.deliver(ingest, &records).await.is_empty() {
        partition.acknowledged = partition.acknowledged.max(to);
    }
}

/// One invocation of functions/maintain; it may fail.
async fn maintain(world: &World, seed: &Seed) {
    let settings = Settings {
        ages: Ages::hours(24, 24),
        removals_max: 1 + seed.below(30),
    };
    let deadline = Deadline::after(minutes(14), world.clock.as_ref());
    let function = world.maintainer(settings);
    drop(function.handle(br#"{"maintain":true}"#, deadline).await);
}

/// Every file that a snapshot or an intent names is there.
async fn assert_whole(world: &World, names: &HashSet<String>) {
    let table = world.table("orders").await;
    let mut referenced = Referenced::default();
    // It fails if a list or a manifest is gone.
    referenced.add(world.store.as_ref(), &table).await.unwrap();
    let lost: Vec<&String> = names
        .iter()
        .filter(|name| referenced.holds(name))
        .filter(|name| !name.ends_with(".avro") && !name.ends_with(".json"))
        .collect();
    let there: HashSet<String> = data_files(world).await;
    assert!(
        lost.iter().all(|name| there.contains(*name)),
        "a data file of a snapshot is gone"
    );
    for partition in 0..PARTITIONS {
        let Some(frontier) = table.frontier(partition) else {
            continue;
        };
        let chain = table.chain(partition);
        let walk = chain
            .walk(world.store.as_ref(), frontier, usize::MAX)
            .await
            .unwrap();
        let files = walk.intents.iter().flat_map(|intent| &intent.files);
        for file in files {
            assert!(
                there.contains(file_name(&file.path)),
                "{} of an intent is gone",
                file.path
            );
        }
    }
}

async fn data_files(world: &World) -> HashSet<String> {
    let keys = world.keys("tables/lake/public__orders/data/").await;
    keys.iter().map(|key| file_name(key).to_owned()).collect()
}

/// Removals that happened, so that a run in which there was nothing to do is seen.
#[derive(Debug, Default)]
struct Gone {
    slots: u64,
    files: u64,
}

impl Gone {
    fn of(worlds: [&World; 2]) -> Self {
        let sum = |metric| worlds.iter().map(|world| world.sum(metric)).sum();
        Self {
            slots: sum(Metric::RemovedSlotsTotal),
            files: sum(Metric::RemovedFilesTotal),
        }
    }
}

async fn run(seed_number: u64) -> Gone {
    let seed = Seed::new(seed_number);
    let world = World::new();
    let plan = FaultPlan::new(seed.next(), 10);
    let store = Arc::new(FaultyStore::new(
        Arc::clone(&world.store) as Arc<dyn ObjectStore>,
        Arc::clone(&plan),
    ));
    let catalog = Arc::new(FaultyCatalog::new(
        Arc::clone(&world.catalog) as Arc<dyn Catalog>,
        Arc::clone(&plan),
    ));
    let faulty = world.through(Arc::clone(&store), Arc::clone(&catalog), seed.next());
    let freshness = [0, 3600, 200_000][usize::try_from(seed.below(3)).unwrap()];
    let topic = world.announce("orders", PARTITIONS, freshness).await;
    let mut one = Partition::new(&topic, 0, &seed);
    let mut other = Partition::new(&topic, 1, &seed);
    let ingests = [faulty.ingest(), faulty.ingest()];
    let mut names = HashSet::new();
    for round in 0..ROUNDS {
        let work = async {
            for _ in 0..3 {
                world.clock.advance_ms(minutes(1));
                deliver(&faulty, &ingests[0], &mut one, &seed).await;
                deliver(&faulty, &ingests[1], &mut other, &seed).await;
            }
        };
        let commit = async {
            if round % 3 == 2 {
                commit(&faulty).await;
            }
        };
        let removals = async {
            tokio::join!(maintain(&faulty, &seed), maintain(&faulty, &seed));
        };
        tokio::join!(work, commit, removals);
        // No request lives until the next round.
        store.abandon();
        catalog.abandon();
        names.extend(data_files(&world).await);
        if world.committer.load(&name()).await.unwrap().is_some() {
            assert_whole(&world, &names).await;
        }
        world
            .clock
            .advance_ms(hours(i64::try_from(seed.below(60)).unwrap()));
    }
    plan.calm();
    finish(
        &world,
        &faulty,
        [(&ingests[0], &mut one), (&ingests[1], &mut other)],
        &seed,
    )
    .await;
    for _ in 0..3 {
        maintain(&world, &seed).await;
        world.clock.advance_ms(days(3));
    }
    names.extend(data_files(&world).await);
    assert_whole(&world, &names).await;
    let expected: Vec<String> = (0..RECORDS)
        .chain(1000..1000 + RECORDS)
        .map(|id| id.to_string())
        .collect();
    let found = world.ids_in("orders").await;
    assert_eq!(found, expected, "each row once, in order");
    Gone::of([&faulty, &world])
}

fn name() -> table_commit::TableName {
    table_commit::TableName {
        database: "lake".to_owned(),
        table: "public__orders".to_owned(),
    }
}

/// One invocation of functions/commit, which may fail.
async fn commit(world: &World) {
    drop(world.committer.combine(&name()).await);
}

/// Everything is delivered and committed.
async fn finish(
    world: &World,
    faulty: &World,
    partitions: [(&Ingest, &mut Partition); 2],
    seed: &Seed,
) {
    for (ingest, partition) in partitions {
        let mut tries = 0;
        while partition.acknowledged < partition.log.len() {
            // Behind for more than twelve hours, ingest takes nothing until somebody commits.
            world.commit(r#"{"sweep":true}"#).await;
            world.clock.advance_ms(minutes(2));
            deliver(faulty, ingest, partition, seed).await;
            tries += 1;
            assert!(tries < 200, "stands still at {}", partition.acknowledged);
        }
    }
    world.commit(r#"{"sweep":true}"#).await;
}

#[test]
fn maintenance_beside_ingests_and_combiners_removes_nothing_that_is_needed() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a failure's seed is run again by hand"
    )]
    let only = std::env::var("FIRN_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut all = Gone::default();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let outcome = std::panic::catch_unwind(|| runtime.block_on(run(seed)));
        match outcome {
            Ok(gone) => {
                all.slots += gone.slots;
                all.files += gone.files;
            }
            Err(failure) => {
                eprintln!("FIRN_SEED={seed}");
                std::panic::resume_unwind(failure);
            }
        }
    }
    assert!(
        only.is_some() || all.slots > 50 && all.files > 50,
        "{all:?}"
    );
}
