//! One run: a deployment in memory, a source with a script, and a seed that says what happens next.
//!
//! Flow: [`World::run`]: turns with faults until the script is done, then calm, then the final check.
//!
//! # Invariants
//! - A step is one completed external call of production code; nothing else counts.
//! - In the calm nothing fails, and everything must come to its end within a bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capture_agent::tables::CapturedName;
use change_event::partition::PartitionMap;
use change_event::{Clock, TopicRegistration, layout, naming};
use function_kit::Metric;
use futures_util::FutureExt as _;
use iceberg::spec::TableMetadata;
use object_io::{MemoryStore, ObjectStore as _};
use source_postgres::Acknowledger;
use table_commit::{Limits, MemoryCatalog, TableName};
use test_kit::{ManualClock, SeededIds};

use crate::calls::{Calls, Op, ProcessId};
use crate::choice::{Choices, Stream};
use crate::event_source::EventSource;
use crate::kafka::Log;
use crate::lake::Model;
use crate::ports::Alarms;
use crate::process::Process;
use crate::source::{Replication, Source, oid, table_name};
use crate::trace::Trace;

/// Behind the machine's own clock, which the Iceberg library reads for updates without a snapshot, and compares with snapshots.
const NOW_MS: i64 = 1_770_000_000_000;
/// Turns in which nothing comes to its end before the calm is called stuck.
const CALM_TURNS_MAX: u32 = 200_000;

/// How a world is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Captured tables.
    pub tables: usize,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Seconds between two commits of a table.
    pub freshness_seconds: u32,
    /// Source transactions.
    pub transactions: usize,
    /// Calls of a thousand that fail somehow.
    pub failing: u64,
    /// Turns of a thousand in which something is disrupted.
    pub disrupted: u64,
    /// The event source reads committed records only.
    pub committed_only: bool,
    /// Records in a Kafka transaction.
    pub transaction_max_rows: u64,
    /// Bounds of a commit.
    pub limits: Limits,
    /// Records of a partition in a payload.
    pub batch_max: u64,
    /// The group is set ahead once, past a record that nobody read.
    pub robs: bool,
}

impl Setup {
    fn draw(choices: &mut Choices, transactions: Option<usize>) -> Self {
        let mut one_of = |of: &[u64]| choices.one_of(Stream::Setup, of);
        let drawn = one_of(&[5, 8, 12, 25]);
        let small = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            tables: small(one_of(&[1, 1, 2])),
            partitions: u32::try_from(one_of(&[1, 2, 3])).unwrap_or(1),
            freshness_seconds: u32::try_from(one_of(&[0, 0, 5, 60])).unwrap_or(0),
            transactions: transactions.unwrap_or_else(|| small(drawn)),
            failing: one_of(&[0, 20, 50, 100, 200]),
            disrupted: one_of(&[0, 5, 10, 20]),
            committed_only: one_of(&[0, 1]) == 1,
            transaction_max_rows: one_of(&[1, 3, 8, 1000]),
            limits: Limits {
                intents_per_commit_max: small(one_of(&[1, 3, 500])),
                tries_max: u32::try_from(one_of(&[1, 3, 10])).unwrap_or(1),
                snapshots_kept: small(one_of(&[2, 5, 100])),
                manifest_entries_max: small(one_of(&[2, 5, 100])),
                manifests_per_merge: small(one_of(&[2, 4])),
                ..Limits::default()
            },
            batch_max: one_of(&[1, 3, 8, 20]),
            robs: one_of(&[0, 0, 0, 0, 0, 0, 0, 1]) == 1,
        }
    }
}

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct RunningAgent {
    pub(crate) process: ProcessId,
    pub(crate) stream: Option<Replication>,
    pub(crate) acknowledger: Acknowledger,
    /// Its session at the broker.
    pub(crate) session: Option<usize>,
}

