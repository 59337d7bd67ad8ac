//! After staging: see that what was staged gets into the table in time.
//!
//! A table that is due is combined here and now; for one that is not, one delayed message goes to functions/commit, so that
//! the tail of a burst is as fresh as the rest ([`function_kit::pacing`]).
//!
//! # Invariants
//! - Nothing here can fail the batch: its slots are won, and the schedule of functions/commit sweeps.
//! - At most one message for a table is under way, as far as this process knows.

use std::time::Duration;

use change_event::Disposition;
use function_kit::failure::chain;
use function_kit::pacing::{Step, remind};
use function_kit::{Deadline, InvokeError, Metric};
use object_io::failpoint;
use table_commit::{DrainError, Drained, LoadedTable};

use crate::error::StageError;
use crate::failpoints::AFTER_INLINE_COMBINE;
use crate::ports::Ports;
use crate::topic::Topic;

/// An inline combine begins only with this much time left.
const COMBINE_MS: u64 = 10_000;

/// After a combine that failed, functions/commit tries no later than this.
const RETRY_SECONDS_MAX: u32 = 30;

/// A table that has been due for this long is combined here: functions/commit does not do it.
const OVERDUE_MS: i64 = 10_000;

/// What a look at the table led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// All that was staged is in the table.
    Combined,
    /// It is due in so many milliseconds.
    DueIn(i64),
    /// There is no table: only records without a header came.
    NoTable,
}

/// Combines the table of a topic, or has it combined later.
pub(crate) async fn publish(ports: &Ports, topic: &Topic, deadline: Deadline) {
    let clock = ports.clock.as_ref();
    let step = topic.pacing().step(clock.now_ms());
    match step {
        Step::Wait => {}
        Step::Message { delay_ms } => send(ports, topic, delay_ms).await,
        Step::Look | Step::Check => {
            let left = deadline.remaining_ms(clock);
            let looked = if left < COMBINE_MS {
                Err(StageError::OutOfTime)
            } else {
                let limit = Duration::from_millis(left);
                tokio::time::timeout(limit, look(ports, topic, step == Step::Check))
                    .await
                    .unwrap_or(Err(StageError::OutOfTime))
            };
            match looked {
                Ok(Looked::Combined | Looked::NoTable) => {}
                Ok(Looked::DueIn(delay_ms)) => send(ports, topic, delay_ms).await,
                Err(error) => {
                    report(ports, topic, &error);
                    let seconds = topic
                        .registration
                        .freshness_seconds
                        .clamp(1, RETRY_SECONDS_MAX);
                    send(ports, topic, i64::from(seconds) * 1000).await;
                }
            }
        }
    }
}

/// Reads the table and combines it if it is due; if others do that (`others`, or the table has several writers), only if it
/// is long overdue.
async fn look(ports: &Ports, topic: &Topic, others: bool) -> Result<Looked, StageError> {
    let Some(table) = topic.reload(ports).await? else {
        return Ok(Looked::NoTable);
    };
    let freshness_ms = i64::from(table.freshness_seconds()) * 1000;
    let now_ms = ports.clock.now_ms();
    let left_ms = table.due_in_ms(now_ms);
    // Writers that all combined when the table becomes due would race, and all but one in vain.
    let patient = others || (freshness_ms > 0 && topic.is_shared(now_ms));
    let patience_ms = if patient { OVERDUE_MS } else { 0 };
    if left_ms > 0 || table.due_in_ms(now_ms - patience_ms) > 0 {
        topic.pacing().saw(now_ms + left_ms, freshness_ms);
        return Ok(Looked::DueIn(left_ms));
    }
    let name = &topic.registration.topic;
    let evolve = async |version: u32| ports.ddl.request(name, version).await.map(|_| ());
    let drained: Result<Drained, DrainError<InvokeError>> = ports
        .committer
        .drain_from(LoadedTable::clone(&table), evolve)
        .await;
    let drained = drained.map_err(|error| match error {
        DrainError::Commit(error) => StageError::Commit(error),
        DrainError::Schema { source, .. } => StageError::Ddl(source),
    })?;
    failpoint::hit(AFTER_INLINE_COMBINE);
    ports.metrics.count(
        name,
        &[
            (Metric::CommitsTotal, drained.commit_count),
            (Metric::ConflictsTotal, drained.conflict_count),
        ],
    );
    let next_ms = ports.clock.now_ms() + freshness_ms;
    topic.pacing().saw(next_ms, freshness_ms);
    if drained.conflict_count > 0 && freshness_ms > 0 {
        // Another was first, and may have left something.
        return Ok(Looked::DueIn(freshness_ms));
    }
    Ok(Looked::Combined)
}

async fn send(ports: &Ports, topic: &Topic, delay_ms: i64) {
    let name = &topic.registration.topic;
    match remind(ports.queue.as_ref(), ports.clock.as_ref(), name, delay_ms).await {
        Ok(appears_ms) => topic.pacing().sent(appears_ms),
        Err(error) => {
            let cause = chain(&error);
            tracing::warn!(topic = %name, cause, "message not sent: the schedule will commit");
        }
    }
}

fn report(ports: &Ports, topic: &Topic, error: &StageError) {
    let name = &topic.registration.topic;
    let cause = chain(error);
    match error.disposition() {
        Disposition::Halt => {
            tracing::error!(topic = %name, cause, "table halted: it is not committed until this is settled");
            ports.metrics.count(
                name,
                &[(Metric::HaltsTotal, 1), (Metric::CombineFailuresTotal, 1)],
            );
        }
        Disposition::Retry
        | Disposition::Refresh
        | Disposition::Verify
        | Disposition::Quarantine => {
            tracing::warn!(topic = %name, cause, "not committed inline: left to functions/commit");
            ports
                .metrics
                .count(name, &[(Metric::CombineFailuresTotal, 1)]);
        }
    }
}
