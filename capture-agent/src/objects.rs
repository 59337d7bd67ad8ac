//! Control documents: JSON in object storage.
//!
//! # Invariants
//! - A create-only document is read back whenever the answer does not settle whose it is.

use bytes::Bytes;
use object_io::{ObjectStore, VerifiedPut, put_if_absent_verified};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AgentError;

/// How the creation of a document ended.
#[derive(Debug)]
pub enum Creation<T> {
    /// It is there and it is ours.
    Ours,
    /// Another one is there.
    Other(T),
}

/// Reads a document, if there is one.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::Document`].
pub async fn read<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &str,
) -> Result<Option<T>, AgentError> {
    store
        .get(key)
        .await?
        .map(|body| decode(key, &body))
        .transpose()
}

/// Writes a document of which this agent is the only writer.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn write<T: Serialize>(
    store: &dyn ObjectStore,
    key: &str,
    document: &T,
) -> Result<(), AgentError> {
    store.put(key, encode(key, document)?).await?;
    Ok(())
}

/// Creates a document unless one is there.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::ObjectUnknown`] (Verify), [`AgentError::Document`].
pub async fn create<T: Serialize + DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &str,
    document: &T,
) -> Result<Creation<T>, AgentError> {
    match put_if_absent_verified(store, key, encode(key, document)?).await? {
        VerifiedPut::Created => Ok(Creation::Ours),
        VerifiedPut::ExistsOther(body) => Ok(Creation::Other(decode(key, &body)?)),
        VerifiedPut::Unknown => Err(AgentError::ObjectUnknown {
            key: key.to_owned(),
        }),
    }
}

fn encode<T: Serialize>(key: &str, document: &T) -> Result<Bytes, AgentError> {
    serde_json::to_vec(document)
        .map(Bytes::from)
        .map_err(|source| AgentError::Document {
            key: key.to_owned(),
            source,
        })
}

fn decode<T: DeserializeOwned>(key: &str, body: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(body).map_err(|source| AgentError::Document {
        key: key.to_owned(),
        source,
    })
}
