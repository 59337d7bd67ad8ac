//! Topics: created where they are missing, checked where they are there, and registered for the functions.
//!
//! Flow: captured tables -> **topics, incarnations, registrations** -> first record.
//!
//! # Invariants
//! - A topic's incarnation is claimed *before* the topic is created: a crash in between costs a number, never a topic that
//!   starts its offsets anew under an old number.
//! - The partition map is raised to what is configured, and never lowered: decided in a document that is created once, then the
//!   partitions, then the registration; its barrier is written by the session (`capture`).
//! - A compacted topic is refused: it would lose changes before they are read.

use std::collections::HashMap;
use std::time::Duration;

use change_event::partition::PartitionMap;
use change_event::{Lsn, TopicRegistration, layout, naming};
use object_io::{ObjectStore, failpoint};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::Config;
use crate::context::Context;
use crate::epoch;
use crate::error::AgentError;
use crate::failpoints;
use crate::kafka::client_config;
use crate::objects::{self, Creation};

/// Longest wait for the broker to answer an administrative request.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Room in a topic for a record of the largest size with its batch around it (MSK Serverless takes 8 MiB).
const MESSAGE_MAX_BYTES: &str = "8388608";

/// A table to be captured, and the names it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRequest {
    /// Schema of the table in the source.
    pub table_schema: String,
    /// Name of the table in the source.
    pub table_name: String,
    /// Its topic.
    pub topic: String,
    /// Its name in the lake.
    pub lake_table: String,
    /// Partitions that it is to have; none if they are nobody's wish: those that it has, or one.
    pub partitions: Option<u32>,
    /// Everything of the source that was ever sent committed before here; 0 if nothing was.
    pub sent_until: Lsn,
    /// Seconds between two commits.
    pub freshness_seconds: u32,
}

impl TopicRequest {
    /// As the configuration names and sets it, for a table of which nothing was sent.
    #[must_use]
    pub fn of(config: &Config, table_schema: &str, table_name: &str) -> Self {
        let name = format!("{table_schema}.{table_name}");
        let of_table = config.lake.tables.get(&name).cloned().unwrap_or_default();
        Self {
            table_schema: table_schema.to_owned(),
            table_name: table_name.to_owned(),
            topic: naming::topic_name(&config.source.name, table_schema, table_name),
            lake_table: of_table
                .name
                .unwrap_or_else(|| naming::lake_table_name(table_schema, table_name)),
            partitions: Some(
                config
                    .topics
                    .tables
                    .get(&name)
                    .copied()
                    .unwrap_or(config.topics.partitions),
            ),
            sent_until: Lsn(0),
            freshness_seconds: of_table
                .freshness_seconds
                .unwrap_or(config.lake.freshness_seconds),
        }
    }
}

/// The broker's administrative side, and the registry.
pub struct Topics<'a> {
    context: &'a Context,
    admin: AdminClient<DefaultClientContext>,
    /// Partitions of every topic of the broker, as it was when this was opened.
    partition_counts: HashMap<String, u32>,
}

impl std::fmt::Debug for Topics<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

impl<'a> Topics<'a> {
    /// Connects, and lists the topics that are there.
    ///
    /// # Errors
    /// [`AgentError::Kafka`].
    pub async fn open(context: &'a Context) -> Result<Self, AgentError> {
        let client = client_config(&context.config.kafka);
        let admin = client.create().map_err(|source| AgentError::Kafka {
            operation: "create admin client",
            source,
        })?;
        let partition_counts =
            tokio::task::spawn_blocking(move || partition_counts(&client)).await??;
        Ok(Self {
            context,
            admin,
            partition_counts,
        })
    }

    /// Sees to the progress topic: compacted, one partition.
    ///
    /// # Errors
    /// [`AgentError::Kafka`].
    pub async fn ensure_progress(&self, topic: &str) -> Result<(), AgentError> {
        if !self.partition_counts.contains_key(topic) {
            // Small segments, so that compaction has something to do and reading stays short.
            let settings = [
                ("cleanup.policy", "compact"),
                ("segment.ms", "3600000"),
                ("min.cleanable.dirty.ratio", "0.1"),
            ];
            self.create(topic, 1, &settings).await?;
        }
        Ok(())
    }

