//! Where a partition's chain ends: as this process saw it last, or by walking.
//!
//! Flow: **here** -> [`crate::stage`] wins the slot at the end.
//!
//! # Invariants
//! - A walk begins at a frontier that the table committed, or at a tail that was reached from one within the hour.
//! - Nothing is skipped but what the table covers: the committed frontier of a chain is a place in it.
//!
//! Cost: nothing while no other process stages for the partition; else a GET for each slot that the others won since, up to a
//! few, and then a look at the table, whose frontier is not further behind than the table's freshness.

use table_commit::{Chain, Frontier};

use crate::error::StageError;
use crate::ports::Ports;
use crate::topic::{Tail, Topic};

/// Slots read in one step of a walk.
const WALK_STEP: usize = 1_000;

/// Slots read from a tail that others moved, before the table is asked how far it is: each is a round trip, and so are the
/// two of a look.
const CATCH_UP_STEP: usize = 4;

/// When nothing was committed for this long, nothing more is taken (slots are kept for a day at least).
const OVERDUE_HOURS: i64 = 12;

/// The end of a chain: as it was seen last, or by walking from the committed frontier.
pub(crate) async fn find(ports: &Ports, topic: &Topic, chain: &Chain) -> Result<Tail, StageError> {
    let walked_ms = ports.clock.now_ms();
    if let Some(tail) = topic.tail(chain, walked_ms) {
        return Ok(tail);
    }
    let partition = chain.partition;
    let table = topic.recent_table(ports).await?;
    let registered = table
        .as_ref()
        .filter(|table| table.chain(partition) == *chain)
        .and_then(|table| table.frontier(partition));
    let mut frontier = *registered.ok_or(StageError::NotRegistered { partition })?;
    let mut oldest_ms = None;
    loop {
        let walk = chain
            .walk(ports.store.as_ref(), &frontier, WALK_STEP)
            .await?;
        oldest_ms = oldest_ms.or(walk.intents.first().map(|intent| intent.created_ms));
        frontier = walk.tail;
        let hours = oldest_ms.map_or(0, |oldest_ms| (walked_ms - oldest_ms) / 3_600_000);
        if hours >= OVERDUE_HOURS {
            return Err(StageError::CommitOverdue { hours });
        }
        if walk.at_end {
            return Ok(Tail {
                frontier,
                walked_ms,
            });
        }
    }
}

/// The end of a chain that others moved on from `tail`.
pub(crate) async fn catch_up(
    ports: &Ports,
    topic: &Topic,
    chain: &Chain,
    tail: &Frontier,
) -> Result<Frontier, StageError> {
    let store = ports.store.as_ref();
    let walk = chain.walk(store, tail, CATCH_UP_STEP).await?;
    if !walk.intents.is_empty() {
        topic.note_shared(ports.clock.now_ms());
    }
    if walk.at_end {
        return Ok(walk.tail);
    }
    let committed = match topic.table_as_fresh_as_it_gets(ports).await {
        Ok(table) => table
            .filter(|table| table.chain(chain.partition) == *chain)
            .and_then(|table| table.frontier(chain.partition).copied()),
        Err(error) => {
            tracing::debug!(%error, "table not looked at: the chain is walked instead");
            None
        }
    };
    let place = |frontier: &Frontier| (frontier.incarnation, frontier.offset);
    let from = committed.filter(|committed| place(committed) > place(&walk.tail));
    let from = from.unwrap_or(walk.tail);
    Ok(chain.walk(store, &from, usize::MAX).await?.tail)
}
