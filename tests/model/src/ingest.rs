//! An invocation of ingest: judge a batch from the chain's tail, win a slot, acknowledge.
//!
//! Flow: event source -> tail, warm or walked to -> judge -> **PUT if absent** -> acknowledge.
//!
//! # Invariants
//! - What is acknowledged is in a slot that was won, or known.
//! - A gap is believed only after the chain was walked on.
//!
//! # Source
//! `functions/ingest/src/{stage,slice,topic}.rs`, `object-io/src/verified.rs`, `table-commit/src/chain.rs`, as built.

use crate::family::Family;
use crate::faults::Action;
use crate::mutant::Mutant;
use crate::search::Violation;
use crate::state::{Day, Ingest, IngestAt, LatePut, State};
use crate::world::{Body, Stop, World};

type Reached = (Action, Result<State, Violation>);

impl World {
    pub(crate) fn ingest_steps(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let me = state.ingests[worker];
        if me.at == IngestAt::Idle {
            // Two workers that are idle are alike.
            if worker == 0 || state.ingests[0].at != IngestAt::Idle {
                self.starts(state, worker, steps);
            }
            return;
        }
        let mut crashed = *state;
        crashed.ingests[worker] = Ingest::default();
        steps.push((Action::IngestCrashes(me), Ok(crashed)));
        match me.at {
            IngestAt::Idle => {}
            IngestAt::Walk => steps.push((Action::Walk(me), self.walk(state, worker))),
            IngestAt::Register => {
                let mut next = *state;
                next.table.registered = true;
                next.pointer_moved();
                steps.push((Action::Register, self.settle(next, worker)));
            }
            IngestAt::Put => self.put(state, worker, steps),
            IngestAt::ReadBack => self.read_back(state, worker, steps),
            IngestAt::Ack => {
                let mut next = *state;
                self.acknowledge(&mut next, &me);
                next.ingests[worker] = Ingest::default();
                steps.push((Action::Acknowledge(me), Ok(next)));
            }
        }
    }

    /// Every batch that a poller may cut, from every tail that a function may know.
    fn starts(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        for partition in self.partitions() {
            let tails = self.tails(state, partition);
            for (from, to) in self.batches(state, partition) {
                for (table, tail, at) in &tails {
                    let batch = Ingest {
                        at: *at,
                        partition: partition as u8,
                        table: *table,
                        from,
                        to,
                        tail: *tail,
                        ..Ingest::default()
                    };
                    steps.push((Action::Start(batch), self.start(state, worker, batch)));
                }
            }
        }
    }

    /// The records of every batch that a poller may cut.
    pub(crate) fn batches(&self, state: &State, partition: usize) -> Vec<(u8, u8)> {
        let mut batches = Vec::new();
        // A poller may hold records of a topic that is gone.
        let lives = 0..=u8::from(state.faults.deleted);
        for life in lives {
            let begin = if life == 0 {
                0
            } else {
                self.end_of(partition, 0)
            };
            let end = self.end_of(partition, life);
            for from in begin..=state.acked[partition] {
                batches.extend((from + 1..=end).map(|to| (from, to)));
            }
        }
        batches
    }

    pub(crate) fn start(
        &self,
        state: &State,
        worker: usize,
        batch: Ingest,
    ) -> Result<State, Violation> {
        let mut next = *state;
        next.ingests[worker] = batch;
        if batch.at == IngestAt::Walk {
            Ok(next)
        } else {
            self.settle(next, worker)
        }
    }

    /// Tables and tails that a function may know. Cold where each read is a step: the committed frontier.
    pub(crate) fn tails(&self, state: &State, partition: usize) -> Vec<(u8, u8, IngestAt)> {
        let mut tails = Vec::new();
        let mut warm = |table: u8, from: u8| {
            tails.push((table, from, IngestAt::Idle));
            let path = self.path(state, table, partition, from);
            tails.extend(path.iter().map(|(_, tail)| (table, *tail, IngestAt::Idle)));
        };
        let Day {
            table: day, end, ..
        } = state.day;
        for table in day..=state.table.uuid {
            let start = if table == 0 {
                self.start_of(1)
            } else {
                state.table.start
            };
            let start = start[partition];
            // A tail that is older than a day is kept by nobody.
            warm(table, if table == day { end[partition] } else { start });
            if self.is(Mutant::TailKeptOverADay) {
                warm(table, start);
            }
        }
        if self.has(Family::Removal) {
            tails.push((
                state.table.uuid,
                state.table.frontier[partition],
                IngestAt::Walk,
            ));
        }
        tails.sort_unstable();
        tails.dedup();
        tails
    }

