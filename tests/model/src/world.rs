//! One search of the pipeline: a log as it is seen, the size, the mutant; and what the numbers in a state stand for.
//!
//! # Invariants
//! - A batch is judged as `functions/ingest/src/slice.rs` does it, by production's `judge` and `Frontier::pass`.
//! - Numbers are given in the order of the search, which is deterministic: a second search gives the same.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use table_commit::{DropReason, Frontier, Verdict};

use crate::family::{Family, Setup};
use crate::mutant::Mutant;
use crate::rules::judged;
use crate::search::{Fingerprint, Fingerprints, Violation};
use crate::state::{CHAINS, Day, Faults, PLACES, State, Table};
use crate::view::{RAISED, Seen, View};

/// What an intent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    /// The place that its `start` names.
    pub(crate) start: u8,
    pub(crate) after: u8,
    /// Records of its partition whose rows it holds.
    pub(crate) rows: u32,
    pub(crate) schema: u8,
    pub(crate) closed: bool,
    /// The table whose files it names.
    pub(crate) table: u8,
}

/// Why a slice ended, and at which record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    End,
    Gap(u8),
    Replaced(u8),
    NewIncarnation(u8, u32),
    /// What follows is of another map.
    Barrier(u8),
}

/// What of a batch is to be staged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    pub(crate) after: u8,
    pub(crate) rows: u32,
    pub(crate) schema: u8,
    pub(crate) needs_slot: bool,
    pub(crate) stop: Stop,
    /// The first record that a later frontier may not drop.
    pub(crate) first: u8,
}

/// Slices by partition, tail and records.
type Slices = HashMap<(u8, u8, u8, u8), Slice, BuildHasherDefault<Fingerprint>>;

/// The world of one search.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) view: View,
    /// Places of the first incarnation, by partition: those of the second follow.
    span: [u8; 2],
    frontiers: RefCell<Vec<Frontier>>,
    bodies: RefCell<Vec<Body>>,
    slices: RefCell<Slices>,
    /// States at rest that end whole, by fingerprint.
    pub(crate) ends: RefCell<Fingerprints>,
    pub(crate) quiet: Cell<u64>,
    /// The sum of what they are when written out: the same for two searches that saw the same ones.
    pub(crate) digest: Cell<u64>,
}

