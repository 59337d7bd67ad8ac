//! Numbers of table copies, and what became of each: announced, or abandoned for good.
//!
//! Flow: **claim** -> copy -> manifest, or the seal of a successor in its place -> announcement.
//!
//! # Invariants
//! - A number is claimed create-only, above every number that was claimed or has a manifest: none is used twice.
//! - Manifest and seal are create-only under one key: once a successor sealed a number, no late write can complete that copy.

use change_event::{Clock, IdSource, layout};
use object_io::ObjectStore;
use serde::{Deserialize, Serialize};

use crate::copy::CopyManifest;
use crate::error::AgentError;
use crate::objects::{self, Creation};
use crate::tables::CapturedName;

/// What one copy is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// The table of a copy beside the stream; `None` for the first copy, which is of all tables.
    pub table: Option<CapturedName>,
    /// Number of the debt that it pays.
    pub debt: Option<u32>,
    /// Ids of the requests that it answers.
    pub requests: Vec<String>,
}

/// The body of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyClaim {
    /// Who claims: one attempt.
    pub attempt: String,
    /// When, milliseconds since the epoch, by the claimer's clock.
    pub claimed_ms: i64,
    /// What for.
    pub purpose: Purpose,
}

/// Claims the next number.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
pub async fn claim(
    store: &dyn ObjectStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    source_name: &str,
    purpose: &Purpose,
) -> Result<u32, AgentError> {
    let claimed = numbers(store, &layout::copy_claims(source_name)).await?;
    // Copies of older agents have a manifest and no claim.
    let written = numbers(store, &layout::copy_manifests(source_name)).await?;
    let highest = claimed.into_iter().chain(written).max();
    let mut copy_id = highest.unwrap_or(0) + 1;
    loop {
        let claim = CopyClaim {
            attempt: ids.next_id(),
            claimed_ms: clock.now_ms(),
            purpose: purpose.clone(),
        };
        match objects::create(store, &layout::copy_claim(source_name, copy_id), &claim).await? {
            Creation::Ours => return Ok(copy_id),
            Creation::Other(_) => copy_id += 1,
        }
    }
}

/// What a number was claimed for; `None` if it was not.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::Document`].
pub async fn purpose(
    store: &dyn ObjectStore,
    source_name: &str,
    copy_id: u32,
) -> Result<Option<Purpose>, AgentError> {
    let claim: Option<CopyClaim> =
        objects::read(store, &layout::copy_claim(source_name, copy_id)).await?;
    Ok(claim.map(|claim| claim.purpose))
}

/// Seals every copy after number `announced` that has no manifest, and gives the manifests of the others, in order.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
pub async fn settle(
    store: &dyn ObjectStore,
    source_name: &str,
    announced: u32,
) -> Result<Vec<CopyManifest>, AgentError> {
    let mut complete = Vec::new();
    let mut claimed = numbers(store, &layout::copy_claims(source_name)).await?;
    claimed.retain(|copy_id| *copy_id > announced);
    claimed.sort_unstable();
    for copy_id in claimed {
        let key = layout::copy_manifest(source_name, copy_id);
        match objects::create(store, &key, &CopyManifest::abandoned(copy_id)).await? {
            Creation::Other(manifest) if !manifest.abandoned => complete.push(manifest),
            Creation::Ours | Creation::Other(_) => {}
        }
    }
    Ok(complete)
}

async fn numbers(store: &dyn ObjectStore, folder: &str) -> Result<Vec<u32>, AgentError> {
    let number = |key: &str| {
        let name = key.strip_prefix(folder)?.strip_suffix(".json")?;
        name.parse::<u32>().ok()
    };
    let objects = store.list(folder).await?;
    let numbers = objects.iter().filter_map(|object| number(&object.key));
    Ok(numbers.collect())
}

#[cfg(test)]
mod tests {
    use change_event::{Lsn, RandomIds, SystemClock};
    use object_io::MemoryStore;

    use super::*;

    async fn claimed(store: &MemoryStore) -> u32 {
        claim(store, &SystemClock, &RandomIds, "s", &Purpose::default())
            .await
            .unwrap()
    }

    fn manifest(copy_id: u32) -> CopyManifest {
        CopyManifest {
            copy_lsn: Lsn(7),
            abandoned: false,
            ..CopyManifest::abandoned(copy_id)
        }
    }

    #[tokio::test]
    async fn number_with_a_claim_or_a_manifest_is_never_given_again() {
        let store = MemoryStore::new("lake");
        assert_eq!(claimed(&store).await, 1);
        objects::write(&store, &layout::copy_manifest("s", 4), &manifest(4))
            .await
            .unwrap();
        assert_eq!(claimed(&store).await, 5);
        assert_eq!(claimed(&store).await, 6);
    }

    #[tokio::test]
    async fn copy_without_manifest_is_sealed_and_cannot_be_completed_late() {
        let store = MemoryStore::new("lake");
        for _copy in 0..3 {
            claimed(&store).await;
        }
        let second = layout::copy_manifest("s", 2);
        objects::write(&store, &second, &manifest(2)).await.unwrap();
        for _session in 0..2 {
            assert_eq!(settle(&store, "s", 0).await.unwrap(), [manifest(2)]);
        }
        assert_eq!(settle(&store, "s", 2).await.unwrap(), []);
        let late = objects::create(&store, &layout::copy_manifest("s", 1), &manifest(1))
            .await
            .unwrap();
        assert!(matches!(late, Creation::Other(sealed) if sealed.abandoned));
    }
}
