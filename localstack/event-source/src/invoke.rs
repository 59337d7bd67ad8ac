//! One synchronous invocation of the function, with its bounds: concurrency, time-out, and the client that hangs up.
//!
//! # Invariants
//! - Never more invocations at a time than `concurrency_max`, whoever asks (an account has such a limit too).
//! - Dropping a call does not stop the function: what it does after that, it does beside the next delivery.

use std::sync::Arc;
use std::time::Duration;

use function_kit::{FunctionInvoker, InvokeError};
use tokio::sync::Semaphore;

use crate::metrics::{Counter, Metrics};
use crate::response::ResponseError;

/// Why a batch comes again.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The function failed or could not be reached.
    #[error("the function gave no success")]
    Invoke(#[from] InvokeError),
    /// It ran longer than the call waits.
    #[error("the function did not answer in {seconds} s")]
    TimedOut {
        /// The bound.
        seconds: u64,
    },
    /// A seeded fault dropped the call.
    #[error("the call was abandoned on purpose")]
    Abandoned,
    /// Its answer says nothing about the batch.
    #[error("the answer was not understood")]
    Response(#[from] ResponseError),
}

impl DeliveryError {
    /// The word for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Invoke(InvokeError::Failed { .. }) => "function_error",
            Self::Invoke(InvokeError::Refused { .. }) => "refused",
            Self::Invoke(InvokeError::Unknown { .. }) => "no_answer",
            Self::TimedOut { .. } => "timed_out",
            Self::Abandoned => "abandoned",
            Self::Response(_) => "malformed_response",
        }
    }
}

/// Calls the function for all pollers.
#[derive(Debug)]
pub struct Deliverer {
    invoker: Arc<dyn FunctionInvoker>,
    function: String,
    timeout: Duration,
    slots: Semaphore,
    metrics: Arc<Metrics>,
}

impl Deliverer {
    /// Calls `function`, waits `timeout` at most, runs `concurrency_max` calls at a time.
    #[must_use]
    pub fn new(
        invoker: Arc<dyn FunctionInvoker>,
        function: &str,
        timeout: Duration,
        concurrency_max: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let slots = Semaphore::new(concurrency_max);
        Self {
            invoker,
            function: function.to_owned(),
            timeout,
            slots,
            metrics,
        }
    }

    /// The function's answer to one payload.
    ///
    /// # Errors
    /// [`DeliveryError`] (Retry): the function may have run, not run, or still run.
    pub async fn deliver(
        &self,
        topic: &str,
        payload: Vec<u8>,
        abandon_after: Option<Duration>,
    ) -> Result<Vec<u8>, DeliveryError> {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await.ok();
        let _living = self.metrics.begin_invocation();
        self.metrics.add(Counter::Deliveries, topic, 1);
        self.metrics
            .add(Counter::PayloadBytes, topic, payload.len());
        let call = self.invoker.invoke(&self.function, payload);
        let wait = abandon_after.unwrap_or(self.timeout);
        match tokio::time::timeout(wait, call).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) if abandon_after.is_some() => Err(DeliveryError::Abandoned),
            Err(_elapsed) => Err(DeliveryError::TimedOut {
                seconds: self.timeout.as_secs(),
            }),
        }
    }
}
