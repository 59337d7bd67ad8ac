//! `simulate`: runs seeds one after the other until one fails or all are done.

#![allow(clippy::print_stdout, reason = "a program whose output is its result")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::{Request, run, shrink};

/// Production code under every fault that one seed draws.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// A store that is not what it promises: what comes late overwrites.
    #[arg(long, hide = true)]
    late_overwrites: bool,
    /// Source transactions of each, instead of a number that is drawn.
    #[arg(long)]
    transactions: Option<usize>,
    /// Print the trace of the first seed.
    #[arg(long)]
    trace: bool,
    /// Do not shrink a schedule that fails.
    #[arg(long)]
    no_shrink: bool,
}

#[expect(clippy::disallowed_methods, reason = "how fast it is, is measured")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let (mut steps, mut rows) = (0, 0);
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        let request = Request {
            seed,
            keep_lines: arguments.trace,
            late_overwrites: arguments.late_overwrites,
            transactions: arguments.transactions,
            ..Request::default()
        };
        let outcome = run(&request);
        steps += outcome.steps;
        rows += outcome.rows;
        if arguments.trace {
            for line in &outcome.lines {
                println!("{line}");
            }
        }
        if let Some(violation) = &outcome.violation {
            println!("seed {seed}: {violation}");
            if !arguments.no_shrink {
                print_shrunk(&request);
            }
            println!("run it again: ./dev simulate --seeds 1 --from {seed}");
            return ExitCode::FAILURE;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for display only")]
    let rate = steps as f64 / seconds;
    println!(
        "{} seeds from {}: {steps} steps, {rows} rows, no violation, {seconds:.1} s, {rate:.0} steps/s",
        arguments.seeds, arguments.from
    );
    ExitCode::SUCCESS
}

fn print_shrunk(request: &Request) {
    let shrunk = shrink(request);
    for line in &shrunk.outcome.lines {
        println!("  {line}");
    }
    println!(
        "shrunk in {} runs to {} faults, {:?} source transactions: {}",
        shrunk.runs,
        shrunk.outcome.struck.len(),
        shrunk.request.transactions,
        shrunk.outcome.violation.unwrap_or_default()
    );
}