    /// Sees to one table's topic and its registration, and gives the registration that holds.
    ///
    /// # Errors
    /// [`AgentError::CompactedTopic`], [`AgentError::PartitionsMissing`], [`AgentError::PartitionsLowered`] (Halt), [`AgentError::Kafka`],
    /// [`AgentError::Objects`].
    pub async fn ensure(&self, request: &TopicRequest) -> Result<TopicRegistration, AgentError> {
        let config = &self.context.config;
        let store = self.context.store.as_ref();
        let key = layout::registration(&request.topic);
        let stored: Option<TopicRegistration> = objects::read(store, &key).await?;
        let found = self.partition_counts.get(&request.topic).copied();
        let stored_map = stored.as_ref().map(|stored| &stored.partition_map);
        let held = held_map(stored_map, found, request);
        let map = next_map(store, &held, request).await?;
        let raised = map.version > held.version;
        match found {
            Some(found)
                if found < map.partitions && (held.partitions <= found || stored.is_none()) =>
            {
                self.refuse_compacted(&request.topic).await?;
                self.add_partitions(&request.topic, map.partitions).await?;
                failpoint::hit(failpoints::AFTER_PARTITIONS_CREATED);
            }
            Some(found) if found < map.partitions => {
                let topic = request.topic.clone();
                return Err(AgentError::PartitionsMissing {
                    topic,
                    expected: map.partitions,
                    found,
                });
            }
            Some(_) => self.refuse_compacted(&request.topic).await?,
            None => {
                self.claim_incarnation(&request.topic).await?;
                let retention = match self.context.config.topics.retention_hours {
                    0 => "-1".to_owned(),
                    hours => (hours * 3_600_000).to_string(),
                };
                let settings = [
                    ("cleanup.policy", "delete"),
                    ("retention.ms", retention.as_str()),
                    ("max.message.bytes", MESSAGE_MAX_BYTES),
                ];
                self.create(&request.topic, map.partitions, &settings)
                    .await?;
            }
        }
        let mut incarnation = epoch::current_incarnation(store, &request.topic).await?;
        if incarnation == 0 {
            incarnation = self.claim_incarnation(&request.topic).await?;
        }
        let registration = TopicRegistration {
            topic: request.topic.clone(),
            source: config.source.name.clone(),
            table_schema: request.table_schema.clone(),
            table_name: request.table_name.clone(),
            lake_database: config.lake.database.clone(),
            lake_table: request.lake_table.clone(),
            topic_incarnation: incarnation,
            partition_map: map,
            freshness_seconds: request.freshness_seconds,
        };
        if stored.as_ref() != Some(&registration) {
            objects::write(store, &key, &registration).await?;
            if raised {
                failpoint::hit(failpoints::AFTER_MAP_REGISTERED);
            }
        }
        Ok(registration)
    }

    async fn claim_incarnation(&self, topic: &str) -> Result<u32, AgentError> {
        let Context {
            store, clock, ids, ..
        } = self.context;
        epoch::claim_incarnation(store.as_ref(), clock.as_ref(), ids.as_ref(), topic).await
    }

