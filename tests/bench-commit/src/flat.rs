//! `bench-commit flat`: requests and bytes of ten thousand commits that each add the same number of files.
//!
//! Counting ports in memory. The chain's slots are won by another process, so that only the combiner is counted. What no
//! snapshot names is removed from memory as maintenance would do it, uncounted.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use change_event::{Clock, Column, ColumnType, IdSource, Lsn, Position, SourceSchema};
use change_event::{TopicRegistration, partition::PartitionMap};
use iceberg::spec::ManifestList;
use object_io::{MemoryStore, ObjectStore};
use table_commit::{
    Catalog, CombineOutcome, Committer, Frontier, Intent, LoadedTable, MemoryCatalog, SlotOutcome,
    TableName,
};
use table_file::{ColumnStatistics, StagedFile};
use test_kit::{ManualClock, Meter, MeteredCatalog, MeteredStore, Requests, SeededIds};

use crate::figures::float;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Files that each commit adds, each by a partition of its own.
    #[arg(long, default_value_t = 1)]
    files: u32,
    /// Commits.
    #[arg(long, default_value_t = 10_000)]
    commits: usize,
}

const WINDOW: usize = 100;
/// Commits 200 to 300: snapshots are expired by then, and nothing is old yet.
const EARLY: usize = 2;
const RATIO_MAX: f64 = 1.2;
const START_MS: i64 = 1_770_000_000_000;

struct Bench {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    meter: Arc<Meter>,
    combiner: Committer,
    /// Stages and sweeps, uncounted.
    others: Committer,
    ids: SeededIds,
}

/// Measures and prints. Gives what is above its bar.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let bench = Bench::new(options.files).await;
        let mut costs = Vec::with_capacity(options.commits);
        for commit in 0..options.commits {
            costs.push(bench.commit(options.files, commit).await);
            if commit % WINDOW == WINDOW - 1 {
                bench.sweep().await;
            }
        }
        report(&costs, options.files, out)
    })
}

fn report(costs: &[Requests], files: u32, out: &mut impl Write) -> std::io::Result<Vec<String>> {
    let windows: Vec<Mean> = costs.chunks_exact(WINDOW).map(Mean::of).collect();
    writeln!(out, "{files} file(s) a commit; means of {WINDOW} commits\n")?;
    writeln!(
        out,
        "| commits | requests | PUT | GET | Glue | bytes written | bytes read | dearest: bytes written | GET |\n\
         |---|---|---|---|---|---|---|---|---|"
    )?;
    let shown = [0, 1, EARLY, 9, 19, 29, 39, 49, 59, 69, 79, 89, 98];
    let last = windows.len() - 1;
    for index in shown
        .into_iter()
        .filter(|index| *index < last)
        .chain([last])
    {
        let (mean, from) = (&windows[index], index * WINDOW);
        writeln!(
            out,
            "| {from}–{} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} |",
            from + WINDOW,
            mean.requests,
            mean.puts,
            mean.gets,
            mean.catalog,
            mean.put_bytes,
            mean.get_bytes,
            mean.most.put_bytes,
            mean.most.gets
        )?;
    }
    let (early, late) = (&windows[EARLY], &windows[last]);
    let decade =
        |from: usize| Mean::of(&costs[from * WINDOW..costs.len().min((from + 10) * WINDOW)]);
    let (early_decade, late_decade) = (decade(EARLY), decade(windows.len().saturating_sub(10)));
    let mut failures = Vec::new();
    for what in ["requests", "bytes"] {
        let of = |mean: &Mean| match what {
            "requests" => mean.requests,
            _ => mean.put_bytes + mean.get_bytes,
        };
        let ratio = of(late) / of(early);
        writeln!(
            out,
            "{what}: last hundred / 200–300 = {ratio:.3} (bar {RATIO_MAX}); last thousand / 200–1,200 = {:.3}",
            of(&late_decade) / of(&early_decade)
        )?;
        if ratio > RATIO_MAX {
            failures.push(format!("{what} of a commit grow with history: {ratio:.3}"));
        }
    }
    Ok(failures)
}

