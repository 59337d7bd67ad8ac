//! Asks the agent for a new copy of a table whose records are gone.
//!
//! Flow: operator -> **request object** -> agent copies while it streams -> announcement in the topic -> ingest.
//!
//! # Invariants
//! - One subject (a gap) makes one request, however often it is asked for; the next is made only after a refusal.

use std::collections::HashSet;

use bytes::Bytes;
use change_event::{CopyAnswer, CopyRequest, TopicRegistration, layout};
use object_io::{ObjectStore, VerifiedPut, put_if_absent_verified};
use serde::de::DeserializeOwned;

use crate::act::Operator;
use crate::error::CommitError;
use crate::gap::GapPlace;
use crate::table::Committer;

/// Requests about one subject: each but the last was refused.
const REQUESTS_MAX: u32 = 1_000;

/// How a copy stands.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyState {
    /// Nobody has asked for it; this is the request to make.
    NotAsked {
        /// Key of the request.
        key: String,
        /// Why the agent refused the one before, if it did.
        refused: Option<String>,
    },
    /// It is asked for, and not answered yet.
    Asked {
        /// Key of the request.
        key: String,
    },
    /// It is made and announced.
    Copied(CopyAnswer),
}

/// A request that the agent has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCopy {
    /// Key of the request.
    pub key: String,
    /// The request.
    pub request: CopyRequest,
}

/// What the copy is for: names its requests.
#[must_use]
pub fn subject_of_gap(topic: &str, place: &GapPlace) -> String {
    format!(
        "gap-{topic}-{:05}-{:010}-{:020}",
        place.partition, place.incarnation, place.offset
    )
}

impl Committer {
    /// How a copy for a subject stands. Changes nothing.
    ///
    /// # Errors
    /// [`CommitError::Object`]; [`CommitError::MalformedAnswer`] (Halt).
    pub async fn examine_copy(
        &self,
        registration: &TopicRegistration,
        subject: &str,
    ) -> Result<CopyState, CommitError> {
        let source = &registration.source;
        let mut refused = None;
        for number in 1..REQUESTS_MAX {
            let id = format!("{subject}-{number:03}");
            let key = layout::copy_request(source, &id);
            if self.store().get(&key).await?.is_none() {
                return Ok(CopyState::NotAsked { key, refused });
            }
            match read(self.store(), &layout::copy_answer(source, &id)).await? {
                None => return Ok(CopyState::Asked { key }),
                Some(answer @ CopyAnswer::Copied { .. }) => return Ok(CopyState::Copied(answer)),
                Some(CopyAnswer::Refused { reason }) => refused = Some(reason),
            }
        }
        Ok(CopyState::NotAsked {
            key: layout::copy_request(source, subject),
            refused,
        })
    }

    /// The requests for a table that have no answer, by key. Changes nothing.
    ///
    /// One that cannot be read is left out: the agent refuses it.
    ///
    /// # Errors
    /// [`CommitError::Object`].
    pub async fn open_copies(
        &self,
        registration: &TopicRegistration,
    ) -> Result<Vec<OpenCopy>, CommitError> {
        let (source, store) = (&registration.source, self.store());
        let folder = layout::copy_requests(source);
        let answers = store.list(&layout::copy_answers(source)).await?;
        let answered: HashSet<String> = answers.into_iter().map(|object| object.key).collect();
        let mut open = Vec::new();
        for object in store.list(&folder).await? {
            let Some(name) = object.key.strip_prefix(&folder) else {
                continue;
            };
            if answered.contains(&format!("{}{name}", layout::copy_answers(source))) {
                continue;
            }
            let Some(body) = store.get(&object.key).await? else {
                continue;
            };
            match serde_json::from_slice::<CopyRequest>(&body) {
                Ok(request) if request.topic == registration.topic => open.push(OpenCopy {
                    key: object.key,
                    request,
                }),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(open)
    }

    /// Asks for a copy, unless that is done already. Safe under concurrent callers.
    ///
    /// # Errors
    /// Those of [`Committer::examine_copy`]; [`CommitError::SlotUnknown`] (Verify): call again.
    pub async fn ask_for_copy(
        &self,
        registration: &TopicRegistration,
        subject: &str,
        operator: &Operator,
    ) -> Result<CopyState, CommitError> {
        let found = self.examine_copy(registration, subject).await?;
        let CopyState::NotAsked { key, .. } = found else {
            return Ok(found);
        };
        let request = CopyRequest {
            topic: registration.topic.clone(),
            requested_by: format!("{}: {}", operator.by, operator.why),
            requested_ms: self.clock.now_ms(),
        };
        let malformed = |source| CommitError::MalformedAnswer {
            key: key.clone(),
            source,
        };
        let body = Bytes::from(serde_json::to_vec(&request).map_err(malformed)?);
        match put_if_absent_verified(self.store(), &key, body).await? {
            // Another operator's request is as good as ours.
            VerifiedPut::Created | VerifiedPut::ExistsOther(_) => Ok(CopyState::Asked { key }),
            VerifiedPut::Unknown => Err(CommitError::SlotUnknown { key }),
        }
    }
}

async fn read<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &str,
) -> Result<Option<T>, CommitError> {
    let Some(body) = store.get(key).await? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&body);
    parsed
        .map(Some)
        .map_err(|source| CommitError::MalformedAnswer {
            key: key.to_owned(),
            source,
        })
}
