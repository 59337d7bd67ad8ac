//! Reads what the agent announces: registrations of topics and schema documents.
//!
//! Flow: agent -> `control/registry/`, `control/schema/` -> **here** -> every function.
//!
//! # Invariants
//! - Both are written before the first record that needs them, so "not there" is about the record, not about time.

use std::sync::Arc;

use change_event::{Disposition, SourceSchema, TopicRegistration, layout};
use object_io::{ListedObject, ObjectError, ObjectStore};

/// Why an announcement cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Object storage failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The object is there and says something else than it should.
    #[error("{key} cannot be read; see what wrote it")]
    Malformed {
        /// Its key.
        key: String,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The object speaks of another topic or version than its key.
    #[error("{key} describes another topic or version; see what wrote it")]
    Misplaced {
        /// Its key.
        key: String,
    },
}

impl RegistryError {
    /// What may be done.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Object(ObjectError::Unavailable { .. }) => Disposition::Retry,
            Self::Object(ObjectError::Refused { .. })
            | Self::Malformed { .. }
            | Self::Misplaced { .. } => Disposition::Halt,
        }
    }
}

/// The announcements in a bucket.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
}

impl Registry {
    /// The announcements in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// The registration of a topic, or `None` for a topic that no agent announced.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn registration(
        &self,
        topic: &str,
    ) -> Result<Option<TopicRegistration>, RegistryError> {
        let key = layout::registration(topic);
        let Some(body) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let registration: TopicRegistration = parse(&key, &body)?;
        if registration.topic != topic {
            return Err(RegistryError::Misplaced { key });
        }
        Ok(Some(registration))
    }

    /// Every announced topic, by name. It lists: not for the hot path.
    ///
    /// # Errors
    /// [`RegistryError::Object`].
    pub async fn topics(&self) -> Result<Vec<String>, RegistryError> {
        let objects = self.store.list(layout::REGISTRY).await?;
        let topic = |object: &ListedObject| {
            let name = object.key.strip_prefix(layout::REGISTRY)?;
            name.strip_suffix(".json").map(str::to_owned)
        };
        Ok(objects.iter().filter_map(topic).collect())
    }

    /// One version of a topic's source schema, or `None` if it was never published.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn document(
        &self,
        registration: &TopicRegistration,
        version: u32,
    ) -> Result<Option<SourceSchema>, RegistryError> {
        let key = layout::schema_document(&registration.source, &registration.topic, version);
        let Some(body) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let document: SourceSchema = parse(&key, &body)?;
        if document.version != version {
            return Err(RegistryError::Misplaced { key });
        }
        Ok(Some(document))
    }
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, body: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|source| RegistryError::Malformed {
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use change_event::partition::PartitionMap;
    use object_io::MemoryStore;

    use super::*;

    fn registration(topic: &str) -> TopicRegistration {
        TopicRegistration {
            topic: topic.to_owned(),
            source: "shop".to_owned(),
            table_schema: "public".to_owned(),
            table_name: "a".to_owned(),
            lake_database: "lake".to_owned(),
            lake_table: "public__a".to_owned(),
            topic_incarnation: 1,
            partition_map: PartitionMap::first(1),
            freshness_seconds: 60,
        }
    }

    async fn put(store: &MemoryStore, key: &str, body: Vec<u8>) {
        store
            .put(key, Bytes::from(body))
            .await
            .expect("memory takes everything");
    }

    #[tokio::test]
    async fn announced_topics_are_listed_and_read() {
        let store = Arc::new(MemoryStore::new("b"));
        let announced = registration("shop.public.a-2d");
        let body = serde_json::to_vec(&announced).expect("it serializes");
        put(&store, "control/registry/shop.public.a-2d.json", body).await;
        let registry = Registry::new(store);
        assert_eq!(
            registry.topics().await.expect("listed"),
            ["shop.public.a-2d"]
        );
        assert_eq!(
            registry
                .registration("shop.public.a-2d")
                .await
                .expect("read"),
            Some(announced)
        );
        assert_eq!(registry.registration("other").await.expect("read"), None);
    }

    #[tokio::test]
    async fn object_under_another_topics_key_is_refused() {
        let store = Arc::new(MemoryStore::new("b"));
        let body = serde_json::to_vec(&registration("x")).expect("it serializes");
        put(&store, "control/registry/y.json", body).await;
        let error = Registry::new(store)
            .registration("y")
            .await
            .expect_err("misplaced");
        assert_eq!(error.disposition(), Disposition::Halt);
    }
}
