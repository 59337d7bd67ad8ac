//! Operators' requests for copies of tables, and their answers.
//!
//! Flow: `firn` writes a request -> **read here from time to time** -> `recopy` -> **answer**.
//!
//! # Invariants
//! - A request is answered once; one that cannot be read is refused, and stops nothing.

use std::collections::HashSet;

use change_event::{CopyAnswer, CopyRequest, layout};
use object_io::ObjectStore;

use crate::error::AgentError;
use crate::objects;

/// A request that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// Its id.
    pub id: String,
    /// What is asked for; `None` if that cannot be read.
    pub request: Option<CopyRequest>,
}

/// The requests that have no answer, by id.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn open(
    store: &dyn ObjectStore,
    source_name: &str,
) -> Result<Vec<OpenRequest>, AgentError> {
    let asked = ids(store, &layout::copy_requests(source_name)).await?;
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let answers = ids(store, &layout::copy_answers(source_name)).await?;
    let answered: HashSet<&String> = answers.iter().collect();
    let mut open = Vec::new();
    for id in asked.into_iter().filter(|id| !answered.contains(id)) {
        let key = layout::copy_request(source_name, &id);
        let request = match objects::read(store, &key).await {
            Ok(request) => request,
            Err(AgentError::Document { .. }) => None,
            Err(error) => return Err(error),
        };
        open.push(OpenRequest { id, request });
    }
    Ok(open)
}

/// Whether any of these requests has no answer.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn any_open(
    store: &dyn ObjectStore,
    source_name: &str,
    ids: &[String],
) -> Result<bool, AgentError> {
    for id in ids {
        let key = layout::copy_answer(source_name, id);
        if store.get(&key).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Answers a request; one that has an answer keeps it.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`].
pub async fn answer(
    store: &dyn ObjectStore,
    source_name: &str,
    id: &str,
    answer: &CopyAnswer,
) -> Result<(), AgentError> {
    match objects::create(store, &layout::copy_answer(source_name, id), answer).await? {
        objects::Creation::Ours | objects::Creation::Other(_) => Ok(()),
    }
}

async fn ids(store: &dyn ObjectStore, folder: &str) -> Result<Vec<String>, AgentError> {
    let objects = store.list(folder).await?;
    let id = |key: &str| Some(key.strip_prefix(folder)?.strip_suffix(".json")?.to_owned());
    Ok(objects
        .iter()
        .filter_map(|object| id(&object.key))
        .collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_io::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn request_is_open_until_it_is_answered_and_an_answer_stays() {
        let store = MemoryStore::new("lake");
        let request = CopyRequest {
            topic: "s.public.t".to_owned(),
            requested_by: "test".to_owned(),
            requested_ms: 7,
        };
        objects::write(&store, &layout::copy_request("s", "a"), &request)
            .await
            .unwrap();
        let unreadable = layout::copy_request("s", "b");
        store
            .put(&unreadable, Bytes::from_static(b"{}"))
            .await
            .unwrap();
        let found = open(&store, "s").await.unwrap();
        let expected = [("a", Some(request)), ("b", None)].map(|(id, request)| OpenRequest {
            id: id.to_owned(),
            request,
        });
        assert_eq!(found, expected);
        let refused = |reason: &str| CopyAnswer::Refused {
            reason: reason.to_owned(),
        };
        for reason in ["first", "second"] {
            answer(&store, "s", "a", &refused(reason)).await.unwrap();
        }
        assert_eq!(open(&store, "s").await.unwrap(), expected[1..]);
        let ids = ["a".to_owned(), "b".to_owned()];
        assert!(!any_open(&store, "s", &ids[..1]).await.unwrap());
        assert!(any_open(&store, "s", &ids).await.unwrap());
        let kept: Option<CopyAnswer> = objects::read(&store, &layout::copy_answer("s", "a"))
            .await
            .unwrap();
        assert_eq!(kept, Some(refused("first")));
    }
}
