//! What a run of `bench-commit load` says: its figures, and what of them is above a bar.

use std::fmt;
use std::io::Write;

use crate::load::{Batch, Measured, Options, START_MS};

/// The first processes start cold, and the table is made.
const WARM_UP_MS: i64 = 5_000;

const ACKNOWLEDGED_P99_MS: i64 = 1_500;
const COMMITS_PER_SECOND: f64 = 1.0;
const STAGED_PER_SECOND: f64 = 100.0;

/// The figures of a run.
pub(crate) struct Figures {
    /// From arrival to acknowledgement.
    acknowledged: Spread,
    /// From invocation to acknowledgement.
    invoked: Spread,
    /// From arrival to the table.
    landed: Spread,
    staged_per_second: f64,
    commits_per_second: f64,
    /// The most batches staged and not in the table, in each tenth of the run.
    depths: Vec<usize>,
    /// CPU seconds of the functions.
    cpu: f64,
    making: f64,
}

impl Figures {
    pub(crate) fn of(options: &Options, measured: &Measured, cpu: f64, making: f64) -> Self {
        let seconds = f64::from(options.seconds);
        let warm = || {
            let batches = measured.batches.iter();
            batches.filter(|batch| batch.arrived_ms >= WARM_UP_MS)
        };
        let landed = landed(measured);
        let after = landed
            .iter()
            .filter(|(batch, _)| batch.arrived_ms >= WARM_UP_MS)
            .map(|(batch, at_ms)| at_ms - batch.arrived_ms);
        Self {
            acknowledged: Spread::of(warm().map(|one| one.acknowledged_ms - one.arrived_ms)),
            invoked: Spread::of(warm().map(|one| one.acknowledged_ms - one.invoked_ms)),
            landed: Spread::of(after),
            staged_per_second: float(measured.intents) / seconds,
            commits_per_second: float(measured.commits) / seconds,
            depths: depths(options, &landed),
            cpu: cpu - making * float(measured.batches.len() as u64),
            making,
        }
    }

    pub(crate) fn print(
        &self,
        options: &Options,
        measured: &Measured,
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        let (seconds, slots) = (f64::from(options.seconds), float(measured.intents));
        let offered = float(measured.batches.len() as u64);
        let attempts = float(measured.attempts) / float(measured.commits);
        let tail = float(measured.end_ms.unsigned_abs()) / 1000.0 - seconds;
        writeln!(
            out,
            "{} batches/s of {} records arrive over {} partitions, {} pollers, {} combiners, freshness {} s, {} s simulated, seed {}",
            options.rate,
            options.records,
            options.partitions,
            options.pollers,
            options.combiners,
            options.freshness,
            options.seconds,
            options.seed
        )?;
        writeln!(
            out,
            "staged {:.1} slots/s; {:.2} commits/s, {attempts:.3} attempts per commit, {} races lost",
            self.staged_per_second, self.commits_per_second, measured.conflicts
        )?;
        writeln!(
            out,
            "ms from arrival to acknowledgement: {}; from invocation: {}",
            self.acknowledged, self.invoked
        )?;
        writeln!(
            out,
            "ms from arrival to the table: {}; all in the table {tail:.1} s after the last arrival",
            self.landed
        )?;
        writeln!(
            out,
            "batches staged and not in the table, most within each tenth of the run: {:?}",
            self.depths
        )?;
        let requests = measured.requests;
        writeln!(
            out,
            "per slot, commits included: {:.2} PUT, {:.2} GET, {:.3} Glue, {:.3} messages; {} ingest and {} commit processes",
            float(requests.puts) / slots,
            float(requests.gets) / slots,
            float(requests.catalog) / slots,
            float(measured.messages) / slots,
            measured.ingests,
            measured.commit_functions
        )?;
        writeln!(
            out,
            "CPU {:.1} s in {seconds:.0} s simulated: {:.2} ms a batch with its share of commits (making its records, {:.2} ms, not counted)\n",
            self.cpu,
            self.cpu / offered * 1000.0,
            self.making * 1000.0
        )
    }

    /// What is above its bar.
    pub(crate) fn above(&self, options: &Options, measured: &Measured) -> Vec<String> {
        let (early, late) = (
            self.depths[2..5].iter().max(),
            self.depths[7..].iter().max(),
        );
        let grows = late.copied().unwrap_or(0) * 2 > early.copied().unwrap_or(0) * 3 + 60;
        let (acknowledged, commits) = (self.acknowledged.p99, self.commits_per_second);
        let bars = [
            (
                measured.missing > 0,
                format!("{} batches are missing", measured.missing),
            ),
            (
                self.staged_per_second < STAGED_PER_SECOND,
                format!("{:.1} slots/s staged", self.staged_per_second),
            ),
            (
                options.freshness > 0 && commits > COMMITS_PER_SECOND,
                format!("{commits:.2} commits/s"),
            ),
            (
                acknowledged > ACKNOWLEDGED_P99_MS,
                format!("acknowledged p99 {acknowledged} ms"),
            ),
            (grows, format!("the queue grows: {:?}", self.depths)),
            (
                self.cpu > f64::from(options.seconds),
                format!("{:.1} CPU seconds: more than was simulated", self.cpu),
            ),
        ];
        let above = bars.into_iter().filter(|(above, _)| *above);
        above.map(|(_, what)| what).collect()
    }
}

/// Each batch with the moment at which the table had it.
fn landed(measured: &Measured) -> Vec<(Batch, i64)> {
    let found = measured.batches.iter().filter_map(|batch| {
        let moves = &measured.moves;
        let index = moves.partition_point(|one| one.offsets[&batch.partition] < batch.end_offset);
        moves.get(index).map(|one| (*batch, one.at_ms - START_MS))
    });
    found.collect()
}

fn depths(options: &Options, landed: &[(Batch, i64)]) -> Vec<usize> {
    let end_ms = i64::from(options.seconds) * 1000;
    let depth = |at_ms: i64| {
        let waits = landed
            .iter()
            .filter(|(batch, landed_ms)| batch.acknowledged_ms <= at_ms && at_ms < *landed_ms);
        waits.count()
    };
    let tenth = |number: i64| {
        let (from_ms, step_ms) = (end_ms * number / 10, end_ms / 400);
        let depths = (0..40).map(|index| depth(from_ms + index * step_ms));
        depths.max().unwrap_or(0)
    };
    (0..10).map(tenth).collect()
}

/// Percentiles.
struct Spread {
    p50: i64,
    p99: i64,
    most: i64,
}

impl Spread {
    fn of(values: impl Iterator<Item = i64>) -> Self {
        let mut values: Vec<i64> = values.collect();
        values.sort_unstable();
        let at = |percent: usize| {
            let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
            values.get(index).copied().unwrap_or(0)
        };
        Self {
            p50: at(50),
            p99: at(99),
            most: values.last().copied().unwrap_or(0),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} p99 {} most {}", self.p50, self.p99, self.most)
    }
}

/// A count as a number to divide.
pub(crate) fn float(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a bench are far below 2^53"
    )]
    let float = count as f64;
    float
}