impl World {
    pub(crate) fn new(setup: Setup, mutant: Option<Mutant>, view: View) -> Self {
        let span = view.partitions.each_ref().map(|records| {
            let first = records.iter().filter(|seen| incarnation(seen) == 1);
            let end = first
                .map(|seen| seen.identity.offset + 1)
                .max()
                .unwrap_or(0);
            u8::try_from(end).unwrap() + 1
        });
        let world = Self {
            setup,
            mutant,
            view,
            span,
            frontiers: RefCell::default(),
            bodies: RefCell::default(),
            slices: RefCell::default(),
            ends: RefCell::default(),
            quiet: Cell::new(0),
            digest: Cell::new(0),
        };
        world.number(Frontier::start(1));
        world
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn has(&self, family: Family) -> bool {
        self.setup.has(family)
    }

    /// Where the chains of a table begin: the second partition with the map that brought it.
    pub(crate) fn start_of(&self, incarnation: u32) -> [u8; 2] {
        let first = Frontier::start(incarnation);
        let raised = self.has(Family::Map) && !self.is(Mutant::PartitionBeginsAtTheFirstMap);
        let second = Frontier {
            map_version: if raised { RAISED } else { 1 },
            ..first
        };
        [self.number(first), self.number(second)]
    }

    pub(crate) fn first(&self) -> State {
        let start = self.start_of(1);
        State {
            acked: [0; 2],
            slots: [[0; PLACES]; CHAINS],
            table: Table {
                uuid: 0,
                start,
                frontier: start,
                registered: !self.has(Family::Map),
                schema: if self.has(Family::Schema) { 1 } else { 2 },
                present: 0,
                head_foreign: false,
                rolled_back: false,
                before: None,
            },
            ingests: Default::default(),
            combiners: Default::default(),
            late_put: None,
            late_swap: None,
            day: Day {
                table: 0,
                committed: start,
                end: start,
            },
            faults: Faults::default(),
        }
    }

    pub(crate) fn records(&self, partition: usize) -> &[Seen] {
        &self.view.partitions[partition]
    }

    /// Records of a partition up to the end of a life of the topic.
    pub(crate) fn end_of(&self, partition: usize, life: u8) -> u8 {
        let records = self.records(partition).iter();
        records.filter(|seen| seen.life <= life).count() as u8
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = usize> {
        0..if self.has(Family::Map) { 2 } else { 1 }
    }

    pub(crate) fn number(&self, frontier: Frontier) -> u8 {
        let mut frontiers = self.frontiers.borrow_mut();
        number(&mut frontiers, frontier)
    }

    pub(crate) fn frontier(&self, number: u8) -> Frontier {
        self.frontiers.borrow()[usize::from(number)]
    }

    /// Numbers of intents begin at 1.
    pub(crate) fn intent(&self, body: Body) -> u8 {
        let mut bodies = self.bodies.borrow_mut();
        number(&mut bodies, body) + 1
    }

    pub(crate) fn body(&self, intent: u8) -> Body {
        self.bodies.borrow()[usize::from(intent) - 1]
    }

    /// The place of the slot that follows a frontier.
    pub(crate) fn place(&self, partition: usize, frontier: u8) -> u8 {
        let frontier = self.frontier(frontier);
        self.place_of(partition, frontier.incarnation, frontier.offset)
    }

    pub(crate) fn place_of(&self, partition: usize, incarnation: u32, offset: i64) -> u8 {
        let base = if incarnation == 1 {
            0
        } else {
            self.span[partition]
        };
        let place = base + u8::try_from(offset).unwrap();
        assert!(
            usize::from(place) < PLACES,
            "the log is longer than a state holds"
        );
        place
    }

    /// The tails of a chain from a frontier to its first free slot, each with the intent that led to it.
    pub(crate) fn path(
        &self,
        state: &State,
        table: u8,
        partition: usize,
        from: u8,
    ) -> Vec<(u8, u8)> {
        let chain = &state.slots[usize::from(table) * 2 + partition];
        let mut path: Vec<(u8, u8)> = Vec::new();
        let mut tail = from;
        loop {
            let place = self.place(partition, tail);
            let intent = chain[usize::from(place)];
            if intent == 0 || path.len() >= PLACES {
                return path;
            }
            tail = self.body(intent).after;
            path.push((intent, tail));
        }
    }

    /// Judges records `from..to` of a partition from a tail.
    pub(crate) fn slice(&self, partition: usize, tail: u8, from: u8, to: u8) -> Slice {
        let key = (partition as u8, tail, from, to);
        if let Some(slice) = self.slices.borrow().get(&key) {
            return *slice;
        }
        let slice = self.cut(partition, tail, from, to);
        self.slices.borrow_mut().insert(key, slice);
        slice
    }

    fn cut(&self, partition: usize, tail: u8, from: u8, to: u8) -> Slice {
        let before = self.frontier(tail);
        let mut after = before;
        let (mut rows, mut schema) = (0u32, 0);
        let (mut stop, mut first) = (Stop::End, from);
        for index in from..to {
            if after.map_version != before.map_version {
                stop = Stop::Barrier(index);
                break;
            }
            let seen = &self.records(partition)[usize::from(index)];
            let verdict = judged(self.mutant, &after, &seen.identity);
            match verdict {
                Verdict::Accept { row } => {
                    rows |= u32::from(row) << index;
                    if let Some(header) = seen.identity.header.filter(|_| row) {
                        schema = schema.max(header.schema_version as u8);
                    }
                    if !row && !seen.barrier && self.is(Mutant::DuplicateDoesNotMove) {
                        after.offset = seen.identity.offset + 1;
                        continue;
                    }
                }
                Verdict::Drop(DropReason::Redelivered | DropReason::OldIncarnation) => {
                    first += u8::from(first == index);
                }
                Verdict::Drop(DropReason::Fenced | DropReason::Repeated) => {}
                Verdict::NewIncarnation { incarnation } => {
                    stop = Stop::NewIncarnation(index, incarnation);
                    break;
                }
                Verdict::Gap(_) => {
                    stop = Stop::Gap(index);
                    break;
                }
                Verdict::TopicReplaced => {
                    stop = Stop::Replaced(index);
                    break;
                }
            }
            after.pass(&seen.identity, &verdict);
        }
        let needs_slot = before.needs_slot(&after);
        Slice {
            after: self.number(after),
            rows,
            schema,
            needs_slot: needs_slot && !(rows == 0 && self.is(Mutant::BatchWithoutRowsWinsNoSlot)),
            stop,
            first,
        }
    }

    /// A state at rest without the numbers, which each search gives in its own order.
    pub(crate) fn spelled(&self, state: &State) -> String {
        let frontiers = |numbers: [u8; 2]| numbers.map(|number| self.frontier(number));
        let slots = state.slots.iter().flatten().enumerate();
        let slots = slots
            .filter(|(_, intent)| **intent != 0)
            .map(|(at, intent)| {
                let body = self.body(*intent);
                (at, body, self.frontier(body.after))
            });
        let slots: Vec<_> = slots
            .map(|(at, body, after)| (at, Body { after: 0, ..body }, after))
            .collect();
        let State {
            acked,
            table,
            day,
            faults,
            ..
        } = state;
        let unnumbered = Table {
            start: [0; 2],
            frontier: [0; 2],
            before: None,
            ..*table
        };
        let before = table
            .before
            .map(|(before, present)| (frontiers(before), present));
        let table = (
            unnumbered,
            frontiers(table.start),
            frontiers(table.frontier),
            before,
        );
        let day = (day.table, frontiers(day.committed), frontiers(day.end));
        format!("{acked:?} {slots:?} {table:?} {day:?} {faults:?}")
    }

    /// An alarm is right only where something is missing.
    pub(crate) fn alarm(&self, state: &State, what: &'static str) -> Result<(), Violation> {
        let Faults {
            rolled_back,
            recreated,
            reset,
            deleted,
            unread,
            ..
        } = state.faults;
        let replaced = deleted
            && self
                .view
                .partitions
                .iter()
                .flatten()
                .all(|seen| incarnation(seen) == 1);
        // These raise an alarm sooner than they lose something, and the loss is what is to be seen.
        let passed_over = self.is(Mutant::TailKeptOverADay)
            || self.is(Mutant::YoungSlotRemoved)
            || self.is(Mutant::SlotRemovedWhenCoveredAndOld)
            || self.is(Mutant::NoteKeptOverAReplay);
        if rolled_back || recreated || reset || unread != 0 || replaced || passed_over {
            Ok(())
        } else {
            Err(Violation::FalseAlarm(what))
        }
    }
}

pub(crate) fn incarnation(seen: &Seen) -> u32 {
    seen.identity
        .header
        .map_or(1, |header| header.topic_incarnation)
}

fn number<T: PartialEq>(known: &mut Vec<T>, item: T) -> u8 {
    let place = known.iter().position(|other| *other == item);
    let place = place.unwrap_or_else(|| {
        known.push(item);
        known.len() - 1
    });
    assert!(place < 250, "more things than a state can name");
    place as u8
}
