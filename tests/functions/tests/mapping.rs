//! functions/mapping: announced topics get their event source mappings.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use function_kit::mappings::{KafkaMapping, MappingError, MappingOutcome};
use function_kit::{EventSourceMappings, Metric, Metrics, Registry};
use functions::World;
use mapping::{Mapping, Summary, Target};
use object_io::ObjectStore;

/// Mappings in memory; creating one for `refused` fails.
#[derive(Debug, Default)]
struct MemoryMappings {
    topics: Mutex<Vec<String>>,
    refused: Option<String>,
}

#[async_trait]
impl EventSourceMappings for MemoryMappings {
    async fn mapped_topics(
        &self,
        _function: &str,
        _cluster: &str,
    ) -> Result<Vec<String>, MappingError> {
        Ok(self.topics.lock().unwrap().clone())
    }

    async fn create(&self, mapping: &KafkaMapping) -> Result<MappingOutcome, MappingError> {
        if self.refused.as_ref() == Some(&mapping.topic) {
            return Err(MappingError {
                operation: "create",
                source: "refused".into(),
            });
        }
        self.topics.lock().unwrap().push(mapping.topic.clone());
        Ok(MappingOutcome::Created)
    }
}

fn function(world: &World, mappings: MemoryMappings, cluster: bool) -> Mapping {
    let target = cluster.then(|| Target {
        ingest_function: "firn-ingest".to_owned(),
        cluster_arn: "arn:c".to_owned(),
        poller_group: Some("firn".to_owned()),
        pollers_max: 2,
        batch_size: 10_000,
        window_seconds: None,
        creations_max: 50,
    });
    let clock = Arc::clone(&world.clock) as Arc<dyn change_event::Clock>;
    let metrics = Metrics::new(
        "mapping",
        Arc::clone(&clock),
        Arc::new(world.metrics.clone()),
    );
    let registry = Registry::new(Arc::clone(&world.store) as Arc<dyn ObjectStore>);
    Mapping::new(registry, Arc::new(mappings), clock, metrics, target)
}

#[tokio::test]
async fn announced_topics_get_their_mapping_once_and_one_refusal_stops_no_other() {
    let world = World::new();
    world.announce("a", 1, 60).await;
    let refused = world.announce("b", 1, 60).await;
    world.announce("c", 1, 60).await;
    let function = function(
        &world,
        MemoryMappings {
            refused: Some(refused),
            ..MemoryMappings::default()
        },
        true,
    );
    let first = function.handle(world.deadline(60_000)).await.unwrap();
    assert_eq!(
        first,
        Summary {
            announced: 3,
            created: 2,
            existed: 0,
            failed: 1
        }
    );
    let again = function.handle(world.deadline(60_000)).await.unwrap();
    assert_eq!(
        again,
        Summary {
            announced: 3,
            created: 0,
            existed: 0,
            failed: 1
        }
    );
    assert_eq!(world.sum(Metric::MappingsCreatedTotal), 2);
}

#[tokio::test]
async fn without_a_cluster_or_without_time_nothing_is_made() {
    let world = World::new();
    world.announce("a", 1, 60).await;
    let without_cluster = function(&world, MemoryMappings::default(), false);
    assert_eq!(
        without_cluster
            .handle(world.deadline(60_000))
            .await
            .unwrap()
            .created,
        0
    );
    let without_time = function(&world, MemoryMappings::default(), true);
    assert_eq!(
        without_time
            .handle(world.deadline(1_000))
            .await
            .unwrap()
            .created,
        0
    );
}
