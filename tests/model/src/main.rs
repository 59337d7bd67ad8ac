//! `./dev model`: every family alone, every pair, every mutant; prints what was searched and how each mutant shows.

use std::io::Write;
use std::process::ExitCode;

use model::{Line, Mutant, check, families, pairs, table};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let only = |name: &str| words.is_empty() || words.iter().any(|word| name == word);
    let mut out = std::io::stdout();
    let mut say = |text: &str| out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let mut failed = 0u32;
    let mut run = || -> std::io::Result<()> {
        for (title, setups) in [
            ("2 ingests, 2 combiners, 3 changes", families()),
            ("2 ingests, 1 combiner, 2 changes", pairs()),
        ] {
            let mut lines: Vec<Line> = Vec::new();
            for setup in setups.into_iter().filter(|setup| only(&setup.name())) {
                let line = check(setup, None);
                say(&format!(
                    "{}: {} states, {} ms\n",
                    line.name, line.states, line.took_ms
                ))?;
                say(&line.told())?;
                failed += u32::from(line.counterexample.is_some());
                lines.push(line);
            }
            say(&format!("\n{title}\n\n{}\n", table(&lines)))?;
        }
        for mutant in Mutant::ALL.iter().filter(|mutant| only(mutant.name())) {
            let line = check(mutant.setup(), Some(*mutant));
            failed += u32::from(line.counterexample.is_none());
            match line.counterexample {
                None => say(&format!("NOT CAUGHT: {}\n", line.name))?,
                Some(_) if words.is_empty() => {
                    say(&line.told().lines().take(1).collect::<String>())?;
                }
                Some(_) => say(&line.told())?,
            }
            say("\n")?;
        }
        Ok(())
    };
    let written = run();
    if failed == 0 && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
