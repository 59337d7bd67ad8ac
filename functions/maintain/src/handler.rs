//! One run over the registered tables.

use std::sync::Arc;
use std::time::Duration;

use change_event::Clock;
use function_kit::failure::chain;
use function_kit::{Deadline, Failure, Metric, Metrics, Registry};
use object_io::ObjectStore;
use serde::Serialize;
use table_commit::{Committer, LoadedTable, TableName};

use crate::ages::{Ages, store_now_ms};
use crate::counts::Counts;
use crate::error::MaintainError;
use crate::folders::Chains;
use crate::orphans::Sweep;
use crate::remover::Remover;
use crate::request::Request;
use crate::slots::remove_slots;

/// Kept back from the deadline for the answer.
const RESERVE_MS: i64 = 2_000;

const HOUR_MS: i64 = 3_600_000;

/// The worlds that the function speaks to.
#[derive(Debug)]
pub struct Ports {
    /// The deployment's bucket.
    pub store: Arc<dyn ObjectStore>,
    /// Registrations in it.
    pub registry: Registry,
    /// The commit protocol over it.
    pub committer: Committer,
    /// Time, for the deadline alone.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

/// What may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How old it must be.
    pub ages: Ages,
    /// Objects that one run may remove.
    pub removals_max: u64,
}

/// The function.
#[derive(Debug)]
pub struct Maintain {
    ports: Ports,
    settings: Settings,
}

/// What a run found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nothing was to be removed.
    pub dry_run: bool,
    /// Registered topics.
    pub topics: u64,
    /// Topics whose table was looked through to the end.
    pub done: u64,
    /// Tables of which all files were kept, because their topic fed another table before.
    pub former: u64,
    /// Tables that failed; each is in the log.
    pub failed: u64,
    /// Tables that this run had no time for; the next begins with others.
    pub unfinished: u64,
    /// The sum over all tables.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What is the same for all tables of a run.
#[derive(Debug)]
struct Run<'a> {
    now_ms: i64,
    chains: Chains,
    remover: Remover<'a>,
}

impl Maintain {
    /// A function over these ports.
    #[must_use]
    pub const fn new(ports: Ports, settings: Settings) -> Self {
        Self { ports, settings }
    }

    /// Answers one event.
    ///
    /// # Errors
    /// [`Failure`] if the event is no request, or the bucket cannot be listed. A table that fails is no failure: it is
    /// counted, and the log says why.
    pub async fn handle(&self, payload: &[u8], deadline: Deadline) -> Result<Summary, Failure> {
        let request = Request::parse(payload)?;
        let deadline = deadline.earlier(RESERVE_MS);
        let failed = |error: MaintainError| Failure::with_disposition(error.disposition(), &error);
        let run = self.begin(request).await.map_err(failed)?;
        let mut topics = self
            .ports
            .registry
            .topics()
            .await
            .map_err(|error| failed(error.into()))?;
        let mut summary = Summary {
            dry_run: request.dry_run,
            topics: u64::try_from(topics.len()).unwrap_or(u64::MAX),
            ..Summary::default()
        };
        // Another table comes first each time, so that none is always the one that time runs out for.
        if let Some(first) = usize::try_from(run.now_ms / HOUR_MS)
            .ok()
            .and_then(|hour| hour.checked_rem(topics.len()))
        {
            topics.rotate_left(first);
        }
        for topic in topics {
            self.topic(&topic, &run, deadline, &mut summary).await;
        }
        Ok(summary)
    }

    async fn begin(&self, request: Request) -> Result<Run<'_>, MaintainError> {
        let store = self.ports.store.as_ref();
        Ok(Run {
            now_ms: store_now_ms(store).await?,
            chains: Chains::list(store).await?,
            remover: Remover::new(store, request.dry_run, self.settings.removals_max),
        })
    }

    /// Looks through the table of one topic, and notes what became of it.
    async fn topic(&self, topic: &str, run: &Run<'_>, deadline: Deadline, summary: &mut Summary) {
        let left = Duration::from_millis(deadline.remaining_ms(self.ports.clock.as_ref()));
        if left.is_zero() {
            summary.unfinished += 1;
            return;
        }
        let mut counts = Counts::default();
        let ended = tokio::time::timeout(left, self.table(topic, run, &mut counts))
            .await
            .unwrap_or(Err(MaintainError::OutOfTime));
        summary.counts.add(&counts);
        let orphan_bytes = counts.data.orphan_bytes + counts.metadata.orphan_bytes;
        let mut values = vec![
            (Metric::RemovedSlotsTotal, counts.removed_slots),
            (Metric::OrphanBytes, orphan_bytes),
            (
                Metric::RemovedFilesTotal,
                counts.data.removed + counts.metadata.removed,
            ),
        ];
        match ended {
            Ok(Looked::Whole) => summary.done += 1,
            Ok(Looked::Former) => {
                summary.done += 1;
                summary.former += 1;
            }
            Err(MaintainError::OutOfTime) => {
                tracing::info!(topic, "out of time: a later run goes on here");
                summary.unfinished += 1;
            }
            Err(error) => {
                let disposition = error.disposition();
                tracing::warn!(topic, cause = chain(&error), ?disposition, "left as it is");
                values.push((Metric::MaintainFailuresTotal, 1));
                summary.failed += 1;
            }
        }
        self.ports.metrics.count(topic, &values);
    }

    async fn table(
        &self,
        topic: &str,
        run: &Run<'_>,
        counts: &mut Counts,
    ) -> Result<Looked, MaintainError> {
        let Some(table) = self.load(topic).await? else {
            return Ok(Looked::Whole);
        };
        let (committer, ages) = (&self.ports.committer, &self.settings.ages);
        let former = run
            .chains
            .former(topic, &table.metadata.uuid().to_string())
            .join(", ");
        remove_slots(committer, &table, (ages, run.now_ms), &run.remover, counts).await?;
        if !former.is_empty() {
            tracing::info!(
                topic,
                former,
                "the topic fed another table before: all files are kept"
            );
            return Ok(Looked::Former);
        }
        let sweep = Sweep {
            committer,
            table: &table,
            ages,
            now_ms: run.now_ms,
            remover: &run.remover,
        };
        sweep.run(counts).await?;
        Ok(Looked::Whole)
    }

    /// The table that a topic feeds, if there is one.
    async fn load(&self, topic: &str) -> Result<Option<LoadedTable>, MaintainError> {
        let Some(registration) = self.ports.registry.registration(topic).await? else {
            return Ok(None);
        };
        let name = TableName {
            database: registration.lake_database,
            table: registration.lake_table,
        };
        let table = self.ports.committer.load(&name).await?;
        // Another topic's: its own registration leads to it.
        Ok(table.filter(|table| table.state.topic == topic))
    }
}

/// How a table was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Whole,
    /// Its slots alone.
    Former,
}
