//! Stages a topic from its beginning for a table that no catalog knows yet, by the same code as every batch.
//!
//! Flow: `firn rebuild` reads the topic -> payloads as Lambda's -> **here** -> the draft's chains -> the draft's snapshots.
//!
//! # Invariants
//! - A payload is taken whole or not: what follows one that is not may not be handed over.
//! - The table that stands is not touched, and no function is called.

use std::sync::Arc;

use async_trait::async_trait;
use change_event::{Clock, Disposition, IdSource, TopicRegistration};
use function_kit::ddl::DdlClient;
use function_kit::failure::chain;
use function_kit::metric::LineSink;
use function_kit::{
    DdlRequest, DdlResponse, Deadline, DelayedQueue, FunctionInvoker, InvokeError, Metrics,
    QueueError, Registry,
};
use object_io::ObjectStore;
use table_commit::{Draft, DrainError, Drained, LoadedTable, TableName};

use crate::error::StageError;
use crate::handler::Ingest;
use crate::ports::Ports;

/// Partitions staged at a time.
const CONCURRENCY: usize = 8;

/// Time for one payload.
const PAYLOAD_MS: i64 = 900_000;

/// Tries of one payload: object storage may be slow for a while.
const TRIES_MAX: u32 = 5;

/// The name by which errors call the schema changes of the draft.
const DDL: &str = "of the rebuilt table";

/// Why a topic could not be staged for a new table.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A record cannot be taken.
    #[error("{partition}: not taken from offset {offset} on")]
    Stage {
        /// Topic and partition.
        partition: String,
        /// The first record that was not taken.
        offset: i64,
        /// Why.
        #[source]
        source: Arc<StageError>,
    },
    /// What was read is no Kafka event: a defect.
    #[error("payload: {0}")]
    Payload(String),
    /// What was staged could not be combined.
    #[error(transparent)]
    Combine(#[from] DrainError<InvokeError>),
}

/// ingest for a draft.
#[derive(Debug)]
pub struct Rebuilder {
    ingest: Ingest,
    draft: Draft,
    ddl: DdlClient,
    registration: TopicRegistration,
    clock: Arc<dyn Clock>,
}

impl Rebuilder {
    /// Stages for `draft` what is read from the topic of a registration.
    #[must_use]
    pub fn new(
        draft: Draft,
        registration: TopicRegistration,
        store: Arc<dyn ObjectStore>,
        (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
    ) -> Self {
        let registry = Registry::new(Arc::clone(&store));
        let bringer = Bringer {
            draft: draft.clone(),
            registry: registry.clone(),
        };
        let ddl = DdlClient::new(Arc::new(bringer), DDL.to_owned());
        let ports = Ports {
            store,
            registry,
            committer: draft.committer.clone(),
            ddl: ddl.clone(),
            queue: Arc::new(NoQueue),
            clock: Arc::clone(&clock),
            ids,
            metrics: Metrics::new("rebuild", Arc::clone(&clock), Arc::new(Uncounted)),
        };
        Self {
            ingest: Ingest::new(ports, CONCURRENCY),
            draft,
            ddl,
            registration,
            clock,
        }
    }

    /// Stages the records of one payload, of any partitions, each in its order. Gives the number of rows.
    ///
    /// # Errors
    /// [`RebuildError::Stage`] with the first that was not taken.
    pub async fn take(&self, payload: &[u8]) -> Result<u64, RebuildError> {
        let mut tries = 0;
        let mut rows = 0;
        loop {
            tries += 1;
            let deadline = Deadline::after(PAYLOAD_MS, self.clock.as_ref());
            let staged = self.ingest.stage(payload, deadline).await;
            let (ended, _) = staged.map_err(|failure| RebuildError::Payload(failure.message))?;
            rows += ended.iter().map(|ended| ended.counts.rows).sum::<u64>();
            let failed = ended.into_iter().find_map(|ended| {
                let (offset, error) = ended.failed?;
                Some((ended.name, offset, error))
            });
            match failed {
                None => return Ok(rows),
                Some((partition, offset, source))
                    if tries >= TRIES_MAX || source.disposition() == Disposition::Halt =>
                {
                    return Err(RebuildError::Stage {
                        partition,
                        offset,
                        source,
                    });
                }
                Some((partition, offset, error)) => {
                    let cause = chain(error.as_ref());
                    tracing::warn!(partition, offset, cause, "payload is taken once more");
                }
            }
        }
    }

    /// Combines what is staged. Gives the table, if there is one.
    ///
    /// # Errors
    /// [`RebuildError::Combine`].
    pub async fn combine(&self) -> Result<Option<(LoadedTable, Drained)>, RebuildError> {
        let name = TableName::of(&self.registration);
        let loaded = self.draft.table(&name).await.map_err(DrainError::Commit)?;
        let Some(table) = loaded else {
            return Ok(None);
        };
        let topic = &self.registration.topic;
        let evolve = async |version| self.ddl.request(topic, version).await.map(|_| ());
        let drained = self.draft.committer.drain_from(table, evolve).await?;
        let table = self.draft.table(&name).await.map_err(DrainError::Commit)?;
        Ok(table.map(|table| (table, drained)))
    }
}

/// What functions/ddl does, for the draft.
#[derive(Debug)]
struct Bringer {
    draft: Draft,
    registry: Registry,
}

impl Bringer {
    async fn bring(&self, request: &DdlRequest) -> Result<DdlResponse, String> {
        let topic = &request.topic;
        let words = |error: &(dyn std::error::Error + 'static)| chain(error);
        let registration = self.registry.registration(topic).await;
        let registration = registration
            .map_err(|error| words(&error))?
            .ok_or_else(|| format!("no agent announced topic {topic}"))?;
        let version = request.target_version;
        let document = self.registry.document(&registration, version).await;
        let document = document
            .map_err(|error| words(&error))?
            .ok_or_else(|| format!("schema version {version} of {topic} was never published"))?;
        let brought = self.draft.bring(&registration, &document).await;
        let schema_version = brought.map_err(|error| words(&error))?;
        Ok(DdlResponse { schema_version })
    }
}

#[async_trait]
impl FunctionInvoker for Bringer {
    async fn invoke(&self, function: &str, payload: Vec<u8>) -> Result<Vec<u8>, InvokeError> {
        let failed = |message: String| InvokeError::Failed {
            function: function.to_owned(),
            error_type: "SchemaChange".to_owned(),
            message,
        };
        let request =
            serde_json::from_slice(&payload).map_err(|error| failed(error.to_string()))?;
        let answer = self.bring(&request).await.map_err(failed)?;
        serde_json::to_vec(&answer).map_err(|error| failed(error.to_string()))
    }
}

/// Nobody has to be reminded of a draft.
#[derive(Debug)]
struct NoQueue;

#[async_trait]
impl DelayedQueue for NoQueue {
    async fn send(&self, _body: &str, _delay_seconds: u32) -> Result<(), QueueError> {
        Ok(())
    }
}

/// The metrics are those of the functions.
#[derive(Debug)]
struct Uncounted;

impl LineSink for Uncounted {
    fn write_line(&self, _line: &str) {}
}
