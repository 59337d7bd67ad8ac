//! `./dev model`: every family alone, every pair, every mutant; prints what was searched and how each mutant shows.
//!
//! Words name what is wanted; `calls` takes each call as a step instead of each invocation, which ends at the smaller sizes only.

use std::io::Write;
use std::process::ExitCode;

use model::{Grain, Line, Mutant, check, check_telling, families, pairs, table};

/// A long search tells how far it is this often.
const TELL_EVERY_MS: i64 = 10_000;

fn main() -> ExitCode {
    let (grains, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word == "calls");
    let grain = if grains.is_empty() {
        Grain::Invocation
    } else {
        Grain::Call
    };
    match run(grain, &names) {
        Ok(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Searches what is named, or all; how much of it did not end as it must.
fn run(grain: Grain, names: &[String]) -> std::io::Result<u32> {
    let only = |name: &str| names.is_empty() || names.iter().any(|word| name == word);
    let mut out = std::io::stdout();
    let mut failed = 0;
    for (title, setups) in [
        ("2 ingests, 2 combiners, 3 changes", families()),
        ("2 ingests, 1 combiner, 2 changes", pairs()),
    ] {
        let mut lines: Vec<Line> = Vec::new();
        for setup in setups.into_iter().filter(|setup| only(&setup.name())) {
            let mut told_ms = 0;
            let line = check_telling(setup.by(grain), None, |done, line| {
                if line.took_ms >= told_ms + TELL_EVERY_MS {
                    told_ms = line.took_ms;
                    eprintln!(
                        "{}: {done} of {} logs, {} states, {} s",
                        line.name,
                        line.logs,
                        line.states,
                        line.took_ms / 1000
                    );
                }
            });
            writeln!(
                out,
                "{}: {} states, {} ms\n{}",
                line.name,
                line.states,
                line.took_ms,
                line.told()
            )?;
            failed += u32::from(line.counterexample.is_some());
            lines.push(line);
        }
        if !lines.is_empty() {
            writeln!(out, "\n{title}\n\n{}", table(&lines))?;
        }
    }
    for mutant in Mutant::ALL.iter().filter(|mutant| only(mutant.name())) {
        let line = check(mutant.setup().by(grain), Some(*mutant));
        failed += u32::from(line.counterexample.is_none());
        match line.counterexample {
            None => writeln!(out, "NOT CAUGHT: {}", line.name)?,
            Some(_) if names.is_empty() => {
                writeln!(out, "{}", line.told().lines().take(1).collect::<String>())?;
            }
            Some(_) => writeln!(out, "{}", line.told())?,
        }
    }
    Ok(failed)
}
