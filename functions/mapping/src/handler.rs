//! One run of the schedule.

use std::sync::Arc;

use change_event::Clock;
use function_kit::mappings::{MappingError, MappingOutcome};
use function_kit::{Deadline, EventSourceMappings, Failure, Metric, Metrics, Registry};
use serde::Serialize;

use crate::config::Target;
use crate::plan::missing;

/// A creation begins only with this much time left.
const CREATION_MS: u64 = 5_000;

/// What a run found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Topics that agents announced.
    pub announced: usize,
    /// Mappings made.
    pub created: u64,
    /// Mappings that somebody made at the same time.
    pub existed: u64,
    /// Mappings that could not be made; the next run tries again.
    pub failed: u64,
}

/// The function, with its ports.
#[derive(Debug)]
pub struct Mapping {
    registry: Registry,
    mappings: Arc<dyn EventSourceMappings>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    target: Option<Target>,
}

impl Mapping {
    /// A function over these ports.
    #[must_use]
    pub fn new(
        registry: Registry,
        mappings: Arc<dyn EventSourceMappings>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        target: Option<Target>,
    ) -> Self {
        Self {
            registry,
            mappings,
            clock,
            metrics,
            target,
        }
    }

    /// Makes the mappings that are missing. What the event holds does not matter.
    ///
    /// # Errors
    /// [`Failure`] if the registry or the mappings cannot be read. One mapping that cannot be made stops no other.
    pub async fn handle(&self, deadline: Deadline) -> Result<Summary, Failure> {
        let announced = self
            .registry
            .topics()
            .await
            .map_err(|error| Failure::with_disposition(error.disposition(), &error))?;
        let mut summary = Summary {
            announced: announced.len(),
            ..Summary::default()
        };
        let Some(target) = &self.target else {
            tracing::info!(
                topics = announced.len(),
                "no cluster is configured: topics are polled by something else"
            );
            return Ok(summary);
        };
        let failed = |error: MappingError| Failure::with_disposition(error.disposition(), &error);
        let mapped = self
            .mappings
            .mapped_topics(&target.ingest_function, &target.cluster_arn)
            .await
            .map_err(failed)?;
        for mapping in missing(&announced, &mapped, target) {
            if deadline.remaining_ms(self.clock.as_ref()) < CREATION_MS {
                tracing::info!(topic = %mapping.topic, "out of time: the next run goes on here");
                break;
            }
            match self.mappings.create(&mapping).await {
                Ok(MappingOutcome::Created) => {
                    tracing::info!(topic = %mapping.topic, group = %mapping.consumer_group_id, "mapping created");
                    self.metrics
                        .count(&mapping.topic, &[(Metric::MappingsCreatedTotal, 1)]);
                    summary.created += 1;
                }
                Ok(MappingOutcome::Exists) => summary.existed += 1,
                Err(error) => {
                    let cause = function_kit::failure::chain(&error);
                    tracing::error!(topic = %mapping.topic, cause, "mapping not created");
                    summary.failed += 1;
                }
            }
        }
        Ok(summary)
    }
}