    /// Judges what is left of a batch from the tail that is believed, up to the next call.
    pub(crate) fn settle(&self, mut state: State, worker: usize) -> Result<State, Violation> {
        let mut me = state.ingests[worker];
        let partition = usize::from(me.partition);
        let slice = self.slice(partition, me.tail, me.from, me.to);
        me.from = slice.first;
        me.intent = 0;
        me.floating = false;
        me.landed = false;
        let registered = partition == 0 || state.table.registered || me.table < state.table.uuid;
        if matches!(slice.stop, Stop::Gap(_))
            && !me.caught_up
            && !self.is(Mutant::GapBelievedWithoutWalking)
        {
            me.at = IngestAt::Walk;
        } else if !registered && !self.is(Mutant::AcknowledgedBeforeRegistered) {
            me.at = IngestAt::Register;
        } else if slice.needs_slot {
            me.at = IngestAt::Put;
            me.intent = self.intent(Body {
                start: self.place(partition, me.tail),
                after: slice.after,
                rows: slice.rows,
                schema: slice.schema,
                closed: false,
                table: me.table,
            });
            if self.is(Mutant::AcknowledgedBeforeSlotWon) {
                self.acknowledge(&mut state, &me);
            }
        } else {
            state.ingests[worker] = me;
            return self.staged(state, worker, slice.stop);
        }
        state.ingests[worker] = me;
        Ok(state)
    }

    /// What a slice holds is staged: on to what stopped it.
    fn staged(&self, mut state: State, worker: usize, stop: Stop) -> Result<State, Violation> {
        let me = &mut state.ingests[worker];
        match stop {
            Stop::End => me.at = IngestAt::Ack,
            Stop::Gap(index) => {
                me.to = index;
                me.at = IngestAt::Ack;
                self.alarm(&state, "a gap")?;
            }
            Stop::Replaced(index) => {
                me.to = index;
                me.at = IngestAt::Ack;
                self.alarm(&state, "a topic that was replaced")?;
            }
            Stop::Barrier(index) => {
                me.from = index;
                return self.settle(state, worker);
            }
            Stop::NewIncarnation(index, incarnation) => {
                me.from = index;
                me.at = IngestAt::Put;
                let (table, tail, partition) = (me.table, me.tail, usize::from(me.partition));
                me.intent = self.intent(Body {
                    start: self.place(partition, tail),
                    after: self.number(self.frontier(tail).reopened(incarnation)),
                    rows: 0,
                    schema: 0,
                    closed: true,
                    table,
                });
            }
        }
        Ok(state)
    }

    /// Reads slots from the tail on: one, where slots are removed, else to the end.
    pub(crate) fn walk(&self, state: &State, worker: usize) -> Result<State, Violation> {
        let mut next = *state;
        let me = &mut next.ingests[worker];
        let partition = usize::from(me.partition);
        let path = self.path(state, me.table, partition, me.tail);
        if self.has(Family::Removal) {
            if let Some((_, after)) = path.first() {
                let day_old = self.place(partition, me.tail)
                    < self.place(partition, state.day.end[partition]);
                if day_old && state.day.table == me.table {
                    // Nothing was committed for too long: nothing more is taken.
                    *me = Ingest::default();
                } else {
                    me.tail = *after;
                }
                return Ok(next);
            }
        } else if let Some((_, tail)) = path.last() {
            me.tail = *tail;
        }
        me.caught_up = true;
        self.settle(next, worker)
    }