/// A run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) choices: Choices,
    pub(crate) trace: Trace,
    pub(crate) calls: Arc<Calls>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) ids: Arc<SeededIds>,
    pub(crate) alarms: Alarms,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) catalog: Arc<MemoryCatalog>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) source: Source,
    pub(crate) model: Model,
    pub(crate) processes: Vec<Process>,
    pub(crate) agents: Vec<RunningAgent>,
    pub(crate) names: Vec<CapturedName>,
    pub(crate) event_source: EventSource,
    /// The metadata that each table's pointer names.
    pub(crate) heads: HashMap<TableName, Arc<TableMetadata>>,
    /// Writes that nobody was told of and that have not happened yet.
    pub(crate) late: Vec<Op>,
    /// Callers of functions/ddl by the process that works for them.
    pub(crate) callers: BTreeMap<ProcessId, crate::calls::Pending>,
    pub(crate) jumped_minutes: i64,
    /// The table of which a record was taken away: from then on a gap is no false alarm.
    pub(crate) robbed: Option<usize>,
    pub(crate) late_overwrites: bool,
    pub(crate) steps: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Completed external calls.
    pub steps: u64,
    /// Hash of the trace.
    pub hash: u64,
    /// Rows in the lake.
    pub rows: usize,
    /// Source transactions.
    pub transactions: usize,
    /// What is wrong, if anything is.
    pub violation: Option<String>,
    /// Numbers of the faults that struck.
    pub struck: Vec<u64>,
    /// The trace's lines, if they were kept.
    pub lines: Vec<String>,
}

/// What a run is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its seed.
    pub seed: u64,
    /// Faults that do not strike.
    pub left_out: BTreeSet<u64>,
    /// Source transactions, instead of the number drawn.
    pub transactions: Option<usize>,
    /// A store that is not what it promises: a create-only write that comes late overwrites. To show that it is seen, and shrunk.
    pub late_overwrites: bool,
    /// Keep the trace's lines.
    pub keep_lines: bool,
}

/// Runs one seed.
#[must_use]
pub fn run(request: &Request) -> Outcome {
    let mut world = World::new(request);
    let violation = world.run().err();
    Outcome {
        steps: world.steps,
        hash: world.trace.hash(),
        rows: world.model.row_count(),
        transactions: world.setup.transactions,
        violation,
        struck: world.choices.struck().to_vec(),
        lines: world.trace.lines(),
    }
}

impl World {
    fn new(request: &Request) -> Self {
        let mut choices = Choices::new(request.seed, request.left_out.clone());
        let setup = Setup::draw(&mut choices, request.transactions);
        let source = Source::draw(&mut choices, setup.tables, setup.transactions);
        let names: Vec<CapturedName> = (0..setup.tables)
            .map(|table| CapturedName {
                oid: oid(table),
                table_schema: "public".to_owned(),
                table_name: table_name(table),
            })
            .collect();
        let topics: Vec<String> = names
            .iter()
            .map(|name| naming::topic_name("shop", &name.table_schema, &name.table_name))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let mut trace = Trace::new(request.keep_lines);
        trace.line(format_args!("{setup:?}"));
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let dated = Arc::clone(&clock) as Arc<dyn Clock>;
        let world = Self {
            model: Model::new(&source.expected),
            event_source: EventSource::new(&setup, &topics),
            setup,
            choices,
            trace,
            calls: Arc::default(),
            clock,
            runtime,
            ids: Arc::new(SeededIds::new(request.seed)),
            alarms: Alarms::default(),
            store: Arc::new(MemoryStore::new("lake").with_clock(dated)),
            catalog: Arc::default(),
            log: Arc::default(),
            source,
            processes: Vec::new(),
            agents: Vec::new(),
            names,
            heads: HashMap::new(),
            late: Vec::new(),
            callers: BTreeMap::new(),
            jumped_minutes: 0,
            robbed: None,
            late_overwrites: request.late_overwrites,
            steps: 0,
        };
        world.register();
        world
    }

    /// What the agent announces when it makes a topic; here it is there from the beginning.
    fn register(&self) {
        let events = (naming::EVENTS_SCHEMA, naming::EVENTS_TABLE, 1);
        let tables = self.names.iter().map(|name| {
            let partitions = self.setup.partitions;
            (
                name.table_schema.as_str(),
                name.table_name.as_str(),
                partitions,
            )
        });
        for (schema, table, partitions) in tables.chain([events]) {
            let topic = naming::topic_name("shop", schema, table);
            let registration = TopicRegistration {
                topic: topic.clone(),
                source: "shop".to_owned(),
                table_schema: schema.to_owned(),
                table_name: table.to_owned(),
                lake_database: "lake".to_owned(),
                lake_table: naming::lake_table_name(schema, table),
                topic_incarnation: 1,
                partition_map: PartitionMap::first(partitions),
                freshness_seconds: self.setup.freshness_seconds,
            };
            let body = serde_json::to_vec(&registration).expect("it has a JSON form");
            let key = layout::registration(&topic);
            let put = self.store.put(&key, body.into());
            put.now_or_never()
                .expect("memory answers at once")
                .expect("it takes everything");
        }
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&mut self) -> Result<(), String> {
        let turns_max = 400 * self.setup.transactions as u64;
        let mut turns = 0;
        while turns < turns_max && !self.is_done() {
            turns += 1;
            self.turn()?;
            if self.gap_is_seen() {
                return Ok(());
            }
        }
        self.begin_calm()?;
        let mut turns = 0;
        while !self.is_done() {
            turns += 1;
            if turns > CALM_TURNS_MAX {
                return Err("nothing fails any more, and it does not come to its end".to_owned());
            }
            self.turn()?;
            if self.gap_is_seen() {
                return Ok(());
            }
        }
        self.finish()
    }