    async fn create(
        &self,
        topic: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<(), AgentError> {
        let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let replication =
            TopicReplication::Fixed(number(self.context.config.topics.replication_factor));
        let mut new = NewTopic::new(topic, number(partitions), replication);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        let failed = |source| AgentError::Kafka {
            operation: "create topic",
            source,
        };
        for result in self
            .admin
            .create_topics([&new], &options)
            .await
            .map_err(failed)?
        {
            match result {
                Ok(_) => tracing::info!(topic, partitions, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    async fn add_partitions(&self, topic: &str, partitions: u32) -> Result<(), AgentError> {
        let failed = |source| AgentError::Kafka {
            operation: "create partitions",
            source,
        };
        let count = usize::try_from(partitions).unwrap_or(usize::MAX);
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        let results = self
            .admin
            .create_partitions(&[NewPartitions::new(topic, count)], &options)
            .await
            .map_err(failed)?;
        for result in results {
            result.map_err(|(_, code)| failed(KafkaError::AdminOp(code)))?;
        }
        tracing::info!(topic, partitions, "partitions added");
        Ok(())
    }

    async fn refuse_compacted(&self, topic: &str) -> Result<(), AgentError> {
        let failed = |source| AgentError::Kafka {
            operation: "describe topic",
            source,
        };
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let resources = self
            .admin
            .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
            .await
            .map_err(failed)?;
        for resource in resources {
            let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let policy = resource
                .get("cleanup.policy")
                .and_then(|entry| entry.value.clone());
            if let Some(policy) = policy.filter(|policy| policy.contains("compact")) {
                return Err(AgentError::CompactedTopic {
                    topic: topic.to_owned(),
                    policy,
                });
            }
        }
        Ok(())
    }
}

/// The map that a topic has: as it is registered; else, of one that somebody created, what there is.
fn held_map(
    stored: Option<&PartitionMap>,
    found: Option<u32>,
    request: &TopicRequest,
) -> PartitionMap {
    let asked = request.partitions;
    match (stored, found) {
        (Some(stored), _) => stored.clone(),
        // Created by someone else, or by us before a crash, and nothing was ever sent.
        (None, Some(found)) if request.sent_until == Lsn(0) => {
            PartitionMap::first(asked.map_or(found, |asked| asked.max(found)))
        }
        (None, Some(found)) => PartitionMap::first(found),
        (None, None) => PartitionMap::first(asked.unwrap_or(1)),
    }
}

/// The map that holds from now on: the one held, or a larger one.
async fn next_map(
    store: &dyn ObjectStore,
    held: &PartitionMap,
    request: &TopicRequest,
) -> Result<PartitionMap, AgentError> {
    let asked = request.partitions.unwrap_or(held.partitions);
    let mut map = held.clone();
    while asked > map.partitions {
        let incarnation = epoch::current_incarnation(store, &request.topic).await?;
        let next = map.raised(asked, request.sent_until);
        map = decided(store, &request.topic, incarnation, next).await?;
    }
    if asked < map.partitions {
        return Err(AgentError::PartitionsLowered {
            topic: request.topic.clone(),
            held: map.partitions,
            asked,
        });
    }
    Ok(if request.sent_until == Lsn(0) {
        map.from_the_beginning()
    } else {
        map
    })
}

/// The next map as it was decided first. Who decides has fenced its predecessor and has sent nothing yet, so that a decision
/// which arrives late, from a session that was fenced meanwhile, is as good as another: but there is only one.
async fn decided(
    store: &dyn ObjectStore,
    topic: &str,
    incarnation: u32,
    next: PartitionMap,
) -> Result<PartitionMap, AgentError> {
    let key = layout::partition_map(topic, incarnation, next.version);
    match objects::create(store, &key, &next).await? {
        Creation::Ours => Ok(next),
        Creation::Other(decided) => Ok(decided),
    }
}

/// Partitions of every topic. Asking for one by name could create it where the broker creates topics on sight.
fn partition_counts(client: &ClientConfig) -> Result<HashMap<String, u32>, AgentError> {
    let consumer: BaseConsumer = client.create().map_err(|source| AgentError::Kafka {
        operation: "create consumer",
        source,
    })?;
    let metadata = consumer
        .fetch_metadata(None, ADMIN_TIMEOUT)
        .map_err(|source| AgentError::Kafka {
            operation: "fetch metadata",
            source,
        })?;
    let topics = metadata.topics().iter();
    Ok(topics
        .map(|topic| {
            (
                topic.name().to_owned(),
                u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
            )
        })
        .filter(|(_, partitions)| *partitions > 0)
        .collect())
}

#[cfg(test)]
mod tests {
    use object_io::MemoryStore;

    use super::*;

    fn request(partitions: u32, sent_until: u64) -> TopicRequest {
        TopicRequest {
            table_schema: "public".to_owned(),
            table_name: "orders".to_owned(),
            topic: "shop.public.orders".to_owned(),
            lake_table: "public__orders".to_owned(),
            partitions: Some(partitions),
            sent_until: Lsn(sent_until),
            freshness_seconds: 60,
        }
    }

    async fn next(store: &MemoryStore, held: &PartitionMap, request: TopicRequest) -> PartitionMap {
        next_map(store, held, &request).await.unwrap()
    }

    #[tokio::test]
    async fn map_is_raised_once_and_holds_from_behind_what_was_sent() {
        let store = MemoryStore::new("b");
        let held = PartitionMap::first(2);
        assert_eq!(next(&store, &held, request(2, 50)).await, held);
        let raised = next(&store, &held, request(4, 50)).await;
        assert_eq!(
            (raised.version_at(Lsn(49)), raised.version_at(Lsn(50))),
            (1, 2)
        );
        assert_eq!(next(&store, &raised, request(4, 90)).await, raised);
        // Nothing was sent yet: the newest map holds from the beginning.
        let anew = next(&store, &raised, request(8, 0)).await;
        assert_eq!((anew.version, anew.version_at(Lsn(0))), (3, 3));
    }

    #[tokio::test]
    async fn raise_is_decided_once_whoever_comes_late() {
        let store = MemoryStore::new("b");
        let held = PartitionMap::first(2);
        let first = next(&store, &held, request(4, 600)).await;
        // A session that was fenced meanwhile, and looked when less had been flushed; and one that finds no registration of it.
        assert_eq!(next(&store, &held, request(4, 400)).await, first);
        assert_eq!(next(&store, &held, request(4, 900)).await, first);
        // More is asked for: the decided one stands before it.
        let more = next(&store, &held, request(8, 900)).await;
        assert_eq!(
            (more.version_at(Lsn(599)), more.version_at(Lsn(600))),
            (1, 2)
        );
        assert_eq!((more.version, more.partitions), (3, 8));
        // Less is asked for than was decided.
        let refused = next_map(&store, &held, &request(3, 900)).await;
        assert!(matches!(
            refused,
            Err(AgentError::PartitionsLowered { held: 4, .. })
        ));
    }

    #[test]
    fn topic_of_which_nothing_was_sent_needs_no_barrier() {
        let held = |asked, sent_until| held_map(None, Some(2), &request(asked, sent_until));
        assert_eq!(held(4, 0), PartitionMap::first(4));
        // What was sent, by whomever, went to the partitions that there were.
        assert_eq!(held(4, 50), PartitionMap::first(2));
        let as_it_is = TopicRequest {
            partitions: None,
            ..request(1, 0)
        };
        assert_eq!(held_map(None, Some(3), &as_it_is), PartitionMap::first(3));
    }

    #[tokio::test]
    async fn lower_number_of_partitions_is_refused_with_words() {
        let store = MemoryStore::new("b");
        let held = PartitionMap::first(4);
        let refused = next_map(&store, &held, &request(3, 50)).await.unwrap_err();
        assert!(matches!(refused, AgentError::PartitionsLowered { .. }));
        let words = refused.to_string();
        assert!(
            words.contains("has 4 partitions") && words.contains("asks for 3"),
            "{words}"
        );
    }
}
