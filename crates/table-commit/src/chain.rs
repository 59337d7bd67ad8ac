//! The chain of intents of one partition: slots that lead from frontier to frontier.
//!
//! Flow: ingest wins slots at the chain's end; the combiner walks the same slots from the committed frontier.
//!
//! # Invariants
//! - A slot is won once (create-only), so that the order of a partition's batches is fixed when its record is acknowledged.
//! - A walk reads slot after slot and never skips one; it lists nothing.
//! - A sealed chain ([`crate::rebuild`]) ends before its seal for who walks it, and takes nothing any more.

use object_io::{ObjectStore, VerifiedPut, put_if_absent_verified};

use crate::error::CommitError;
use crate::intent::Intent;
use crate::state::Frontier;

/// Folder of all intents.
pub const INTENTS: &str = "control/i/";

/// Digits of the offset in the name of a slot.
const OFFSET_DIGITS: usize = 20;

/// Names the slots of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Identity of the table: a table made anew has new chains.
    pub table_uuid: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// How the race for a slot ended.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
pub enum SlotOutcome {
    /// The slot holds our intent: the batch may be acknowledged.
    Won,
    /// The slot holds another's intent: judge the batch again from its `after`.
    Taken(Box<Intent>),
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// Where the walk ended: the next slot is this frontier's.
    pub tail: Frontier,
    /// The intents walked over, in order.
    pub intents: Vec<Intent>,
    /// The next slot is free; otherwise the walk stopped at its limit.
    pub at_end: bool,
}

impl Walk {
    /// Leaves only the first intents, of a walk that began at `from`.
    pub(crate) fn truncate(&mut self, from: &Frontier, length: usize) {
        if length < self.intents.len() {
            self.intents.truncate(length);
            self.tail = self.intents.last().map_or(*from, |last| last.after);
            self.at_end = false;
        }
    }
}

impl Chain {
    /// Key of the slot that follows a frontier. In one incarnation, keys sort as the slots follow each other.
    #[must_use]
    pub fn slot_key(&self, tail: &Frontier) -> String {
        let accepted = match tail.gaps_accepted {
            0 => String::new(),
            count => format!("-{count:05}"),
        };
        format!(
            "{INTENTS}{}/{}/{:010}/{:05}/{:020}{accepted}",
            self.table_uuid, self.topic, tail.incarnation, self.partition, tail.offset
        )
    }

    /// Whether a key is that of a slot of this chain, and a frontier is past it: whatever it holds is committed.
    #[must_use]
    pub fn is_behind(&self, key: &str, frontier: &Frontier) -> bool {
        let end = self.slot_key(frontier);
        match (self.place(key), self.place(&end)) {
            (Some(slot), Some(end)) => slot < end,
            (None, _) | (_, None) => false,
        }
    }

    /// The slots' folder of all partitions.
    pub(crate) fn folder(&self) -> String {
        format!("{INTENTS}{}/{}/", self.table_uuid, self.topic)
    }

