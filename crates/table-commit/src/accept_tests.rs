//! Each of the five rules, and the law that they make together.

use std::collections::BTreeMap;

use change_event::{Lsn, Position};
use proptest::prelude::*;

use super::*;

fn header(epoch: u64, pseq: u64, lsn: u64) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Change,
        topic_incarnation: 2,
        schema_version: 1,
        epoch,
        pseq,
        predecessor: None,
        position: Position::stream(1, Lsn(lsn), 1),
    }
}

fn record(offset: i64, header: RecordHeader) -> RecordIdentity {
    RecordIdentity {
        offset,
        header: Some(header),
    }
}

fn after(epoch: u64, pseq: u64) -> Option<Predecessor> {
    Some(Predecessor { epoch, pseq })
}

/// Offset 10, epoch 5, number 3, stream at 100, no copy.
fn frontier() -> Frontier {
    Frontier {
        offset: 10,
        epoch: 5,
        pseq: 3,
        stream: Some(Position::stream(1, Lsn(100), 1)),
        ..Frontier::start(2)
    }
}

const ROW: Verdict = Verdict::Accept { row: true };
const NO_ROW: Verdict = Verdict::Accept { row: false };

#[test]
fn rule_1_older_incarnation_is_dropped_and_newer_begins() {
    let old = RecordHeader {
        topic_incarnation: 1,
        ..header(9, 1, 999)
    };
    assert_eq!(
        judge(&frontier(), &record(10, old)),
        Verdict::Drop(DropReason::OldIncarnation)
    );
    let new = RecordHeader {
        topic_incarnation: 3,
        ..header(6, 1, 101)
    };
    assert_eq!(
        judge(&frontier(), &record(0, new)),
        Verdict::NewIncarnation { incarnation: 3 }
    );
    let reopened = frontier().reopened(3);
    assert_eq!(judge(&reopened, &record(0, new)), ROW);
    let replayed = RecordHeader {
        position: Position::stream(1, Lsn(100), 1),
        ..new
    };
    assert_eq!(
        judge(&reopened, &record(0, replayed)),
        NO_ROW,
        "positions carry over"
    );
}

#[test]
fn rule_2_covered_offset_is_dropped_unless_the_record_is_newer() {
    assert_eq!(
        judge(&frontier(), &record(9, header(5, 3, 100))),
        Verdict::Drop(DropReason::Redelivered)
    );
    assert_eq!(
        judge(&frontier(), &record(9, header(4, 77, 100))),
        Verdict::Drop(DropReason::Redelivered)
    );
    assert_eq!(
        judge(&frontier(), &record(9, header(5, 4, 101))),
        Verdict::TopicReplaced
    );
    assert_eq!(
        judge(&frontier(), &record(0, header(6, 1, 101))),
        Verdict::TopicReplaced
    );
}

#[test]
fn rule_3_older_epoch_is_dropped() {
    assert_eq!(
        judge(&frontier(), &record(10, header(4, 4, 500))),
        Verdict::Drop(DropReason::Fenced)
    );
}

#[test]
fn rule_4_same_epoch_must_be_dense() {
    assert_eq!(
        judge(&frontier(), &record(12, header(5, 3, 100))),
        Verdict::Drop(DropReason::Repeated)
    );
    assert_eq!(judge(&frontier(), &record(12, header(5, 4, 101))), ROW);
    let gap = judge(&frontier(), &record(12, header(5, 5, 101)));
    let covered = Predecessor { epoch: 5, pseq: 3 };
    let found = Predecessor { epoch: 5, pseq: 5 };
    assert_eq!(
        gap,
        Verdict::Gap(Gap {
            incarnation: 2,
            offset: 12,
            covered,
            found,
            predecessor: None
        })
    );
}

#[test]
fn rule_4_newer_epoch_must_begin_at_one_and_know_no_more_than_the_frontier() {
    let first = |predecessor| {
        record(
            12,
            RecordHeader {
                predecessor,
                ..header(7, 1, 101)
            },
        )
    };
    assert_eq!(judge(&frontier(), &first(None)), ROW);
    assert_eq!(judge(&frontier(), &first(after(5, 3))), ROW);
    assert_eq!(
        judge(&frontier(), &first(after(5, 1))),
        ROW,
        "what followed was aborted, and read"
    );
    assert!(matches!(
        judge(&frontier(), &first(after(5, 4))),
        Verdict::Gap(_)
    ));
    assert!(
        matches!(judge(&frontier(), &first(after(6, 1))), Verdict::Gap(_)),
        "a whole epoch is missing"
    );
    assert!(matches!(
        judge(&frontier(), &record(12, header(7, 2, 101))),
        Verdict::Gap(_)
    ));
}

