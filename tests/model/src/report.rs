//! Runs searches and tells of them.

use change_event::{Clock, SystemClock};

use crate::agent::Agents;
use crate::family::{Family, Setup};
use crate::mutant::Mutant;
use crate::search::{Counterexample, Searched, fingerprint, search};
use crate::view::View;
use crate::world::World;

/// What a search of one setup saw, over all logs.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was searched.
    pub name: String,
    /// Logs that the agent's side can bring about, as pollers show them.
    pub logs: usize,
    /// States, of the agent's side and of the pipeline on every log.
    pub states: u64,
    /// Steps between them.
    pub transitions: u64,
    /// States at rest of which the end was looked at.
    pub rests: u64,
    /// What those states are: equal where two searches saw the same ones.
    pub digest: u64,
    /// Steps of the longest shortest way to a state.
    pub depth: u32,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
    /// What must not be, if it was found.
    pub counterexample: Option<Counterexample>,
}

impl Line {
    fn add(&mut self, searched: Searched) {
        self.states += searched.states;
        self.transitions += searched.transitions;
        self.depth = self.depth.max(searched.depth);
        self.counterexample = searched.counterexample;
    }

    fn pipeline(&mut self, setup: Setup, mutant: Option<Mutant>, view: &View, steps_max: u32) {
        let world = World::new(setup, mutant, view.clone());
        self.add(search(&world, steps_max));
        self.rests += world.quiet.get();
        let told = fingerprint(&(view.told(), world.digest.get()));
        self.digest = self.digest.wrapping_add(told);
        if let Some(found) = &mut self.counterexample {
            found.steps.insert(0, format!("the log is{}", view.told()));
        }
    }

    /// The counterexample, step for step; empty if there is none.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = String::new();
        if let Some(Counterexample { violation, steps }) = &self.counterexample {
            text += &format!("{}: {violation}, after {} steps\n", self.name, steps.len());
            for (number, step) in steps.iter().enumerate() {
                text += &format!("  {:3} {step}\n", number + 1);
            }
        }
        text
    }
}

/// Searches a setup to the end, or to the first violation.
#[must_use]
pub fn check(setup: Setup, mutant: Option<Mutant>) -> Line {
    check_telling(setup, mutant, |_, _| {})
}

/// The same, telling after each log how many are done, and of what.
pub fn check_telling(
    setup: Setup,
    mutant: Option<Mutant>,
    mut tell: impl FnMut(usize, &Line),
) -> Line {
    let begin_ms = SystemClock.now_ms();
    let agents = Agents::new(setup, mutant);
    let mut line = Line {
        name: mutant.map_or_else(|| setup.name(), |mutant| mutant.name().to_owned()),
        logs: 0,
        states: 0,
        transitions: 0,
        rests: 0,
        digest: 0,
        depth: 0,
        took_ms: 0,
        counterexample: None,
    };
    line.add(search(&agents, u32::MAX));
    // A mutant may show on one log of many: all are searched a few steps deep before any is searched to the end.
    let bounds: &[u32] = if mutant.is_some() {
        &[2, 5, 8, 11, u32::MAX]
    } else {
        &[u32::MAX]
    };
    let views = agents.views();
    line.logs = views.len();
    for steps_max in bounds {
        for (done, view) in (1..).zip(&views) {
            if line.counterexample.is_none() {
                line.pipeline(setup, mutant, view, *steps_max);
                line.took_ms = SystemClock.now_ms() - begin_ms;
                tell(done, &line);
            }
        }
    }
    line.took_ms = SystemClock.now_ms() - begin_ms;
    line
}

/// The core and each family alone, with two combiners and three changes.
#[must_use]
pub fn families() -> Vec<Setup> {
    let alone = Family::ALL.iter().map(|family| Setup::of(&[*family]));
    std::iter::once(Setup::of(&[]))
        .chain(alone)
        .map(|setup| setup.sized(2, 3, 2))
        .collect()
}

/// Each pair of families, with one combiner and two changes.
#[must_use]
pub fn pairs() -> Vec<Setup> {
    let pair = |(index, first): (usize, &Family)| {
        let first = *first;
        let others = Family::ALL[index + 1..].iter();
        others.map(move |second| Setup::of(&[first, *second]))
    };
    Family::ALL.iter().enumerate().flat_map(pair).collect()
}

/// Lines as a table in Markdown.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| what else may happen | logs | states | transitions | states at rest | depth | seconds |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let Line {
            name,
            logs,
            states,
            transitions,
            rests,
            depth,
            took_ms,
            ..
        } = line;
        let seconds = *took_ms as f64 / 1000.0;
        text += &format!(
            "| {name} | {logs} | {states} | {transitions} | {rests} | {depth} | {seconds:.1} |\n"
        );
    }
    text
}
