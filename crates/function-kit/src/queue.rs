//! The port by which a function asks for a later look at a table, and its SQS adapter.
//!
//! # Invariants
//! - A message is a hint: losing or doubling one costs freshness, never rows (the schedule sweeps).

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use change_event::Disposition;

/// SQS delays a message by at most this.
pub const DELAY_MAX_SECONDS: u32 = 900;

/// A message that was not accepted.
#[derive(Debug, thiserror::Error)]
#[error("queue message not sent")]
pub struct QueueError {
    /// What went wrong.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl QueueError {
    /// What may be done: a second message does no harm.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Retry
    }
}

/// A queue whose messages appear after a delay.
#[async_trait]
pub trait DelayedQueue: Debug + Send + Sync {
    /// Sends `body`, to appear after `delay_seconds` (at most [`DELAY_MAX_SECONDS`]).
    async fn send(&self, body: &str, delay_seconds: u32) -> Result<(), QueueError>;
}

/// [`DelayedQueue`] on SQS.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

impl SqsQueue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(config: &aws_config::SdkConfig, url: String) -> Self {
        Self {
            client: Client::new(config),
            url,
        }
    }
}

#[async_trait]
impl DelayedQueue for SqsQueue {
    async fn send(&self, body: &str, delay_seconds: u32) -> Result<(), QueueError> {
        let delay = i32::try_from(delay_seconds.min(DELAY_MAX_SECONDS)).unwrap_or(0);
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .delay_seconds(delay)
            .send()
            .await
            .map_err(|error| QueueError {
                source: Box::new(error),
            })?;
        Ok(())
    }
}
