//! What a poller shows of a log: every record, or the committed ones.
//!
//! Flow: broker's log -> **here** -> [`RecordIdentity`] for `judge`.
//!
//! # Invariants
//! - Markers and hidden records take offsets.
//! - Epochs are numbered anew, in their order: only their order is ever looked at. So logs that differ by claims that nobody
//!   used are one.

use std::collections::BTreeSet;

use change_event::{Lsn, Position, Predecessor, RecordHeader, RecordKind};
use table_commit::RecordIdentity;

use crate::agent::{Fate, Item, Sent};

/// Version of the larger map.
pub(crate) const RAISED: u32 = 2;

/// A log as it is seen, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Log {
    /// The topic's lives, each with its two partitions.
    pub(crate) lives: Vec<[Vec<(i64, Sent)>; 2]>,
}

impl Log {
    pub(crate) fn of(lives: &[[Vec<Item>; 2]], aborted_seen: bool, offsets_dense: bool) -> Self {
        let seen = |log: &Vec<Item>| -> Vec<(i64, Sent)> {
            (0i64..)
                .zip(log)
                .filter_map(|(offset, item)| match item {
                    Item::Record(sent, fate) if aborted_seen || *fate == Fate::Committed => {
                        Some((offset, *sent))
                    }
                    Item::Record(..) | Item::Marker => None,
                })
                .collect()
        };
        let mut log = Self {
            lives: lives.iter().map(|life| life.each_ref().map(seen)).collect(),
        };
        log.number_epochs_anew();
        if offsets_dense {
            for records in log.lives.iter_mut().flatten() {
                for (dense, (offset, _)) in (0i64..).zip(records) {
                    *offset = dense;
                }
            }
        }
        log
    }

    fn number_epochs_anew(&mut self) {
        let records = self.lives.iter().flatten().flatten();
        let epochs: BTreeSet<u64> = records
            .flat_map(|(_, sent)| {
                [
                    Some(sent.epoch),
                    sent.predecessor.map(|before| before.epoch),
                ]
            })
            .flatten()
            .collect();
        let rank = |epoch: u64| 1 + epochs.range(..epoch).count() as u64;
        for (_, sent) in self.lives.iter_mut().flatten().flatten() {
            sent.epoch = rank(sent.epoch);
            if let Some(before) = &mut sent.predecessor {
                before.epoch = rank(before.epoch);
            }
        }
    }
}

/// A record as it is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) identity: RecordIdentity,
    /// The change; 0 for a barrier.
    pub(crate) change: u8,
    /// A larger map begins behind it.
    pub(crate) barrier: bool,
    /// Which of the topic's lives it belongs to.
    pub(crate) life: u8,
}

/// What pollers see of the two partitions, one life of the topic after the other.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) partitions: [Vec<Seen>; 2],
}

impl View {
    pub(crate) fn of(log: &Log) -> Self {
        let mut partitions = [Vec::new(), Vec::new()];
        for (life, logs) in (0u8..).zip(&log.lives) {
            for (seen, records) in partitions.iter_mut().zip(logs) {
                seen.extend(
                    records
                        .iter()
                        .map(|(offset, sent)| show(*offset, sent, life)),
                );
            }
        }
        Self { partitions }
    }

    pub(crate) fn lives(&self) -> u8 {
        let records = self.partitions.iter().flatten();
        1 + records.map(|seen| seen.life).max().unwrap_or(0)
    }

    /// The log in a line, for traces.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        for (partition, records) in self.partitions.iter().enumerate() {
            for seen in records {
                let Some(header) = &seen.identity.header else {
                    continue;
                };
                let Predecessor { epoch, pseq } = header
                    .predecessor
                    .unwrap_or(Predecessor { epoch: 0, pseq: 0 });
                let what = if seen.barrier {
                    "barrier".to_owned()
                } else {
                    format!("change {}", seen.change)
                };
                text += &format!(
                    " p{partition}@{}/{}:{what} epoch {} pseq {} prev {epoch}/{pseq};",
                    header.topic_incarnation, seen.identity.offset, header.epoch, header.pseq
                );
            }
        }
        text
    }
}

/// Changes 1 and 2 are one source transaction, 3 is another. The second change and what follows has schema version 2.
fn show(offset: i64, sent: &Sent, life: u8) -> Seen {
    let (transaction, ordinal) = match sent.change {
        0..=2 => (1, u64::from(sent.change)),
        later => (u64::from(later) - 1, 1),
    };
    let header = RecordHeader {
        kind: if sent.barrier {
            RecordKind::Barrier {
                map_version: RAISED,
            }
        } else {
            RecordKind::Change
        },
        topic_incarnation: sent.incarnation,
        schema_version: if sent.change > 1 { 2 } else { 1 },
        epoch: sent.epoch,
        pseq: sent.pseq,
        predecessor: sent.predecessor,
        position: Position::stream(1, Lsn(transaction), ordinal),
    };
    Seen {
        identity: RecordIdentity {
            offset,
            header: Some(header),
        },
        change: if sent.barrier { 0 } else { sent.change },
        barrier: sent.barrier,
        life,
    }
}
