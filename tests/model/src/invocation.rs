//! Steps that are whole invocations: one runs up to a call that others can see, with nobody in between, and may end there.
//!
//! Flow: state -> every batch from every tail -> the calls of `ingest` and `combine`, one after the other -> states.
//!
//! # Invariants
//! - The calls are those of the search call by call: only who comes between them is left out, as `lib.rs` says.
//! - Where slots are removed a tail that a worker knows is part of the state, and a combiner loads and swaps in two steps:
//!   what a worker believes there may not be had again.

use crate::family::{Family, Grain};
use crate::faults::Action;
use crate::mutant::Mutant;
use crate::search::Violation;
use crate::state::{Combiner, CombinerAt, Ingest, IngestAt, State};
use crate::world::World;

type Reached = (Action, Result<State, Violation>);

/// Calls of an invocation, more than any makes: only mutants go in circles.
const CALLS_MAX: u32 = 16;

impl World {
    pub(crate) fn invocations(&self, state: &State, steps: &mut Vec<Reached>) {
        if self.has(Family::Removal) {
            for worker in 0..2 {
                self.work_on_tails(state, worker, steps);
            }
        } else {
            let mut begun = Vec::new();
            for partition in self.partitions() {
                for (table, tail, at) in self.tails(state, partition) {
                    let known = Ingest {
                        at,
                        ..held(partition, table, tail)
                    };
                    self.invoked(state, 0, known, &mut begun, steps);
                }
            }
        }
        let mut idle = 0;
        for worker in 0..usize::from(self.setup.combiners) {
            let at_once = self.combines_at_once() && state.combiners[worker].at == CombinerAt::Idle;
            idle += u32::from(at_once);
            if !at_once {
                self.combiner_steps(state, worker, steps);
            } else if idle == 1 {
                self.combined_at_once(state, worker, steps);
            }
        }
    }

    /// Whether to build a snapshot and to move the pointer are one step. They are two for the mutant that moves it whatever
    /// happened in between.
    pub(crate) fn combines_at_once(&self) -> bool {
        self.setup.grain == Grain::Invocation
            && !self.has(Family::Removal)
            && !self.is(Mutant::SwapUnconditional)
    }

    fn combined_at_once(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        for commit in self.commits(state) {
            let mut built = *state;
            built.combiners[worker] = Combiner {
                at: CombinerAt::Swap,
                commit,
                ..Combiner::default()
            };
            self.swap(&built, worker, steps);
        }
    }

    /// Without combiners that can only be told of a conflict.
    pub(crate) fn without_hopeless(&self, mut state: State) -> State {
        if self.setup.grain == Grain::Invocation && !self.is(Mutant::SwapUnconditional) {
            for combiner in &mut state.combiners {
                if combiner.stale && combiner.at == CombinerAt::Swap {
                    *combiner = Combiner::default();
                }
            }
        }
        state
    }

    /// A worker takes note of a tail, forgets it, reads on, or works from it.
    fn work_on_tails(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let me = state.ingests[worker];
        if me.at == IngestAt::Idle {
            if worker == 1 && state.ingests[0].at == IngestAt::Idle {
                return;
            }
            for partition in self.partitions() {
                for (table, tail, _) in self.tails(state, partition) {
                    let mut next = *state;
                    next.ingests[worker] = held(partition, table, tail);
                    let action = Action::Start(next.ingests[worker]);
                    steps.push((action, Ok(next)));
                }
            }
            return;
        }
        let mut forgotten = *state;
        forgotten.ingests[worker] = Ingest::default();
        steps.push((Action::IngestCrashes(me), Ok(forgotten)));
        let partition = usize::from(me.partition);
        if !self.path(state, me.table, partition, me.tail).is_empty() {
            steps.push((Action::Walk(me), self.walk(state, worker)));
        }
        let known = Ingest {
            at: IngestAt::Idle,
            ..me
        };
        self.invoked(state, worker, known, &mut Vec::new(), steps);
    }

    /// Every batch from a tail that is known.
    fn invoked(
        &self,
        state: &State,
        worker: usize,
        known: Ingest,
        begun: &mut Vec<Ingest>,
        steps: &mut Vec<Reached>,
    ) {
        for (from, to) in self.batches(state, usize::from(known.partition)) {
            let batch = Ingest { from, to, ..known };
            let started = self.start(state, worker, batch);
            let mut invocation = Invocation {
                world: self,
                state,
                batch,
                worker,
                begun,
                steps,
            };
            invocation.goes_on(state, (Action::Start(batch), started), CALLS_MAX);
        }
    }

    /// A state in which a worker got no further.
    fn left(&self, mut state: State, worker: usize) -> State {
        let me = &mut state.ingests[worker];
        *me = if self.has(Family::Removal) && me.at != IngestAt::Idle {
            held(usize::from(me.partition), me.table, me.tail)
        } else {
            Ingest::default()
        };
        state
    }
}

/// One invocation, from a state on.
struct Invocation<'a> {
    world: &'a World,
    state: &'a State,
    batch: Ingest,
    worker: usize,
    /// What a worker can be like before others see anything of it: from there it goes on the same, whatever it began with.
    begun: &'a mut Vec<Ingest>,
    steps: &'a mut Vec<Reached>,
}

impl Invocation<'_> {
    /// Keeps what a call led to if others can see it, and makes the next.
    fn goes_on(&mut self, before: &State, (action, reached): Reached, calls_left: u32) {
        let told = Action::Invocation(self.batch, action.kind());
        let next = match reached {
            Err(violation) => {
                self.steps.push((told, Err(violation)));
                return;
            }
            Ok(next) => next,
        };
        let left = self.world.left(next, self.worker);
        if left != self.world.left(*before, self.worker) {
            self.steps.push((told, Ok(left)));
        }
        let me = next.ingests[self.worker];
        // What is under way is for another to find: whoever comes after does what this one would.
        let ends = matches!(action, Action::PutLost(_, "is under way"));
        if ends || calls_left == 0 || me.at == IngestAt::Idle {
            return;
        }
        let mut unseen = next;
        unseen.ingests[self.worker] = self.state.ingests[self.worker];
        if unseen == *self.state {
            if self.begun.contains(&me) {
                return;
            }
            self.begun.push(me);
        }
        let mut calls = Vec::new();
        self.world.ingest_steps(&next, self.worker, &mut calls);
        // The first is the crash.
        for call in calls.into_iter().skip(1) {
            self.goes_on(&next, call, calls_left - 1);
        }
    }
}

/// A worker that knows a tail.
fn held(partition: usize, table: u8, tail: u8) -> Ingest {
    Ingest {
        at: IngestAt::Walk,
        partition: partition as u8,
        table,
        tail,
        ..Ingest::default()
    }
}
