//! What becomes of a state in which nothing fails any more: every worker is gone, the event source delivers again from what was
//! acknowledged, one ingest and one combiner work to the end.
//!
//! # Invariants
//! - It is asked of *every* state that is reached. A loss that no further step could mend shows in it, and a state from which
//!   some further step does harm leads to states of which the same is asked.
//! - The steps are those of the search, so that a mutant is a mutant here, too.
//! - What workers hold does not count, so that states which differ only by workers share the answer.

use crate::search::{Violation, fingerprint};
use crate::state::{Ingest, IngestAt, State};
use crate::world::World;

/// Rounds after which something goes in circles.
const ROUNDS_MAX: u32 = 40;

impl World {
    /// The pipeline, left alone from here, ends with every change once, or with an alarm that is right.
    pub(crate) fn ends_whole(&self, state: &State) -> Result<(), Violation> {
        let rest = state.at_rest();
        if !self.ends.borrow_mut().insert(fingerprint(&rest)) {
            return Ok(());
        }
        self.quiet.set(self.quiet.get() + 1);
        let spelled = fingerprint(&self.spelled(&rest));
        self.digest.set(self.digest.get().wrapping_add(spelled));
        if rest.table.rolled_back {
            // Halted, and says so, until an operator decides.
            return Ok(());
        }
        let mut now = rest;
        let mut stopped = [false; 2];
        for _ in 0..ROUNDS_MAX {
            let before = now;
            now = self.combined(now)?;
            for partition in self.partitions() {
                if !stopped[partition] {
                    (now, stopped[partition]) = self.ingested(now, partition)?;
                }
            }
            let read = self.partitions().all(|partition| {
                stopped[partition]
                    || now.acked[partition] == self.end_of(partition, u8::from(now.faults.deleted))
            });
            if now == before && read {
                if self.view.lives() > 1 && !now.faults.deleted && stopped == [false; 2] {
                    now = self.deleted(&now);
                    continue;
                }
                return self.end(&now, stopped);
            }
        }
        Err(Violation::Restless)
    }

    fn end(&self, state: &State, stopped: [bool; 2]) -> Result<(), Violation> {
        let there = state.table.present | state.faults.forgiven;
        let missing = (1..=self.setup.changes).find(|change| there & (1 << change) == 0);
        let Some(missing) = missing else {
            return Ok(());
        };
        // What no record follows cannot be seen to be missing: docs/SEMANTICS.md says so of a topic that stays quiet.
        let quiet = state.faults.recreated || state.faults.unread != 0;
        if stopped != [false; 2] || quiet && self.is_quiet(state) {
            Ok(())
        } else {
            Err(Violation::Lost(missing))
        }
    }

    /// Whether some partition had all it will ever have when its records went away.
    fn is_quiet(&self, state: &State) -> bool {
        self.partitions().any(|partition| {
            let gone = state.faults.unread & (1 << partition) != 0;
            let last = u8::from(state.faults.deleted);
            let nothing_follows = self.end_of(partition, last) == self.end_of(partition, 0);
            state.faults.recreated || gone && nothing_follows
        })
    }

    /// Everything that is staged, in the table.
    fn combined(&self, mut state: State) -> Result<State, Violation> {
        for _ in 0..ROUNDS_MAX {
            if let Some(commit) = self.commits(&state).last() {
                let rest = state;
                state = self.commit(state, commit)?;
                if commit.data_only {
                    state.late_swap = None;
                    state.table.frontier = commit.frontier;
                }
                if state == rest {
                    return Ok(state);
                }
            } else if state.table.schema < 2 {
                state.table.schema = 2;
            } else {
                return Ok(state);
            }
        }
        Err(Violation::Restless)
    }

    /// What was not acknowledged, in one batch by a cold function; whether it stopped with an alarm.
    fn ingested(&self, state: State, partition: usize) -> Result<(State, bool), Violation> {
        let end = self.end_of(partition, u8::from(state.faults.deleted));
        if state.acked[partition] >= end {
            return Ok((state, false));
        }
        let batch = Ingest {
            at: IngestAt::Walk,
            partition: partition as u8,
            table: state.table.uuid,
            from: state.acked[partition],
            to: end,
            tail: state.table.frontier[partition],
            ..Ingest::default()
        };
        let mut now = self.start(&state, 0, batch)?;
        for _ in 0..ROUNDS_MAX {
            let me = now.ingests[0];
            let mut steps = Vec::new();
            self.ingest_steps(&now, 0, &mut steps);
            // The first is the crash, the second the call that is answered.
            let Some((_, next)) = steps.into_iter().nth(1) else {
                break;
            };
            now = next?;
            if now.ingests[0].at == IngestAt::Idle {
                let stopped = me.at == IngestAt::Ack && me.to < end;
                return Ok((now, stopped));
            }
        }
        Err(Violation::Restless)
    }
}
