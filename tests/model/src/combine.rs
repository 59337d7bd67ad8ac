//! A combiner: load, walk every chain, build one snapshot, compare and set.
//!
//! Flow: chains -> **compare-and-set of the pointer** -> committed rows.
//!
//! # Invariants
//! - Rows and frontier are one write.
//! - What is committed of a chain is a prefix from the committed frontier. Where there are two chains, every pair of prefixes
//!   is tried: each chain is read at its own moment.
//!
//! # Source
//! `table-commit/src/{barrier,combine,publish,table,evolve}.rs`, as built.

use crate::family::Family;
use crate::faults::Action;
use crate::mutant::Mutant;
use crate::search::Violation;
use crate::state::{Combiner, CombinerAt, Commit, State};
use crate::world::World;

type Reached = (Action, Result<State, Violation>);

impl World {
    pub(crate) fn combiner_steps(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let me = state.combiners[worker];
        if me.at == CombinerAt::Idle {
            if worker == 0 || state.combiners[0].at != CombinerAt::Idle {
                for commit in self.commits(state) {
                    let mut next = *state;
                    next.combiners[worker] = Combiner {
                        at: CombinerAt::Swap,
                        commit,
                        ..Combiner::default()
                    };
                    steps.push((Action::Combine(commit), Ok(next)));
                }
            }
            return;
        }
        let mut crashed = *state;
        crashed.combiners[worker] = Combiner::default();
        steps.push((Action::CombinerCrashes, Ok(crashed)));
        match me.at {
            CombinerAt::Idle => {}
            CombinerAt::Swap => self.swap(state, worker, steps),
            CombinerAt::Verify => {
                let mut next = *state;
                next.combiners[worker].at = CombinerAt::Swap;
                next.combiners[worker].stale = false;
                steps.push((Action::Verify, Ok(next)));
            }
        }
    }

    /// Everything that a combiner may build from the table as it is.
    pub(crate) fn commits(&self, state: &State) -> Vec<Commit> {
        let table = &state.table;
        if table.rolled_back && !self.is(Mutant::RollbackUnnoticed) {
            return Vec::new();
        }
        let from = self.judged_coverage(state);
        let paths = [0, 1].map(|partition| {
            if partition == 1 && !table.registered {
                return Vec::new();
            }
            let mut path = self.path(state, table.uuid, partition, from[partition]);
            // The chain is cut before the first intent that the table's schema does not hold.
            let unheld = |intent: &(u8, u8)| self.body(intent.0).schema > table.schema;
            if let Some(cut) = path.iter().position(unheld)
                && !self.is(Mutant::SchemaUnchecked)
            {
                path.truncate(cut);
            }
            path
        });
        // Where combining is one step, the chain may have grown since it was read.
        let prefixes = self.has(Family::Map) || self.combines_at_once();
        let mut commits = Vec::new();
        for first in 0..=paths[0].len() {
            for second in 0..=paths[1].len() {
                let whole = first == paths[0].len();
                if first + second == 0 || !prefixes && !whole {
                    continue;
                }
                let walked = [&paths[0][..first], &paths[1][..second]];
                let taken = self.held_back(walked, from, table.registered);
                if taken.iter().any(|path| !path.is_empty()) {
                    commits.push(self.commit_of(state, taken, from));
                }
            }
        }
        commits
    }

    /// Where the table is said to be. Coverage is judged by the state property.
    fn judged_coverage(&self, state: &State) -> [u8; 2] {
        let table = &state.table;
        if self.is(Mutant::CoverageByHeadSummary) && table.head_foreign {
            return [0; 2];
        }
        if self.is(Mutant::ChainNotDrained) && state.faults.deleted {
            return table.frontier.map(|frontier| {
                let found = self.frontier(frontier);
                if found.incarnation == 1 {
                    self.number(found.reopened(2))
                } else {
                    frontier
                }
            });
        }
        table.frontier
    }

    /// `table-commit/src/barrier.rs`: the walks up to the first intent of a map that not every partition reaches in its own.
    fn held_back<'a>(
        &self,
        walked: [&'a [(u8, u8)]; 2],
        from: [u8; 2],
        registered: bool,
    ) -> [&'a [(u8, u8)]; 2] {
        if self.is(Mutant::BarrierIgnored) {
            return walked;
        }
        let map = |frontier: u8| self.frontier(frontier).map_version;
        let tail = |partition: usize| {
            walked[partition]
                .last()
                .map_or(from[partition], |last| last.1)
        };
        let partitions = 0..if registered { 2 } else { 1 };
        let reached = partitions.map(|partition| map(tail(partition))).min();
        [0, 1].map(|partition| {
            let path = walked[partition];
            let tails = path.iter().map(|(_, tail)| *tail);
            let starts = std::iter::once(from[partition])
                .chain(tails)
                .take(path.len());
            let taken = starts
                .take_while(|start| Some(map(*start)) <= reached)
                .count();
            &path[..taken]
        })
    }