    /// A record was taken away, and an alarm says so: the partition stands still from here on.
    fn gap_is_seen(&self) -> bool {
        self.robbed.is_some() && self.alarms.first().is_some()
    }

    /// Any alarm is false, but for a gap where a record was taken away.
    fn false_alarm(&self) -> Result<(), String> {
        match self.alarms.first() {
            Some(alarm) if self.robbed.is_none() || !alarm.contains(Metric::GapsTotal.name()) => {
                Err(format!("a false alarm: {alarm}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// One turn: perhaps a disruption, and something that happens.
    fn turn(&mut self) -> Result<(), String> {
        if let Some(kind) = self.choices.fault(self.setup.disrupted) {
            self.disrupt(kind)?;
        }
        if self.setup.robs && self.robbed.is_none() && self.choices.fault(20).is_some() {
            self.rob();
        }
        if self.choices.chance(Stream::Schedule, 2) {
            self.thaw_one()?;
        }
        let drawn = self.choices.below(Stream::Schedule, 100);
        let happened = match drawn {
            0..64 => self.complete_one()?,
            64..72 => self.poll_one()?,
            72..77 => self.broker_works(),
            77..80 => self.late_lands()?,
            80..86 => self.source.commit_next(),
            86..90 => self.deliver_message()?,
            90..94 => self.time_passes()?,
            94 => self.sweep()?,
            _ => self.start_agent()?,
        };
        if !happened {
            let _more = self.complete_one()?
                || self.start_agent()?
                || self.source.commit_next()
                || self.poll_one()?
                || self.broker_works()
                || self.time_passes()?;
        }
        self.false_alarm()
    }

    /// A moment passes, for every clock.
    fn time_passes(&mut self) -> Result<bool, String> {
        let drawn = self.choices.below(Stream::Schedule, 3_000);
        let moment = i64::try_from(drawn).unwrap_or(0);
        self.advance(moment, true)?;
        Ok(true)
    }

    /// Moves the clock, and the timers of production code with it unless only the wall clock jumps.
    pub(crate) fn advance(&mut self, by_ms: i64, timers: bool) -> Result<(), String> {
        self.trace.line(format_args!("time {by_ms} {timers}"));
        self.clock.advance_ms(by_ms);
        if timers {
            let by = std::time::Duration::from_millis(u64::try_from(by_ms).unwrap_or(0));
            self.runtime.block_on(tokio::time::advance(by));
        }
        for process in 0..self.processes.len() {
            self.go_on(process)?;
        }
        Ok(())
    }

    fn begin_calm(&mut self) -> Result<(), String> {
        self.trace.line(format_args!("calm"));
        self.choices.calm();
        while self.thaw_one()? {}
        self.event_source.settle();
        Ok(())
    }

    /// Whether the source is wholly captured, acknowledged and polled, and nothing is under way.
    fn is_done(&self) -> bool {
        let captured = self.source.is_captured();
        let idle = self.processes.iter().enumerate().all(|(process, known)| {
            !known.is_busy() || self.agents.iter().any(|agent| agent.process == process)
        });
        captured && idle && self.late.is_empty() && self.is_polled()
    }

    /// The last sweep, and the final check.
    fn finish(&mut self) -> Result<(), String> {
        self.advance(120_000, true)?;
        self.sweep()?;
        let mut turns = 0;
        while self.processes.iter().enumerate().any(|(process, known)| {
            known.is_busy() && !self.agents.iter().any(|agent| agent.process == process)
        }) {
            turns += 1;
            if turns > CALM_TURNS_MAX {
                return Err("the last sweep does not come to its end".to_owned());
            }
            if !self.complete_one()? {
                // It waits for a clock.
                self.time_passes()?;
            }
        }
        self.false_alarm()?;
        if self.gap_is_seen() {
            return Ok(());
        }
        self.model.complete(&self.store, self.robbed)
    }
}