    /// The newest of these keys that is a slot of this chain.
    pub(crate) fn newest<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        keys.filter_map(|key| Some((self.place(key)?, key)))
            .max()
            .map(|(_, key)| key)
    }

    /// Incarnation of a slot of this chain, and its name there: both sort as the slots follow each other.
    fn place<'a>(&self, key: &'a str) -> Option<(u32, &'a str)> {
        let (incarnation, rest) = key.strip_prefix(&self.folder())?.split_once('/')?;
        let (partition, name) = rest.split_once('/')?;
        let is_slot = partition == format!("{:05}", self.partition)
            && name.len() >= OFFSET_DIGITS
            && name
                .bytes()
                .take(OFFSET_DIGITS)
                .all(|byte| byte.is_ascii_digit());
        is_slot.then_some((incarnation.parse().ok()?, name))
    }

    /// The intent in the slot that follows a frontier, if it is taken.
    ///
    /// # Errors
    /// [`CommitError::Object`] (Retry), [`CommitError::MalformedIntent`] and [`CommitError::BrokenChain`] (Halt).
    pub async fn next(
        &self,
        store: &dyn ObjectStore,
        tail: &Frontier,
    ) -> Result<Option<Intent>, CommitError> {
        let key = self.slot_key(tail);
        match store.get(&key).await? {
            None => Ok(None),
            Some(body) => parse(&key, tail, &body).map(Some),
        }
    }

    /// Walks from a frontier over at most `limit` slots towards the first free one.
    ///
    /// # Errors
    /// Those of [`Chain::next`].
    pub async fn walk(
        &self,
        store: &dyn ObjectStore,
        from: &Frontier,
        limit: usize,
    ) -> Result<Walk, CommitError> {
        let mut walk = Walk {
            tail: *from,
            intents: Vec::new(),
            at_end: false,
        };
        while walk.intents.len() < limit {
            let next = self.next(store, &walk.tail).await?;
            let Some(intent) = next.filter(|intent| intent.moved_to.is_none()) else {
                walk.at_end = true;
                break;
            };
            walk.tail = intent.after;
            walk.intents.push(intent);
        }
        Ok(walk)
    }

    /// Races for the slot that follows `tail`.
    ///
    /// Winning again with the same intent is winning: a caller whose answer was lost calls again with the same intent.
    ///
    /// # Errors
    /// [`CommitError::SlotUnknown`] (Verify): the slot may come to hold the intent; the batch is not to be acknowledged.
    /// [`CommitError::ChainSealed`] (Refresh): another table goes on in this one's place.
    pub async fn win(
        &self,
        store: &dyn ObjectStore,
        tail: &Frontier,
        intent: &Intent,
    ) -> Result<SlotOutcome, CommitError> {
        let key = self.slot_key(tail);
        match put_if_absent_verified(store, &key, intent.to_bytes(&key)?).await? {
            VerifiedPut::Created => Ok(SlotOutcome::Won),
            VerifiedPut::ExistsOther(body) => {
                let found = parse(&key, tail, &body)?;
                if found.id == intent.id {
                    return Ok(SlotOutcome::Won);
                }
                match found.moved_to {
                    Some(moved_to) => Err(CommitError::ChainSealed { key, moved_to }),
                    None => Ok(SlotOutcome::Taken(Box::new(found))),
                }
            }
            VerifiedPut::Unknown => Err(CommitError::SlotUnknown { key }),
        }
    }
}

/// Reads an intent and checks that it continues the chain.
fn parse(key: &str, tail: &Frontier, body: &[u8]) -> Result<Intent, CommitError> {
    let intent = Intent::from_bytes(key, body)?;
    let after = &intent.after;
    let accepts = u32::from(intent.accepted_gap.is_some());
    let forward = if intent.moved_to.is_some() {
        (after.incarnation, after.offset) == (tail.incarnation, tail.offset)
    } else if intent.closed {
        after.incarnation > tail.incarnation
    } else {
        after.incarnation == tail.incarnation && after.offset + i64::from(accepts) > tail.offset
    };
    let counted = after.gaps_accepted == tail.gaps_accepted + accepts;
    if forward && counted && intent.start == tail.offset && intent.end == after.offset {
        Ok(intent)
    } else {
        Err(CommitError::BrokenChain {
            key: key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_behind_the_frontier_that_its_intent_led_to() {
        let chain = Chain {
            table_uuid: "u".to_owned(),
            topic: "shop.public.a-2d".to_owned(),
            partition: 7,
        };
        let at = |incarnation, offset| Frontier {
            offset,
            ..Frontier::start(incarnation)
        };
        let frontier = at(2, 10);
        let behind = |tail: Frontier| chain.is_behind(&chain.slot_key(&tail), &frontier);
        assert!(
            [at(1, 99), at(2, 0), at(2, 9)]
                .map(behind)
                .iter()
                .all(|is| *is)
        );
        assert!(
            ![at(2, 10), at(2, 11), at(3, 0)]
                .map(behind)
                .iter()
                .any(|is| *is)
        );
        let others = [
            Chain {
                partition: 6,
                ..chain.clone()
            },
            Chain {
                topic: "t".to_owned(),
                ..chain.clone()
            },
            Chain {
                table_uuid: "v".to_owned(),
                ..chain.clone()
            },
        ];
        for other in others {
            assert!(
                !chain.is_behind(&other.slot_key(&at(1, 0)), &frontier),
                "{other:?}"
            );
        }
        for key in [
            "control/i/u/shop.public.a-2d/0000000001/00007/x",
            "control/registry/t.json",
        ] {
            assert!(!chain.is_behind(key, &frontier), "{key}");
        }
    }
}