/// Means over some commits, and the most of one.
struct Mean {
    requests: f64,
    puts: f64,
    gets: f64,
    catalog: f64,
    put_bytes: f64,
    get_bytes: f64,
    most: Requests,
}

impl Mean {
    fn of(costs: &[Requests]) -> Self {
        let sum = costs
            .iter()
            .fold(Requests::default(), |sum, one| sum + *one);
        let mean = |total: u64| float(total) / float(costs.len() as u64);
        let most = |of: fn(&Requests) -> u64| costs.iter().map(of).max().unwrap_or(0);
        Self {
            requests: mean(sum.count()),
            puts: mean(sum.puts),
            gets: mean(sum.gets),
            catalog: mean(sum.catalog),
            put_bytes: mean(sum.put_bytes),
            get_bytes: mean(sum.get_bytes),
            most: Requests {
                put_bytes: most(|one| one.put_bytes),
                gets: most(|one| one.gets),
                ..Requests::default()
            },
        }
    }
}

impl Bench {
    async fn new(partitions: u32) -> Self {
        let store = Arc::new(MemoryStore::new("lake"));
        let catalog = Arc::new(MemoryCatalog::default());
        let clock = Arc::new(ManualClock::new(START_MS));
        let meter = Arc::new(Meter::default());
        let committer = |store: Arc<dyn ObjectStore>, catalog: Arc<dyn Catalog>, seed| {
            let clock = Arc::clone(&clock) as Arc<dyn Clock>;
            Committer::new(store, catalog, clock, Arc::new(SeededIds::new(seed)))
        };
        let (plain, catalog) = (
            Arc::clone(&store) as Arc<dyn ObjectStore>,
            catalog as Arc<dyn Catalog>,
        );
        let counted = Arc::new(MeteredStore::new(Arc::clone(&plain), Arc::clone(&meter)));
        let metered = Arc::new(MeteredCatalog::new(
            Arc::clone(&catalog),
            Arc::clone(&meter),
        ));
        let bench = Self {
            combiner: committer(counted, metered, 1),
            others: committer(plain, catalog, 2),
            store,
            clock,
            meter,
            ids: SeededIds::new(3),
        };
        bench
            .others
            .ensure_table(&registration(partitions), &schema())
            .await
            .expect("a table");
        bench
    }

    /// Stages a file in each partition and combines. Gives what combining cost.
    async fn commit(&self, files: u32, number: usize) -> Requests {
        self.clock.advance_ms(60_000);
        let table = self.others.load(&name()).await.expect("read").expect("it");
        for partition in 0..files {
            self.stage(&table, partition, number).await;
        }
        self.meter.take();
        let outcome = self.combiner.combine(&name()).await.expect("combined");
        assert!(matches!(outcome, CombineOutcome::Committed(_)));
        self.meter.take()
    }

    async fn stage(&self, table: &LoadedTable, partition: u32, number: usize) {
        let chain = table.chain(partition);
        let tail = *table.frontier(partition).expect("registered");
        let number = u64::try_from(number).expect("small");
        let after = Frontier {
            offset: tail.offset + 101,
            epoch: 3,
            pseq: tail.pseq + 100,
            stream: Some(Position::stream(1, Lsn(0x16_0000_0000 + number * 7919), 3)),
            ..tail
        };
        let path = format!("{}/{}.parquet", table.data_location(), self.ids.next_id());
        let file = file(path, number);
        let intent = Intent::new(self.ids.next_id(), &tail, &after, vec![file], START_MS);
        let won = chain.win(self.store.as_ref(), &tail, &intent).await;
        assert_eq!(won.expect("an answer"), SlotOutcome::Won);
    }

