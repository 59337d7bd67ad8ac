//! After staging: see that what was staged gets into the table in time.
//!
//! A table that is due is combined here and now; for one that is not, one delayed message goes to functions/commit, so that
//! the tail of a burst is as fresh as the rest.
//!
//! # Invariants
//! - Nothing here can fail the batch: its slots are won, and the schedule of functions/commit sweeps.
//! - At most one message for a table is under way, as far as this process knows.

use std::time::Duration;

use change_event::Disposition;
use function_kit::ddl::CombineRequest;
use function_kit::failure::chain;
use function_kit::queue::DELAY_MAX_SECONDS;
use function_kit::{Deadline, InvokeError, Metric};
use object_io::failpoint;
use table_commit::{DrainError, Drained};

use crate::error::StageError;
use crate::failpoints::AFTER_INLINE_COMBINE;
use crate::ports::Ports;
use crate::topic::Topic;

/// An inline combine begins only with this much time left.
const COMBINE_MS: u64 = 10_000;

/// After a combine that failed, functions/commit tries no later than this.
const RETRY_SECONDS_MAX: u32 = 30;

/// What is known about when a table is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pacing {
    /// When it is due next, in milliseconds, as far as this process knows; unknown before the first look.
    due_ms: Option<i64>,
    /// A message is under way that appears then.
    message_ms: Option<i64>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Look at the table: it may be due.
    Look,
    /// Send a message that appears after this.
    Message { delay_ms: i64 },
    /// A message is under way.
    Wait,
}

impl Pacing {
    fn step(&self, now_ms: i64) -> Step {
        match self.due_ms {
            None => Step::Look,
            Some(due_ms) if due_ms <= now_ms => Step::Look,
            Some(due_ms) => match self.message_ms {
                Some(message_ms) if message_ms > now_ms => Step::Wait,
                _ => Step::Message {
                    delay_ms: due_ms - now_ms,
                },
            },
        }
    }
}

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
        Step::Look => {
            let left = deadline.remaining_ms(clock);
            let looked = if left < COMBINE_MS {
                Err(StageError::OutOfTime)
            } else {
                let limit = Duration::from_millis(left);
                tokio::time::timeout(limit, look(ports, topic))
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

/// Reads the table and combines it if it is due. Afterwards the pacing says when it is due next.
async fn look(ports: &Ports, topic: &Topic) -> Result<Looked, StageError> {
    let Some(table) = topic.reload(ports).await? else {
        return Ok(Looked::NoTable);
    };
    let now_ms = ports.clock.now_ms();
    let left_ms = table.due_in_ms(now_ms);
    if left_ms > 0 {
        *topic.pacing() = Pacing {
            due_ms: Some(now_ms + left_ms),
            message_ms: None,
        };
        return Ok(Looked::DueIn(left_ms));
    }
    let name = &topic.registration.topic;
    let evolve = async |version: u32| ports.ddl.request(name, version).await.map(|_| ());
    let drained: Result<Drained, DrainError<InvokeError>> =
        ports.committer.drain(&topic.table_name(), evolve).await;
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
    let next_ms = ports.clock.now_ms() + i64::from(table.freshness_seconds()) * 1000;
    *topic.pacing() = Pacing {
        due_ms: Some(next_ms),
        message_ms: None,
    };
    Ok(Looked::Combined)
}

async fn send(ports: &Ports, topic: &Topic, delay_ms: i64) {
    // Rounded up, because a message that comes early makes a snapshot more than the freshness asks for. What the queue can
    // not delay for so long comes early all the same, and the next batch sends the next one.
    let seconds = u32::try_from(delay_ms.max(0).saturating_add(999) / 1000)
        .unwrap_or(u32::MAX)
        .min(DELAY_MAX_SECONDS);
    let request = CombineRequest {
        topic: topic.registration.topic.clone(),
    };
    let body = match serde_json::to_string(&request) {
        Ok(body) => body,
        Err(error) => {
            tracing::warn!(%error, "message not written");
            return;
        }
    };
    match ports.queue.send(&body, seconds).await {
        Ok(()) => {
            let appears_ms = ports.clock.now_ms() + i64::from(seconds) * 1000;
            topic.pacing().message_ms = Some(appears_ms);
        }
        Err(error) => {
            let cause = chain(&error);
            tracing::warn!(topic = %topic.registration.topic, cause, "message not sent: the schedule will commit");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_sent_for_each_time_the_table_is_due() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.step(1_000), Step::Look);
        pacing.due_ms = Some(5_000);
        assert_eq!(pacing.step(1_000), Step::Message { delay_ms: 4_000 });
        pacing.message_ms = Some(5_000);
        assert_eq!(pacing.step(4_999), Step::Wait);
        assert_eq!(pacing.step(5_000), Step::Look);
    }

    #[test]
    fn table_that_is_always_due_is_always_looked_at() {
        let pacing = Pacing {
            due_ms: Some(7),
            message_ms: None,
        };
        assert_eq!(pacing.step(7), Step::Look);
    }
}
