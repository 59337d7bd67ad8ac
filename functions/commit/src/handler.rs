//! One event: combine the tables it names, some at a time, and say which messages must come again.
//!
//! # Invariants
//! - A message for a table that is not due becomes one message for when it is, so that many writers of a table make no more
//!   commits than its freshness asks for. The sweep takes whatever is staged.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use change_event::{Clock, Disposition};
use function_kit::ddl::DdlClient;
use function_kit::failure::chain;
use function_kit::pacing::{Step, remind};
use function_kit::{
    Deadline, DelayedQueue, Failure, InvokeError, Metric, Metrics, Pacing, QueueError, Registry,
    RegistryError, SqsBatchResponse,
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use table_commit::{CommitError, Committer, DrainError, Drained, LoadedTable, TableName};

use crate::request::Request;

/// Kept back from the deadline for the answer.
const RESERVE_MS: i64 = 2_000;

/// How long a registration is believed: it says which table a topic feeds, and the table says what counts.
const REGISTRATION_MS: i64 = 300_000;

/// A process that lost a race for a table lets the one that commits it go first for so long.
const CONTENDED_MS: i64 = 300_000;

/// … and combines only what has been due for this long: about what a commit takes.
const STAND_BACK_MS: i64 = 1_000;

/// The worlds that the function speaks to.
#[derive(Debug)]
pub struct Ports {
    /// Registrations.
    pub registry: Registry,
    /// The commit protocol.
    pub committer: Committer,
    /// functions/ddl.
    pub ddl: DdlClient,
    /// The function's own queue.
    pub queue: Arc<dyn DelayedQueue>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

/// The function, with what it keeps warm.
#[derive(Debug)]
pub struct Commit {
    ports: Ports,
    concurrency: usize,
    topics: Mutex<HashMap<String, Known>>,
}

/// What is kept about a topic.
#[derive(Debug, Clone)]
struct Known {
    table: TableName,
    topic_incarnation: u32,
    read_ms: i64,
    pacing: Pacing,
    /// The last snapshot that this process committed.
    snapshot_id: Option<i64>,
    /// When this process lost a race last.
    lost_ms: Option<i64>,
}

impl Known {
    /// How long a table has to be due before this process combines it. Processes that are asked at once about a busy table
    /// would race for each of its commits, and all but one in vain: so who committed last goes first.
    fn stands_back_ms(&self, table: &LoadedTable, now_ms: i64) -> i64 {
        let lost = self
            .lost_ms
            .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < CONTENDED_MS);
        let committed_last =
            self.snapshot_id.is_some() && self.snapshot_id == table.state.snapshot_id;
        if lost && !committed_last && table.freshness_seconds() > 0 {
            STAND_BACK_MS
        } else {
            0
        }
    }
}

/// Why a table is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A message: combine it if it is due, else later.
    Message,
    /// The schedule: combine whatever is staged.
    Sweep,
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
    #[error(transparent)]
    Queue(#[from] QueueError),
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
            Self::Queue(error) => error.disposition(),
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
        Self {
            ports,
            concurrency,
            topics: Mutex::default(),
        }
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
                let ended = self.combine_all(topics, Cause::Message, deadline).await;
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
                    &self.combine_all(topics, Cause::Sweep, deadline).await,
                )))
            }
        }
    }

    /// What became of each topic's table.
    async fn combine_all(
        &self,
        topics: Vec<String>,
        cause: Cause,
        deadline: Deadline,
    ) -> BTreeMap<String, Result<Drained, Disposition>> {
        let deadline = deadline.earlier(RESERVE_MS);
        stream::iter(topics)
            .map(|topic| async move {
                let left = Duration::from_millis(deadline.remaining_ms(self.ports.clock.as_ref()));
                let ended = tokio::time::timeout(left, self.combine(&topic, cause))
                    .await
                    .unwrap_or(Err(TableError::OutOfTime));
                let ended = self.report(&topic, ended);
                (topic, ended)
            })
            .buffer_unordered(self.concurrency)
            .collect()
            .await
    }

    async fn combine(&self, topic: &str, cause: Cause) -> Result<Drained, TableError> {
        let clock = self.ports.clock.as_ref();
        let Some(known) = self.known(topic).await? else {
            tracing::warn!(topic, "no agent announced this topic: passed over");
            return Ok(Drained::default());
        };
        // It appears after now, so that it is for whatever this message is about.
        if cause == Cause::Message && known.pacing.step(clock.now_ms()) == Step::Wait {
            return Ok(Drained::default());
        }
        let Some(table) = self.ports.committer.load(&known.table).await? else {
            // Announced, and its first record has not come yet; or dropped, which a quiet topic would never show.
            let committer = &self.ports.committer;
            committer
                .may_be_made(&known.table, known.topic_incarnation)
                .await?;
            return Ok(Drained::default());
        };
        let freshness_ms = i64::from(table.freshness_seconds()) * 1000;
        let now_ms = clock.now_ms();
        let left_ms = table.due_in_ms(now_ms - known.stands_back_ms(&table, now_ms));
        if cause == Cause::Message && left_ms > 0 {
            self.look_again(topic, left_ms, freshness_ms).await?;
            return Ok(Drained::default());
        }
        let evolve = async |version: u32| self.ports.ddl.request(topic, version).await.map(|_| ());
        let drained = self.ports.committer.drain_from(table, evolve).await?;
        self.note(topic, &drained);
        if drained.conflict_count > 0 {
            self.look_again(topic, freshness_ms, freshness_ms).await?;
        }
        Ok(drained)
    }

    fn note(&self, topic: &str, drained: &Drained) {
        let now_ms = self.ports.clock.now_ms();
        if let Some(known) = self.topics().get_mut(topic) {
            known.snapshot_id = drained.snapshot_id.or(known.snapshot_id);
            if drained.conflict_count > 0 {
                known.lost_ms = Some(now_ms);
            }
        }
    }

    /// Sends one message, for what is staged and not committed when the table is due next.
    async fn look_again(
        &self,
        topic: &str,
        left_ms: i64,
        freshness_ms: i64,
    ) -> Result<(), TableError> {
        let (queue, clock) = (self.ports.queue.as_ref(), self.ports.clock.as_ref());
        let appears_ms = remind(queue, clock, topic, left_ms).await?;
        if let Some(known) = self.topics().get_mut(topic) {
            known.pacing.saw(appears_ms, freshness_ms);
            known.pacing.sent(appears_ms);
        }
        Ok(())
    }

    /// A topic that an agent announced.
    async fn known(&self, topic: &str) -> Result<Option<Known>, TableError> {
        let now_ms = self.ports.clock.now_ms();
        let warm = self.topics().get(topic).cloned();
        let young = |known: &Known| now_ms.saturating_sub(known.read_ms) < REGISTRATION_MS;
        if let Some(known) = warm.as_ref().filter(|known| young(known)) {
            return Ok(Some(known.clone()));
        }
        let Some(registration) = self.ports.registry.registration(topic).await? else {
            self.topics().remove(topic);
            return Ok(None);
        };
        let (table, topic_incarnation) =
            (TableName::of(&registration), registration.topic_incarnation);
        let known = match warm {
            Some(known) => Known {
                table,
                topic_incarnation,
                read_ms: now_ms,
                ..known
            },
            None => Known {
                table,
                topic_incarnation,
                read_ms: now_ms,
                pacing: Pacing::default(),
                snapshot_id: None,
                lost_ms: None,
            },
        };
        self.topics().insert(topic.to_owned(), known.clone());
        Ok(Some(known))
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
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
