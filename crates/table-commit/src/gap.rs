//! A gap, and an operator's acceptance of it: a slot without rows that takes the chain over what is missing.
//!
//! Flow: ingest's log names a [`GapPlace`] -> operator -> **here** -> the next slot of the partition's chain -> ingest goes on.
//!
//! # Invariants
//! - Accepted is what the operator was shown: if the chain stands elsewhere by now, nothing is done.
//! - An acceptance is a slot like any other: won once, seen by every ingest that walks, and committed by a combiner, which
//!   writes it down among the table's acts.
//! - The record that showed the gap is the next one that the partition takes. What was missing and comes late is dropped.

use std::fmt;

use change_event::Predecessor;
use serde::{Deserialize, Serialize};

use crate::accept::Gap;
use crate::act::{Act, ActKind, Operator, acts};
use crate::catalog::TableName;
use crate::chain::{Chain, SlotOutcome};
use crate::error::CommitError;
use crate::intent::Intent;
use crate::state::Frontier;
use crate::table::Committer;

/// Where records are missing: all that identifies the gap, as ingest saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapPlace {
    /// The partition.
    pub partition: u32,
    /// Topic incarnation of the record that showed it.
    pub incarnation: u32,
    /// Offset of that record.
    pub offset: i64,
    /// Epoch and number of the last accepted record.
    pub covered: Predecessor,
    /// Epoch and number of the record that showed it.
    pub found: Predecessor,
}

/// A gap that an operator accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedGap {
    /// Where.
    pub place: GapPlace,
    /// Who and why.
    pub operator: Operator,
}

/// What has become of a gap.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapOutcome {
    /// It stands: accepting it wins this slot.
    Stands {
        /// Key of the slot.
        slot_key: String,
        /// Where the chain ends.
        tail: Frontier,
        /// Where it goes on.
        after: Frontier,
    },
    /// This call accepted it.
    Accepted {
        /// Key of the slot.
        slot_key: String,
        /// Where the chain goes on.
        after: Frontier,
    },
    /// It was accepted before, by this operator.
    AcceptedBefore(Operator),
    /// The chain has gone on without: what was missing came after all, or the topic was made anew.
    Passed {
        /// Where the chain ends.
        tail: Frontier,
    },
    /// Nothing is missing between what was covered and what was found.
    NoGap,
}

impl GapPlace {
    /// The place of a gap that was judged in a partition.
    #[must_use]
    pub const fn of(partition: u32, gap: &Gap) -> Self {
        Self {
            partition,
            incarnation: gap.incarnation,
            offset: gap.offset,
            covered: gap.covered,
            found: gap.found,
        }
    }

    /// The operator's command that accepts it, without what only the operator knows.
    #[must_use]
    pub fn command(&self, topic: &str) -> String {
        format!("firn gap accept {topic} {self}")
    }

    /// The frontier behind the gap: the record that showed it is the next.
    #[must_use]
    pub const fn behind(&self, tail: &Frontier) -> Frontier {
        Frontier {
            offset: self.offset,
            epoch: self.found.epoch,
            pseq: self.found.pseq.saturating_sub(1),
            gaps_accepted: tail.gaps_accepted.saturating_add(1),
            ..*tail
        }
    }

    /// Number of the first record that is known to be missing.
    pub(crate) const fn first_missing(&self) -> Predecessor {
        Predecessor {
            epoch: self.covered.epoch,
            pseq: self.covered.pseq.saturating_add(1),
        }
    }

    /// Whether something can be missing between what was covered and what was found.
    fn leaves_room(&self) -> bool {
        self.found.pseq > 0 && self.found > self.first_missing() && self.offset >= 0
    }

    /// Whether the chain still ends where the gap begins.
    fn stands_at(&self, tail: &Frontier) -> bool {
        tail.incarnation == self.incarnation
            && tail.last_record() == self.covered
            && tail.offset <= self.offset
    }
}