    fn commit_of(&self, state: &State, taken: [&[(u8, u8)]; 2], from: [u8; 2]) -> Commit {
        let mut commit = Commit {
            frontier: from,
            data_only: self.is(Mutant::FrontierWrittenAfterTheData),
            ..Commit::default()
        };
        for (partition, path) in taken.iter().enumerate() {
            for (at, (intent, tail)) in path.iter().enumerate() {
                let body = self.body(*intent);
                commit.frontier[partition] = *tail;
                if self.is(Mutant::SlotSkipped) && at + 1 < path.len() {
                    continue;
                }
                commit.rows[partition] |= body.rows;
                commit.schema = commit.schema.max(body.schema);
                commit.foreign_files |= body.table != state.table.uuid;
            }
        }
        commit
    }

    pub(crate) fn swap(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let Combiner { commit, stale, .. } = state.combiners[worker];
        let idle = |mut next: State| {
            next.combiners[worker] = Combiner::default();
            next
        };
        if stale && !self.is(Mutant::SwapUnconditional) {
            steps.push((Action::Conflict, Ok(idle(*state))));
        } else {
            let told = self.commit(*state, &commit).map(idle);
            steps.push((Action::Swap(commit), told));
        }
        if !self.has(Family::Lost) {
            return;
        }
        // What did not happen is as if the combiner had crashed. Who reads back finds the table as any other finds it, and what its
        // state does not cover is built anew; only a mutant goes on with what it had.
        let unanswered = |mut next: State| {
            let me = &mut next.combiners[worker];
            if self.is(Mutant::UnknownSwapAppendedAgain) {
                me.at = CombinerAt::Verify;
            } else {
                *me = Combiner::default();
            }
            next
        };
        if !stale {
            let removed = self.is(Mutant::FilesOfUnknownSwapRemoved);
            let happened = Commit {
                discarded: removed || self.is(Mutant::SwapRetriedBelow),
                ..commit
            };
            let reached = self.commit(*state, &happened).map(unanswered);
            steps.push((Action::SwapLost(commit, "happened"), reached));
            let mut floating = unanswered(*state);
            floating.late_swap = Some(Commit {
                discarded: removed,
                ..commit
            });
            steps.push((Action::SwapLost(commit, "is under way"), Ok(floating)));
        }
    }

    /// The pointer moves to a new snapshot.
    pub(crate) fn commit(&self, mut next: State, commit: &Commit) -> Result<State, Violation> {
        let table = &mut next.table;
        if commit.discarded {
            return Err(Violation::BadFiles("that were removed"));
        }
        if commit.foreign_files {
            return Err(Violation::BadFiles("of another table"));
        }
        if commit.schema > table.schema {
            return Err(Violation::BadFiles("that its schema does not hold"));
        }
        for (partition, (new, old)) in commit.frontier.iter().zip(table.frontier).enumerate() {
            if self.place(partition, *new) < self.place(partition, old) {
                return Err(Violation::FrontierBack);
            }
        }
        if self.has(Family::Rollback) {
            table.before = Some((table.frontier, table.present));
        }
        for (partition, rows) in commit.rows.iter().enumerate() {
            for (index, seen) in self.records(partition).iter().enumerate() {
                if rows & (1 << index) != 0 {
                    table.present = self.added(table.present, seen.change)?;
                }
            }
        }
        if !commit.data_only || commit.rows == [0; 2] {
            table.frontier = commit.frontier;
        }
        table.head_foreign = false;
        next.pointer_moved();
        if commit.data_only && commit.rows != [0; 2] {
            let second = Commit {
                rows: [0; 2],
                ..*commit
            };
            next.late_swap = Some(second);
        }
        Ok(next)
    }

    /// A row of a change, behind what is there.
    fn added(&self, present: u8, change: u8) -> Result<u8, Violation> {
        if present & (1 << change) != 0 {
            return Err(Violation::Twice(change));
        }
        // With two partitions the second of three changes is of another key.
        let alone = self.has(Family::Map) && self.setup.changes == 3;
        let key = |change: u8| alone && change == 2;
        let later = (change + 1..=self.setup.changes)
            .find(|later| present & (1 << later) != 0 && key(*later) == key(change));
        match later {
            Some(_) => Err(Violation::Order(change)),
            None => Ok(present | 1 << change),
        }
    }
}
