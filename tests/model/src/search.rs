//! Breadth-first search over states, with fingerprints for what was seen.
//!
//! # Invariants
//! - A counterexample is a shortest one: a level is searched whole before the next begins.
//! - A state is known by 64 bits of its hash. Two states of one search share them with a probability below n²/2⁶⁵: less than
//!   one in ten thousand at fifty million states.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A change is in the table twice.
    Twice(u8),
    /// A change came after a later one of its key.
    Order(u8),
    /// The pipeline is at rest, a change is not in the table, and nothing says so.
    Lost(u8),
    /// Something was said to be missing, or stopped, where nothing was.
    FalseAlarm(&'static str),
    /// A commit moved a frontier back.
    FrontierBack,
    /// The table names files that were removed, or that its schema does not hold, or of another table.
    BadFiles(&'static str),
    /// The pipeline never comes to rest.
    Restless,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(change) => write!(f, "change {change} is in the table twice"),
            Self::Order(change) => write!(f, "change {change} follows a later one of its key"),
            Self::Lost(change) => write!(f, "change {change} is lost in silence"),
            Self::FalseAlarm(what) => write!(f, "false alarm: {what}"),
            Self::FrontierBack => write!(f, "a frontier went back"),
            Self::BadFiles(what) => write!(f, "the table names files {what}"),
            Self::Restless => write!(f, "never at rest"),
        }
    }
}

/// Steps and what they lead to.
pub(crate) type Steps<M> = Vec<(
    <M as Machine>::Action,
    Result<<M as Machine>::State, Violation>,
)>;

/// A state machine.
pub(crate) trait Machine {
    /// A state, in the form that stands for all that are alike.
    type State: Clone + Hash;
    /// A step, for traces.
    type Action: Clone + Display;

    /// Where it begins.
    fn initial(&self) -> Self::State;
    /// All steps from a state.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self>)
    where
        Self: Sized;
    /// What must hold in a state.
    fn check(&self, state: &Self::State) -> Result<(), Violation>;
}

/// What a search saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Searched {
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) depth: u32,
    pub(crate) counterexample: Option<Counterexample>,
}

/// How something comes to be that must not.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// What.
    pub violation: Violation,
    /// The steps that lead to it.
    pub steps: Vec<String>,
}

/// Searches what can be reached in so many steps, or up to the first violation.
pub(crate) fn search<M: Machine>(machine: &M, steps_max: u32) -> Searched {
    let mut found = run(machine, steps_max, false);
    if found.counterexample.is_some() {
        // Once more, noting where each state came from: the search is deterministic and ends at the same place.
        found.counterexample = run(machine, steps_max, true).counterexample;
    }
    found
}

fn run<M: Machine>(machine: &M, steps_max: u32, traced: bool) -> Searched {
    let mut trace: Vec<(u32, M::Action)> = Vec::new();
    let mut seen: Fingerprints = HashSet::default();
    let mut found = Searched::default();
    let first = machine.initial();
    seen.insert(fingerprint(&first));
    // Each state with its place in `trace`, counted from 1; 0 is the beginning.
    let mut level = vec![(first, 0u32)];
    let mut steps = Vec::new();
    while !level.is_empty() && found.depth <= steps_max {
        let mut next = Vec::new();
        for (state, place) in level {
            found.states += 1;
            if let Err(violation) = machine.check(&state) {
                found.counterexample = Some(told(&trace, place, None, violation));
                return found;
            }
            machine.steps(&state, &mut steps);
            for (action, result) in steps.drain(..) {
                found.transitions += 1;
                match result {
                    Err(violation) => {
                        found.counterexample = Some(told(&trace, place, Some(action), violation));
                        return found;
                    }
                    Ok(reached) if seen.insert(fingerprint(&reached)) => {
                        let mut at = 0;
                        if traced {
                            trace.push((place, action));
                            at = trace.len() as u32;
                        }
                        next.push((reached, at));
                    }
                    Ok(_) => {}
                }
            }
        }
        if next.is_empty() {
            break;
        }
        found.depth += 1;
        level = next;
    }
    found
}

fn told<A: Display>(
    trace: &[(u32, A)],
    mut place: u32,
    last: Option<A>,
    violation: Violation,
) -> Counterexample {
    let mut steps: Vec<String> = last.iter().map(ToString::to_string).collect();
    while let Some((before, action)) = (place as usize).checked_sub(1).map(|at| &trace[at]) {
        steps.push(action.to_string());
        place = *before;
    }
    steps.reverse();
    Counterexample { violation, steps }
}

/// Fingerprints that were seen.
pub(crate) type Fingerprints = HashSet<u64, BuildHasherDefault<Spread>>;

/// Fingerprints are spread already.
#[derive(Debug, Default, Clone)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// 64 bits of a state.
pub(crate) fn fingerprint<T: Hash>(state: &T) -> u64 {
    let mut hasher = Fingerprint::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Multiply and fold, eight bytes at a time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15)
            .wrapping_mul(0xD6E8_FEB8_6659_FD93_2545_F491_4F6C_DD1D);
        self.0 = (product >> 64) as u64 ^ (product as u64).rotate_left(29);
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }
}