/// As the operator's command spells it: `PARTITION --at INCARNATION:OFFSET --covered EPOCH:NUMBER --found EPOCH:NUMBER`.
impl fmt::Display for GapPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            incarnation,
            offset,
            covered,
            found,
        } = self;
        write!(
            f,
            "{partition} --at {incarnation}:{offset} --covered {covered} --found {found}"
        )
    }
}

impl Committer {
    /// What has become of a gap. Changes nothing.
    ///
    /// # Errors
    /// [`CommitError::NoTable`], [`CommitError::NotRegistered`] (Halt); those of [`Committer::load`] and of walking a chain.
    pub async fn examine_gap(
        &self,
        name: &TableName,
        place: &GapPlace,
    ) -> Result<GapOutcome, CommitError> {
        Ok(self.find_gap(name, place).await?.1)
    }

    /// Accepts a gap if it still stands: the partition goes on with the record that showed it, and what is missing stays so.
    ///
    /// Safe under concurrent ingests and operators, and harmless when called again.
    ///
    /// # Errors
    /// Those of [`Committer::examine_gap`]; [`CommitError::SlotUnknown`] (Verify): call again;
    /// [`CommitError::TriesExhausted`] (Refresh).
    pub async fn accept_gap(
        &self,
        name: &TableName,
        place: &GapPlace,
        operator: &Operator,
    ) -> Result<GapOutcome, CommitError> {
        let tries = self.limits.tries_max.max(1);
        for _ in 0..tries {
            let (chain, found) = self.find_gap(name, place).await?;
            let GapOutcome::Stands {
                slot_key,
                tail,
                after,
            } = found
            else {
                return Ok(found);
            };
            let accepted = AcceptedGap {
                place: *place,
                operator: operator.clone(),
            };
            let (id, now_ms) = (self.ids.next_id(), self.clock.now_ms());
            let intent = Intent::accepting(id, &tail, accepted, now_ms);
            match chain.win(self.store(), &tail, &intent).await? {
                SlotOutcome::Won => return Ok(GapOutcome::Accepted { slot_key, after }),
                // An ingest or another operator was first: look again.
                SlotOutcome::Taken(_) => {}
            }
        }
        Err(CommitError::TriesExhausted {
            table: name.clone(),
            operation: "accept",
            tries,
        })
    }

    async fn find_gap(
        &self,
        name: &TableName,
        place: &GapPlace,
    ) -> Result<(Chain, GapOutcome), CommitError> {
        let table = self.load_existing(name).await?;
        let partition = place.partition;
        let frontier = table
            .frontier(partition)
            .ok_or_else(|| CommitError::NotRegistered {
                table: name.clone(),
                partition,
            })?;
        let chain = table.chain(partition);
        let walk = chain.walk(self.store(), frontier, usize::MAX).await?;
        let accepted = walk
            .intents
            .iter()
            .filter_map(act_of)
            .chain(acts(&table.metadata))
            .find(|act| matches!(act.kind, ActKind::GapAccepted(accepted) if accepted == *place));
        let outcome = match accepted {
            _ if !place.leaves_room() => GapOutcome::NoGap,
            Some(act) => GapOutcome::AcceptedBefore(act.operator),
            None if !place.stands_at(&walk.tail) => GapOutcome::Passed { tail: walk.tail },
            None => GapOutcome::Stands {
                slot_key: chain.slot_key(&walk.tail),
                tail: walk.tail,
                after: place.behind(&walk.tail),
            },
        };
        Ok((chain, outcome))
    }
}

/// The act by which a combiner writes an acceptance down.
pub(crate) fn act_of(intent: &Intent) -> Option<Act> {
    let gap = intent.accepted_gap.as_ref()?;
    Some(Act {
        id: intent.id.clone(),
        at_ms: intent.created_ms,
        operator: gap.operator.clone(),
        kind: ActKind::GapAccepted(gap.place),
    })
}
