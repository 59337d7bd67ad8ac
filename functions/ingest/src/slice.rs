//! Cuts a partition's records against a frontier: which are rows, which go to quarantine, where it must stop. Pure.
//!
//! Flow: records of a partition -> **here** ([`table_commit::judge`]) -> rows -> Parquet -> slot.
//!
//! # Invariants
//! - A record with a readable header moves the frontier by it, also if its value then turns out unreadable: its number is used.
//! - What comes behind a gap is not looked at.
//! - The records of a slice are all of one partition map: it ends behind a barrier.

use change_event::RecordHeader;
use table_commit::{DropReason, Frontier, Gap, RecordIdentity, Verdict, judge};

/// What a record's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found<R> {
    /// Written by an agent.
    Firn(RecordHeader),
    /// A tombstone without a header: it only moves the offset.
    Bare,
    /// It can never succeed, for this reason.
    Poison(R),
}

/// Why a slice ended. `index` is the first record that is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    End,
    Gap {
        index: usize,
        gap: Gap,
    },
    TopicReplaced {
        index: usize,
    },
    NewIncarnation {
        index: usize,
        incarnation: u32,
    },
    /// What follows is of another partition map.
    Barrier {
        index: usize,
    },
}

/// What of a partition's records is to be staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Indices of records with a row or files, each with its header.
    pub(crate) rows: Vec<(usize, RecordHeader)>,
    /// Indices of records for quarantine by their headers.
    pub(crate) poison: Vec<usize>,
    /// The frontier behind the last record of the slice.
    pub(crate) after: Frontier,
    /// Records that were known already.
    pub(crate) duplicate_count: u64,
    /// Why it ended.
    pub(crate) stop: Stop,
}

/// Judges records in order, from `tail`. Offsets and what the headers say go in.
pub(crate) fn slice<'a, R: 'a>(
    tail: &Frontier,
    records: impl Iterator<Item = (i64, &'a Found<R>)>,
) -> Slice {
    let mut slice = Slice {
        rows: Vec::new(),
        poison: Vec::new(),
        after: *tail,
        duplicate_count: 0,
        stop: Stop::End,
    };
    for (index, (offset, found)) in records.enumerate() {
        if slice.after.map_version != tail.map_version {
            slice.stop = Stop::Barrier { index };
            return slice;
        }
        let header = match found {
            Found::Firn(header) => Some(*header),
            Found::Bare | Found::Poison(_) => None,
        };
        let record = RecordIdentity { offset, header };
        let verdict = judge(&slice.after, &record);
        match verdict {
            Verdict::Accept { row } => match (found, header) {
                (Found::Poison(_), _) => slice.poison.push(index),
                (Found::Firn(_), Some(header)) if row => slice.rows.push((index, header)),
                (Found::Firn(_), Some(header)) => {
                    slice.duplicate_count += u64::from(header.kind.has_rows());
                }
                (Found::Firn(_) | Found::Bare, _) => {}
            },
            Verdict::Drop(
                DropReason::OldIncarnation
                | DropReason::Redelivered
                | DropReason::Fenced
                | DropReason::Repeated,
            ) => slice.duplicate_count += 1,
            Verdict::NewIncarnation { incarnation } => {
                slice.stop = Stop::NewIncarnation { index, incarnation };
                return slice;
            }
            Verdict::Gap(gap) => {
                slice.stop = Stop::Gap { index, gap };
                return slice;
            }
            Verdict::TopicReplaced => {
                slice.stop = Stop::TopicReplaced { index };
                return slice;
            }
        }
        slice.after.pass(&record, &verdict);
    }
    slice
}

#[cfg(test)]
mod tests {
    use change_event::{Lsn, Position, RecordKind};

    use super::*;

    fn header(epoch: u64, pseq: u64) -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Change,
            topic_incarnation: 1,
            schema_version: 1,
            epoch,
            pseq,
            predecessor: None,
            position: Position::stream(1, Lsn(epoch * 1000 + pseq), 1),
        }
    }

    fn cut(tail: &Frontier, records: &[(i64, Found<()>)]) -> Slice {
        slice(tail, records.iter().map(|(offset, found)| (*offset, found)))
    }

    #[test]
    fn rows_poison_and_tombstones_move_the_frontier() {
        let records = [
            (0, Found::Firn(header(1, 1))),
            (1, Found::Poison(())),
            (2, Found::Bare),
            (4, Found::Firn(header(1, 2))),
        ];
        let slice = cut(&Frontier::start(1), &records);
        let rows: Vec<_> = slice.rows.iter().map(|(index, _)| *index).collect();
        assert_eq!((rows, slice.poison.clone()), (vec![0, 3], vec![1]));
        assert_eq!(
            (slice.after.offset, slice.after.pseq, slice.stop),
            (5, 2, Stop::End)
        );
    }

    #[test]
    fn gap_keeps_what_stands_before_it() {
        let records = [
            (0, Found::Firn(header(1, 1))),
            (1, Found::Firn(header(1, 3))),
        ];
        let slice = cut(&Frontier::start(1), &records);
        assert_eq!(slice.rows.len(), 1);
        assert!(matches!(slice.stop, Stop::Gap { index: 1, .. }));
        assert_eq!(slice.after.offset, 1);
    }

    #[test]
    fn slice_ends_behind_a_barrier() {
        let mut barrier = header(1, 2);
        barrier.kind = RecordKind::Barrier { map_version: 2 };
        let records = [
            (0, Found::Firn(header(1, 1))),
            (1, Found::Firn(barrier)),
            (2, Found::Firn(header(1, 3))),
        ];
        let first = cut(&Frontier::start(1), &records);
        assert_eq!(first.stop, Stop::Barrier { index: 2 });
        assert_eq!((first.rows.len(), first.after.map_version), (1, 2));
        let behind = cut(&first.after, &records[2..]);
        assert_eq!((behind.rows.len(), behind.stop), (1, Stop::End));
        let alone = cut(&Frontier::start(1), &records[..2]);
        assert_eq!((alone.after, alone.stop), (first.after, Stop::End));
    }

    #[test]
    fn poison_that_was_covered_is_not_set_aside_again() {
        let records = [
            (0, Found::Firn(header(1, 1))),
            (1, Found::Poison(())),
            (2, Found::Firn(header(1, 2))),
        ];
        let first = cut(&Frontier::start(1), &records);
        let again = cut(&first.after, &records);
        assert_eq!(
            (again.rows.len(), again.poison.len(), again.duplicate_count),
            (0, 0, 3)
        );
        assert!(!first.after.needs_slot(&again.after));
    }

    #[test]
    fn copy_behind_the_stream_of_its_key_is_still_a_row() {
        let mut copy = header(1, 2);
        copy.position = Position::copy(1, Lsn(5), 1, 0, 0);
        let slice = cut(
            &Frontier::start(1),
            &[(0, Found::Firn(header(1, 1))), (1, Found::Firn(copy))],
        );
        assert_eq!(slice.rows.len(), 2);
    }
}