    /// Removes what the table no longer leads to.
    async fn sweep(&self) {
        let table = self.others.load(&name()).await.expect("read").expect("it");
        let mut named: BTreeSet<String> = BTreeSet::from([table.pointer.metadata_location.clone()]);
        for snapshot in table.metadata.snapshots() {
            let key = self.key(snapshot.manifest_list()).to_owned();
            let bytes = self.store.get(&key).await.expect("read").expect("it");
            let version = table.metadata.format_version();
            let list = ManifestList::parse_with_version(&bytes, version).expect("a list");
            named.insert(snapshot.manifest_list().to_owned());
            named.extend(list.entries().iter().map(|one| one.manifest_path.clone()));
        }
        let prefix = self.store.uri_prefix();
        for folder in ["tables/", "control/i/"] {
            for object in self.store.list(folder).await.expect("listed") {
                let key = object.key;
                if !named.contains(&format!("{prefix}{key}")) {
                    self.store.delete(&key).await.expect("removed");
                }
            }
        }
    }

    fn key<'a>(&self, location: &'a str) -> &'a str {
        location
            .strip_prefix(self.store.uri_prefix())
            .expect("ours")
    }
}

fn name() -> TableName {
    TableName {
        database: "lake".to_owned(),
        table: "public__orders".to_owned(),
    }
}

fn registration(partitions: u32) -> TopicRegistration {
    TopicRegistration {
        topic: "shop.public.orders".to_owned(),
        source: "shop".to_owned(),
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        lake_database: "lake".to_owned(),
        lake_table: "public__orders".to_owned(),
        topic_incarnation: 1,
        partition_map: PartitionMap::first(partitions),
        freshness_seconds: 60,
    }
}

/// Eight columns, as the shop's orders have them.
fn schema() -> SourceSchema {
    let columns = [
        ("id", ColumnType::Long),
        ("customer_email", ColumnType::String),
        ("status", ColumnType::String),
        ("amount", ColumnType::Long),
        ("placed_at", ColumnType::TimestampTz),
        ("express", ColumnType::Boolean),
        ("weight_kg", ColumnType::Double),
        ("details", ColumnType::Carrier),
    ];
    let columns = (1..).zip(columns).map(|(id, (name, column_type))| Column {
        id,
        name: name.to_owned(),
        field_id: 99 + id,
        lake_name: name.to_owned(),
        column_type,
        source_type: "text".to_owned(),
        key: id == 1,
    });
    SourceSchema {
        version: 1,
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        columns: columns.collect(),
        retired: Vec::new(),
        next_field_id: 108,
    }
}

/// A staged file with statistics of every column, a day after another every 1,440 commits.
fn file(path: String, number: u64) -> StagedFile {
    let long = |value: u64| value.to_le_bytes().to_vec();
    let text = |word: &str| format!("{word}{number:020}").into_bytes();
    let column = |(field_id, bounds): (i32, Option<Vec<u8>>)| ColumnStatistics {
        field_id,
        size_bytes: 1_000 + number % 100,
        value_count: 100,
        null_count: 0,
        nan_count: None,
        lower: bounds.clone(),
        upper: bounds,
    };
    let columns = [
        (1, Some(b"c".to_vec())),
        (2, Some(text("0001-"))),
        (3, Some(long(1_770_000_000_000_000 + number))),
        (4, Some(1_i32.to_le_bytes().to_vec())),
        (100, Some(long(number * 100))),
        (101, Some(text("customer."))),
        (102, Some(text("status"))),
        (103, Some(long(number))),
        (104, Some(long(1_770_000_000_000_000 + number))),
        (105, Some(vec![0])),
        (106, Some(1.5_f64.to_le_bytes().to_vec())),
        (107, Some(text("{\"lines\":"))),
    ];
    StagedFile {
        path,
        size_bytes: 12_000 + number % 1000,
        row_count: 100,
        schema_version: 1,
        day: 20_486 + i32::try_from(number / 1440).expect("small"),
        split_offsets: vec![4],
        columns: columns.into_iter().map(column).collect(),
    }
}
