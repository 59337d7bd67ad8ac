//! The accept rule: whether a record is new, known, forbidden, or proof that something is missing.
//!
//! Flow: topic record -> **here** -> row of a data file. Pure: a frontier and a record's identity in, a verdict out.
//!
//! # Invariants
//! - Continuity first, coverage second: a missing record is found even if what follows it is a duplicate.
//! - Each position gives one row, whatever is redelivered, doubled, aborted or written by a fenced agent.

use change_event::{Lane, Predecessor, RecordHeader, RecordKind};

use crate::state::Frontier;

/// What identifies a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordIdentity {
    /// Kafka offset.
    pub offset: i64,
    /// Its firn header; `None` for a tombstone and for a record that the caller quarantines: they only move the offset.
    pub header: Option<RecordHeader>,
}

/// Why a record is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Of a topic incarnation that is closed.
    OldIncarnation,
    /// Delivered again: its offset is covered.
    Redelivered,
    /// Written by an agent that was fenced, or in an attempt that was aborted and overtaken.
    Fenced,
    /// Its number in the epoch is covered (the producer sent it twice).
    Repeated,
}

/// A record is missing: nothing behind it may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Topic incarnation of the record that showed it.
    pub incarnation: u32,
    /// Offset of that record.
    pub offset: i64,
    /// Epoch and number of the last accepted record.
    pub covered: Predecessor,
    /// Epoch and number of the record that showed it.
    pub found: Predecessor,
    /// What that record names as its predecessor, if it is an epoch's first.
    pub predecessor: Option<Predecessor>,
}

/// What to do with a record.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The frontier moves over it; it is a row of the table if `row`.
    Accept {
        /// False for a duplicate by position, a marker, a barrier, a tombstone, a record without header.
        row: bool,
    },
    /// Not taken.
    Drop(DropReason),
    /// The topic was made anew: win the next slot of the old chain with a closed intent
    /// ([`crate::Intent::closing`]), go on from its frontier, and judge the record again.
    NewIncarnation {
        /// The incarnation that begins.
        incarnation: u32,
    },
    /// A record is missing.
    Gap(Gap),
    /// An offset that is covered holds a newer record: the topic was replaced without a new incarnation.
    TopicReplaced,
}

/// Judges a record against the frontier of its partition.
pub fn judge(frontier: &Frontier, record: &RecordIdentity) -> Verdict {
    let Some(header) = &record.header else {
        return if record.offset < frontier.offset {
            Verdict::Drop(DropReason::Redelivered)
        } else {
            Verdict::Accept { row: false }
        };
    };
    // 1. Topic incarnation.
    if header.topic_incarnation < frontier.incarnation {
        return Verdict::Drop(DropReason::OldIncarnation);
    }
    if header.topic_incarnation > frontier.incarnation {
        return Verdict::NewIncarnation {
            incarnation: header.topic_incarnation,
        };
    }
    // 2. Coverage by offset.
    let covered = frontier.last_record();
    let found = Predecessor {
        epoch: header.epoch,
        pseq: header.pseq,
    };
    if record.offset < frontier.offset {
        return if found > covered {
            Verdict::TopicReplaced
        } else {
            Verdict::Drop(DropReason::Redelivered)
        };
    }
    // 3. Fencing.
    if header.epoch < frontier.epoch {
        return Verdict::Drop(DropReason::Fenced);
    }
    // 4. Continuity.
    let gap = Gap {
        incarnation: header.topic_incarnation,
        offset: record.offset,
        covered,
        found,
        predecessor: header.predecessor,
    };
    if header.epoch == frontier.epoch {
        if header.pseq <= frontier.pseq {
            return Verdict::Drop(DropReason::Repeated);
        }
        if header.pseq - frontier.pseq != 1 {
            return Verdict::Gap(gap);
        }
    } else if header.pseq != 1
        || header
            .predecessor
            .is_some_and(|predecessor| predecessor > covered)
    {
        return Verdict::Gap(gap);
    }
    // 5. Coverage by position.
    let known = frontier
        .position(header.position.lane())
        .is_some_and(|last| header.position <= last);
    Verdict::Accept {
        row: !known && header.kind.has_rows(),
    }
}

impl Frontier {
    /// Moves over a record that was judged [`Verdict::Accept`] or [`Verdict::Drop`].
    ///
    /// A dropped record moves at most the offset.
    pub fn pass(&mut self, record: &RecordIdentity, verdict: &Verdict) {
        match verdict {
            Verdict::Accept { .. } => {
                self.offset = self.offset.max(record.offset.saturating_add(1));
                if let Some(header) = &record.header {
                    self.epoch = header.epoch;
                    self.pseq = header.pseq;
                    let last = match header.position.lane() {
                        Lane::Stream => &mut self.stream,
                        Lane::Copy => &mut self.copy,
                    };
                    *last = (*last).max(Some(header.position));
                    if let RecordKind::Barrier { map_version } = header.kind {
                        self.map_version = self.map_version.max(map_version);
                    }
                }
            }
            Verdict::Drop(DropReason::Redelivered | DropReason::Fenced | DropReason::Repeated) => {
                self.offset = self.offset.max(record.offset.saturating_add(1));
            }
            Verdict::Drop(DropReason::OldIncarnation)
            | Verdict::NewIncarnation { .. }
            | Verdict::Gap(_)
            | Verdict::TopicReplaced => {}
        }
    }

    /// Whether what lies between `self` and a later frontier must win a slot before it is acknowledged.
    ///
    /// Offsets alone need none: a record that only moved the offset is judged the same when it comes again.
    #[must_use]
    pub fn needs_slot(&self, after: &Self) -> bool {
        Self { offset: 0, ..*self }
            != Self {
                offset: 0,
                ..*after
            }
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
