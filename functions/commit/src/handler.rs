//! One event: combine the tables it names, some at a time, and say which messages must come again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use change_event::{Clock, Disposition};
use function_kit::ddl::DdlClient;
use function_kit::failure::chain;
use function_kit::{
    Deadline, Failure, InvokeError, Metric, Metrics, Registry, RegistryError, SqsBatchResponse,
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use table_commit::{CommitError, Committer, DrainError, Drained, TableName};

use crate::request::Request;

/// Kept back from the deadline for the answer.
const RESERVE_MS: i64 = 2_000;

/// The worlds that the function speaks to.
#[derive(Debug)]
pub struct Ports {
    /// Registrations.
    pub registry: Registry,
    /// The commit protocol.
    pub committer: Committer,
    /// functions/ddl.
    pub ddl: DdlClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

/// The function.
#[derive(Debug)]
pub struct Commit {
    ports: Ports,
    concurrency: usize,
}

/// What the function answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS.
    Messages(SqsBatchResponse),
    /// To the schedule.
    Sweep(SweepSummary),
}

/// What a sweep found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepSummary {
    /// Registered topics.
    pub tables: u64,
    /// Snapshots committed.
    pub committed: u64,
    /// Tables that failed; each is in the log.
    pub failed: u64,
}

/// Why a table was not combined.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("schema version {version} is not to be had")]
    Schema {
        version: u32,
        #[source]
        source: InvokeError,
    },
    #[error("out of time")]
    OutOfTime,
}

impl TableError {
    #[deny(clippy::wildcard_enum_match_arm)]
    fn disposition(&self) -> Disposition {
        match self {
            Self::Registry(error) => error.disposition(),
            Self::Commit(error) => error.disposition(),
            Self::Schema { source, .. } => source.disposition(),
            Self::OutOfTime => Disposition::Retry,
        }
    }
}

impl From<DrainError<InvokeError>> for TableError {
    fn from(error: DrainError<InvokeError>) -> Self {
        match error {
            DrainError::Commit(error) => Self::Commit(error),
            DrainError::Schema {
                version, source, ..
            } => Self::Schema { version, source },
        }
    }
}

impl Commit {
    /// A function over these ports that combines `concurrency` tables at a time.
    #[must_use]
    pub fn new(ports: Ports, concurrency: usize) -> Self {
        Self { ports, concurrency }
    }

    /// Answers one event.
    ///
    /// # Errors
    /// [`Failure`] if the event cannot be read or the registry not be listed. A table that fails is no failure: its
    /// messages come again if that can help, and the log says what to do if it cannot.
    pub async fn handle(&self, payload: &[u8], deadline: Deadline) -> Result<Answer, Failure> {
        match Request::parse(payload)? {
            Request::Messages(messages) => {
                let topics = messages.keys().cloned().collect();
                let ended = self.combine_all(topics, deadline).await;
                Ok(Answer::Messages(response(messages, &ended)))
            }
            Request::Sweep => {
                let topics = self
                    .ports
                    .registry
                    .topics()
                    .await
                    .map_err(|error| Failure::with_disposition(error.disposition(), &error))?;
                Ok(Answer::Sweep(summary(
                    &self.combine_all(topics, deadline).await,
                )))
            }
        }
    }

    /// What became of each topic's table.
    async fn combine_all(
        &self,
        topics: Vec<String>,
        deadline: Deadline,
    ) -> BTreeMap<String, Result<Drained, Disposition>> {
        let deadline = deadline.earlier(RESERVE_MS);
        stream::iter(topics)
            .map(|topic| async move {
                let left = Duration::from_millis(deadline.remaining_ms(self.ports.clock.as_ref()));
                let ended = tokio::time::timeout(left, self.combine(&topic))
                    .await
                    .unwrap_or(Err(TableError::OutOfTime));
                let ended = self.report(&topic, ended);
                (topic, ended)
            })
            .buffer_unordered(self.concurrency)
            .collect()
            .await
    }

    async fn combine(&self, topic: &str) -> Result<Drained, TableError> {
        let Some(registration) = self.ports.registry.registration(topic).await? else {
            tracing::warn!(topic, "no agent announced this topic: passed over");
            return Ok(Drained::default());
        };
        let name = TableName {
            database: registration.lake_database.clone(),
            table: registration.lake_table.clone(),
        };
        let evolve = async |version: u32| self.ports.ddl.request(topic, version).await.map(|_| ());
        match self.ports.committer.drain(&name, evolve).await {
            // Announced, and its first record has not come yet.
            Err(DrainError::Commit(CommitError::NoTable { .. })) => Ok(Drained::default()),
            Err(error) => Err(error.into()),
            Ok(drained) => Ok(drained),
        }
    }

    fn report(
        &self,
        topic: &str,
        ended: Result<Drained, TableError>,
    ) -> Result<Drained, Disposition> {
        let metrics = &self.ports.metrics;
        match ended {
            Ok(drained) => {
                metrics.count(
                    topic,
                    &[
                        (Metric::CommitsTotal, drained.commit_count),
                        (Metric::ConflictsTotal, drained.conflict_count),
                    ],
                );
                if drained.commit_count > 0 {
                    let (rows, files) = (drained.row_count, drained.file_count);
                    tracing::info!(
                        topic,
                        commits = drained.commit_count,
                        rows,
                        files,
                        "committed"
                    );
                }
                Ok(drained)
            }
            Err(error) => {
                let disposition = error.disposition();
                let cause = chain(&error);
                if disposition == Disposition::Halt {
                    tracing::error!(
                        topic,
                        cause,
                        "table halted: it is not committed until this is settled"
                    );
                    metrics.count(
                        topic,
                        &[(Metric::HaltsTotal, 1), (Metric::CombineFailuresTotal, 1)],
                    );
                } else {
                    tracing::warn!(topic, cause, ?disposition, "not committed: comes again");
                    metrics.count(topic, &[(Metric::CombineFailuresTotal, 1)]);
                }
                Err(disposition)
            }
        }
    }
}

/// The messages of failed topics come again, except where only a person can help: the sweep keeps the alarm up.
fn response(
    messages: BTreeMap<String, Vec<String>>,
    ended: &BTreeMap<String, Result<Drained, Disposition>>,
) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for (topic, ids) in messages {
        let again = match ended.get(&topic) {
            Some(Ok(_) | Err(Disposition::Halt)) => false,
            Some(Err(_)) | None => true,
        };
        if again {
            ids.into_iter().for_each(|id| response.fail(id));
        }
    }
    response
}

fn summary(ended: &BTreeMap<String, Result<Drained, Disposition>>) -> SweepSummary {
    let mut summary = SweepSummary::default();
    for ended in ended.values() {
        summary.tables += 1;
        match ended {
            Ok(drained) => summary.committed += drained.commit_count,
            Err(_) => summary.failed += 1,
        }
    }
    summary
}
