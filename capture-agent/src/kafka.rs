//! The Kafka client: the adapter of [`crate::broker`] that ships.
//!
//! Flow: records -> **here** -> topics.
//!
//! # Invariants
//! - A commit is asked for only when nothing is in flight: `commit_transaction` would block in steps of 100 ms.
//! - Blocking calls of librdkafka run on blocking threads.
//!
//! # Source
//! librdkafka INTRODUCTION.md, "Transactional Producer"; CONFIGURATION.md; measured behaviour in docs/adr.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::util::Timeout;
use tokio::time::Instant;

use crate::broker::{Broker, Outgoing, TransactionalProducer};
use crate::config::{Config, KafkaConfig};
use crate::context::Context;
use crate::error::{AgentError, is_fencing};
use crate::progress::Progress;
use crate::topics::Topics;

use change_event::header::HEADER_NAME;

/// The broker aborts a transaction that is open longer: four times what the slowest healthy one takes.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for room in the queue, and for what is in flight: below the transaction's own time-out.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(45);
/// Longest wait for the coordinator at start: then the session is tried anew.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for an abort: it is a courtesy, the next session's start ends the transaction anyway.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks at the queue.
const POLL: Duration = Duration::from_millis(1);

/// Counts what the broker refused.
#[derive(Debug, Default)]
pub struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        use rdkafka::config::RDKafkaLogLevel as Level;
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning => {
                tracing::warn!(facility, message, "kafka client");
            }
            Level::Notice | Level::Info | Level::Debug => {
                tracing::debug!(facility, message, "kafka client");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if let Err((error, _)) = result
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(%error, "a record was not delivered");
        }
    }
}

/// Settings that every client of the agent shares.
#[must_use]
pub fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    // Between two tries to reach a broker librdkafka waits up to ten seconds: too long for one that is back.
    client.set("reconnect.backoff.max.ms", "1000");
    for (name, value) in &kafka.properties {
        client.set(name, value);
    }
    for (name, secret) in &kafka.secrets {
        client.set(name, secret.reveal());
    }
    client.set("bootstrap.servers", &kafka.bootstrap_servers);
    client
}

/// The Kafka cluster of a source.
#[derive(Debug)]
pub struct KafkaBroker<'a>(pub &'a Context);

impl Broker for KafkaBroker<'_> {
    type Producer = Producer;

    async fn fence(&self) -> Result<Producer, AgentError> {
        Producer::connect(&self.0.config).await
    }

    async fn progress(&self, topic: &str) -> Result<Progress, AgentError> {
        Topics::open(self.0).await?.ensure_progress(topic).await?;
        Progress::load(&self.0.config, topic).await
    }
}

/// A session's producer.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    source_name: String,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("source_name", &self.source_name)
            .finish_non_exhaustive()
    }
}

impl Producer {
    async fn connect(config: &Config) -> Result<Self, AgentError> {
        let mut client = client_config(&config.kafka);
        let defaults = [
            ("linger.ms", "5".to_owned()),
            ("compression.type", "lz4".to_owned()),
            ("batch.num.messages", "10000".to_owned()),
            ("batch.size", "1000000".to_owned()),
            ("queue.buffering.max.messages", "500000".to_owned()),
            // Only failures count here; a report for each record would cost another thread's walk over all of them.
            ("delivery.report.only.error", "true".to_owned()),
            (
                "queue.buffering.max.kbytes",
                (config.limits.memory_bytes / 1024).to_string(),
            ),
            // A record of record_max_bytes with its envelope of names must pass the client; the topic has its own bound.
            (
                "message.max.bytes",
                (config.limits.record_max_bytes + 1_000_000).to_string(),
            ),
        ];
        for (name, value) in &defaults {
            if !config.kafka.properties.contains_key(*name) {
                client.set(*name, value);
            }
        }
        client
            .set("transactional.id", &config.kafka.transactional_id)
            .set(
                "transaction.timeout.ms",
                TRANSACTION_TIMEOUT.as_millis().to_string(),
            )
            .set(
                "message.timeout.ms",
                DELIVERY_TIMEOUT.as_millis().to_string(),
            );
        let inner: ThreadedProducer<Deliveries> = client
            .create_with_context(Deliveries::default())
            .map_err(|source| AgentError::Kafka {
                operation: "create producer",
                source,
            })?;
        let producer = Self {
            inner,
            source_name: config.source.name.clone(),
        };
        producer
            .blocking("init_transactions", |inner| {
                inner.init_transactions(INIT_TIMEOUT)
            })
            .await?;
        Ok(producer)
    }

    fn offer(&self, record: &Outgoing<'_>) -> Result<(), KafkaError> {
        let partition = i32::try_from(record.partition).unwrap_or(i32::MAX);
        let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(record.topic)
            .partition(partition)
            .payload(record.value);
        if let Some(key) = record.key {
            base = base.key(key);
        }
        if let Some(header) = record.header {
            let header = Header {
                key: HEADER_NAME,
                value: Some(header),
            };
            base = base.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        self.inner.send(base).map_err(|(error, _record)| error)
    }

    async fn blocking(
        &self,
        operation: &'static str,
        call: impl FnOnce(&ThreadedProducer<Deliveries>) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), AgentError> {
        let inner = self.inner.clone();
        let result = tokio::task::spawn_blocking(move || call(&inner)).await?;
        result.map_err(|source| self.failure(operation, source))
    }

    fn failure(&self, operation: &'static str, source: KafkaError) -> AgentError {
        let fatal = self.inner.client().fatal_error();
        let fenced = fatal.is_some_and(|(code, _)| is_fencing(&KafkaError::Global(code)));
        if fenced || is_fencing(&source) {
            return AgentError::Fenced {
                source_name: self.source_name.clone(),
            };
        }
        AgentError::Kafka { operation, source }
    }
}

impl TransactionalProducer for Producer {
    fn begin(&self) -> Result<(), AgentError> {
        self.inner
            .begin_transaction()
            .map_err(|source| self.failure("begin_transaction", source))
    }

    async fn send(&self, record: &Outgoing<'_>) -> Result<(), AgentError> {
        let mut deadline = None;
        loop {
            let Err(error) = self.offer(record) else {
                return Ok(());
            };
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(self.failure("produce", error));
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + DELIVERY_TIMEOUT);
            if Instant::now() >= until {
                let seconds = DELIVERY_TIMEOUT.as_secs();
                return Err(AgentError::KafkaTimeout {
                    operation: "produce",
                    seconds,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn delivered(&self) -> Result<(), AgentError> {
        let until = Instant::now() + DELIVERY_TIMEOUT;
        while self.inner.in_flight_count() > 0 {
            if Instant::now() >= until {
                let seconds = DELIVERY_TIMEOUT.as_secs();
                return Err(AgentError::KafkaTimeout {
                    operation: "delivery",
                    seconds,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), AgentError> {
        self.blocking("commit_transaction", |inner| {
            inner.commit_transaction(Timeout::Never)
        })
        .await
    }

    async fn abandon(self) {
        let ended = tokio::task::spawn_blocking(move || {
            self.inner.purge(PurgeConfig::default().queue().inflight());
            let aborted = self.inner.abort_transaction(ABORT_TIMEOUT);
            drop(self);
            aborted
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "nothing aborted; the next session's start ends the transaction");
            }
            Err(error) => tracing::warn!(%error, "the producer could not be closed"),
        }
    }

    async fn close(self) {
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!(%error, "the producer could not be closed");
        }
    }
}
