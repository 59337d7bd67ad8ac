//! The accept rule with one line replaced; without a mutant of it, production's own.

use change_event::{Lane, Predecessor};
use table_commit::{DropReason, Frontier, Gap, RecordIdentity, Verdict, judge};

use crate::mutant::Mutant;

/// What [`judge`] says, or a mutant of it.
pub(crate) fn judged(
    mutant: Option<Mutant>,
    frontier: &Frontier,
    record: &RecordIdentity,
) -> Verdict {
    match mutant {
        Some(
            mutant @ (Mutant::IncarnationIgnored
            | Mutant::OldIncarnationStops
            | Mutant::ReplacedTopicIsRedelivery
            | Mutant::FencedTaken
            | Mutant::DensityUnchecked
            | Mutant::FirstOfEpochUnchecked
            | Mutant::PredecessorUnchecked
            | Mutant::PredecessorMustBeEqual
            | Mutant::PositionUnchecked),
        ) => mutated(mutant, frontier, record),
        _ => judge(frontier, record),
    }
}

/// `judge`, line for line, where `mutant` leaves it.
fn mutated(mutant: Mutant, frontier: &Frontier, record: &RecordIdentity) -> Verdict {
    let Some(header) = &record.header else {
        return judge(frontier, record);
    };
    if header.topic_incarnation < frontier.incarnation {
        return if mutant == Mutant::OldIncarnationStops {
            Verdict::TopicReplaced
        } else {
            Verdict::Drop(DropReason::OldIncarnation)
        };
    }
    if header.topic_incarnation > frontier.incarnation && mutant != Mutant::IncarnationIgnored {
        return Verdict::NewIncarnation {
            incarnation: header.topic_incarnation,
        };
    }
    let covered = frontier.last_record();
    let found = Predecessor {
        epoch: header.epoch,
        pseq: header.pseq,
    };
    if record.offset < frontier.offset {
        return if found > covered && mutant != Mutant::ReplacedTopicIsRedelivery {
            Verdict::TopicReplaced
        } else {
            Verdict::Drop(DropReason::Redelivered)
        };
    }
    if header.epoch < frontier.epoch && mutant != Mutant::FencedTaken {
        return Verdict::Drop(DropReason::Fenced);
    }
    let gap = Verdict::Gap(Gap {
        incarnation: header.topic_incarnation,
        offset: record.offset,
        covered,
        found,
        predecessor: header.predecessor,
    });
    if header.epoch == frontier.epoch {
        if header.pseq <= frontier.pseq {
            return Verdict::Drop(DropReason::Repeated);
        }
        if header.pseq - frontier.pseq != 1 && mutant != Mutant::DensityUnchecked {
            return gap;
        }
    } else if header.pseq != 1 && mutant != Mutant::FirstOfEpochUnchecked {
        return gap;
    } else if let Some(predecessor) = header.predecessor
        && (predecessor > covered && mutant != Mutant::PredecessorUnchecked
            || predecessor != covered && mutant == Mutant::PredecessorMustBeEqual)
    {
        return gap;
    }
    let known = frontier
        .position(header.position.lane())
        .is_some_and(|last| header.position <= last);
    debug_assert_eq!(header.position.lane(), Lane::Stream);
    Verdict::Accept {
        row: (!known || mutant == Mutant::PositionUnchecked) && header.kind.has_rows(),
    }
}