    /// Whose slot a PUT goes to: the chain, and the place in it.
    fn slot(&self, me: &Ingest) -> (usize, usize) {
        let partition = usize::from(me.partition);
        let body = self.body(me.intent);
        let mut place = self.place(partition, me.tail);
        if self.is(Mutant::SlotNamedByFirstOffset) && !body.closed {
            let first = self.records(partition)[usize::from(me.from)]
                .identity
                .offset;
            place = self.place_of(partition, self.frontier(me.tail).incarnation, first);
        }
        (usize::from(me.table) * 2 + partition, usize::from(place))
    }

    fn put(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let me = state.ingests[worker];
        let (chain, place) = self.slot(&me);
        let found = state.slots[chain][place];
        let free = found == 0 || self.is(Mutant::SlotOverwritten);
        let told = if free {
            let mut next = *state;
            next.slots[chain][place] = me.intent;
            self.won(next, worker)
        } else if me.landed {
            self.won(*state, worker)
        } else {
            self.taken(*state, worker, found)
        };
        steps.push((Action::Put(me, free), told));
        if !self.has(Family::Lost) {
            return;
        }
        // What did not happen leaves the same call to be made: the read back finds what the next PUT would.
        if free {
            let mut happened = *state;
            happened.ingests[worker].at = IngestAt::ReadBack;
            happened.slots[chain][place] = me.intent;
            happened.ingests[worker].landed = true;
            steps.push((Action::PutLost(me, "happened"), Ok(happened)));
            let mut floating = *state;
            floating
                .ingests
                .iter_mut()
                .for_each(|other| other.floating = false);
            floating.ingests[worker].floating = true;
            floating.late_put = Some(LatePut {
                chain: chain as u8,
                place: place as u8,
                intent: me.intent,
            });
            steps.push((Action::PutLost(me, "is under way"), Ok(floating)));
        }
    }

    /// No answer came: what the slot holds says how it ended; if nothing, the same again, or the batch fails.
    fn read_back(&self, state: &State, worker: usize, steps: &mut Vec<Reached>) {
        let me = state.ingests[worker];
        let (chain, place) = self.slot(&me);
        let found = state.slots[chain][place];
        let next = if self.is(Mutant::LostSlotAppendedAgain) && found != 0 {
            self.append_again(*state, worker, found)
        } else if me.landed {
            self.won(*state, worker)
        } else if found != 0 {
            self.taken(*state, worker, found)
        } else {
            let mut next = *state;
            next.ingests[worker].at = IngestAt::Put;
            Ok(next)
        };
        steps.push((Action::ReadBack(me), next));
    }

    pub(crate) fn won(&self, mut state: State, worker: usize) -> Result<State, Violation> {
        let me = &mut state.ingests[worker];
        let body = self.body(me.intent);
        let slice = self.slice(usize::from(me.partition), me.tail, me.from, me.to);
        me.tail = body.after;
        me.caught_up = false;
        if body.closed {
            return self.settle(state, worker);
        }
        self.staged(state, worker, slice.stop)
    }

    fn taken(&self, mut state: State, worker: usize, found: u8) -> Result<State, Violation> {
        if self.is(Mutant::ForeignSlotReadAsOurs) {
            return self.won(state, worker);
        }
        if self.is(Mutant::TakenSlotNotJudgedAgain) && !self.body(found).closed {
            return self.append_again(state, worker, found);
        }
        let me = &mut state.ingests[worker];
        me.tail = self.body(found).after;
        me.caught_up = false;
        self.settle(state, worker)
    }

    /// Only mutants do this: the same rows, behind what was found.
    fn append_again(&self, mut state: State, worker: usize, found: u8) -> Result<State, Violation> {
        let me = &mut state.ingests[worker];
        let mut body = self.body(me.intent);
        me.tail = self.body(found).after;
        if self.frontier(body.after).offset <= self.frontier(me.tail).offset {
            // A slot has to lead on.
            let mut after = self.frontier(me.tail);
            after.offset += 1;
            body.after = self.number(after);
        }
        body.start = self.place(usize::from(me.partition), me.tail);
        me.intent = self.intent(body);
        me.at = IngestAt::Put;
        Ok(state)
    }

    /// The event source takes note.
    fn acknowledge(&self, state: &mut State, me: &Ingest) {
        let acked = &mut state.acked[usize::from(me.partition)];
        *acked = (*acked).max(me.to);
    }
}
