//! When a table is combined next, and by whom: what ingest and commit keep about a table between two calls.
//!
//! A table that is due is combined by who looks at it. For one that is not, one delayed message asks functions/commit to look
//! when it is; from then on the table counts as committed when the message appears, so that a busy table costs its writers
//! one message for each time it is due, and no look.
//!
//! # Invariants
//! - Whatever is staged is seen to by something that begins later: a look now, or a message that has not appeared yet. No
//!   clock of another process takes part in that.
//! - At most one message for a table is under way, as far as a process knows.
//! - Nothing is sent for a table of which nothing was staged: an idle table costs nothing.

use change_event::Clock;

use crate::ddl::CombineRequest;
use crate::queue::{DELAY_MAX_SECONDS, DelayedQueue, QueueError};

/// Messages sent on trust before a look shows whether somebody combines.
const UNSEEN_MAX: u32 = 5;

/// What a process knows about when a table is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pacing {
    /// When it is due next, in milliseconds, as far as this process knows; unknown before the first look.
    due_ms: Option<i64>,
    /// Milliseconds between two commits, at the last look.
    freshness_ms: i64,
    /// When the last message appears.
    message_ms: Option<i64>,
    /// Messages sent since the last look.
    unseen: u32,
}

/// What is to be done about something that is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look at the table, and combine it if it is due.
    Look,
    /// Look at the table, and combine it only if nobody else does: it is long overdue.
    Check,
    /// Send a message that appears after this.
    Message {
        /// Milliseconds from now.
        delay_ms: i64,
    },
    /// A message is under way.
    Wait,
}

impl Pacing {
    /// What is to be done now.
    #[must_use]
    pub fn step(&self, now_ms: i64) -> Step {
        if self.message_ms.is_some_and(|appears| appears > now_ms) {
            return Step::Wait;
        }
        match self.due_ms {
            Some(due_ms) if due_ms <= now_ms => Step::Look,
            None => Step::Look,
            Some(_) if self.unseen >= UNSEEN_MAX => Step::Check,
            Some(due_ms) => Step::Message {
                delay_ms: due_ms - now_ms,
            },
        }
    }

    /// The table was looked at, or committed: it is due then, and again after each `freshness_ms`.
    pub fn saw(&mut self, due_ms: i64, freshness_ms: i64) {
        *self = Self {
            due_ms: Some(due_ms),
            freshness_ms,
            message_ms: self.message_ms,
            unseen: 0,
        };
    }

    /// A message was sent that appears then. The table counts as committed at that moment.
    pub fn sent(&mut self, appears_ms: i64) {
        *self = Self {
            due_ms: Some(appears_ms.saturating_add(self.freshness_ms)),
            freshness_ms: self.freshness_ms,
            message_ms: Some(appears_ms),
            unseen: self.unseen.saturating_add(1),
        };
    }
}

/// Asks functions/commit to look at the table of a topic after a while. Gives the moment at which the message appears.
///
/// The delay is rounded up to seconds, because a message that comes early only costs another one. What the queue cannot
/// delay for so long comes early all the same.
///
/// # Errors
/// [`QueueError`] (Retry).
pub async fn remind(
    queue: &dyn DelayedQueue,
    clock: &dyn Clock,
    topic: &str,
    delay_ms: i64,
) -> Result<i64, QueueError> {
    let seconds = u32::try_from(delay_ms.max(0).saturating_add(999) / 1000)
        .unwrap_or(u32::MAX)
        .min(DELAY_MAX_SECONDS);
    let request = CombineRequest {
        topic: topic.to_owned(),
    };
    let body = serde_json::to_string(&request).map_err(|error| QueueError {
        source: Box::new(error),
    })?;
    queue.send(&body, seconds).await?;
    Ok(clock.now_ms().saturating_add(i64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_sent_for_each_time_the_table_is_due() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.step(1_000), Step::Look);
        pacing.saw(5_000, 3_000);
        assert_eq!(pacing.step(1_000), Step::Message { delay_ms: 4_000 });
        pacing.sent(5_000);
        assert_eq!(pacing.step(4_999), Step::Wait);
        // What is staged after the message appeared is the next one's.
        assert_eq!(pacing.step(5_000), Step::Message { delay_ms: 3_000 });
        assert_eq!(pacing.step(8_000), Step::Look, "nothing came for long");
    }

    #[test]
    fn table_that_is_always_due_is_always_looked_at() {
        let mut pacing = Pacing::default();
        pacing.saw(7, 0);
        assert_eq!(pacing.step(7), Step::Look);
    }

    #[test]
    fn trust_in_messages_ends() {
        let mut pacing = Pacing::default();
        pacing.saw(1_000, 1_000);
        for second in 1..=5 {
            assert!(matches!(
                pacing.step(second * 1_000 - 500),
                Step::Message { .. }
            ));
            pacing.sent(second * 1_000);
        }
        assert_eq!(pacing.step(5_500), Step::Check);
        pacing.saw(6_000, 1_000);
        assert_eq!(pacing.step(5_500), Step::Message { delay_ms: 500 });
    }
}
