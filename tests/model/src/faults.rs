//! What happens to the pipeline from outside: late calls, days, strangers, users, operators; and the names of all steps.
//!
//! # Invariants
//! - A fault is a step like any other: it may come between any two calls.
//! - What a family does not have, does not happen.

use std::fmt::{self, Display};

use crate::family::{Family, Grain};
use crate::mutant::Mutant;
use crate::search::{Machine, Steps, Violation};
use crate::state::{Commit, Day, Ingest, State};
use crate::view::Seen;
use crate::world::{World, incarnation};

/// A step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Start(Ingest),
    Walk(Ingest),
    Register,
    /// Whether the slot was free.
    Put(Ingest, bool),
    PutLost(Ingest, &'static str),
    ReadBack(Ingest),
    Acknowledge(Ingest),
    IngestCrashes(Ingest),
    /// As it started, its last call, and whether it goes no further.
    Invocation(Ingest, &'static str),
    Combine(Commit),
    Swap(Commit),
    Conflict,
    SwapLost(Commit, &'static str),
    Verify,
    CombinerCrashes,
    /// Something from outside.
    Outside(&'static str),
    /// The same, with a number.
    OutsideAt(&'static str, u8),
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batch = |me: &Ingest| {
            let Ingest {
                partition,
                from,
                to,
                tail,
                ..
            } = me;
            format!("p{partition} records {from}..{to}, tail F{tail}")
        };
        match self {
            Self::Start(me) => write!(
                f,
                "ingest starts: {}, table {}, next {:?}",
                batch(me),
                me.table,
                me.at
            ),
            Self::Walk(me) => write!(f, "ingest walks: {}", batch(me)),
            Self::Register => write!(f, "the second partition is registered"),
            Self::Put(me, true) => write!(f, "ingest wins the slot behind its tail: {}", batch(me)),
            Self::Put(me, false) => write!(f, "ingest finds the slot taken: {}", batch(me)),
            Self::PutLost(me, what) => {
                write!(f, "ingest's PUT has no answer and {what}: {}", batch(me))
            }
            Self::ReadBack(me) => write!(f, "ingest reads the slot back: {}", batch(me)),
            Self::Acknowledge(me) => {
                write!(f, "acknowledged: p{} before record {}", me.partition, me.to)
            }
            Self::IngestCrashes(me) => write!(f, "ingest crashes: {}", batch(me)),
            Self::Invocation(me, what) => write!(f, "ingest of {}, last call: {what}", batch(me)),
            Self::Combine(commit) => write!(f, "combiner builds up to F{:?}", commit.frontier),
            Self::Swap(commit) => write!(
                f,
                "committed up to F{:?}, rows {:b} {:b}",
                commit.frontier, commit.rows[0], commit.rows[1]
            ),
            Self::Conflict => write!(f, "combiner is told of a conflict"),
            Self::SwapLost(commit, what) => write!(
                f,
                "combiner's swap has no answer and {what}: up to F{:?}",
                commit.frontier
            ),
            Self::Verify => write!(f, "combiner loads the table again"),
            Self::CombinerCrashes => write!(f, "combiner crashes"),
            Self::Outside(what) => write!(f, "{what}"),
            Self::OutsideAt(what, number) => write!(f, "{what} {number}"),
        }
    }
}

impl Action {
    /// What a call of an invocation was.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "started",
            Self::Walk(_) => "walked",
            Self::Register => "registered the second partition",
            Self::Put(_, true) => "won a slot",
            Self::Put(_, false) => "found a slot taken",
            Self::PutLost(_, what) => what,
            Self::ReadBack(_) => "read a slot back",
            Self::Acknowledge(_) => "acknowledged",
            _ => "went on",
        }
    }
}

impl Machine for World {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        self.first()
    }

    fn steps(&self, state: &State, steps: &mut Steps<Self>) {
        match self.setup.grain {
            Grain::Call => {
                for worker in 0..2 {
                    self.ingest_steps(state, worker, steps);
                }
                for worker in 0..usize::from(self.setup.combiners) {
                    self.combiner_steps(state, worker, steps);
                }
            }
            Grain::Invocation => self.invocations(state, steps),
        }
        self.calls_that_land(state, steps);
        self.days(state, steps);
        self.table_steps(state, steps);
        self.topic_steps(state, steps);
        for (_, reached) in steps.iter_mut() {
            if let Ok(reached) = reached {
                *reached = self.without_hopeless(*reached);
                *reached = reached.canonical(self.setup.combiners);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), Violation> {
        self.ends_whole(state)
    }
}

impl World {
    fn calls_that_land(&self, state: &State, steps: &mut Steps<Self>) {
        if let Some(put) = state.late_put {
            let mut next = *state;
            next.late_put = None;
            let slot = &mut next.slots[usize::from(put.chain)][usize::from(put.place)];
            let lands = *slot == 0;
            if lands {
                *slot = put.intent;
            }
            for ingest in &mut next.ingests {
                ingest.landed |= lands && ingest.floating;
                ingest.floating = false;
            }
            steps.push((
                Action::OutsideAt("the abandoned PUT arrives at place", put.place),
                Ok(next),
            ));
        }
        if let Some(commit) = state.late_swap {
            let mut next = *state;
            next.late_swap = None;
            steps.push((
                Action::Outside("the abandoned swap arrives"),
                self.commit(next, &commit),
            ));
        }
    }

    /// A day ends: no worker and no call that began in it is left. Slots are removed.
    fn days(&self, state: &State, steps: &mut Steps<Self>) {
        if !self.has(Family::Removal) {
            return;
        }
        let mut next = state.at_rest();
        next.day = Day {
            table: state.table.uuid,
            committed: state.table.frontier,
            end: [0, 1].map(|partition| {
                let from = state.table.frontier[partition];
                let path = self.path(state, state.table.uuid, partition, from);
                path.last().map_or(from, |(_, tail)| *tail)
            }),
        };
        steps.push((Action::Outside("a day ends"), Ok(next)));
        let table = state.table.uuid;
        if state.day.table != table || state.table.rolled_back {
            // The notes are of the table that was dropped, or a replay may need what they cover.
            return;
        }
        for partition in self.partitions() {
            let place = |frontier: u8| self.place(partition, frontier);
            let covered = place(state.table.frontier[partition]);
            let old = place(state.day.end[partition]);
            let limit = match self.mutant {
                Some(Mutant::UncoveredSlotRemoved) => old,
                Some(Mutant::YoungSlotRemoved) => covered,
                Some(Mutant::SlotRemovedWhenCoveredAndOld) => covered.min(old),
                // Below a frontier that was read a day ago.
                _ => covered.min(place(state.day.committed[partition])),
            };
            let chain = usize::from(table) * 2 + partition;
            for at in 0..limit {
                if state.slots[chain][usize::from(at)] != 0 {
                    let mut next = *state;
                    next.slots[chain][usize::from(at)] = 0;
                    steps.push((
                        Action::OutsideAt("maintain removes the slot at place", at),
                        Ok(next),
                    ));
                }
            }
        }
    }

    /// What strangers, users and operators do to the table, and functions/ddl.
    fn table_steps(&self, state: &State, steps: &mut Steps<Self>) {
        let table = &state.table;
        let moved = |change: &dyn Fn(&mut State)| {
            let mut next = *state;
            change(&mut next);
            next.pointer_moved();
            Ok(next)
        };
        if self.has(Family::Foreign) && table.present != 0 && !table.rolled_back {
            let next = moved(&|next| next.table.head_foreign = true);
            steps.push((Action::Outside("a stranger commits"), next));
        }
        if table.schema < 2 {
            let next = moved(&|next| next.table.schema = 2);
            steps.push((Action::OutsideAt("the table gets schema", 2), next));
        }
        if self.has(Family::Rollback) {
            if let Some((_, present)) = table.before
                && !state.faults.rolled_back
            {
                let next = moved(&|next| {
                    next.table.present = present;
                    next.table.rolled_back = true;
                    next.faults.rolled_back = true;
                });
                steps.push((Action::Outside("a user rolls the table back"), next));
            }
            if let Some((frontier, _)) = table.before
                && table.rolled_back
            {
                // Replayed is only what is all there; what maintain noted before does not count any more.
                let all_there = self.partitions().all(|partition| {
                    let path = self.path(state, table.uuid, partition, frontier[partition]);
                    let reached = path.iter().map(|(_, tail)| *tail);
                    let mut reached = std::iter::once(frontier[partition]).chain(reached);
                    reached.any(|tail| tail == table.frontier[partition])
                });
                if all_there || self.is(Mutant::ReplayedAlthoughSlotsAreGone) {
                    let next = moved(&|next| {
                        next.table.rolled_back = false;
                        next.table.frontier = frontier;
                        next.table.before = None;
                        if !self.is(Mutant::NoteKeptOverAReplay) {
                            next.day.committed = next.table.start;
                        }
                    });
                    steps.push((Action::Outside("an operator says replay"), next));
                }
                let next = moved(&|next| {
                    next.table.rolled_back = false;
                    next.faults.forgiven = self.covered(state) & !table.present;
                    next.table.before = None;
                });
                steps.push((Action::Outside("an operator says accept"), next));
            }
        }
        if self.has(Family::Recreated) && !state.faults.recreated {
            let incarnation = 1 + u32::from(state.faults.deleted && self.has_second_incarnation());
            let start = self.start_of(incarnation);
            let next = moved(&|next| {
                next.table = crate::state::Table {
                    uuid: 1,
                    start,
                    frontier: start,
                    // The registration names every partition of the map.
                    ..self.first().table
                };
                next.faults.recreated = true;
            });
            steps.push((Action::Outside("the table is dropped and made anew"), next));
        }
    }

    /// What operators do to the topic.
    fn topic_steps(&self, state: &State, steps: &mut Steps<Self>) {
        if self.view.lives() > 1 && !state.faults.deleted {
            steps.push((
                Action::Outside("the topic is deleted and made anew"),
                Ok(self.deleted(state)),
            ));
        }
        if self.has(Family::Reset) && !state.faults.reset {
            for partition in self.partitions() {
                let life = u8::from(state.faults.deleted);
                for to in state.acked[partition] + 1..self.end_of(partition, life) {
                    let mut next = *state;
                    next.acked[partition] = to;
                    next.faults.reset = true;
                    // Where nothing new comes any more, nothing shows that something was passed over.
                    let quiet = !self.has_newer(partition, to);
                    next.faults.unread |= u8::from(quiet) << partition;
                    steps.push((
                        Action::OutsideAt("offsets are moved ahead to record", to),
                        Ok(next),
                    ));
                }
            }
        }
    }

    /// Whether a record from `to` on is newer than all before it.
    fn has_newer(&self, partition: usize, to: u8) -> bool {
        let number = |seen: &Seen| {
            let header = seen.identity.header;
            header.map(|header| (header.topic_incarnation, header.epoch, header.pseq))
        };
        let (before, behind) = self.records(partition).split_at(usize::from(to));
        behind.iter().map(number).max() > before.iter().map(number).max()
    }

    pub(crate) fn deleted(&self, state: &State) -> State {
        let mut next = *state;
        next.faults.deleted = true;
        for partition in 0..2 {
            let end = self.end_of(partition, 0);
            next.faults.unread |= u8::from(state.acked[partition] < end) << partition;
            next.acked[partition] = end;
        }
        next
    }

    pub(crate) fn has_second_incarnation(&self) -> bool {
        self.view
            .partitions
            .iter()
            .flatten()
            .any(|seen| incarnation(seen) > 1)
    }

    /// Changes whose rows the state's frontiers are past.
    fn covered(&self, state: &State) -> u8 {
        let mut covered = 0;
        for partition in self.partitions() {
            let frontier = self.frontier(state.table.frontier[partition]);
            for seen in self.records(partition) {
                if seen.change > 0
                    && seen.identity.header.map(|header| header.position) <= frontier.stream
                {
                    covered |= 1 << seen.change;
                }
            }
        }
        covered
    }
}
