//! Rising numbers that nobody gets twice: epochs of a source, incarnations of a topic.
//!
//! Flow: `init_transactions` has fenced the predecessor -> **a number is claimed** -> the first record carries it.
//!
//! # Invariants
//! - A claim is an object created once; its body names the attempt, so that a lost answer is told from a lost race.
//! - A claimed number is above every number claimed before, whether or not that one was ever used.

use change_event::{Clock, IdSource, layout};
use object_io::ObjectStore;
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::objects::{self, Creation};

/// The body of a claim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Who claims: one attempt.
    pub attempt: String,
    /// When, milliseconds since the epoch, by the claimer's clock.
    pub claimed_ms: i64,
}

/// Claims the next epoch of a source.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`].
pub async fn claim_epoch(
    store: &dyn ObjectStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    source_name: &str,
) -> Result<u64, AgentError> {
    let mut epoch = highest_epoch(store, source_name).await? + 1;
    while !claim(store, clock, ids, &layout::epoch_claim(source_name, epoch)).await? {
        epoch += 1;
    }
    Ok(epoch)
}

/// The highest epoch claimed of a source, 0 if there is none.
///
/// # Errors
/// [`AgentError::Objects`].
pub(crate) async fn highest_epoch(
    store: &dyn ObjectStore,
    source_name: &str,
) -> Result<u64, AgentError> {
    highest(store, &layout::epoch_claims(source_name)).await
}

/// Claims the next incarnation of a topic that is about to be created.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`].
pub async fn claim_incarnation(
    store: &dyn ObjectStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    topic: &str,
) -> Result<u32, AgentError> {
    let mut incarnation = current_incarnation(store, topic).await? + 1;
    while !claim(
        store,
        clock,
        ids,
        &layout::incarnation_claim(topic, incarnation),
    )
    .await?
    {
        incarnation += 1;
    }
    Ok(incarnation)
}

/// The highest incarnation claimed for a topic, 0 if there is none.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn current_incarnation(store: &dyn ObjectStore, topic: &str) -> Result<u32, AgentError> {
    let highest = highest(store, &layout::incarnation_claims(topic)).await?;
    Ok(u32::try_from(highest).unwrap_or(u32::MAX))
}

async fn highest(store: &dyn ObjectStore, folder: &str) -> Result<u64, AgentError> {
    let claims = store.list(folder).await?;
    let numbers = claims
        .iter()
        .filter_map(|claim| claim.key.strip_prefix(folder)?.parse::<u64>().ok());
    Ok(numbers.max().unwrap_or(0))
}

async fn claim(
    store: &dyn ObjectStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    key: &str,
) -> Result<bool, AgentError> {
    let claim = Claim {
        attempt: ids.next_id(),
        claimed_ms: clock.now_ms(),
    };
    match objects::create(store, key, &claim).await? {
        Creation::Ours => Ok(true),
        Creation::Other(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use change_event::{RandomIds, SystemClock};
    use object_io::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn epochs_rise_and_are_never_given_twice() {
        let store = MemoryStore::new("lake");
        let (clock, ids) = (SystemClock, RandomIds);
        for expected in 1..=3 {
            assert_eq!(
                claim_epoch(&store, &clock, &ids, "shop").await.unwrap(),
                expected
            );
        }
        assert_eq!(claim_epoch(&store, &clock, &ids, "other").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn incarnations_of_topics_are_counted_apart() {
        let store = MemoryStore::new("lake");
        let (clock, ids) = (SystemClock, RandomIds);
        assert_eq!(current_incarnation(&store, "s.a.b").await.unwrap(), 0);
        assert_eq!(
            claim_incarnation(&store, &clock, &ids, "s.a.b")
                .await
                .unwrap(),
            1
        );
        assert_eq!(
            claim_incarnation(&store, &clock, &ids, "s.a.b")
                .await
                .unwrap(),
            2
        );
        assert_eq!(current_incarnation(&store, "s.a.b").await.unwrap(), 2);
    }
}