#[test]
fn rule_4_new_table_takes_only_a_beginning() {
    let start = Frontier::start(2);
    assert_eq!(judge(&start, &record(40, header(1, 1, 7))), ROW);
    let later = RecordHeader {
        predecessor: after(1, 9),
        ..header(2, 1, 7)
    };
    assert!(matches!(judge(&start, &record(40, later)), Verdict::Gap(_)));
    assert!(matches!(
        judge(&start, &record(40, header(1, 2, 7))),
        Verdict::Gap(_)
    ));
}

#[test]
fn rule_5_covered_position_is_no_row_but_moves_the_frontier() {
    let mut now = frontier();
    let duplicate = record(12, header(5, 4, 100));
    let verdict = judge(&now, &duplicate);
    assert_eq!(verdict, NO_ROW);
    now.pass(&duplicate, &verdict);
    assert_eq!(
        now,
        Frontier {
            offset: 13,
            pseq: 4,
            ..frontier()
        }
    );
    assert!(frontier().needs_slot(&now), "the number moved");
}

#[test]
fn rule_5_lanes_are_apart() {
    let copied = RecordHeader {
        position: Position::copy(1, Lsn(50), 1, 0, 0),
        ..header(5, 4, 0)
    };
    let mut now = frontier();
    let verdict = judge(&now, &record(12, copied));
    assert_eq!(verdict, ROW);
    now.pass(&record(12, copied), &verdict);
    assert_eq!(
        (now.copy, now.stream),
        (Some(copied.position), frontier().stream)
    );
}

#[test]
fn position_never_goes_back() {
    let mut now = frontier();
    let old = record(12, header(5, 4, 40));
    let verdict = judge(&now, &old);
    now.pass(&old, &verdict);
    assert_eq!(now.stream, frontier().stream);
}

#[test]
fn marker_is_no_row_and_moves_its_lane() {
    let marker = RecordHeader {
        kind: RecordKind::Marker,
        ..header(5, 4, 120)
    };
    let mut now = frontier();
    let verdict = judge(&now, &record(12, marker));
    assert_eq!(verdict, NO_ROW);
    now.pass(&record(12, marker), &verdict);
    assert_eq!(now.stream, Some(marker.position));
}

#[test]
fn record_without_header_only_moves_the_offset() {
    let mut now = frontier();
    let bare = RecordIdentity {
        offset: 15,
        header: None,
    };
    let verdict = judge(&now, &bare);
    assert_eq!(verdict, NO_ROW);
    now.pass(&bare, &verdict);
    assert_eq!(
        now,
        Frontier {
            offset: 16,
            ..frontier()
        }
    );
    assert!(!frontier().needs_slot(&now));
    let covered = RecordIdentity {
        offset: 3,
        header: None,
    };
    assert_eq!(
        judge(&now, &covered),
        Verdict::Drop(DropReason::Redelivered)
    );
}

#[test]
fn refusals_move_nothing() {
    let refused = [
        record(12, header(5, 5, 101)),
        record(0, header(6, 1, 101)),
        record(
            12,
            RecordHeader {
                topic_incarnation: 1,
                ..header(5, 4, 101)
            },
        ),
        record(
            12,
            RecordHeader {
                topic_incarnation: 3,
                ..header(6, 1, 101)
            },
        ),
    ];
    for record in refused {
        let mut now = frontier();
        let verdict = judge(&now, &record);
        now.pass(&record, &verdict);
        assert_eq!(now, frontier(), "{verdict:?}");
    }
}

/// What an agent does with a run of source changes: attempts that abort after some records, then one that commits.
#[derive(Debug, Clone)]
struct Run {
    changes: u64,
    aborted: Vec<u64>,
    /// The agent restarts first and begins again from some changes before (its progress was lost).
    replays: u64,
}

