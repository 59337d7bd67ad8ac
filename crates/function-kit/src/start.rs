//! Start of a function: logs as JSON lines, then one invocation after another.
//!
//! # Invariants
//! - A payload reaches the handler as bytes. Whether it can be read is the handler's decision, because what fails here would
//!   come again for ever.
//! - At most one invocation at a time in a process: what a handler keeps warm is never shared by two.

use std::future::Future;

use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// One invocation.
#[derive(Debug)]
pub struct Invocation {
    /// The event.
    pub payload: Box<RawValue>,
    /// Lambda's deadline header; see [`crate::Deadline::from_header`].
    pub deadline_header_ms: u64,
}

/// Logs from here on: JSON lines on standard output, level from `RUST_LOG`, `info` by default.
///
/// Never call it twice; the second call is ignored.
pub fn logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_source| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_env_filter(filter)
        .try_init();
    if started.is_err() {
        tracing::debug!("logs are started already");
    }
}

/// Serves invocations until the process is ended.
///
/// # Errors
/// If the runtime API cannot be reached.
pub async fn run<H, F, R>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: Fn(Invocation) -> F,
    F: Future<Output = Result<R, Failure>>,
    R: Serialize,
{
    let handler = &handler;
    lambda_runtime::run(service_fn(
        move |event: LambdaEvent<Box<RawValue>>| async move {
            let invocation = Invocation {
                payload: event.payload,
                deadline_header_ms: event.context.deadline,
            };
            // A failure is logged by the runtime.
            handler(invocation).await
        },
    ))
    .await
}
