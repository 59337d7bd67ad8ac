//! The port to Lambda's event source mappings, and its adapter: one mapping feeds one topic to one function.
//!
//! # Source
//! Lambda API reference, `CreateEventSourceMapping`: topic, consumer group and cluster of a mapping never change; a consumer
//! group that exists goes on from its committed offsets, whatever the starting position says.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::types::{
    AmazonManagedKafkaEventSourceConfig, EventSourcePosition, FunctionResponseType,
    ProvisionedPollerConfig,
};
use change_event::Disposition;

/// A mapping to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaMapping {
    /// The function that takes the batches.
    pub function_name: String,
    /// The MSK cluster.
    pub cluster_arn: String,
    /// The topic.
    pub topic: String,
    /// Consumer group: stable per topic, so that a mapping made anew goes on where the old one ended.
    pub consumer_group_id: String,
    /// Records in a batch at most.
    pub batch_size: u32,
    /// Seconds for which a batch fills at most; `None` is Lambda's own 500 ms.
    pub window_seconds: Option<u32>,
    /// Pool of pollers that the mapping shares with others; `None` polls on demand.
    pub poller_group: Option<String>,
    /// Pollers at least, with a poller group.
    pub pollers_min: u32,
    /// Pollers at most, with a poller group.
    pub pollers_max: u32,
}

/// Why mappings could not be read or made.
#[derive(Debug, thiserror::Error)]
#[error("event source mappings: {operation} failed")]
pub struct MappingError {
    /// `list` or `create`.
    pub operation: &'static str,
    /// What Lambda said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl MappingError {
    /// What may be done: the next schedule looks again at what is there.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Retry
    }
}

/// How a creation ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingOutcome {
    /// It is made.
    Created,
    /// Somebody made it before.
    Exists,
}

/// Lambda's event source mappings of Kafka topics.
#[async_trait]
pub trait EventSourceMappings: Debug + Send + Sync {
    /// Topics that have a mapping to the function already, from any cluster or only from `cluster_arn`.
    async fn mapped_topics(
        &self,
        function_name: &str,
        cluster_arn: &str,
    ) -> Result<Vec<String>, MappingError>;

    /// Makes a mapping, with infinite retries and partial batch responses.
    async fn create(&self, mapping: &KafkaMapping) -> Result<MappingOutcome, MappingError>;
}

/// [`EventSourceMappings`] on Lambda.
#[derive(Debug, Clone)]
pub struct LambdaMappings {
    client: Client,
}

impl LambdaMappings {
    /// Mappings of the account and region of `config`.
    #[must_use]
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }
}

#[async_trait]
impl EventSourceMappings for LambdaMappings {
    async fn mapped_topics(
        &self,
        function_name: &str,
        cluster_arn: &str,
    ) -> Result<Vec<String>, MappingError> {
        let mut pages = self
            .client
            .list_event_source_mappings()
            .function_name(function_name)
            .event_source_arn(cluster_arn)
            .into_paginator()
            .send();
        let mut topics = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| MappingError {
                operation: "list",
                source: Box::new(error),
            })?;
            for mapping in page.event_source_mappings.unwrap_or_default() {
                topics.extend(mapping.topics.unwrap_or_default());
            }
        }
        Ok(topics)
    }

    async fn create(&self, mapping: &KafkaMapping) -> Result<MappingOutcome, MappingError> {
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let kafka = AmazonManagedKafkaEventSourceConfig::builder()
            .consumer_group_id(&mapping.consumer_group_id)
            .build();
        let pollers = mapping.poller_group.as_ref().map(|group| {
            ProvisionedPollerConfig::builder()
                .poller_group_name(group)
                .minimum_pollers(number(mapping.pollers_min))
                .maximum_pollers(number(mapping.pollers_max))
                .build()
        });
        let answer = self
            .client
            .create_event_source_mapping()
            .function_name(&mapping.function_name)
            .event_source_arn(&mapping.cluster_arn)
            .topics(&mapping.topic)
            .amazon_managed_kafka_event_source_config(kafka)
            .starting_position(EventSourcePosition::TrimHorizon)
            .batch_size(number(mapping.batch_size))
            .set_maximum_batching_window_in_seconds(mapping.window_seconds.map(number))
            .function_response_types(FunctionResponseType::ReportBatchItemFailures)
            // -1: for ever. Retries only exist as a setting with provisioned pollers; on demand they are infinite anyhow.
            .set_maximum_retry_attempts(pollers.as_ref().map(|_| -1))
            .set_provisioned_poller_config(pollers)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(MappingOutcome::Created),
            Err(error) if error.code() == Some("ResourceConflictException") => {
                Ok(MappingOutcome::Exists)
            }
            Err(error) => Err(MappingError {
                operation: "create",
                source: Box::new(error),
            }),
        }
    }
}
