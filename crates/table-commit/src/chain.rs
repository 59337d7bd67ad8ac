//! The chain of intents of one partition: slots that lead from frontier to frontier.
//!
//! Flow: ingest wins slots at the chain's end; the combiner walks the same slots from the committed frontier.
//!
//! # Invariants
//! - A slot is won once (create-only), so that the order of a partition's batches is fixed when its record is acknowledged.
//! - A walk reads slot after slot and never skips one; it lists nothing.

use object_io::{ObjectStore, VerifiedPut, put_if_absent_verified};

use crate::error::CommitError;
use crate::intent::Intent;
use crate::state::Frontier;

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

impl Chain {
    /// Key of the slot that follows a frontier. In one incarnation, keys sort as the slots follow each other.
    #[must_use]
    pub fn slot_key(&self, tail: &Frontier) -> String {
        let accepted = match tail.gaps_accepted {
            0 => String::new(),
            count => format!("-{count:05}"),
        };
        format!(
            "control/i/{}/{}/{:010}/{:05}/{:020}{accepted}",
            self.table_uuid, self.topic, tail.incarnation, self.partition, tail.offset
        )
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
            let Some(intent) = self.next(store, &walk.tail).await? else {
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
                    Ok(SlotOutcome::Won)
                } else {
                    Ok(SlotOutcome::Taken(Box::new(found)))
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
    let forward = if intent.closed {
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