fn any_run() -> impl Strategy<Value = Run> {
    let aborted = proptest::collection::vec(0..4u64, 0..3);
    (1..5u64, aborted, prop_oneof![3 => Just(0), 1 => 1..4u64]).prop_map(
        |(changes, aborted, replays)| Run {
            changes,
            aborted,
            replays,
        },
    )
}

/// The log of one partition, as a reader of uncommitted records sees it (`committed` false) or of committed ones.
fn topic(runs: &[Run], committed: bool) -> (Vec<RecordIdentity>, u64) {
    let mut log = Vec::new();
    let (mut epoch, mut pseq, mut offset, mut last) = (1, 0, 0, 0u64);
    let mut predecessor = None;
    for run in runs {
        if run.replays > 0 {
            (epoch, pseq) = (epoch + 1, 0);
        }
        let first = last.saturating_sub(run.replays) + 1;
        let end = last + run.changes;
        let attempts = run
            .aborted
            .iter()
            .map(|count| (*count, false))
            .chain([(end - first + 1, true)]);
        for (count, commits) in attempts {
            for lsn in (first..=end).take(usize::try_from(count).unwrap()) {
                pseq += 1;
                let link = if pseq == 1 { predecessor } else { None };
                if commits || !committed {
                    log.push(record(
                        offset,
                        RecordHeader {
                            predecessor: link,
                            ..header(epoch, pseq, lsn)
                        },
                    ));
                }
                offset += 1;
            }
            offset += 1; // the transaction's marker
            if commits {
                predecessor = Some(Predecessor { epoch, pseq });
            } else {
                (epoch, pseq) = (epoch + 1, 0);
            }
        }
        last = end;
    }
    (log, last)
}

proptest! {
    #[test]
    fn every_position_gives_one_row_in_order_whatever_is_delivered(
        runs in proptest::collection::vec(any_run(), 1..8),
        committed in any::<bool>(),
        deliveries in proptest::collection::vec((0..1000usize, 1..12usize), 0..40),
    ) {
        let (log, last) = topic(&runs, committed);
        let (mut now, mut acknowledged) = (Frontier::start(2), 0);
        let mut rows: Vec<u64> = Vec::new();
        // Redelivery begins anywhere up to what was acknowledged; at the end everything is delivered.
        let final_delivery = std::iter::once((0, log.len()));
        for (from, count) in deliveries.into_iter().chain(final_delivery) {
            let from = from % (acknowledged + 1);
            let to = (from + count).min(log.len());
            for record in &log[from..to] {
                let verdict = judge(&now, record);
                match verdict {
                    Verdict::Accept { row } => {
                        if row {
                            rows.push(record.header.unwrap().position.commit_lsn.0);
                        }
                    }
                    Verdict::Drop(_) => {}
                    other => prop_assert!(false, "{other:?} at {}", record.offset),
                }
                let before = now;
                now.pass(record, &verdict);
                prop_assert!(now.offset >= before.offset && now.stream >= before.stream);
                prop_assert!((now.epoch, now.pseq) >= (before.epoch, before.pseq));
            }
            acknowledged = acknowledged.max(to);
        }
        prop_assert_eq!(rows, (1..=last).collect::<Vec<_>>());
    }

    #[test]
    fn missing_record_is_found_by_the_next(
        runs in proptest::collection::vec(any_run(), 2..6),
        committed in any::<bool>(),
        choice in any::<prop::sample::Index>(),
    ) {
        let (mut log, _) = topic(&runs, committed);
        let newest: BTreeMap<u64, i64> = log
            .iter()
            .map(|record| (record.header.unwrap().position.commit_lsn.0, record.offset))
            .collect();
        // Only a record that nothing repeats later is missed; the last one of the log has none behind it.
        let missing = choice.index(log.len() - 1);
        let lost = log.remove(missing);
        let repeated = newest[&lost.header.unwrap().position.commit_lsn.0] != lost.offset;
        let mut now = Frontier::start(2);
        let mut found = false;
        for record in &log {
            let verdict = judge(&now, record);
            if matches!(verdict, Verdict::Gap(_)) {
                found = true;
                break;
            }
            now.pass(record, &verdict);
        }
        prop_assert!(found || repeated);
    }
}
